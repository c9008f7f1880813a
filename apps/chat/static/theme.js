/** The colours that a visitor has chosen, on every page of this server: automatic, light or dark. */
(() => {
  "use strict";

  const THEMES = ["auto", "light", "dark"];
  const byId = (id) => document.getElementById(id);

  /** The page's storage may be refused; the choice is then forgotten with the page. */
  function remembered() {
    try {
      return localStorage.getItem("penstock-demo:theme");
    } catch {
      return null;
    }
  }

  function remember(theme) {
    try {
      localStorage.setItem("penstock-demo:theme", theme);
    } catch {
      // Refused: nothing to do.
    }
  }

  let theme = THEMES.includes(remembered()) ? remembered() : "auto";
  document.documentElement.dataset.theme = theme; // before the first paint

  function showTheme() {
    document.documentElement.dataset.theme = theme;
    document.querySelector("penstock-chat")?.setAttribute("data-theme", theme);
    byId("theme-name").textContent = theme[0].toUpperCase() + theme.slice(1);
    byId("theme").setAttribute("aria-label", `Colours: ${theme === "auto" ? "automatic" : theme}`);
  }

  function nextTheme() {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    remember(theme);
    showTheme();
  }

  document.addEventListener("DOMContentLoaded", () => {
    byId("theme").addEventListener("click", nextTheme);
    showTheme();
  });
})();
