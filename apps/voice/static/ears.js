/** Where sound comes from: the microphone, or a file in its place; and whether it is muted. Knows no server. */

import { Microphone } from "./capture.js";
import { Played, decoded } from "./file.js";
import { loudness } from "./pcm.js";

/**
 * `hooks.frame(samples, at)` gets 20 ms at a time and returns whether they were taken; `hooks.level(rms, at)`;
 * `hooks.lost()`: the microphone has gone; `hooks.tail(seconds)`: whether the file's end needs more silence; `hooks.ended()`.
 */
export class Ears {
  #hooks;
  #microphone = null;
  #file = null;
  #asked = 0; // files so far: the last one counts
  reading = false; // a file is being decoded
  muted = false;

  constructor(hooks) {
    this.#hooks = hooks;
  }

  get open() {
    return Boolean(this.#microphone);
  }

  get streaming() {
    return Boolean(this.#file);
  }

  get device() {
    return this.#microphone?.device ?? "";
  }

  /** Seconds of the file: { played, all }. */
  get progress() {
    return this.#file?.progress ?? { played: 0, all: 0 };
  }

  /** Listen to the microphone `device`. Throws NoMicrophone. */
  async listen(device) {
    await this.close();
    this.#microphone = await Microphone.open({
      device,
      onFrame: (samples, at) => this.#onFrame(samples, at),
      onLost: () => this.close().then(() => this.#hooks.lost()),
    });
  }

  async close() {
    const microphone = this.#microphone;
    [this.#microphone, this.muted] = [null, false];
    this.#hooks.level(0, performance.now());
    await microphone?.close();
  }

  /** Stream a file instead. Throws UnusableFile. */
  async stream(file) {
    this.stopFile();
    const number = (this.#asked += 1);
    this.reading = true;
    const samples = await decoded(file).catch((error) => this.#unusable(number, error));
    if (number !== this.#asked) return; // it was stopped, or another one chosen
    this.reading = false;
    this.#file = new Played(samples, {
      onFrame: (frame, at) => this.#onFileFrame(frame, at),
      tail: (seconds) => this.#hooks.tail(seconds),
      onEnd: () => this.stopFile(),
    });
  }

  /** Of a file that nobody waits for any more it does not matter. */
  #unusable(number, error) {
    if (number !== this.#asked) return;
    this.reading = false;
    throw error;
  }

  stopFile() {
    this.#asked += 1;
    this.reading = false;
    if (!this.#file) return;
    this.#file.close();
    this.#file = null;
    this.#hooks.level(0, performance.now());
    this.#hooks.ended();
  }

  #onFrame(samples, at) {
    if (!this.#microphone || this.#file) return;
    if (this.muted) samples.fill(0); // silence goes on, so that a turn that has begun can end
    this.#hooks.level(loudness(samples), at);
    this.#hooks.frame(samples, at);
  }

  #onFileFrame(samples, at) {
    const taken = this.#hooks.frame(samples, at);
    if (taken) this.#hooks.level(loudness(samples), at);
    return taken;
  }
}
