/** Turns that begin and end with a button. */

import { RATE } from "./pcm.js";
import { UNTRANSCRIBED, aboutError } from "./words.js";

const SHORTEST = 0.2 * RATE; // samples of a turn that is worth sending
const TRANSCRIPT_MS = 40_000; // a turn was committed → its words; our gateway gives up before

export class Talking {
  #conversation;
  #requests;
  #turn = null; // { entry, samples } while the button is pressed

  constructor(conversation, requests) {
    [this.#conversation, this.#requests] = [conversation, requests];
  }

  get on() {
    return Boolean(this.#turn);
  }

  press() {
    this.#turn = { entry: this.#conversation.pressed(), samples: 0 };
  }

  /** So many samples of the turn were sent. */
  heard(samples) {
    this.#turn.samples += samples;
  }

  /** The turn is over. False where there is none, it is `discarded`, or it was too short to be one. */
  release(discarded) {
    if (!this.#turn) return false;
    const { entry, samples } = this.#turn;
    this.#turn = null;
    const sent = !discarded && samples >= SHORTEST;
    if (sent) this.#commit(entry);
    else this.#discard(entry);
    return sent;
  }

  #commit(entry) {
    const fail = (note) => this.#conversation.set(entry, { state: "failed", note });
    this.#conversation.set(entry, { holding: false, state: "hearing" });
    this.#requests.send("input_audio_buffer.commit", {}, (error) => fail(aboutError(error)));
    setTimeout(() => entry.state === "hearing" && fail(UNTRANSCRIBED), TRANSCRIPT_MS);
  }

  #discard(entry) {
    this.#requests.send("input_audio_buffer.clear");
    this.#conversation.drop(entry);
  }
}
