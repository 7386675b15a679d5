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
