/** Sound on its way to the server: no more of it waits for the network than is worth sending, and the page is told. */

import { RATE, WIRE_BYTES, loudness, toBase64, toPCM16 } from "./pcm.js";

const SLOW_S = 1.5; // sound that waits: from here on the page says so
const FULL_S = 5; // and from here on what comes is left out
const DEAD_MS = 15_000; // a connection that is full for so long is given up
const LOUD = 0.02; // root mean square of somebody who speaks
const LOUD_S = 3; // of it, and no sign of the server: something is wrong there

/**
 * `hooks.flow(flow, seconds)` hears of every change: fine, slow, full, and the seconds of sound that wait.
 * `hooks.unheard()` hears once that somebody speaks and the server does not react.
 */
export class Uplink {
  #link;
  #clock;
  #hooks;
  #flow = "fine";
  #fullSince = 0;
  #loud = 0;

  constructor(link, clock, hooks) {
    [this.#link, this.#clock, this.#hooks] = [link, clock, hooks];
  }

  /** Send samples that were heard at `at`; false where they cannot be taken. */
  send(samples, at) {
    if (!this.flows() || this.#link.state !== "ready") return false;
    this.#link.send({ type: "input_audio_buffer.append", audio: toBase64(toPCM16(samples)) });
    this.#clock.sent(samples.length, at);
    return true;
  }

  /** These samples should make the server react, unless they are quiet. */
  expect(samples) {
    if (loudness(samples) < LOUD) return;
    const before = this.#loud;
    this.#loud += samples.length / RATE;
    if (before <= LOUD_S && this.#loud > LOUD_S) this.#hooks.unheard();
  }

  /** It has reacted. */
  answered() {
    this.#loud = 0;
  }

  /** Whether the network takes what it is given. */
  flows() {
    const waiting = this.#link.waiting / WIRE_BYTES;
    const flow = waiting > FULL_S ? "full" : waiting > SLOW_S ? "slow" : "fine";
    if (flow !== this.#flow) this.#hooks.flow(flow, waiting);
    this.#flow = flow;
    if (flow === "full") this.#giveUp();
    else this.#fullSince = 0;
    return flow !== "full";
  }

  #giveUp() {
    this.#fullSince ||= Date.now();
    if (Date.now() - this.#fullSince < DEAD_MS) return;
    this.#fullSince = 0;
    this.#link.reconnect();
  }
}
