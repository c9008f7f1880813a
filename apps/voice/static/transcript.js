/** The conversation as it is seen: partial words that turn final, and answers of which the heard part stands out. */

import { heard } from "./conversation.js";
import { RATE } from "./pcm.js";

const NEAR_END = 80; // pixels from the end within which the view follows what comes
const MOVED = 2; // pixels: a smaller difference from where the view was put is rounding
const SPOKEN_AT = 0.6; // of the view's height: where the word that is being spoken stands, if its answer is longer
const ABOVE = 12; // pixels that are left free above such an answer

const EMPTY = "Nothing was understood.";

export class Transcript {
  #list;
  #scroller;
  #rows = new Map(); // entry → its row
  #entries = [];
  #drawn = true;
  #follows = true; // until somebody scrolls away from the end
  #put = 0; // where we have scrolled to

  constructor(list, scroller) {
    [this.#list, this.#scroller] = [list, scroller];
    scroller.addEventListener("scroll", () => this.#onScroll());
  }

  /** Show these entries, with the next picture. */
  show(entries) {
    this.#entries = entries;
    if (!this.#drawn) return;
    this.#drawn = false;
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#drawn = true;
    const rows = this.#entries.map((entry) => this.#row(entry));
    for (const [entry, row] of this.#rows) if (!this.#entries.includes(entry)) this.#remove(entry, row);
    rows.forEach((row, n) => this.#list.children[n] === row || this.#list.insertBefore(row, this.#list.children[n] ?? null));
    if (this.#follows) this.#follow();
  }

  #onScroll() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    if (Math.abs(scrollTop - this.#put) > MOVED) this.#follows = scrollHeight - scrollTop - clientHeight < NEAR_END;
  }

  /** Scroll to the end; of an answer that is longer than the view, to the word that is being spoken. */
  #follow() {
    const { scrollHeight, clientHeight } = this.#scroller;
    const spoken = this.#entries.findLast(({ speaking }) => speaking);
    const end = scrollHeight - clientHeight;
    this.#scroller.scrollTop = spoken ? Math.min(end, this.#spokenAt(this.#rows.get(spoken))) : end;
    this.#put = this.#scroller.scrollTop;
  }

  #spokenAt(row) {
    const { scrollTop, clientHeight } = this.#scroller;
    const top = this.#scroller.getBoundingClientRect().top;
    const place = row.querySelector(".coming").getClientRects()[0]?.bottom ?? row.getBoundingClientRect().bottom;
    const begins = row.getBoundingClientRect().top - top - ABOVE;
    return scrollTop + Math.max(begins, place - top - SPOKEN_AT * clientHeight);
  }

  #remove(entry, row) {
    row.remove();
    this.#rows.delete(entry);
  }

  #row(entry) {
    if (!this.#rows.has(entry)) this.#rows.set(entry, newRow(entry));
    const row = this.#rows.get(entry);
    row.dataset.state = entry.state;
    row.toggleAttribute("data-speaking", Boolean(entry.speaking));
    fill(row.querySelector(".said"), entry);
    const note = noteOf(entry);
    put(row.querySelector(".note"), note);
    row.querySelector(".note").hidden = !note;
    return row;
  }
}

function newRow({ role }) {
  const row = document.createElement("li");
  row.className = `turn ${role}`;
  const who = element("span", "who", role === "user" ? "You: " : "Answer: ");
  const said = element("p", "said");
  said.append(who, element("span", "heard"), element("span", "coming"));
  row.append(said, element("p", "note"));
  return row;
}

/** The text in two parts: what stands, and what is to come (of an answer), or may still change (of a turn). */
function fill(said, entry) {
  const { role, text, state } = entry;
  const settled = role === "user" ? (state === "speaking" || state === "hearing" ? 0 : text.length) : heard(entry);
  put(said.querySelector(".heard"), text.slice(0, settled));
  put(said.querySelector(".coming"), text.slice(settled));
  said.classList.toggle("wordless", !text);
}

function noteOf(entry) {
  if (entry.note) return entry.note;
  if (entry.state === "empty") return EMPTY;
  if (entry.state === "queued") return "Waiting to be sent.";
  if (entry.state !== "cut") return "";
  if (!entry.audio) return "Stopped.";
  if (!entry.played) return "Interrupted before it was heard, and forgotten.";
  return `Interrupted after ${(entry.played / RATE).toFixed(1)} s. The rest was not heard, and is forgotten.`;
}

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function element(name, className, text = "") {
  const node = document.createElement(name);
  node.className = className;
  node.textContent = text;
  return node;
}
