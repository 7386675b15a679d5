// Copy buttons: data-copy names the element whose text they take.
(function () {
  "use strict";

  function told(button, text) {
    const status = document.querySelector(".fks-copied");
    if (status) {
      status.textContent = text;
    }
    const icon = button.querySelector(".material-symbols-outlined");
    if (icon) {
      icon.textContent = "check";
      setTimeout(function () { icon.textContent = "content_copy"; }, 2000);
    }
  }

  function select(source) {
    const range = document.createRange();
    range.selectNodeContents(source);
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
  }

  document.addEventListener("click", function (event) {
    const button = event.target.closest("[data-copy]");
    const source = button && document.getElementById(button.dataset.copy);
    if (!source) {
      return;
    }
    // Without TLS a browser offers no clipboard: the text is selected, ready for Ctrl+C.
    if (navigator.clipboard && window.isSecureContext) {
      navigator.clipboard.writeText(source.textContent).then(
        function () { told(button, "Copied."); },
        function () { select(source); told(button, "Selected: copy it with Ctrl+C."); }
      );
    } else {
      select(source);
      told(button, "Selected: copy it with Ctrl+C.");
    }
  });
})();
