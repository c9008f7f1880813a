/** The demo page around the chat: what is measured, and the line to copy. */
(() => {
  "use strict";

  const SHOWN = 14; // answers in the little chart
  const WORDS = { idle: "Asleep", connecting: "Connecting", ready: "Open", waiting: "Reconnecting", refused: "Refused" };
  const byId = (id) => document.getElementById(id);

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
    byId("copy").addEventListener("click", copySnippet);
  });
})();
