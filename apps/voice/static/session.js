/**
 * A voice session: what is asked of the server, and what is done when it speaks. Puts sound on the line, answers into
 * the loudspeaker, and takes both back when somebody cuts in. Knows nothing of the page, which is told with
 * `hooks.state(state, detail)`, `.changed()`, `.notice(text)`, `.deaf(text)`, `.flow(flow, seconds)`, `.turn(begins, at)`,
 * `.silenced(ms)` and `.loudness(rms, at)` of what is being played.
 */

import { DEFAULTS, PADDING_MS, configuration, item as toItem, pause } from "./config.js";
import { Conversation } from "./conversation.js";
import { Link } from "./link.js";
import { RATE, fromBase64, fromPCM16 } from "./pcm.js";
import { Playback } from "./playback.js";
import { Requests, newId } from "./requests.js";
import { Talking } from "./talking.js";
import { Clock } from "./timing.js";
import { Uplink } from "./uplink.js";
import { DEAF, DUMB, UNHEARD, aboutError } from "./words.js";

const ANSWER_MS = 20_000; // something was asked → any event
const TOLD = 30; // entries that a new server session is told
const QUEUED = 5; // lines that wait for the connection, or for the end of an answer
const QUIET = new Set(["response_cancel_not_active", "session_expired"]); // errors that nobody need know of

export class Session {
  options = { ...DEFAULTS };
  #link;
  #uplink;
  #clock = new Clock();
  #measures;
  #hooks;
  #requests;
  #queue = []; // entries of lines, or null for an answer to what was spoken
  #asked = false; // a response was asked for, and has not begun
  #talking;
  #dumb = false; // the server does not speak, and that was said
  #watchdog = 0;

  constructor(url, key, measures, hooks) {
    [this.#measures, this.#hooks] = [measures, hooks];
    this.conversation = new Conversation(hooks.changed);
    this.playback = new Playback({
      begun: (item, at) => this.#onPlaying(item, at),
      played: (item, count, loudness, at) => this.#onPlayed(item, count, loudness, at),
      ended: (item) => this.#onPlayedOut(item),
    });
    this.#link = new Link(url, key, {
      state: (state, detail) => this.#onState(state, detail),
      ready: () => this.#onReady(),
      event: (event) => this.#onEvent(event),
      resumed: () => this.#onResumed(),
      lost: () => this.#onLost(),
    });
    this.#requests = new Requests(this.#link);
    this.#talking = new Talking(this.conversation, this.#requests);
    this.#uplink = new Uplink(this.#link, this.#clock, { flow: hooks.flow, unheard: () => hooks.notice(UNHEARD) });
  }

  get state() {
    return this.#link.state;
  }

  get talking() {
    return this.#talking.on;
  }

  open() {
    this.#link.open();
  }

  /** Go on with another API key. */
  use(key) {
    this.#link.key = key;
    this.#link.open();
  }

  configure(options) {
    Object.assign(this.options, options);
    if (this.state === "ready") this.#configure();
  }

  // -- speaking to it

  /** Send samples, heard at `at`; false where they cannot be taken. Of push-to-talk only what is said into the button. */
  hear(samples, at = performance.now()) {
    if (this.options.mode === "push" && !this.talking) return this.#uplink.flows();
    if (!this.#uplink.send(samples, at)) return false;
    if (this.talking) this.#talking.heard(samples.length);
    else if (!this.conversation.open) this.#uplink.expect(samples);
    return true;
  }

  /** The button is pressed: what comes now is a turn. False where that cannot be. */
  press() {
    if (this.talking || this.state !== "ready") return false;
    this.interrupt();
    this.#talking.press();
    return true;
  }

  /** The button is released: the turn is over. False where it was discarded, or too short to be one. */
  release(discarded = false) {
    const sent = this.#talking.release(discarded);
    if (!sent) return false;
    this.#measures.ended({ end: performance.now() });
    this.#queue.push(null);
    this.#pump();
    return true;
  }

  /** A typed line; false when no more can wait. */
  say(text) {
    if (this.#queue.length >= QUEUED) return false;
    this.interrupt();
    this.#queue.push(this.conversation.typed(newId("item"), text));
    this.#link.open();
    this.#pump();
    return true;
  }

  /** Be silent, and leave the answer under way. */
  interrupt() {
    const { active } = this.conversation;
    if (active) this.#requests.send("response.cancel", { response_id: active });
    return this.#silence();
  }

  /** Stop playing, and tell the server how far each answer was heard. Returns when something fell silent, or null. */
  async #silence() {
    const silenced = this.conversation.silence();
    const { at, cut } = await this.playback.flush();
    for (const entry of silenced) {
      entry.played = cut.find(({ item }) => item === entry.id)?.played ?? entry.played;
      if (this.conversation.cut(entry)) this.#truncate(entry);
    }
    return cut.some(({ played }) => played > 0) ? at : null;
  }

  #truncate({ id, played }) {
    this.#requests.send("conversation.item.truncate", { item_id: id, content_index: 0, audio_end_ms: Math.floor((played * 1000) / RATE) });
  }

  // -- asking

  #configure() {
    this.#requests.send("session.update", { session: configuration(this.options) });
  }

  /** Ask for what waits longest, once the line is free. */
  #pump() {
    if (!this.#queue.length || this.#asked || this.conversation.active || this.state !== "ready") return;
    const line = this.#queue.shift();
    if (line) this.#tell(line);
    this.#asked = true;
    this.#requests.send("response.create", {}, (error) => this.#onRefused(error, line));
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.state === "ready" && this.#link.reconnect(), ANSWER_MS); // it may have died unseen
  }

  #tell(line) {
    this.#requests.send("conversation.item.create", { item: toItem(line) }, (error) => this.#onRefused(error, line));
    this.conversation.set(line, { state: "final" });
    this.#measures.ended({ item: line.id, end: performance.now(), typed: true });
  }

  #onRefused(error, line) {
    this.#asked = false;
    if (line) this.conversation.set(line, { state: "failed", note: aboutError(error) });
    else this.#hooks.notice(aboutError(error));
    this.#pump();
  }

  // -- the connection

  #onState(state, detail) {
    clearTimeout(this.#watchdog);
    this.#clock.doubt();
    if (state !== "ready") this.release(true);
    this.#hooks.state(state, detail);
  }

  #onReady() {
    this.#clock.restart();
    this.#requests.restart();
    this.#asked = false;
    this.#configure();
    for (const entry of this.conversation.history(TOLD)) this.#requests.send("conversation.item.create", { item: toItem(entry) });
    this.#pump();
  }

  #onResumed() {
    this.#requests.again();
    this.#pump();
  }

  #onLost() {
    for (const { id } of this.conversation.entries) this.playback.end(id);
    this.conversation.lost();
  }

  // -- hearing it

  #onEvent(event) {
    clearTimeout(this.#watchdog);
    this.conversation.hear(event);
    const handlers = {
      "session.updated": () => this.#onConfigured(event.session),
      "input_audio_buffer.speech_started": () => this.#onSpeech(event),
      "input_audio_buffer.speech_stopped": () => this.#onSpeechEnd(event),
      "input_audio_buffer.committed": () => this.#measures.named(event.item_id),
      "conversation.item.input_audio_transcription.completed": () => this.#measures.step("final", { item: event.item_id }),
      "conversation.item.truncated": () => this.#onTruncated(event),
      "response.created": () => this.#onBegun(event.response),
      "response.output_text.delta": () => this.#onWord(event.response_id, true),
      "response.output_audio_transcript.delta": () => this.#onWord(event.response_id),
      "response.output_audio.delta": () => this.#onSound(event),
      "response.output_audio.done": () => this.playback.end(event.item_id),
      "response.done": () => this.#onDone(event.response),
      error: () => this.#onError(event.error ?? {}),
    };
    if (Object.hasOwn(handlers, event.type)) handlers[event.type]();
  }

  #onConfigured(session) {
    const modalities = session?.output_modalities ?? [this.options.reply];
    const dumb = this.options.reply === "audio" && !modalities.includes("audio");
    if (dumb && !this.#dumb) this.#hooks.notice(DUMB);
    this.#dumb = dumb;
  }

  /** Somebody cuts in. Measured from the first sample of that speech, if it is known when that was, until silence. */
  async #onSpeech({ audio_start_ms: start }) {
    this.#uplink.answered();
    const from = this.#clock.when(start + PADDING_MS);
    this.#hooks.turn(true, from ?? performance.now());
    const silent = await this.#silence();
    if (silent !== null && from !== null) this.#hooks.silenced(Math.max(0, silent - from));
  }

  #onSpeechEnd({ item_id: item, audio_end_ms: end }) {
    const at = this.#clock.when(end) ?? performance.now();
    this.#hooks.turn(false, at);
    this.#measures.ended({ item, end: at, pause: pause(this.options) });
  }

  /** Our gateway says what it remembers of the answer; another server has to be asked. */
  #onTruncated({ item_id, transcript }) {
    if (typeof transcript !== "string") this.#requests.send("conversation.item.retrieve", { item_id });
  }

  #onBegun(response) {
    this.#asked = false;
    this.#requests.answered();
    this.#measures.answered(response.id);
  }

  #onWord(response, written = false) {
    if (written) this.#measures.written(response);
    this.#measures.step("word", { response });
  }

  #onSound({ item_id: id, delta, marks }) {
    const entry = this.conversation.find(id);
    if (!entry || entry.silenced) return;
    const samples = fromPCM16(fromBase64(delta));
    this.conversation.received(entry, samples.length, marks);
    this.playback.add(id, samples);
  }

  #onDone({ id }) {
    for (const entry of this.conversation.entries) if (entry.response === id) this.playback.end(entry.id);
    this.#pump();
  }

  #onError(error) {
    const ours = this.#requests.refused(error);
    if (aboutError(error) === DEAF) this.#hooks.deaf(DEAF);
    else if (!ours && !QUIET.has(error.code)) this.#hooks.notice(aboutError(error));
  }

  // -- the loudspeaker

  #onPlaying(item, at) {
    const entry = this.conversation.find(item);
    if (!entry) return;
    this.conversation.set(entry, { speaking: true });
    this.#measures.step("sound", { response: entry.response }, at);
  }

  #onPlayed(item, played, loudness, at) {
    const entry = this.conversation.find(item);
    this.#hooks.loudness(loudness, at);
    if (entry) this.conversation.played(entry, played);
  }

  #onPlayedOut(item) {
    const entry = this.conversation.find(item);
    if (entry) this.conversation.set(entry, { speaking: false });
  }
}
