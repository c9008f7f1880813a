/** What was asked of the server: by which id a refusal is known, and what is sent again after a gap. */

const RESENT = 50;

const hex = (byte) => byte.toString(16).padStart(2, "0");

export const newId = (prefix) => `${prefix}_${Array.from(crypto.getRandomValues(new Uint8Array(12)), hex).join("")}`;

export class Requests {
  #link;
  #pending = new Map(); // event id → what is to be done when it is refused
  #unheard = []; // events of which it is not known whether the server has them

  constructor(link) {
    this.#link = link;
  }

  /** Send an event; where there is no connection now, once it is back in the same session. */
  send(type, fields = {}, onRefused = () => {}) {
    const event = { type, event_id: newId("event"), ...fields };
    this.#pending.set(event.event_id, onRefused);
    if (this.#pending.size > 2 * RESENT) this.#pending.delete(this.#pending.keys().next().value);
    this.#unheard.push(event);
    this.#unheard.splice(0, this.#unheard.length - RESENT);
    this.#link.send(event);
  }

  /** The server has refused something: do what was to be done then. False if it was nothing of ours. */
  refused(error) {
    const onRefused = this.#pending.get(error.event_id);
    this.#pending.delete(error.event_id);
    onRefused?.(error);
    return Boolean(onRefused);
  }

  /** A response has begun, so that the server has all that came before it was asked for. */
  answered() {
    this.#unheard.splice(0, this.#unheard.findLastIndex(({ type }) => type === "response.create") + 1);
  }

  /** Back in the session: it knows by the ids what it has got. */
  again() {
    for (const event of this.#unheard) this.#link.send(event);
  }

  /** A new session: nothing of the old one counts. */
  restart() {
    this.#pending.clear();
    this.#unheard = [];
  }
}
