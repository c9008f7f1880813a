/** The loudspeaker: items of sound at 24 kHz in a queue whose position is known to the sample, and which can be cut. */

import { RATE } from "./pcm.js";
import { Sync } from "./timing.js";

const WORKLET = new URL("./playback-worklet.js", import.meta.url);
const FLUSH_MS = 1500; // an audio thread that does not answer for so long is taken to be silent
const RESUME_MS = 500; // a browser that has not let the sound out by then wants a click first
const MOST_WAITING = 300 * RATE; // samples; a server that sends faster than it is heard is not followed further

/**
 * `hooks.begun(item, at)`: its first sample is played. `hooks.played(item, count, loudness, at)`: so many samples were.
 * `hooks.ended(item)`: it was played to its end. `at` is when that was, of the page's clock.
 */
export class Playback {
  #context = null;
  #node = null;
  #opening = null;
  #hooks;
  #sync = new Sync();
  #flushes = new Map(); // number → what takes its answer
  #count = 0;
  #items = new Map(); // item → { added, played }, in samples

  constructor(hooks) {
    this.#hooks = hooks;
  }

  /** Open the loudspeaker; browsers want that to be done in answer to a click or a key. False where they refuse. */
  async open() {
    this.#opening ??= this.#open();
    await this.#opening;
    if (this.#context.state === "running") return true;
    const resumed = this.#context.resume().then(() => true, () => false); // without a click it waits for one
    return Promise.race([resumed, new Promise((done) => setTimeout(done, RESUME_MS, false))]);
  }

  /** Somebody has clicked or pressed a key: a browser that held the sound back lets it go now. */
  wake() {
    if (this.#context?.state === "suspended") this.#context.resume();
  }

  async #open() {
    this.#context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    await this.#context.audioWorklet.addModule(WORKLET);
    this.#node = new AudioWorkletNode(this.#context, "penstock-playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.#node.port.onmessage = ({ data }) => this.#hear(data);
    this.#node.connect(this.#context.destination);
  }

  /** Put samples of an item at the queue's end; false where it is full, or not open. */
  add(item, samples) {
    const known = this.#items.get(item) ?? { added: 0, played: 0 };
    if (!this.#node || known.added + samples.length - known.played > MOST_WAITING) return false;
    known.added += samples.length;
    this.#items.set(item, known);
    this.#node.port.postMessage({ add: item, samples }, [samples.buffer]);
    return true;
  }

  /** An item has no more samples. */
  end(item) {
    if (this.#items.has(item)) this.#node.port.postMessage({ end: item });
  }

  /**
   * Be silent at once. Resolves to when it was, and the items that were not heard to their end: { at, cut: [{ item,
   * played (samples) }, …] }.
   */
  flush() {
    if (!this.#items.size) return Promise.resolve({ at: performance.now(), cut: [] });
    this.#items.clear();
    const number = (this.#count += 1);
    this.#node.port.postMessage({ flush: number });
    return new Promise((done) => {
      const timer = setTimeout(() => this.#flushed(number, performance.now(), []), FLUSH_MS);
      this.#flushes.set(number, (answer) => {
        clearTimeout(timer);
        done(answer);
      });
    });
  }

  #flushed(number, at, cut) {
    this.#flushes.get(number)?.({ at, cut: cut.map(({ item, played }) => ({ item, played: this.#heard(played) })) });
    this.#flushes.delete(number);
  }

  /** Of what was played the last is still on its way to the ear: in the sound card, or over Bluetooth. */
  #heard(played) {
    return Math.max(0, Math.round(played - (this.#context.outputLatency || 0) * RATE));
  }

  #hear(data) {
    const at = this.#sync.at(1000 * data.time);
    if (data.flushed !== undefined) this.#flushed(data.flushed, at, data.cut);
    else if (data.begun !== undefined) this.#hooks.begun(data.begun, at);
    else if (data.at !== undefined) this.#onPlayed(data, at);
    else if (data.ended !== undefined) this.#onEnded(data.ended);
  }

  #onPlayed({ at: item, played, loudness }, at) {
    const known = this.#items.get(item);
    if (known) known.played = played;
    this.#hooks.played(item, played, loudness, at);
  }

  #onEnded(item) {
    this.#items.delete(item);
    this.#hooks.ended(item);
  }
}
