/**
 * One realtime connection that comes back by itself, to the same server session where that is still there. Knows
 * nothing of sound or conversations. The protocol of coming back: `?resume=SESSION&last_event_id=ID`, see README.
 */

import { aboutError, waitIn, KEY_WANTED, KEY_WRONG } from "./words.js";

const HELLO_MS = 10_000; // connection asked for → first event
const STABLE_MS = 5_000; // a connection this old has proved itself
const LONGEST_MS = 30_000; // between two attempts
const FIRST_MS = { 1012: 300, 1013: 5000 }; // to the first attempt, by the code of the close
const REFUSALS = new Set([1008, 3000, 3003, 4401, 4403, 4409]);
const LASTING = /api_key|token_expired|origin|forbidden|model_not_found/;

/** Milliseconds before attempt number `tries` (from 0) after a close with `code`. */
function backoff(tries, code, asked) {
  const delay = Math.min(LONGEST_MS, (FIRST_MS[code] ?? 500) * 2 ** tries) * (0.5 + Math.random() / 2);
  return Math.max(delay, Math.min(asked, LONGEST_MS));
}

/**
 * `hooks.state(state, detail)` hears of each change: idle, connecting, ready, waiting ({ at }), refused ({ reason,
 * key }). `hooks.ready()`: a new server session stands. `hooks.event(event)`: each further event. `hooks.resumed()`:
 * the old session is back and nothing was missed. `hooks.lost()`: a session that stood is gone.
 */
export class Link {
  #socket = null;
  #timer = 0;
  #tries = 0;
  #readyAt = 0;
  #place = null; // { session, last }: where in which server session we stand
  state = "idle";

  constructor(url, key, hooks) {
    Object.assign(this, { url, key, hooks });
  }

  /** Bytes that were sent and have not left yet. */
  get waiting() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /** Connect now, whatever was planned, unless there is a connection. */
  open() {
    if (this.state === "ready" || this.state === "connecting") return;
    clearTimeout(this.#timer);
    this.#dial();
  }

  close() {
    this.#drop();
    this.#forget();
    this.#become("idle");
  }

  /** Give the connection up, and come back to the session. */
  reconnect() {
    this.#drop();
    this.#dial();
  }

  /** False where there is no connection. */
  send(event) {
    if (this.state !== "ready") return false;
    this.#socket.send(JSON.stringify(event));
    return true;
  }

  #become(state, detail = {}) {
    this.state = state;
    this.hooks.state(state, detail);
  }

  #refuse(reason, key = false) {
    this.#drop();
    this.#forget();
    this.#become("refused", { reason, key });
  }

  /** Let go of the socket; its late events must not be taken for a newer one's. */
  #drop() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    this.state = "idle";
    if (!socket) return;
    socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #forget() {
    if (this.#place) this.hooks.lost();
    this.#place = null;
  }

  #dial() {
    const url = new URL(this.url);
    if (this.#place?.last) {
      url.searchParams.set("resume", this.#place.session);
      url.searchParams.set("last_event_id", this.#place.last);
    }
    this.#become("connecting");
    const protocols = this.key ? ["realtime", `openai-insecure-api-key.${this.key}`] : ["realtime"];
    this.#socket = new WebSocket(url, protocols);
    this.#socket.onmessage = ({ data }) => this.#onMessage(data);
    this.#socket.onclose = ({ code, reason }) => this.#onClose(code, reason);
    this.#timer = setTimeout(() => this.#onClose(1006, ""), HELLO_MS);
  }

  #onMessage(data) {
    const event = parsed(data);
    if (!event) return;
    if (event.type === "session.created") this.#onHello(event);
    else if (this.state === "ready") this.#onEvent(event);
    else if (event.type === "error") this.#onEarlyError(event.error);
    else if (this.#place) this.#onBack(event);
  }

  #onHello(event) {
    this.#forget();
    this.#place = { session: event.session?.id, last: event.event_id };
    this.#stand();
    this.hooks.ready();
  }

  /** The first event that was missed, or the word that none was. */
  #onBack(event) {
    this.#stand();
    this.#onEvent(event);
  }

  #stand() {
    clearTimeout(this.#timer);
    this.#readyAt = Date.now();
    this.#become("ready");
  }

  #onEvent(event) {
    if (this.#place && typeof event.event_id === "string") this.#place.last = event.event_id;
    this.hooks.event(event);
    if (event.type === "session.updated" && event.resumed) this.hooks.resumed();
  }

  /** An error before the session stands is the reason of the close that follows. */
  #onEarlyError(error) {
    const code = String(error?.code ?? "");
    if (code === "resume_failed") {
      this.#drop();
      this.#forget();
      this.#dial();
    } else if (LASTING.test(code)) this.#refuse(aboutError(error), /api_key|token/.test(code));
  }

  #onClose(code, reason) {
    const stood = this.state === "ready";
    if (!stood) this.#askWhy();
    if (stood && Date.now() - this.#readyAt > STABLE_MS) this.#tries = 0;
    this.#drop();
    if (REFUSALS.has(code)) this.#refuse(aboutClose(reason), /api_key|token/.test(reason));
    else this.#plan(backoff(this.#tries, code, waitIn(reason)));
  }

  #plan(delay) {
    this.#tries += 1;
    this.#timer = setTimeout(() => this.#dial(), delay);
    this.#become("waiting", { at: Date.now() + delay, tries: this.#tries });
  }

  /** A browser does not tell why a handshake failed. If it was for want of a key, then so does another request. */
  async #askWhy() {
    const url = new URL(this.url.replace(/^ws/, "http"));
    url.pathname = url.pathname.replace(/realtime$/, "models");
    const headers = this.key ? { Authorization: `Bearer ${this.key}` } : {};
    try {
      const answer = await fetch(url, { headers, signal: AbortSignal.timeout(HELLO_MS) });
      if (answer.status === 401 && this.state === "waiting") this.#refuse(this.key ? KEY_WRONG : KEY_WANTED, true);
    } catch {
      // No answer at all: then we know no more than before.
    }
  }
}

/** The reason of a close, without its code. */
function aboutClose(reason) {
  return reason.replace(/^\w+: /, "") || "The server does not allow this connection.";
}

function parsed(data) {
  try {
    const event = JSON.parse(data);
    return typeof event?.type === "string" ? event : null;
  } catch {
    return null;
  }
}
