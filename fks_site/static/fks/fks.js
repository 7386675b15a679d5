// A button that a refresh has drawn anew works at once; htmx would first wait for transitions of CSS.
window.htmx.config.defaultSettleDelay = 0;

// Where the session has ended, what any request gets is the log-in page: the whole page goes there.
// A dialog that did not come says so; what was asked about before is never shown in its place.
(function () {
  "use strict";

  const refused = "This cannot be done now: the state does not allow it, or you may not do it.";
  let isLeaving = false;

  function isLogIn(xhr) {
    return /\/(login|second-factor)\/$/.test(new URL(xhr.responseURL).pathname);
  }

  function excuse(status) {
    const text = document.createElement("p");
    text.setAttribute("role", "alert");
    text.className = "fks-dialog-text";
    text.textContent = status < 400 || status === 403 ? refused : "It could not be opened: error " + status + ".";
    const close = document.createElement("button");
    close.type = "button";
    close.className = "fks-button";
    close.textContent = "Close";
    close.autofocus = true;
    close.setAttribute("x-on:click", "openModal = false");
    const buttons = document.createElement("div");
    buttons.className = "fks-dialog-buttons";
    buttons.append(close);
    return [text, buttons];
  }

  document.addEventListener("htmx:beforeOnLoad", function (event) {
    if (!isLogIn(event.detail.xhr)) {
      return;
    }
    event.preventDefault();
    if (!isLeaving) {
      isLeaving = true;
      // Not a reload: that would send a form again.
      window.location.assign(window.location.pathname + window.location.search);
    }
  });

  window.addEventListener("pageshow", function () {
    isLeaving = false; // come back to, out of the browser's memory
  });

  document.addEventListener("htmx:beforeRequest", function (event) {
    const { target, elt } = event.detail;
    if (target.id === "modal-content" && !target.contains(elt)) {
      target.replaceChildren();
    }
  });

  document.addEventListener("htmx:afterOnLoad", function (event) {
    const { target, xhr } = event.detail;
    if (target.id === "modal-content" && !target.children.length && !isLogIn(xhr)) {
      target.replaceChildren(...excuse(xhr.status));
    }
  });
})();

// The first field of a dialog has the focus once the dialog is drawn; htmx would try it before.
(function () {
  "use strict";

  document.addEventListener("htmx:afterOnLoad", function (event) {
    const field = event.detail.target.querySelector("#modal-content [autofocus]");
    if (field) {
      requestAnimationFrame(() => requestAnimationFrame(() => field.focus()));
    }
  });
})();

// Says so when the home page's figures stop being refreshed.
(function () {
  "use strict";

  function stale(isStale) {
    return function (event) {
      const note = document.getElementById("dashboard-stale");
      if (note && event.target.id === "dashboard") {
        note.hidden = !isStale;
      }
    };
  }

  document.addEventListener("htmx:sendError", stale(true));
  document.addEventListener("htmx:responseError", stale(true));
  document.addEventListener("htmx:afterSwap", stale(false));
})();

// Times are written in UTC and shown in the zone of whoever looks; hovering shows UTC.
(function () {
  "use strict";

  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const name = new Intl.DateTimeFormat("en", { timeZoneName: "short" })
    .formatToParts(new Date())
    .find((part) => part.type === "timeZoneName").value;

  function two(number) {
    return String(number).padStart(2, "0");
  }

  function localised(written, at) {
    const day = at.getFullYear() + "-" + two(at.getMonth() + 1) + "-" + two(at.getDate());
    const time = two(at.getHours()) + ":" + two(at.getMinutes()) + ":" + two(at.getSeconds());
    const thousandths = written.match(/\.\d{3}$/);
    const isToday = at.toDateString() === new Date().toDateString();
    const showsDay = /^\d{4}-/.test(written) ? !thousandths || !isToday : !isToday;
    return (showsDay ? day + " " : "") + time + (thousandths ? thousandths[0] : "");
  }

  function show(root) {
    if (zone === "UTC" || zone === "Etc/UTC") {
      return;
    }
    root.querySelectorAll("time.fks-time:not([data-local])").forEach(function (element) {
      element.dataset.local = name;
      element.textContent = localised(element.textContent, new Date(element.dateTime));
    });
    root.querySelectorAll(".fks-zone").forEach(function (element) {
      element.textContent = name;
    });
  }

  document.addEventListener("DOMContentLoaded", () => show(document));
  document.addEventListener("htmx:afterSwap", () => show(document));
})();
