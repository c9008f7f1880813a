/** A sound file in the microphone's place: decoded by the browser, and handed on at the pace at which it was spoken. */

import { RATE, mixed } from "./pcm.js";

const FRAME = RATE / 50;
const TICK_MS = 20;
const MOST_BYTES = 100 * 2 ** 20;
const MOST_BEHIND = 50; // frames that are made up for at once, after the page was asleep

/** Why a file cannot be used; `code` is one of those in `words.js`. */
export class UnusableFile extends Error {
  constructor(code) {
    super(code);
    this.code = code;
  }
}

/**
 * The samples of a sound file, mono at 24 kHz.
 *
 * Throws UnusableFile.
 */
export async function decoded(file) {
  if (file.size > MOST_BYTES) throw new UnusableFile("too_large");
  try {
    const context = new OfflineAudioContext(1, 1, RATE); // decodes to its own rate
    const sound = await context.decodeAudioData(await file.arrayBuffer());
    return mixed(Array.from({ length: sound.numberOfChannels }, (_, n) => sound.getChannelData(n)));
  } catch {
    throw new UnusableFile("undecodable");
  }
}

/**
 * Samples as a source of sound. `onFrame(samples, at)` gets 20 ms at a time and returns whether it took them: if not, they
 * come again. `onEnd()` hears that all were taken and that `tail()`, asked after each frame of silence that follows,
 * wants no more of it.
 */
export class Played {
  #samples;
  #hooks;
  #at = 0;
  #begun = performance.now();
  #frames = 0; // that were due since #begun
  #timer = 0;

  constructor(samples, hooks) {
    this.#samples = samples;
    this.#hooks = hooks;
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
  }

  /** Seconds played, and in all. */
  get progress() {
    const all = this.#samples.length;
    return { played: Math.min(this.#at, all) / RATE, all: all / RATE };
  }

  close() {
    clearInterval(this.#timer);
  }

  #tick() {
    const due = Math.floor((performance.now() - this.#begun) / TICK_MS);
    this.#frames = Math.max(this.#frames, due - MOST_BEHIND);
    for (; this.#frames < due; this.#frames += 1) {
      if (this.#ended()) return;
      if (!this.#hooks.onFrame(this.#frame(), this.#begun + (this.#frames + 1) * TICK_MS)) this.#frames = due;
      else this.#at += FRAME;
    }
  }

  /** The next frame; after the last one, silence. */
  #frame() {
    const frame = new Float32Array(FRAME);
    frame.set(this.#samples.subarray(this.#at, this.#at + FRAME));
    return frame;
  }

  #ended() {
    if (this.#at < this.#samples.length) return false;
    const more = this.#hooks.tail((this.#at - this.#samples.length) / RATE);
    if (more) return false;
    this.close();
    this.#hooks.onEnd();
    return true;
  }
}

/**
 * Take the file that is dropped anywhere on the page (the browser would leave the page for it); meanwhile `node` has the
 * class `dropping`.
 */
export function takeDrops(node, take) {
  const onDrag = (event) => {
    const carries = event.dataTransfer?.types.includes("Files") ?? false;
    node.classList.toggle("dropping", carries && event.type === "dragover");
    if (carries) event.preventDefault();
    if (carries && event.type === "drop") take(event.dataTransfer.files[0]);
  };
  for (const type of ["dragover", "dragleave", "drop"]) addEventListener(type, onDrag);
}
