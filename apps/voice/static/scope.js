/**
 * The last seconds of both sides as a strip: what the microphone hears above the line, what is played below it, and a
 * mark where a turn begins and ends. With `calm` nothing moves along: two bars tell how loud it is now.
 */

import { perceived } from "./pcm.js";

const SPAN_MS = 8000;
const STEP_MS = 50;
const COUNT = SPAN_MS / STEP_MS;

export class Scope {
  #canvas;
  #calm;
  #heard = new Float32Array(COUNT); // a ring: the loudest of each step
  #played = new Float32Array(COUNT);
  #marks = new Uint8Array(COUNT); // 1: a turn begins, 2: it ends
  #slot = 0;
  #timer = 0;

  constructor(canvas, calm) {
    [this.#canvas, this.#calm] = [canvas, calm];
    new ResizeObserver(() => this.#draw()).observe(canvas);
  }

  heard(rms, at) {
    this.#put(this.#heard, perceived(rms), at);
  }

  played(rms, at) {
    this.#put(this.#played, perceived(rms), at);
  }

  /** A turn begins, or ends. */
  mark(begins, at = performance.now()) {
    this.#put(this.#marks, begins ? 1 : 2, at);
  }

  start() {
    this.#timer ||= setInterval(() => document.hidden || this.#draw(), STEP_MS);
  }

  stop() {
    clearInterval(this.#timer);
    this.#timer = 0;
  }

  #put(ring, value, at) {
    this.#advance();
    const slot = Math.min(this.#slot, Math.floor(at / STEP_MS));
    if (slot > this.#slot - COUNT) ring[slot % COUNT] = Math.max(ring[slot % COUNT], value);
  }

  /** Go on to the slot of now; those in between are empty. */
  #advance() {
    const now = Math.floor(performance.now() / STEP_MS);
    for (this.#slot = Math.max(this.#slot, now - COUNT); this.#slot < now; ) {
      this.#slot += 1;
      for (const ring of [this.#heard, this.#played, this.#marks]) ring[this.#slot % COUNT] = 0;
    }
  }

  #draw() {
    this.#advance();
    const pen = this.#pen();
    if (!pen) return;
    if (this.#calm.matches) this.#drawBars(pen);
    else this.#drawStrip(pen);
  }

  /** The canvas, cleared and scaled to its pixels. */
  #pen() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    if (!width || !height) return null;
    const ratio = devicePixelRatio || 1;
    const size = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.#canvas.width !== size[0] || this.#canvas.height !== size[1]) [this.#canvas.width, this.#canvas.height] = size;
    const context = this.#canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(this.#canvas);
    const [you, it, line, soft] = ["--spruce", "--copper", "--line", "--soft"].map((name) => style.getPropertyValue(name));
    return { context, width, height, colors: { you, it, line, soft } };
  }

  #drawStrip({ context, width, height, colors }) {
    const [step, middle] = [width / COUNT, height / 2];
    context.fillStyle = colors.line;
    context.fillRect(0, middle - 0.5, width, 1);
    for (let n = 0; n < COUNT; n += 1) {
      const at = (this.#slot + 1 + n) % COUNT;
      this.#drawSlot(context, { x: n * step, step, middle, at, colors });
    }
  }

  #drawSlot(context, { x, step, middle, at, colors }) {
    const bar = (value, sign, name) => {
      const high = value * (middle - 3);
      if (high < 0.5) return;
      context.fillStyle = name;
      context.fillRect(x, sign > 0 ? middle - 1 - high : middle + 1, Math.max(1, step - 1), high);
    };
    bar(this.#heard[at], 1, colors.you);
    bar(this.#played[at], -1, colors.it);
    if (!this.#marks[at]) return;
    context.fillStyle = colors.soft;
    context.fillRect(x, 2, 1, middle - 2);
    context.fillRect(this.#marks[at] === 1 ? x : x - 4, 2, 5, 1);
  }

  #drawBars({ context, width, height, colors }) {
    const at = this.#slot % COUNT;
    const now = (ring) => Math.max(ring[at], ring[(at + COUNT - 1) % COUNT]);
    const rows = [[now(this.#heard), colors.you, height / 3], [now(this.#played), colors.it, (2 * height) / 3]];
    for (const [value, name, y] of rows) {
      context.fillStyle = colors.line;
      context.fillRect(0, y - 3, width, 6);
      context.fillStyle = name;
      context.fillRect(0, y - 3, width * value, 6);
    }
  }
}
