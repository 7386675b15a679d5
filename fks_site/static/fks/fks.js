// A button that a refresh has drawn anew works at once; htmx would first wait for transitions of CSS.
window.htmx.config.defaultSettleDelay = 0;

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
