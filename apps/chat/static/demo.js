/** The demo page around the chat: its colours, what is measured, and the line to copy. */
(() => {
  "use strict";

  const THEMES = ["auto", "light", "dark"];
  const SHOWN = 14; // answers in the little chart
  const WORDS = { idle: "Asleep", connecting: "Connecting", ready: "Open", waiting: "Reconnecting", refused: "Refused" };
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

  const firsts = [];

  function addBar(ms) {
    firsts.push(ms);
    firsts.splice(0, firsts.length - SHOWN);
    const highest = Math.max(...firsts, 1);
    byId("bars").replaceChildren(...firsts.map((value) => bar(value, highest)));
    byId("bars-note").textContent = `First token, the last ${firsts.length === 1 ? "answer" : `${firsts.length} answers`}.`;
  }

  function bar(value, highest) {
    const item = document.createElement("li");
    const label = `${Math.round(value)} ms`;
    item.title = label;
    item.setAttribute("aria-label", label);
    item.style.blockSize = `${(100 * value) / highest}%`;
    return item;
  }

  function onTurn({ detail }) {
    if (detail.phase === "first") addBar(detail.first_ms);
    show("first", detail.first_ms);
    show("rate", detail.chunks_per_s);
    show("total", detail.phase === "done" ? detail.total_ms : null);
  }

  /** The last value stands until there is a newer one. */
  function show(id, value) {
    if (value === null) return;
    byId(id).textContent = String(Math.round(value));
    delete byId(id).dataset.empty;
  }

  function onState({ detail: { state } }) {
    byId("state").dataset.state = state;
    byId("state").querySelector("b").textContent = WORDS[state];
  }

  async function copySnippet() {
    const text = byId("snippet").textContent;
    try {
      await navigator.clipboard.writeText(text);
      byId("copy").textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(byId("snippet"));
      byId("copy").textContent = "Selected";
    }
    setTimeout(() => (byId("copy").textContent = "Copy"), 1600);
  }

  document.addEventListener("penstock:turn", onTurn);
  document.addEventListener("penstock:state", onState);
  document.addEventListener("DOMContentLoaded", () => {
    byId("snippet").textContent = `<script src="${location.origin}/widget.js" data-title="Ask us" async></script>`;
    byId("theme").addEventListener("click", nextTheme);
    byId("copy").addEventListener("click", copySnippet);
    showTheme();
  });
})();
