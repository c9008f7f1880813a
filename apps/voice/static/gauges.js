/** What was measured, shown as it happens: the steps of the exchange to scale, and the first sound answer by answer. */

const SHOWN = 14; // answers in the little chart

const ms = (value) => String(Math.round(value));

export class Gauges {
  #find;
  #sounds = [];
  #last = null; // the exchange that is in #sounds already

  /** `find(id)` gives the page's elements. */
  constructor(find) {
    this.#find = find;
  }

  /** Show an exchange as far as it has come. */
  show(exchange) {
    const rows = this.#find("steps").children;
    const next = exchange.steps.find(({ to }) => to === null);
    const all = exchange.pause + Math.max(...exchange.steps.map(({ to }) => to ?? 0), 1);
    for (const row of rows) this.#fill(row, exchange, next?.step, all);
    const begun = exchange.to(exchange.written ? "word" : "sound");
    if (begun !== null && exchange !== this.#last) this.#begun(exchange, begun);
  }

  /** The answer has begun to sound, or to be read. */
  #begun(exchange, after) {
    this.#last = exchange;
    this.#put("sound", after);
    this.#find("first").textContent = exchange.written ? "First word" : "First sound";
    this.#find("after").textContent = exchange.typed ? "after your line was sent" : "after your turn was over";
    if (!exchange.written) this.#draw(after);
  }

  #draw(after) {
    this.#sounds.push(after);
    this.#sounds.splice(0, this.#sounds.length - SHOWN);
    const highest = Math.max(...this.#sounds, 1);
    this.#find("bars").replaceChildren(...this.#sounds.map((value) => bar(value, highest)));
    const count = this.#sounds.length;
    this.#find("bars-note").textContent = `First sound, the last ${count === 1 ? "answer" : `${count} answers`}.`;
  }

  /** Somebody cut in, and so long after it was silent. */
  silenced(value) {
    this.#put("silenced", value);
  }

  #put(id, value) {
    this.#find(id).textContent = ms(value);
    delete this.#find(id).dataset.empty;
  }

  #fill(row, { pause, steps }, next, all) {
    const name = row.dataset.step;
    const found = steps.find(({ step }) => step === name) ?? { from: -pause, to: name === "pause" && pause ? 0 : null };
    const long = found.to === null ? null : Math.max(0, found.to - found.from);
    row.querySelector(".ms").textContent = long === null ? (name === next ? "" : "–") : `${name === "pause" ? "" : "+"}${ms(long)} ms`;
    row.toggleAttribute("data-next", name === next);
    const bar = row.querySelector("b");
    bar.style.setProperty("--from", `${(100 * (pause + found.from)) / all}%`);
    bar.style.setProperty("--long", `${(100 * (long ?? 0)) / all}%`);
  }
}

function bar(value, highest) {
  const item = document.createElement("li");
  item.title = `${ms(value)} ms`;
  item.setAttribute("aria-label", item.title);
  item.style.blockSize = `${(100 * value) / highest}%`;
  return item;
}
