/**
 * The Penstock chat widget: one script line puts a chat on any page.
 *
 *   <script src="https://HOST/widget.js" data-title="Ask us" async></script>
 *
 * Attributes, all optional:
 *   data-title        heading of the chat                       "Chat with us"
 *   data-greeting     first bubble, shown and never sent        "Hello! How can I help?"
 *   data-color        any opaque CSS colour                     "#0f5f58"
 *   data-position     right | left                              right
 *   data-theme        auto | light | dark                       auto
 *   data-server       ws(s)://HOST[/PATH]                       where the script came from
 *   data-model        the model asked for                       the server's own
 *   data-key          an API key; whoever sees the page sees it none
 *   data-suggestions  questions to tap, parted by "|"           none
 *   data-target       selector of the element to fill           floats in a corner
 *   data-open         open at once                              closed
 *
 * The element <penstock-chat> takes the same attributes (and `inline` instead of data-target), has the methods
 * `open()`, `close()`, `send(text)` and `restart()`, and tells the page with `penstock:state` and `penstock:turn`
 * events how it is doing, never what is said.
 *
 * A page with a content security policy needs HOST in `script-src` and the server in `connect-src`, no more.
 *
 * Reads in this order: options, colour, words, store, link (the socket), chat (the conversation), view, element.
 */
(() => {
  "use strict";

  const TAG = "penstock-chat";
  if (customElements.get(TAG)) {
    console.warn(`[${TAG}] widget.js is on this page already; this second script is ignored.`);
    return;
  }
  const SCRIPT = document.currentScript;

  const LIMITS = {
    message: 4000, // characters a visitor may type
    answer: 40000, // characters of an answer that are kept
    queued: 5, // messages waiting for the connection
    shown: 200, // messages in the page
    stored: 100, // messages kept over a reload
    replayed: 30, // items told again to a new server session
    resends: 2, // times an unanswered message is sent again by itself
  };
  const WAITS = {
    hello: 10_000, // connection asked for → session.created
    silence: 20_000, // an answer under way → its next event; then the connection is tried
    trial: 10_000, // trying the connection → any event at all
    stopped: 5_000, // stop asked for → response.done
    stable: 5_000, // a connection this old has proved itself
    longest: 30_000, // between two attempts to connect
    parked: 120_000, // popup closed → connection given up
    kept: 24 * 3600_000, // last message → forgotten
    save: 300,
    undo: 10_000,
  };

  // ---------------------------------------------------------------------------------------------- options

  const oneOf = (...choices) => (value) => (choices.includes(value) ? value : null);
  const clipped = (length) => (value) => value.slice(0, length);

  /** Read the data-* attributes; what is wrong falls back to its default and is named in the console. */
  function readOptions(data, home) {
    const pick = (name, parse, fallback) => {
      const value = data[name]?.trim();
      if (!value) return fallback;
      const parsed = parse(value);
      if (parsed !== null) return parsed;
      const shown = name === "key" ? "…" : value;
      console.warn(`[${TAG}] data-${name}="${shown}" is not valid and is ignored.`);
      return fallback;
    };
    return {
      title: pick("title", clipped(80), "Chat with us"),
      greeting: pick("greeting", clipped(500), "Hello! How can I help?"),
      color: pick("color", parseColor, [15, 95, 88]),
      position: pick("position", oneOf("right", "left"), "right"),
      theme: pick("theme", oneOf("auto", "light", "dark"), "auto"),
      server: pick("server", parseServer, parseServer(home)),
      model: pick("model", clipped(200), ""),
      key: pick("key", parseKey, ""),
      suggestions: pick("suggestions", parseSuggestions, []),
      open: data.open !== undefined && data.open !== "false",
    };
  }

  /** The WebSocket base of a ws(s): or http(s): address, or null. */
  function parseServer(value) {
    const schemes = { "http:": "ws:", "https:": "wss:", "ws:": "ws:", "wss:": "wss:" };
    try {
      const url = new URL(value);
      const scheme = schemes[url.protocol];
      return scheme && url.host ? `${scheme}//${url.host}${url.pathname.replace(/\/+$/, "")}` : null;
    } catch {
      return null;
    }
  }

  /** The key travels as a WebSocket subprotocol, so only the characters of an HTTP token can stand in it. */
  function parseKey(value) {
    return /^[\w!#$%&'*+.^`|~-]+$/.test(value) ? value : null;
  }

  function parseSuggestions(value) {
    return value.split("|").map((text) => text.trim()).filter(Boolean).slice(0, 6);
  }

  function realtimeURL({ server, model }) {
    if (!server) {
      console.warn(`[${TAG}] there is no server to connect to: set data-server.`);
      return "";
    }
    const path = server.endsWith("/v1/realtime") ? server : `${server}/v1/realtime`;
    return model ? `${path}?model=${encodeURIComponent(model)}` : path;
  }

  // ----------------------------------------------------------------------------------------------- colour

  const WHITE = [255, 255, 255];
  const BLACK = [0, 0, 0];
  const THEMES = {
    light: { bg: WHITE, soft: [241, 244, 242], ink: [24, 33, 30], muted: [88, 100, 95], line: [221, 227, 223], field: [133, 146, 140], alert: [166, 42, 26] },
    dark: { bg: [20, 26, 24], soft: [33, 41, 38], ink: [232, 238, 235], muted: [163, 176, 170], line: [48, 58, 54], field: [104, 118, 112], alert: [255, 158, 138] },
  };

  /** Red, green and blue of an opaque CSS colour as the browser understands it, or null. */
  function parseColor(value) {
    if (!CSS.supports("color", value) || /^(inherit|initial|unset|revert|revert-layer|currentcolor)$/i.test(value)) return null;
    const probe = document.createElement("span");
    probe.style.color = value;
    document.documentElement.append(probe);
    const parts = getComputedStyle(probe).color.match(/^rgb\((\d+), (\d+), (\d+)\)$/);
    probe.remove();
    return parts && parts.slice(1).map(Number);
  }

  /** Relative luminance, 0 to 1 (WCAG 2). */
  function luminance(color) {
    const [r, g, b] = color.map((part) => {
      const c = part / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  /** Contrast ratio, 1 to 21 (WCAG 2). */
  function contrast(a, b) {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  }

  const mix = (a, b, share) => a.map((part, i) => Math.round(part + (b[i] - part) * share));
  const css = (color) => `rgb(${color.join(" ")})`;
  const inkOn = (surface) => (contrast(WHITE, surface) >= 4.5 ? WHITE : BLACK);

  /** The colour nearest to `color` that stands out from `surface` by `ratio`. */
  function readable(color, surface, ratio) {
    const pole = luminance(surface) > 0.18 ? BLACK : WHITE;
    for (let share = 0; share < 1; share += 0.05) {
      const candidate = mix(color, pole, share);
      if (contrast(candidate, surface) >= ratio) return candidate;
    }
    return pole;
  }

  /** The custom properties of a theme with a given accent. */
  function palette(name, accent) {
    const theme = THEMES[name];
    const colors = {
      ...theme,
      accent,
      "on-accent": inkOn(accent),
      edge: readable(accent, theme.bg, 3),
      link: readable(accent, theme.soft, 4.5),
      tint: mix(theme.bg, accent, name === "dark" ? 0.2 : 0.07),
    };
    return Object.entries(colors).map(([key, color]) => [`--${key}`, css(color)]);
  }

  // ------------------------------------------------------------------------------------------------ words

  const STATES = {
    idle: "Ready when you are",
    connecting: "Connecting…",
    ready: "Online",
    waiting: "Reconnecting…",
    refused: "Not available",
  };

  /** What an error of the server means to a visitor. */
  function explain(error) {
    const code = String(error?.code ?? error?.type ?? "");
    const known = EXPLANATIONS.find(([pattern]) => pattern.test(code));
    return { text: known ? known[1] : "Something went wrong on our side.", wait: retryAfter(error), code };
  }

  const EXPLANATIONS = [
    [/rate_limit|too_many/, "That was a little too fast."],
    [/quota/, "This chat has reached its limit for now."],
    [/api_key|auth|permission|forbidden|origin/, "This chat is not set up correctly: the server does not accept its key."],
    [/overload|capacity|unavailable|busy|queue_full|shed/, "Many people are asking right now."],
    [/deadline|timeout|timed_out/, "The answer took too long."],
    [/context|prompt_too_long|too_long|too_large|max_length|above_max/, "That is more text than can be read at once. A shorter message will do."],
    [/already_has_active_response/, "The last answer is still being written."],
    [/model_not_found|unknown_model/, "This chat is not set up correctly: the server does not have its model."],
  ];

  const KEYLESS = "This chat is not set up correctly: the server wants an API key, and this page has none (data-key).";

  const INCOMPLETE = {
    max_output_tokens: "The answer was cut off at its length limit.",
    content_filter: "The answer was held back by a filter.",
  };

  /** Milliseconds after which the server wants to be asked again; 0 where it does not say. */
  function retryAfter(error) {
    const fields = [["retry_after_ms", 1], ["retry_after", 1000], ["retry_after_s", 1000], ["retry_after_seconds", 1000]];
    for (const [field, unit] of fields) {
      const value = Number(error?.[field]);
      if (value > 0) return value * unit;
    }
    return waitInText(error?.message);
  }

  /** As in "try again in 2.5 s". */
  function waitInText(text) {
    const found = /\b(?:in|after) (\d+(?:\.\d+)?) ?(ms|s|sec|seconds?)\b/i.exec(String(text ?? ""));
    return found ? Number(found[1]) * (found[2].toLowerCase() === "ms" ? 1 : 1000) : 0;
  }

  const seconds = (ms) => `${Math.max(1, Math.ceil(ms / 1000))} s`;

  function isAddress(text) {
    try {
      return Boolean(new URL(text).host);
    } catch {
      return false;
    }
  }

  /** Cut `text` into plain strings and links ({ href, text }). */
  function linkify(text) {
    const parts = [];
    let end = 0;
    for (const found of text.matchAll(/\bhttps?:\/\/[^\s<>"']+/gi)) {
      const address = found[0].replace(/[.,;:!?)\]}»”’]+$/u, "");
      if (!isAddress(address)) continue;
      parts.push(text.slice(end, found.index), { href: address, text: address });
      end = found.index + address.length;
    }
    parts.push(text.slice(end));
    return parts.filter((part) => part !== "");
  }

  // ------------------------------------------------------------------------------------------------ store

  const newId = (prefix) => `${prefix}_${Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("")}`;

  /** The first browser storage that can be written to, or null (refused, full, sandboxed). */
  function openStorage(...names) {
    for (const name of names) {
      try {
        const storage = window[name];
        storage.setItem(TAG, "");
        storage.removeItem(TAG);
        return storage;
      } catch {
        continue;
      }
    }
    return null;
  }

  /** Write to a storage; false where it is full or refuses. */
  function keep(storage, key, value) {
    try {
      storage?.setItem(key, value);
      return Boolean(storage);
    } catch {
      return false;
    }
  }

  /** Keeps one conversation in the browser. Losing it costs comfort only, so no failure leaves this class. */
  class Store {
    #storage = openStorage("localStorage", "sessionStorage");
    #tab = openStorage("sessionStorage");

    constructor(key) {
      this.key = `${TAG}:1:${key}`;
      /** This tab, also after a reload: a message queued in another tab is that tab's to send. */
      this.tab = this.#tab?.getItem(`${TAG}:tab`) ?? newId("tab");
      keep(this.#tab, `${TAG}:tab`, this.tab);
    }

    get open() {
      return this.#tab?.getItem(`${this.key}:open`) === "1";
    }

    set open(open) {
      keep(this.#tab, `${this.key}:open`, open ? "1" : "0");
    }

    load() {
      return this.parse(this.#storage?.getItem(this.key));
    }

    parse(text) {
      try {
        const saved = JSON.parse(text ?? "[]");
        const messages = Array.isArray(saved) ? saved.filter(isMessage) : [];
        return messages.length && Date.now() - messages.at(-1).at < WAITS.kept ? messages : [];
      } catch {
        return [];
      }
    }

    /** Keep as many of the last messages as fit. */
    save(messages) {
      for (let count = Math.min(messages.length, LIMITS.stored); count > 0; count >>= 1) {
        if (keep(this.#storage, this.key, JSON.stringify(messages.slice(-count).map(toSaved)))) return;
      }
      this.#storage?.removeItem(this.key);
    }
  }

  function isMessage(value) {
    return ["user", "assistant"].includes(value?.role) && [value.id, value.text, value.state].every((x) => typeof x === "string") && Number.isFinite(value.at);
  }

  function toSaved({ id, role, text, at, state, note, tab }) {
    return { id, role, text: text.slice(0, LIMITS.answer), at, state, note, tab };
  }

  // ------------------------------------------------------------------------------------------------- link

  const REFUSALS = new Set([1008, 3000, 3003, 4401, 4403, 4409]);

  /** How long to wait before attempt number `tries` (from 0) after a close with `code`. */
  function backoff(tries, code, asked = 0) {
    const first = { 1012: 300, 1013: 5000 }[code] ?? 500;
    const delay = Math.min(WAITS.longest, first * 2 ** tries) * (0.5 + Math.random() / 2);
    return Math.max(delay, Math.min(asked, WAITS.longest));
  }

  /**
   * One realtime connection that comes back by itself, to the same server session where that is still there. Knows
   * nothing of conversations.
   *
   * `hooks.state(state, detail)` hears of every change, `hooks.ready()` that a new server session stands,
   * `hooks.event(event)` each further event, `hooks.broken()` that the connection is gone, `hooks.resumed()` that it
   * is back and nothing was missed, and `hooks.lost()` that a session that stood is gone. It comes back only while
   * `hooks.wanted()`.
   */
  class Link {
    #socket = null;
    #timer = 0;
    #tries = 0;
    #readyAt = 0;
    #place = null; // { session, last }: where in which server session we stand
    state = "idle";

    constructor(url, key, hooks) {
      const protocols = key ? ["realtime", `openai-insecure-api-key.${key}`] : [];
      Object.assign(this, { url, key, protocols, hooks });
    }

    open() {
      if (this.state === "idle") this.#dial();
    }

    /** Connect now if that is planned for later. */
    hurry() {
      if (this.state === "waiting") this.retry();
    }

    /** Connect now, whatever was planned. */
    retry() {
      if (this.state === "ready" || this.state === "connecting") return;
      clearTimeout(this.#timer);
      this.#dial();
    }

    close() {
      this.#drop();
      this.#forget();
      this.#become("idle");
    }

    refuse(reason) {
      this.#drop();
      this.#forget();
      this.#become("refused", { reason });
    }

    /** Give the session up, and ask for a new one if there is a connection or will be one. */
    renew() {
      const connected = this.state === "ready" || this.state === "connecting";
      if (connected) this.#drop();
      this.#forget();
      if (connected) this.#dial();
    }

    /** Give the connection up, and come back to the session. */
    reconnect() {
      this.#drop();
      this.#dial();
    }

    send(event) {
      if (this.state === "ready") this.#socket.send(JSON.stringify(event));
    }

    #become(state, detail = {}) {
      this.state = state;
      this.hooks.state(state, detail);
    }

    /** Let go of the socket; its late events must not reach a newer one's owner. */
    #drop() {
      clearTimeout(this.#timer);
      const socket = this.#socket;
      const stood = this.state === "ready";
      this.#socket = null;
      this.state = "idle";
      if (socket) {
        socket.onopen = socket.onmessage = socket.onclose = null;
        socket.close();
      }
      if (stood) this.hooks.broken();
    }

    /** Give up the session in which we stood. */
    #forget() {
      if (this.#place) this.hooks.lost();
      this.#place = null;
    }

    /** Where to connect to: if we stood in a session, to there. */
    #address() {
      if (!this.#place?.last) return this.url;
      const { session, last } = this.#place;
      return `${this.url}${this.url.includes("?") ? "&" : "?"}resume=${encodeURIComponent(session)}&last_event_id=${encodeURIComponent(last)}`;
    }

    #dial() {
      this.#become("connecting");
      try {
        this.#socket = new WebSocket(this.#address(), this.protocols);
      } catch (error) {
        this.refuse(`This page may not connect to the chat server (${error.name}).`);
        return;
      }
      this.#socket.onmessage = ({ data }) => this.#onMessage(data);
      this.#socket.onclose = (event) => this.#onClose(event.code, event.reason);
      this.#timer = setTimeout(() => this.#onClose(1006, ""), WAITS.hello);
    }

    #onMessage(data) {
      const event = parseEvent(data);
      if (!event) return;
      if (event.type === "session.created") this.#onHello(event);
      else if (this.state === "ready") this.#onEvent(event);
      else if (event.type === "error") this.#onEarlyError(event.error);
      else if (this.#place) this.#onBack(event);
    }

    #onHello(event) {
      this.#forget();
      this.#stand();
      this.#place = { session: event.session?.id, last: event.event_id };
      this.hooks.ready();
    }

    /** The first event that was missed, or the word that none was: we stand again where we stood. */
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
      const { text, code } = explain(error);
      if (code === "resume_failed") this.renew();
      else if (/api_key|auth|forbidden|origin|model_not_found/.test(code)) this.refuse(text);
    }

    #onClose(code, reason) {
      const stood = this.state === "ready";
      if (!stood) this.#askWhy();
      if (stood && Date.now() - this.#readyAt > WAITS.stable) this.#tries = 0;
      this.#drop();
      if (REFUSALS.has(code)) return this.refuse(reason.replace(/^\w+: /, "") || "The server does not allow this connection.");
      if (!this.hooks.wanted()) return this.#become("idle");
      return this.#plan(backoff(this.#tries, code, waitInText(reason)), code);
    }

    /** A browser does not tell why a handshake failed. If it was for want of a key, then so does another request. */
    async #askWhy() {
      try {
        const url = modelsURL(this.url);
        if (url.origin !== location.origin) return; // the page's policy may forbid it, and we could not read the answer
        const headers = this.key ? { Authorization: `Bearer ${this.key}` } : {};
        const answer = await fetch(url, { headers, signal: AbortSignal.timeout(WAITS.trial) });
        if (answer.status === 401) this.#onKeyWanted((await answer.json()).error);
      } catch {
        // No answer, or none of our server's: then we know no more than before.
      }
    }

    #onKeyWanted(error) {
      if (this.state !== "waiting" || error?.code !== "invalid_api_key") return;
      console.warn(`[${TAG}] ${this.url} wants a valid API key: give the widget one with data-key. Whoever sees the page sees it.`);
      this.refuse(this.key ? explain(error).text : KEYLESS);
    }

    #plan(delay, code) {
      this.#tries += 1;
      if (this.#tries === 3 && !this.#readyAt) {
        console.warn(`[${TAG}] ${this.url} cannot be reached. Is the server up, may pages from ${location.origin} connect to it, and does it want a key (data-key)?`);
      }
      this.#timer = setTimeout(() => this.#dial(), delay);
      this.#become("waiting", { at: Date.now() + delay, tries: this.#tries, code });
    }
  }

  /** Where the server of a realtime address lists its models. */
  function modelsURL(realtime) {
    const url = new URL(realtime.replace(/^ws/, "http"));
    url.pathname = url.pathname.replace(/realtime$/, "models");
    url.search = "";
    return url;
  }

  function parseEvent(data) {
    try {
      const event = JSON.parse(data);
      return typeof event?.type === "string" ? event : null;
    } catch {
      return null;
    }
  }

  // ------------------------------------------------------------------------------------------------- chat

  const SETTLED = new Set(["done", "stopped", "interrupted", "incomplete", "failed"]);
  const RETRIABLE = new Set(["stopped", "interrupted", "incomplete", "failed", "unsent"]);
  const LIVE = new Set(["waiting", "streaming", "stopping"]);

  /**
   * The conversation: what was said, what waits to be sent, and the one answer under way.
   *
   * A message is { id, role, text, at, state, note }. A visitor's goes queued → sent (or unsent); an answer goes
   * waiting → streaming → done, or stopped, interrupted, incomplete, failed. Knows nothing of the page:
   * `hooks.changed()` after every change, `hooks.turn(facts)` with what was measured, `hooks.notice(text)`.
   */
  class Chat {
    messages = [];
    active = null;
    #told = new Set(); // item ids that this server session has been told
    #pending = new Map(); // event id of ours → what is to be done when it is refused
    #unheard = []; // events of ours of which it is not known whether the server has them
    #watchdog = 0;

    constructor(options, store, hooks) {
      Object.assign(this, { store, hooks });
      this.link = new Link(realtimeURL(options), options.key, {
        state: (state, detail) => hooks.state(state, detail),
        wanted: () => hooks.wanted(),
        ready: () => this.#onReady(),
        event: (event) => this.#onEvent(event),
        broken: () => clearTimeout(this.#watchdog),
        resumed: () => this.#onResumed(),
        lost: () => this.#onLost(),
      });
      this.messages = store.load().map((message) => this.#restored(message));
      this.#markUnanswered();
    }

    get waiting() {
      return this.messages.filter((message) => message.state === "queued").length;
    }

    /** Take a message of the visitor; false when it cannot be taken now. */
    submit(text) {
      const clean = text.trim().slice(0, LIMITS.message);
      if (!clean || this.waiting >= LIMITS.queued) return false;
      this.messages.push({ id: newId("item"), role: "user", text: clean, at: Date.now(), state: "queued", tab: this.store.tab });
      this.messages.splice(0, this.messages.length - LIMITS.shown);
      this.link.open();
      this.#pump();
      this.hooks.changed();
      return true;
    }

    stop() {
      if (!this.active || this.active.answer.state === "stopping") return;
      this.active.answer.state = "stopping";
      this.#cancel(this.active.response);
      this.#watch(WAITS.stopped, () => this.#stalled());
      this.hooks.changed();
    }

    /** Ask once more for the answer to the last question. */
    retry() {
      const index = this.messages.findLastIndex(({ role }) => role === "user");
      if (index < 0 || this.active) return;
      this.#forgetAnswer(this.messages[index + 1]);
      Object.assign(this.messages[index], { state: "queued", tab: this.store.tab, tries: 0 });
      this.link.open();
      this.#pump();
      this.hooks.changed();
    }

    /** The message that a Retry belongs to: the last one, if it went wrong. */
    get retriable() {
      const last = this.messages.at(-1);
      return last && RETRIABLE.has(last.state) ? last : null;
    }

    /** Start over with an empty conversation; returns what undoes it. */
    restart() {
      const before = this.messages;
      this.#begin([]);
      return () => this.#begin(before);
    }

    /** Take over what another tab has saved, unless something is under way in either. */
    adopt(text) {
      const messages = this.store.parse(text);
      const busy = (message) => LIVE.has(message.state) || message.state === "queued";
      if (this.active || this.messages.some(busy) || messages.some(busy)) return;
      this.messages = messages;
      this.hooks.changed();
    }

    save() {
      this.store.save(this.messages);
    }

    #begin(messages) {
      this.#endTurn("interrupted", { text: "The answer was interrupted." });
      this.messages = messages;
      this.#told.clear();
      this.link.renew();
      this.hooks.changed();
    }

    #restored(message) {
      if (LIVE.has(message.state)) return { ...message, state: "interrupted", note: { text: "The answer was interrupted." } };
      if (message.state === "queued" && message.tab !== this.store.tab) return { ...message, state: "unsent" };
      return message;
    }

    /** A page that went away before the first token left a question without an answer. */
    #markUnanswered() {
      const last = this.messages.at(-1);
      if (last?.role === "user" && last.state === "sent") last.state = "unsent";
    }

    // -- sending

    #send(type, fields, onRefused = () => {}) {
      const event = { type, event_id: newId("event"), ...fields };
      this.#pending.set(event.event_id, onRefused);
      if (this.#pending.size > 100) this.#pending.delete(this.#pending.keys().next().value);
      if (type !== "response.cancel") this.#unheard.push(event);
      this.link.send(event);
    }

    /** Back in the session: what it may not have got is sent again under the same ids, and it knows what it has got. */
    #onResumed() {
      for (const event of this.#unheard) this.link.send(event);
      if (this.active?.answer.state === "stopping") this.#cancel(this.active.response);
      else if (this.active) this.#expect();
      this.#pump();
    }

    #onReady() {
      this.#told.clear();
      this.#pending.clear();
      this.#unheard = [];
      this.#configure();
      this.#pump();
    }

    #configure() {
      this.#send("session.update", { session: { type: "realtime", output_modalities: ["text"] } });
    }

    /** Send the oldest message that waits, if the line is free. */
    #pump() {
      if (this.active || this.link.state !== "ready") return;
      const question = this.messages.find(({ state }) => state === "queued");
      if (question) this.#ask(question);
    }

    #ask(question) {
      const answer = { id: newId("item"), role: "assistant", text: "", at: Date.now(), state: "waiting" };
      const index = this.messages.indexOf(question);
      this.#tell(this.messages.slice(0, index + 1));
      question.state = "sent";
      this.messages.splice(index + 1, 0, answer);
      this.active = { question, answer, parts: new Map(), turn: newId("turn"), response: null, facts: { asked: performance.now(), chunks: 0 } };
      const turn = this.active;
      this.#send("response.create", { response: { metadata: { client_turn: turn.turn } } }, (error) => turn === this.active && this.#fail(error));
      this.#expect();
      this.#report("asked");
      this.hooks.changed();
    }

    /** Tell this server session what it does not know yet: after a reconnect, the conversation so far. */
    #tell(messages) {
      const said = messages.filter(({ role, text, state }) => text && (role === "user" ? state !== "unsent" : SETTLED.has(state)));
      for (const message of said.slice(-LIMITS.replayed)) {
        if (this.#told.has(message.id)) continue;
        this.#told.add(message.id);
        this.#send("conversation.item.create", { item: toItem(message) }, (error) => this.#onItemRefused(message, error));
      }
    }

    #onItemRefused(message, error) {
      if (/exists|duplicate/.test(String(error.code))) return;
      this.#told.delete(message.id);
      if (message === this.active?.question) this.#fail(error);
    }

    #forgetAnswer(answer) {
      if (answer?.role !== "assistant") return;
      this.messages.splice(this.messages.indexOf(answer), 1);
      if (this.#told.delete(answer.id)) this.#send("conversation.item.delete", { item_id: answer.id });
    }

    #cancel(response_id) {
      this.#send("response.cancel", response_id ? { response_id } : {});
    }

    // -- hearing

    #onEvent(event) {
      const handlers = {
        "response.created": () => this.#onCreated(event.response),
        "response.output_item.added": () => this.#onItem(event.item),
        "response.output_text.delta": () => this.#onText(event, (before) => before + event.delta),
        "response.output_text.done": () => this.#onText(event, () => event.text),
        "response.done": () => this.#onDone(event.response),
        error: () => this.#onError(event.error ?? {}),
      };
      if (this.active && this.active.answer.state !== "stopping") this.#expect();
      if (Object.hasOwn(handlers, event.type) && this.#concerns(event)) handlers[event.type]();
    }

    /** Whether an event may touch the answer under way: a response we gave up must not write into the next one. */
    #concerns({ type, response_id, response }) {
      if (type === "error" || type === "response.created") return true;
      return Boolean(this.active?.response) && (response_id ?? response?.id) === this.active.response;
    }

    #onCreated(response = {}) {
      const turn = response.metadata?.client_turn;
      const ours = this.active && !this.active.response && (turn === undefined || turn === this.active.turn);
      if (!ours) return this.#cancel(response.id);
      this.#unheard = [];
      this.active.response = response.id;
      if (this.active.answer.state === "stopping") this.#cancel(response.id);
      return undefined;
    }

    #onItem(item) {
      if (typeof item?.id !== "string" || this.active.parts.size) return;
      this.active.answer.id = item.id;
      this.#told.add(item.id);
    }

    #onText({ type, item_id, content_index }, change) {
      const { answer, parts } = this.active;
      if (answer.state === "stopping") return;
      const part = `${item_id}:${content_index}`;
      const text = change(parts.get(part) ?? "");
      if (typeof text !== "string") return;
      parts.set(part, text.slice(0, LIMITS.answer));
      answer.text = [...parts.values()].join("\n");
      answer.state = "streaming";
      if (type.endsWith(".delta")) this.#count();
      this.hooks.changed();
    }

    #onDone(response) {
      const { status, status_details: details, usage } = response;
      this.active.facts.tokens = usage?.output_tokens;
      if (status === "failed") return this.#fail(details?.error ?? {});
      if (status === "incomplete") return this.#finish("incomplete", { text: INCOMPLETE[details?.reason] ?? "The answer is not complete." });
      if (status === "cancelled") return this.#finish("stopped", { text: "Stopped." });
      if (this.active.answer.state === "stopping") return this.#finish("stopped", { text: "Stopped." });
      if (!this.active.answer.text) return this.#finish("failed", { text: "No answer came." });
      return this.#finish("done");
    }

    #onError(error) {
      if (error.code === "response_cancel_not_active") return undefined;
      const onRefused = this.#pending.get(error.event_id);
      this.#pending.delete(error.event_id);
      if (onRefused) return onRefused(error);
      if (/session_expired/.test(String(error.code))) return undefined;
      if (this.active && !this.active.response) return this.#fail(error);
      return this.hooks.notice(explain(error).text);
    }

    // -- ending

    #fail(error) {
      if (!this.active) return;
      const { text, wait, code } = explain(error);
      this.#finish("failed", { text, code, retryAt: wait ? Date.now() + wait : undefined });
    }

    #finish(state, note) {
      this.#endTurn(state, note);
      this.hooks.changed();
      this.#pump();
    }

    #endTurn(state, note) {
      clearTimeout(this.#watchdog);
      if (!this.active) return;
      Object.assign(this.active.answer, { state, note, at: Date.now() });
      this.active.facts.ended = performance.now();
      this.#report(state);
      this.active = null;
    }

    /** A question that nobody began to answer is asked again by itself; a broken answer is the visitor's to retry. */
    #onLost() {
      if (!this.active) return;
      const { question, answer } = this.active;
      const again = answer.state === "waiting" && (question.tries ?? 0) < LIMITS.resends;
      this.#endTurn(answer.state === "stopping" ? "stopped" : "interrupted", { text: answer.state === "stopping" ? "Stopped." : "The answer was interrupted." });
      if (again) {
        this.#forgetAnswer(answer);
        Object.assign(question, { state: "queued", tries: (question.tries ?? 0) + 1 });
      }
      this.hooks.changed();
    }

    /** The server does not end the answer that was stopped. */
    #stalled() {
      this.link.renew();
    }

    /** A long silence is either a busy server, which still answers when spoken to, or a connection that died unseen. */
    #expect() {
      this.#watch(WAITS.silence, () => {
        this.#configure();
        this.#watch(WAITS.trial, () => this.link.reconnect());
      });
    }

    #watch(ms, action) {
      clearTimeout(this.#watchdog);
      this.#watchdog = setTimeout(action, ms);
    }

    // -- measuring

    #count() {
      const { facts } = this.active;
      facts.last = performance.now();
      facts.chunks += 1;
      facts.first ??= facts.last;
      this.#report(facts.chunks === 1 ? "first" : "chunk");
    }

    #report(phase) {
      const { asked, first, last, ended, chunks, tokens } = this.active.facts;
      const streamed = first === undefined ? 0 : last - first;
      this.hooks.turn({
        phase,
        first_ms: first === undefined ? null : first - asked,
        total_ms: ended === undefined ? null : ended - asked,
        chunks,
        tokens: tokens ?? null,
        chunks_per_s: streamed > 0 ? ((chunks - 1) * 1000) / streamed : null,
      });
    }
  }

  function toItem({ id, role, text }) {
    return { id, type: "message", role, content: [{ type: role === "user" ? "input_text" : "output_text", text }] };
  }

  // ------------------------------------------------------------------------------------------------- view

  const STYLE = `
    :host { display: contents !important; }
    :host([inline]) { display: flex !important; flex-direction: column; block-size: 100%; min-block-size: 26rem; max-block-size: 100vh; max-block-size: 100dvh; }
    .root {
      all: initial; display: flex; flex-direction: column; position: relative; flex: 1 1 auto; min-block-size: 0; color: var(--ink); color-scheme: light; text-align: start;
      font: 400 16px/1.5 ui-sans-serif, -apple-system, BlinkMacSystemFont, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, sans-serif;
      -webkit-text-size-adjust: 100%; -webkit-font-smoothing: antialiased;
    }
    .root[data-theme="dark"] { color-scheme: dark; }
    .root.floating { display: block; position: static; }
    .floating > .hidden { position: fixed; }
    *, *::before, *::after { box-sizing: border-box; }
    [hidden] { display: none !important; }
    button {
      appearance: none; border: 0; margin: 0; padding: 0; background: none; color: inherit; font: inherit; cursor: pointer;
      min-inline-size: 44px; min-block-size: 44px; touch-action: manipulation; -webkit-tap-highlight-color: transparent;
    }
    button:disabled { cursor: default; }
    :focus { outline: none; }
    :focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
    svg { inline-size: 20px; block-size: 20px; fill: none; stroke: currentColor; stroke-width: 1.75; stroke-linecap: round; stroke-linejoin: round; display: block; }
    .hidden { position: absolute; inline-size: 1px; block-size: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }

    .launcher {
      position: fixed; z-index: 2147483000; inset-block-end: calc(20px + env(safe-area-inset-bottom)); inline-size: 60px; block-size: 60px;
      border-radius: 50%; background: var(--accent); color: var(--on-accent); border: 1px solid var(--edge);
      display: grid; place-items: center; box-shadow: 0 1px 2px rgb(0 0 0 / .18), 0 8px 24px rgb(0 0 0 / .2); transition: transform .16s ease, box-shadow .16s ease;
    }
    .launcher:hover { transform: translateY(-2px); box-shadow: 0 2px 4px rgb(0 0 0 / .18), 0 12px 30px rgb(0 0 0 / .26); }
    .launcher:focus-visible { outline: 3px solid var(--bg); outline-offset: -6px; }
    .launcher svg { inline-size: 26px; block-size: 26px; }
    .right .launcher, .floating.right .panel { right: calc(20px + env(safe-area-inset-right)); }
    .left .launcher, .floating.left .panel { left: calc(20px + env(safe-area-inset-left)); }
    .badge { position: absolute; inset-block-start: -3px; inset-inline-end: -3px; min-inline-size: 22px; block-size: 22px; padding: 0 6px; border-radius: 11px; background: #b3261e; color: #fff; border: 2px solid var(--bg); font-size: 12px; line-height: 18px; font-weight: 600; }

    .panel { display: flex; flex-direction: column; overflow: hidden; background: var(--bg); position: relative; flex: 1 1 auto; min-block-size: 0; container-type: inline-size; }
    .floating .panel {
      position: fixed; z-index: 2147483000; inset-block-end: calc(94px + env(safe-area-inset-bottom)); inline-size: 400px; block-size: min(660px, calc(100vh - 118px)); block-size: min(660px, calc(100dvh - 118px));
      border: 1px solid var(--line); border-radius: 20px; box-shadow: 0 2px 6px rgb(0 0 0 / .08), 0 24px 64px rgb(0 0 0 / .22); animation: rise .18s cubic-bezier(.2, .8, .3, 1);
    }
    .inline .panel { border: 1px solid var(--line); border-radius: 20px; }
    @keyframes rise { from { opacity: 0; transform: translateY(12px) scale(.985); } }

    .head { display: flex; align-items: center; gap: 12px; min-block-size: 69px; padding: 12px 8px 12px 18px; border-block-end: 1px solid var(--line); flex: none; }
    .mark { inline-size: 38px; block-size: 38px; border-radius: 12px; background: var(--accent); color: var(--on-accent); border: 1px solid var(--edge); display: grid; place-items: center; flex: none; }
    .mark svg { inline-size: 24px; block-size: 24px; }
    .names { flex: 1; min-inline-size: 0; }
    .title { margin: 0; font-size: 16px; line-height: 1.25; font-weight: 650; letter-spacing: -.006em; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
    .state { margin: 1px 0 0; font-size: 13px; line-height: 1.35; color: var(--muted); display: flex; align-items: center; gap: 6px; }
    .dot { inline-size: 8px; block-size: 8px; border-radius: 50%; background: var(--muted); flex: none; }
    [data-state="ready"] .dot { background: #1f9d61; }
    [data-state="waiting"] .dot, [data-state="connecting"] .dot { background: #d18a1d; animation: breathe 1.2s ease-in-out infinite; }
    [data-state="refused"] .dot { background: #c8402c; }
    @keyframes breathe { 50% { opacity: .3; } }
    .tool { color: var(--muted); border-radius: 12px; display: grid; place-items: center; flex: none; }
    .tool:hover { background: var(--soft); color: var(--ink); }

    .bar { display: flex; align-items: center; gap: 4px 12px; flex-wrap: wrap; padding: 4px 8px 4px 18px; min-block-size: 52px; background: var(--soft); border-block-end: 1px solid var(--line); font-size: 14px; line-height: 1.4; flex: none; }
    .bar p { margin: 6px 0; flex: 1 1 180px; }
    .text-button { color: var(--link); font-weight: 600; font-size: 14px; padding: 0 10px; border-radius: 10px; white-space: nowrap; }
    .text-button:hover:not(:disabled) { text-decoration: underline; text-underline-offset: 3px; }
    .text-button:disabled { color: var(--muted); font-weight: 400; }

    .middle { position: relative; flex: 1; min-block-size: 0; display: flex; flex-direction: column; }
    .scroller { flex: 1; min-block-size: 0; overflow-y: auto; overscroll-behavior: contain; padding: 20px 18px 8px; scrollbar-width: thin; scrollbar-color: var(--line) transparent; }
    .list { list-style: none; margin: 0; padding: 0; display: flex; flex-direction: column; }
    .message { display: flex; flex-direction: column; align-items: flex-start; max-inline-size: min(85%, 34rem); margin-block-end: 14px; }
    .message.user { align-self: flex-end; align-items: flex-end; margin-block-end: 12px; }
    .bubble { padding: 10px 15px; border-radius: 18px; border-end-start-radius: 6px; background: var(--soft); white-space: pre-wrap; overflow-wrap: anywhere; min-inline-size: 0; max-inline-size: 100%; }
    .user .bubble { background: var(--accent); color: var(--on-accent); border: 1px solid var(--edge); border-radius: 18px; border-end-end-radius: 6px; }
    .user[data-state="queued"] .bubble, .user[data-state="unsent"] .bubble { background: var(--tint); color: var(--ink); border: 1px dashed var(--edge); }
    .bubble a { color: var(--link); text-underline-offset: 2px; }
    .user .bubble a { color: inherit; }
    .meta { display: flex; align-items: center; flex-wrap: wrap; gap: 0 8px; padding-inline: 4px; color: var(--muted); font-size: 12.5px; line-height: 1.4; min-block-size: 24px; }
    .meta .note { font-size: 13.5px; }
    [data-state="failed"] .note, [data-state="unsent"] .note { color: var(--alert); }
    .copy { color: var(--muted); display: grid; place-items: center; margin: -10px -14px; border-radius: 10px; }
    .copy:hover { color: var(--ink); }
    .copy:focus-visible { outline-offset: -8px; }
    .copy svg { inline-size: 16px; block-size: 16px; }
    .meta .text-button { margin: -10px -8px; font-size: 13.5px; }
    .dots { display: inline-flex; gap: 5px; align-items: center; block-size: 24px; }
    .dots i { inline-size: 7px; block-size: 7px; border-radius: 50%; background: var(--muted); animation: bob 1.1s ease-in-out infinite; }
    .dots i:nth-child(2) { animation-delay: .14s; }
    .dots i:nth-child(3) { animation-delay: .28s; }
    @keyframes bob { 0%, 60%, 100% { opacity: .35; transform: none; } 30% { opacity: 1; transform: translateY(-4px); } }
    [data-state="streaming"] .bubble::after { content: ""; display: inline-block; inline-size: 2px; block-size: 1.05em; margin-inline-start: 2px; vertical-align: -.18em; background: var(--link); animation: breathe 1s steps(2, jump-none) infinite; }

    .suggestions { display: flex; flex-wrap: wrap; gap: 8px; padding: 2px 0 12px; }
    .suggestion { padding: 8px 16px; border-radius: 22px; border: 1px solid var(--line); background: var(--bg); color: var(--ink); font-size: 15px; line-height: 1.3; text-align: start; transition: background .12s, border-color .12s; }
    .suggestion:hover { background: var(--tint); border-color: var(--edge); }
    .latest { position: absolute; inset-block-end: 10px; inset-inline: 0; margin-inline: auto; inline-size: max-content; display: flex; align-items: center; gap: 6px; padding: 0 16px 0 12px; border-radius: 22px; background: var(--bg); border: 1px solid var(--line); box-shadow: 0 4px 16px rgb(0 0 0 / .16); font-size: 14px; font-weight: 600; }

    .compose { flex: none; padding: 8px 14px 10px; }
    .field { display: flex; align-items: flex-end; gap: 4px; border: 1px solid var(--field); border-radius: 26px; background: var(--bg); padding: 3px; transition: border-color .12s, box-shadow .12s; }
    .field:focus-within { border-color: var(--link); box-shadow: 0 0 0 1px var(--link); }
    textarea {
      appearance: none; border: 0; background: none; color: inherit; font: inherit; font-size: 16px; line-height: 24px; resize: none; flex: 1; min-inline-size: 0;
      margin: 0; padding: 10px 6px 10px 16px; block-size: 44px; max-block-size: 164px; overflow-y: auto; scrollbar-width: thin; border-radius: 22px;
    }
    textarea:focus-visible { outline: none; }
    textarea::placeholder { color: var(--muted); opacity: 1; }
    .round { inline-size: 44px; block-size: 44px; border-radius: 50%; display: grid; place-items: center; flex: none; transition: background .12s, color .12s; }
    .send { background: var(--accent); color: var(--on-accent); border: 1px solid var(--edge); }
    .send:disabled { background: var(--soft); color: var(--muted); border-color: transparent; }
    .stop { border: 1px solid var(--field); color: var(--ink); }
    .stop:hover { background: var(--soft); }
    .stop svg { fill: currentColor; stroke: none; inline-size: 22px; block-size: 22px; }
    .fine { margin: 7px 6px 0; font-size: 12px; line-height: 1.35; color: var(--muted); text-align: center; text-wrap: balance; }

    @container (min-width: 520px) {
      .scroller { padding: 26px 28px 8px; }
      .compose { padding: 10px 24px 14px; }
      .head { min-block-size: 73px; padding: 14px 14px 14px 24px; }
      .bar { padding-inline: 24px 14px; }
    }
    .sheet .panel {
      inset: 0 auto auto 0 !important; inline-size: 100vw; inline-size: 100%; block-size: 100vh; block-size: var(--sheet-height, 100dvh); transform: translateY(var(--sheet-top, 0));
      border: 0; border-radius: 0; box-shadow: none; padding: env(safe-area-inset-top) env(safe-area-inset-right) env(safe-area-inset-bottom) env(safe-area-inset-left); animation: none;
    }
    .sheet.opened .launcher { display: none; }
    @media (prefers-reduced-motion: reduce) {
      *, *::before, *::after { animation: none !important; transition: none !important; }
      .dots i { opacity: .7; }
    }
    @media (forced-colors: active) {
      .panel, .bubble, .launcher, .send, .mark, .suggestion, .latest { border: 1px solid CanvasText !important; }
      .dot, .dots i { background: CanvasText; forced-color-adjust: none; }
      button:disabled { color: GrayText; }
      :focus-visible { outline-color: Highlight; }
    }
    @media print { .floating { display: none; } }
  `;

  const ICONS = {
    chat: "M4.5 5.5h15a1.5 1.5 0 0 1 1.5 1.5v9a1.5 1.5 0 0 1-1.5 1.5H11l-4.5 3.6v-3.6h-2A1.5 1.5 0 0 1 3 16V7a1.5 1.5 0 0 1 1.5-1.5ZM8 10h8M8 13.3h5",
    mark: "M4 4.5c7 0 4.5 7.5 8 7.5s1-4 8-4M4 11c3.5 0 3.2 7 8 7s3.5-3.5 8-3.5",
    close: "M6 6l12 12M18 6 6 18",
    down: "M6 9.5l6 6 6-6",
    fresh: "M12.5 4.5H6A1.5 1.5 0 0 0 4.5 6v12A1.5 1.5 0 0 0 6 19.5h12a1.5 1.5 0 0 0 1.5-1.5v-6.5M18.2 3.8a1.7 1.7 0 0 1 2.4 2.4L13 13.8l-3.2.8.8-3.2 7.6-7.6Z",
    send: "M12 19V5.5M6 11l6-6 6 6",
    stop: "M8 6.5h8A1.5 1.5 0 0 1 17.5 8v8a1.5 1.5 0 0 1-1.5 1.5H8A1.5 1.5 0 0 1 6.5 16V8A1.5 1.5 0 0 1 8 6.5Z",
    copy: "M9 9V5.5A1.5 1.5 0 0 1 10.5 4h8A1.5 1.5 0 0 1 20 5.5v8a1.5 1.5 0 0 1-1.5 1.5H15M5.5 9h8a1.5 1.5 0 0 1 1.5 1.5v8a1.5 1.5 0 0 1-1.5 1.5h-8A1.5 1.5 0 0 1 4 18.5v-8A1.5 1.5 0 0 1 5.5 9Z",
    check: "M5 12.5l4.5 4.5L19 7.5",
  };

  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === true) node.setAttribute(name, "");
      else if (value !== false && value !== undefined) node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }

  function icon(name) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", ICONS[name]);
    svg.append(path);
    return svg;
  }

  function button(kind, label, content, onClick) {
    const node = el("button", { type: "button", class: kind }, content);
    if (typeof content !== "string") {
      node.setAttribute("aria-label", label);
      node.title = label;
    }
    node.addEventListener("click", onClick);
    return node;
  }

  /** Style a shadow root without inline styles, which a page's security policy may forbid. */
  function dress(shadow) {
    if ("adoptedStyleSheets" in shadow && "replaceSync" in CSSStyleSheet.prototype) {
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(STYLE);
      shadow.adoptedStyleSheets = [sheet];
    } else {
      shadow.append(el("style", {}, STYLE));
    }
  }

  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

  /** One message of the conversation as a list item that follows the message's changes. */
  class Bubble {
    #drawn = "";
    #timer = 0;

    constructor(message, actions) {
      Object.assign(this, { message, actions });
      this.text = el("div", { class: "bubble", dir: "auto" });
      this.meta = el("div", { class: "meta" });
      const speaker = el("span", { class: "hidden" }, message.role === "user" ? "You said: " : "Answer: ");
      this.node = el("li", { class: `message ${message.role}` }, speaker, this.text, this.meta);
    }

    draw(retriable) {
      const { text, state, note, at } = this.message;
      const drawn = JSON.stringify([text.length, state, note, at, retriable]);
      if (drawn === this.#drawn) return;
      this.#drawn = drawn;
      this.node.dataset.state = state;
      this.text.hidden = !text && state !== "waiting";
      this.#drawText(text, state);
      this.meta.hidden = LIVE.has(state);
      this.meta.replaceChildren(...this.#facts(retriable));
    }

    #drawText(text, state) {
      if (state === "waiting") this.text.replaceChildren(el("span", { class: "dots", role: "img", "aria-label": "Writing an answer" }, el("i"), el("i"), el("i")));
      else if (LIVE.has(state)) this.#grow(text);
      else this.text.replaceChildren(...linkify(text.trimEnd()).map(toNode));
    }

    /** Append what is new, so that a selection in what stands already survives. */
    #grow(text) {
      const node = this.text.firstChild;
      if (node instanceof Text && text.startsWith(node.data)) node.appendData(text.slice(node.length));
      else this.text.replaceChildren(text);
    }

    #facts(retriable) {
      const { role, text, state, note, at } = this.message;
      const words = { queued: "Waiting to be sent", unsent: "Not answered" }[state] ?? note?.text;
      const facts = [];
      if (words) facts.push(el("span", { class: "note" }, words));
      if (retriable) facts.push(this.#retry(note?.retryAt));
      if (!retriable && state !== "queued") facts.push(el("time", { datetime: new Date(at).toISOString(), title: new Date(at).toLocaleString() }, clock.format(at)));
      if (role === "assistant" && text && state === "done") facts.push(this.#copy());
      return facts;
    }

    /** The Retry button; while the server wants to be left alone it counts down instead. */
    #retry(at = 0) {
      const node = button("text-button retry", "", "Retry", () => this.actions.retry());
      const tick = () => {
        const left = at - Date.now();
        node.disabled = left > 0;
        node.textContent = left > 0 ? `Try again in ${seconds(left)}` : "Retry";
        if (left > 0) this.#timer = setTimeout(tick, Math.min(1000, left));
      };
      clearTimeout(this.#timer);
      tick();
      return node;
    }

    #copy() {
      const node = button("copy", "Copy this answer", icon("copy"), async () => {
        await copyText(this.message.text, this.node);
        node.replaceChildren(icon("check"));
        node.setAttribute("aria-label", "Copied");
        this.actions.say("Copied.");
        setTimeout(() => {
          node.replaceChildren(icon("copy"));
          node.setAttribute("aria-label", "Copy this answer");
        }, 1600);
      });
      return node;
    }
  }

  function toNode(part) {
    if (typeof part === "string") return part;
    return el("a", { href: part.href, target: "_blank", rel: "noopener noreferrer nofollow ugc" }, part.text);
  }

  /** The clipboard API is there on secure pages only; the old way works on all. */
  async function copyText(text, near) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const box = el("textarea", { class: "hidden" });
      box.value = text;
      near.append(box);
      box.select();
      document.execCommand("copy");
      box.remove();
    }
  }

  /** The widget as a page sees it. Knows nothing of the protocol; what the visitor does goes to `actions`. */
  class View {
    #bubbles = new Map();
    #following = true;
    #empty = true; // nothing but the greeting, which is read from its beginning
    #ticker = 0;
    #noticeTimer = 0;
    #noticed = false; // the bar shows a notice, which outlives a change of the connection

    constructor(shadow, options, inline, actions) {
      Object.assign(this, { options, inline, actions });
      this.#build();
      shadow.append(this.root);
      this.#wire();
    }

    #build() {
      const { options, inline, actions } = this;
      this.launcher = button("launcher", "Open chat", icon("chat"), () => actions.toggle());
      this.launcher.setAttribute("aria-expanded", "false");
      this.launcher.hidden = inline;
      this.panel = el(
        "section",
        { class: "panel", role: inline ? "region" : "dialog", "aria-label": options.title },
        this.#head(),
        this.#bar(),
        this.#middle(),
        this.#compose(),
      );
      this.panel.hidden = !inline;
      this.live = el("div", { class: "hidden", role: "status" });
      this.root = el("div", { class: `root ${inline ? "inline" : "floating"} ${options.position}` }, this.panel, this.launcher, this.live);
    }

    #head() {
      const { options, inline, actions } = this;
      this.stateText = el("span", {}, STATES.idle);
      const names = el("div", { class: "names" }, el("h2", { class: "title" }, options.title), el("p", { class: "state" }, el("span", { class: "dot" }), this.stateText));
      this.fresh = button("tool fresh", "New conversation", icon("fresh"), () => actions.restart());
      const close = button("tool close", "Close chat", icon("close"), () => actions.close());
      close.hidden = inline;
      return el("header", { class: "head" }, el("div", { class: "mark" }, icon("mark")), names, this.fresh, close);
    }

    #bar() {
      this.barText = el("p", { role: "status" });
      this.barButton = button("text-button", "", "Reconnect now", () => this.barAction());
      this.bar = el("div", { class: "bar", hidden: true }, this.barText, this.barButton);
      return this.bar;
    }

    /**
     * Screen readers hear what is added to the log. An answer under way stands below it, outside, and moves
     * in when it is finished: so it is read once and whole, not token by token.
     */
    #middle() {
      const greeting = el("li", { class: "message assistant greeting" }, el("div", { class: "bubble", dir: "auto" }, this.options.greeting));
      this.log = el("ol", { class: "list log", role: "log", "aria-live": "polite", "aria-label": "Conversation" }, greeting);
      this.under = el("ol", { class: "list under", "aria-label": "Being sent and written" });
      this.suggestions = el("div", { class: "suggestions", role: "group", "aria-label": "Suggested questions" });
      this.suggestions.append(...this.options.suggestions.map((text) => button("suggestion", "", text, () => this.actions.send(text))));
      this.scroller = el("div", { class: "scroller", tabindex: "0", role: "group", "aria-label": "Messages" }, this.log, this.under, this.suggestions);
      const latest = el("span", {}, "Jump to latest");
      this.latest = button("latest", "", latest, () => this.#toEnd(true));
      this.latest.removeAttribute("aria-label");
      this.latest.removeAttribute("title");
      this.latest.prepend(icon("down"));
      this.latest.hidden = true;
      return el("div", { class: "middle" }, this.scroller, this.latest);
    }

    #compose() {
      this.input = el("textarea", { rows: "1", "aria-label": "Your message", placeholder: "Ask a question…", maxlength: String(LIMITS.message), enterkeyhint: "send", autocomplete: "off" });
      this.send = button("round send", "Send", icon("send"), () => this.#submit());
      this.send.disabled = true;
      this.stop = button("round stop", "Stop the answer", icon("stop"), () => this.actions.stop());
      this.stop.hidden = true;
      const fine = el("p", { class: "fine" }, "Answers come from a language model and can be wrong.");
      return el("div", { class: "compose" }, el("div", { class: "field" }, this.input, this.stop, this.send), fine);
    }

    #wire() {
      this.input.addEventListener("input", () => this.#onInput());
      this.input.addEventListener("keydown", (event) => this.#onInputKey(event));
      this.panel.addEventListener("keydown", (event) => this.#onPanelKey(event));
      this.scroller.addEventListener("scroll", () => this.#onScroll(), { passive: true });
      // A tap on these must not take the focus from the field, or a phone's keyboard would close and open again.
      for (const node of [this.send, this.stop]) node.addEventListener("pointerdown", (event) => event.preventDefault());
      this.observer = new ResizeObserver(() => this.#following && this.#toEnd());
      this.observer.observe(this.scroller);
    }

    destroy() {
      this.observer.disconnect();
      clearInterval(this.#ticker);
      clearTimeout(this.#noticeTimer);
      this.root.remove();
    }

    // -- looks

    paint(theme, accent) {
      this.root.dataset.theme = theme;
      for (const [name, value] of palette(theme, accent)) this.root.style.setProperty(name, value);
    }

    /** Fill a small screen: `box` is the part of it that the on-screen keyboard leaves, null to float. */
    sheet(box) {
      this.root.classList.toggle("sheet", Boolean(box) && !this.inline);
      this.panel.toggleAttribute("aria-modal", false);
      if (!box || this.inline) return;
      this.panel.setAttribute("aria-modal", "true");
      this.root.style.setProperty("--sheet-height", `${box.height}px`);
      this.root.style.setProperty("--sheet-top", `${box.offsetTop}px`);
    }

    show(opened, focus) {
      this.panel.hidden = !opened;
      this.root.classList.toggle("opened", opened);
      this.launcher.setAttribute("aria-expanded", String(opened));
      this.launcher.replaceChildren(icon(opened ? "down" : "chat"));
      this.unread(0);
      if (opened) this.#toEnd();
      if (focus) (opened ? this.input : this.launcher).focus({ preventScroll: true });
    }

    unread(count) {
      const label = this.panel.hidden ? `Open chat${count ? `, ${count} new` : ""}` : "Close chat";
      this.launcher.setAttribute("aria-label", label);
      this.launcher.title = label;
      this.launcher.querySelector(".badge")?.remove();
      if (count) this.launcher.append(el("span", { class: "badge", "aria-hidden": "true" }, String(count)));
    }

    // -- state of the connection

    state(state, detail) {
      clearInterval(this.#ticker);
      this.root.dataset.state = state;
      this.stateText.textContent = STATES[state];
      if (state === "waiting") this.#countDown(detail);
      else if (state === "refused") this.#showBar(detail.reason, "Try again", () => this.actions.reconnect());
      else if (!this.#noticed && state !== "connecting") this.#hideBar();
    }

    #countDown({ at, tries, code }) {
      const why = navigator.onLine === false ? "You seem to be offline." : code === 1013 ? "The server is busy." : tries > 2 ? "The server cannot be reached." : "The connection was lost.";
      this.#showBar(`${why} Reconnecting…`, "Reconnect now", () => this.actions.reconnect());
      const left = el("span", { "aria-hidden": "true" });
      this.barText.append(" ", left);
      const tick = () => (left.textContent = at - Date.now() > 2000 ? `(in ${seconds(at - Date.now())})` : "");
      tick();
      this.#ticker = setInterval(tick, 500);
    }

    #showBar(text, label, action) {
      clearTimeout(this.#noticeTimer);
      this.#noticed = false;
      this.barText.replaceChildren(text);
      this.barButton.textContent = label;
      this.barButton.hidden = !action;
      this.barAction = action;
      this.bar.hidden = false;
    }

    #hideBar() {
      if (this.bar.contains(this.root.getRootNode().activeElement)) this.input.focus();
      this.bar.hidden = true;
      this.#noticed = false;
    }

    notice(text, label, action) {
      this.#showBar(text, label, action && (() => {
        this.#hideBar();
        action();
      }));
      this.#noticed = true;
      this.#noticeTimer = setTimeout(() => this.#hideBar(), WAITS.undo);
    }

    say(text) {
      this.live.textContent = text;
    }

    // -- the conversation

    draw(chat) {
      const { messages, retriable } = chat;
      for (const [message, bubble] of this.#bubbles) if (!messages.includes(message)) this.#remove(message, bubble);
      const settled = messages.filter(({ state }) => !LIVE.has(state) && state !== "queued");
      this.#place(this.log, settled, retriable, 1);
      this.#place(this.under, messages.filter((message) => !settled.includes(message)), null, 0);
      this.#empty = messages.length === 0;
      this.suggestions.hidden = !this.#empty;
      this.fresh.hidden = this.#empty;
      this.#buttons(Boolean(chat.active), chat.active?.answer.state === "stopping");
      if (this.#following) this.#toEnd();
      else this.#onScroll();
    }

    #remove(message, bubble) {
      this.#bubbles.delete(message);
      bubble.node.remove();
    }

    #place(list, messages, retriable, offset) {
      messages.forEach((message, index) => {
        const bubble = this.#bubbles.get(message) ?? new Bubble(message, this.actions);
        this.#bubbles.set(message, bubble);
        bubble.draw(message === retriable);
        const there = list.children[index + offset];
        if (there !== bubble.node) list.insertBefore(bubble.node, there ?? null);
      });
    }

    #buttons(busy, stopping) {
      this.busy = busy;
      this.stop.hidden = !busy;
      this.stop.disabled = stopping;
      this.#onInput();
    }

    // -- scrolling

    #atEnd() {
      const { scrollHeight, scrollTop, clientHeight } = this.scroller;
      return scrollHeight - scrollTop - clientHeight < 56;
    }

    #onScroll() {
      this.#following = this.#empty || this.#atEnd();
      this.latest.hidden = this.#following;
    }

    #toEnd(focus = false) {
      this.scroller.scrollTop = this.#empty ? 0 : this.scroller.scrollHeight;
      this.#following = true;
      this.latest.hidden = true;
      if (focus) this.input.focus({ preventScroll: true });
    }

    // -- typing

    #onInput() {
      const text = this.input.value.trim();
      this.send.disabled = !text;
      this.send.hidden = this.busy && !text;
      this.input.style.blockSize = "44px";
      this.input.style.blockSize = `${Math.min(164, this.input.scrollHeight)}px`;
    }

    /** Enter sends, except inside an input method's composition, where it only accepts a word. */
    #onInputKey(event) {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.#submit();
    }

    #submit() {
      if (!this.input.value.trim()) return;
      if (!this.actions.send(this.input.value)) return;
      this.input.value = "";
      this.#onInput();
      this.input.focus({ preventScroll: true });
    }

    follow() {
      this.#following = true;
    }

    #onPanelKey(event) {
      if (event.key === "Escape" && !this.inline && !event.isComposing) {
        event.stopPropagation();
        this.actions.close();
      } else if (event.key === "Tab" && this.panel.hasAttribute("aria-modal")) {
        this.#trap(event);
      }
    }

    /** As a sheet over the whole screen nothing behind the panel may be reached. */
    #trap(event) {
      const stops = [...this.panel.querySelectorAll("button, textarea, a[href], [tabindex='0']")].filter((node) => !node.disabled && node.getClientRects().length);
      const here = this.root.getRootNode().activeElement;
      const [from, to] = event.shiftKey ? [stops[0], stops.at(-1)] : [stops.at(-1), stops[0]];
      if (here !== from) return;
      event.preventDefault();
      to.focus();
    }
  }

  // ---------------------------------------------------------------------------------------------- element

  class PenstockChat extends HTMLElement {
    static observedAttributes = ["data-theme", "data-color"];
    #options;
    #chat;
    #view;
    #gone;
    #opened = false;
    #frame = 0;
    #saving = 0;
    #parking = 0;
    #unread = 0;

    connectedCallback() {
      if (this.#view) return;
      this.#options = readOptions(this.dataset, HOME);
      this.#gone = new AbortController();
      const shadow = this.shadowRoot ?? this.attachShadow({ mode: "open" });
      dress(shadow);
      this.#view = new View(shadow, this.#options, this.hasAttribute("inline"), this.#actions());
      this.#chat = this.#newChat();
      this.#look();
      this.#listen();
      this.#draw();
      this.#start();
    }

    disconnectedCallback() {
      this.#gone.abort();
      this.#chat.link.close();
      this.#chat.save();
      cancelAnimationFrame(this.#frame);
      clearTimeout(this.#saving);
      clearTimeout(this.#parking);
      this.#view.destroy();
      this.#view = undefined;
    }

    attributeChangedCallback() {
      if (!this.#view) return;
      const { theme, color } = readOptions(this.dataset, HOME);
      Object.assign(this.#options, { theme, color });
      this.#look();
    }

    // -- what a page may call

    open() {
      this.#toggle(true, true);
    }

    close() {
      this.#toggle(false, true);
    }

    send(text) {
      if (!this.#chat.submit(text)) {
        this.#view.notice("Please wait until your earlier messages are sent.");
        return false;
      }
      this.#view.follow();
      return true;
    }

    restart() {
      const undo = this.#chat.restart();
      this.#view.notice("The conversation was cleared.", "Undo", undo);
    }

    // -- inside

    #actions() {
      return {
        toggle: () => this.#toggle(!this.#opened, true),
        close: () => this.close(),
        send: (text) => this.send(text),
        stop: () => this.#chat.stop(),
        retry: () => this.#chat.retry(),
        restart: () => this.restart(),
        reconnect: () => this.#chat.link.retry(),
        say: (text) => this.#view.say(text),
      };
    }

    #newChat() {
      const { server, title } = this.#options;
      const store = new Store(`${server}|${title}`);
      return new Chat(this.#options, store, {
        changed: () => this.#changed(),
        turn: (facts) => this.#onTurn(facts),
        state: (state, detail) => this.#onState(state, detail),
        notice: (text) => this.#view.notice(text),
        wanted: () => this.#wanted(),
      });
    }

    /** Whether a connection is worth having: somebody looks, or something waits, or an answer is under way. */
    #wanted() {
      const looking = this.#opened && !document.hidden;
      return looking || this.#chat.waiting > 0 || Boolean(this.#chat.active);
    }

    #start() {
      const { store } = this.#chat;
      const reopen = store.open && !SMALL.matches;
      if (this.hasAttribute("inline") || this.#options.open || reopen) this.#toggle(true, false);
    }

    #listen() {
      const { signal } = this.#gone;
      const on = (target, type, action) => target.addEventListener(type, action, { signal });
      on(DARK, "change", () => this.#look());
      on(SMALL, "change", () => this.#fit());
      on(window, "online", () => this.#chat.link.hurry());
      on(window, "pagehide", () => this.#chat.save());
      on(document, "visibilitychange", () => this.#wanted() && this.#chat.link.open());
      on(window, "storage", ({ key, newValue }) => key === this.#chat.store.key && this.#chat.adopt(newValue));
      on(document, "securitypolicyviolation", (event) => this.#onPolicy(event));
      if (window.visualViewport) on(window.visualViewport, "resize", () => this.#fit());
      if (window.visualViewport) on(window.visualViewport, "scroll", () => this.#fit());
    }

    #onPolicy({ effectiveDirective, blockedURI }) {
      const { server } = this.#options;
      if (effectiveDirective === "connect-src" && server?.startsWith(blockedURI.replace(/\/v1\/.*/, ""))) {
        this.#chat.link.refuse("The security policy of this page does not let the chat connect.");
      }
    }

    #look() {
      const { theme, color } = this.#options;
      this.#view.paint(theme === "auto" ? (DARK.matches ? "dark" : "light") : theme, color);
    }

    #fit() {
      const viewport = window.visualViewport ?? { height: window.innerHeight, offsetTop: 0 };
      this.#view.sheet(SMALL.matches && this.#opened ? viewport : null);
    }

    #toggle(opened, focus) {
      this.#opened = opened || this.hasAttribute("inline");
      this.#unread = 0;
      this.#view.show(this.#opened, focus);
      this.#fit();
      this.#chat.store.open = this.#opened;
      clearTimeout(this.#parking);
      if (this.#opened) this.#chat.link.open();
      else this.#parking = setTimeout(() => this.#park(), WAITS.parked);
    }

    #park() {
      if (this.#chat.active || this.#chat.waiting) this.#parking = setTimeout(() => this.#park(), WAITS.parked);
      else this.#chat.link.close();
    }

    #changed() {
      if (!this.#frame) this.#frame = requestAnimationFrame(() => this.#draw());
      if (!this.#saving) this.#saving = setTimeout(() => this.#save(), WAITS.save);
    }

    #draw() {
      this.#frame = 0;
      this.#view.draw(this.#chat);
    }

    #save() {
      this.#saving = 0;
      this.#chat.save();
    }

    #onState(state, detail) {
      this.#view.state(state, detail);
      this.#tellPage("state", { state });
    }

    #onTurn(facts) {
      if (facts.phase === "done" && !this.#opened) this.#view.unread((this.#unread += 1));
      if (facts.phase === "asked") this.#view.say("Writing an answer…");
      this.#tellPage("turn", facts);
    }

    #tellPage(name, detail) {
      this.dispatchEvent(new CustomEvent(`penstock:${name}`, { detail, bubbles: true, composed: true }));
    }
  }

  const DARK = matchMedia("(prefers-color-scheme: dark)");
  const SMALL = matchMedia("(max-width: 520px), (max-height: 460px)");
  const HOME = SCRIPT?.src ? new URL(SCRIPT.src).origin : location.origin;

  /** The element that data-target names, or null where the widget is to float. */
  function findTarget(selector, complain = true) {
    if (!selector) return null;
    try {
      const target = document.querySelector(selector);
      if (target) return target;
    } catch {
      // Not a selector at all: told below, as one that finds nothing.
    }
    if (complain) console.warn(`[${TAG}] data-target="${selector}" is not on this page; the chat floats in a corner.`);
    return null;
  }

  function mount(target) {
    const chat = document.createElement(TAG);
    Object.assign(chat.dataset, SCRIPT.dataset);
    chat.toggleAttribute("inline", Boolean(target));
    (target ?? document.body).append(chat);
  }

  /** A target that stands above the script is filled at once, before the page is painted. */
  function mountWhenParsed() {
    const { target } = SCRIPT.dataset;
    const early = document.readyState === "loading";
    if (!early || findTarget(target, false)) mount(findTarget(target));
    else document.addEventListener("DOMContentLoaded", () => mount(findTarget(target)), { once: true });
  }

  customElements.define(TAG, PenstockChat);
  if (SCRIPT && !("manual" in SCRIPT.dataset)) {
    mountWhenParsed();
  }
})();
