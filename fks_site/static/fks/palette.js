// The command palette (Ctrl+K or ⌘K) and the list of keys (?).
(function () {
  "use strict";

  let isAwaited = false; // Enter was pressed before the answer to what is typed had come.
  let isLeaving = false;

  function element(id) {
    return document.getElementById(id);
  }

  function choose(option) {
    const input = element("palette-input");
    options().forEach((one) => one.setAttribute("aria-selected", String(one === option)));
    if (option) {
      input.setAttribute("aria-activedescendant", option.id);
      option.scrollIntoView({ block: "nearest" });
    } else {
      input.removeAttribute("aria-activedescendant");
    }
  }

  function options() {
    return Array.from(document.querySelectorAll("#palette-results [role=option]"));
  }

  function chosen() {
    return options().find((one) => one.getAttribute("aria-selected") === "true");
  }

  function move(step) {
    const all = options();
    if (all.length) {
      choose(all[(all.indexOf(chosen()) + step + all.length) % all.length]);
    }
  }

  function open(id) {
    const dialog = element(id);
    if (!dialog || document.querySelector("dialog[open]")) {
      return;
    }
    dialog.showModal();
    if (id === "palette") {
      element("palette-input").select();
      window.htmx.trigger("#palette-input", "palette");
    }
  }

  function go(isNewTab) {
    const list = element("palette-list");
    if (!list || list.dataset.term !== element("palette-input").value.trim()) {
      isAwaited = true;
      window.htmx.trigger("#palette-input", "palette");
    } else if (chosen() && isNewTab) {
      window.open(chosen().href, "_blank", "noopener");
    } else if (chosen()) {
      isLeaving = true;
      window.location.assign(chosen().href);
    }
  }

  function inPalette(event) {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      move(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Enter") {
      go(event.ctrlKey || event.metaKey);
    } else {
      return;
    }
    event.preventDefault();
  }

  function isTyping(target) {
    return target.isContentEditable || /^(input|textarea|select)$/i.test(target.tagName);
  }

  // A dialog that was closed keeps the focus until the next frame: a key pressed by then is meant for the page.
  document.addEventListener("keydown", function () {
    if (document.activeElement.closest("dialog:not([open])")) {
      document.activeElement.blur();
    }
  }, true);

  document.addEventListener("keydown", function (event) {
    const focused = document.activeElement;
    if (focused.id === "palette-input") {
      inPalette(event);
    } else if (event.key === "?" && !isTyping(focused)) {
      open("keys");
    }
    if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      open("palette");
    }
  });

  document.addEventListener("click", function (event) {
    const button = event.target.closest("[data-opens]");
    if (button) {
      open(button.dataset.opens);
    } else if (event.target.matches("dialog.fks-palette")) {
      event.target.close(); // the backdrop
    }
  });

  document.addEventListener("htmx:beforeRequest", function (event) {
    if (isLeaving && event.target.id === "palette-input") {
      event.preventDefault();
    }
  });

  window.addEventListener("pageshow", function () {
    isLeaving = false; // come back to, out of the browser's memory
  });

  document.addEventListener("htmx:afterSwap", function (event) {
    if (event.target.id !== "palette-results") {
      return;
    }
    choose(options()[0]);
    if (isAwaited) {
      isAwaited = false;
      go(false);
    }
  });
})();
