/**
 * What is measured, in milliseconds of the browser's clock: the steps from the end of speech to the first sound of the
 * answer, and from an interruption to silence. Knows nothing of the page or the protocol.
 */

import { RATE } from "./pcm.js";

const DRIFT = 0.001;
const STOPPED_MS = 2000; // news so late are those of a clock that had stopped meanwhile
const KEPT = 3000; // frames of 20 ms whose time is known: a minute

/**
 * The audio thread's clock against the page's: its news come sooner or later, and the soonest tell how the two stand.
 * The clocks may drift apart.
 */
export class Sync {
  #offset = Infinity;
  #last = 0;

  /** When that was what happened at `theirs` (ms) and is told `now`. */
  at(theirs, now = performance.now()) {
    const offset = now - theirs;
    const stopped = offset - this.#offset > STOPPED_MS;
    const drifted = this.#offset + DRIFT * (theirs - this.#last);
    this.#offset = stopped ? offset : Math.min(drifted, offset);
    this.#last = theirs;
    return theirs + this.#offset;
  }
}

/** When which sample of the session was heard by the microphone. */
export class Clock {
  #frames = []; // { end (samples from the session's beginning), at }
  #sure = true;
  position = 0;

  /** A new session begins. */
  restart() {
    this.#frames = [];
    this.#sure = true;
    this.position = 0;
  }

  /** So many samples were sent, the last of which was heard at `at`. */
  sent(samples, at) {
    this.position += samples;
    this.#frames.push({ end: this.position, at });
    if (this.#frames.length > 2 * KEPT) this.#frames.splice(0, KEPT);
  }

  /** A connection broke: what was under way may not have reached the server, which then counts less than we do. */
  doubt() {
    this.#sure = false;
  }

  /** When the sample at `ms` of the session was heard; null where that is not known. */
  when(ms) {
    const position = (ms * RATE) / 1000;
    const frame = this.#frames.find(({ end }) => end >= position);
    if (!this.#sure || !frame || this.#frames[0] === frame) return null;
    return frame.at - ((frame.end - position) * 1000) / RATE;
  }
}

/**
 * The steps of one exchange. `end`: the turn was over (at the end of its silence, of the pressed button, of a typed
 * line); `pause`: the silence that the server waited for before; then `final`, `word` and `sound`. A typed turn has no
 * `final`, a `written` answer no `sound`.
 */
export class Exchange {
  constructor({ item = null, end, pause = 0, typed = false }) {
    Object.assign(this, { item, end, pause, typed, written: false, response: null, final: null, word: null, sound: null });
  }

  /** Milliseconds from the end of the turn to a step; null while it has not come. */
  to(step) {
    return this[step] === null ? null : Math.max(0, this[step] - this.end);
  }

  /** The steps one after the other: [{ step, from, to }], those to come without `to`. */
  get steps() {
    let from = 0;
    const named = ["final", "word", "sound"].filter((step) => !(step === "final" && this.typed) && !(step === "sound" && this.written));
    return named.map((step) => {
      const to = this.to(step);
      const made = { step, from, to };
      from = Math.max(from, to ?? from);
      return made;
    });
  }
}

/** The exchange under way, and what the page shows of it; `changed(exchange)` after each step. */
export class Measures {
  #changed;
  exchange = null;

  constructor(changed) {
    this.#changed = changed;
  }

  ended(facts) {
    this.exchange = new Exchange(facts);
    this.#changed(this.exchange);
  }

  /** The turn that was ended by hand has got its id. */
  named(item) {
    if (this.exchange && !this.exchange.typed) this.exchange.item ??= item;
  }

  /** A response has begun: it answers the latest turn, unless that has one. */
  answered(response) {
    if (this.exchange && !this.exchange.response) this.exchange.response = response;
  }

  /** The answer comes as text. */
  written(response) {
    if (this.exchange?.response === response) this.exchange.written = true;
  }

  /** A step of the exchange of an `item` or a `response` has come `at`; its first time counts. */
  step(name, { item, response }, at = performance.now()) {
    const { exchange } = this;
    const ours = exchange && (response ? exchange.response === response : exchange.item === item);
    if (!ours || exchange[name] !== null) return;
    exchange[name] = at;
    this.#changed(exchange);
  }
}
