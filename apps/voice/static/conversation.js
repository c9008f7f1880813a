/**
 * What was said, as the server's events tell it, and how much of each answer was heard. Asks for nothing, plays nothing.
 *
 * Entries, in order: { id, role, text, state, note, … }. A user's goes speaking → hearing → final, or failed, or empty
 * (no words were in it); a typed one queued → final. An answer goes waiting → writing → done, or cut, incomplete,
 * failed; it is `speaking` besides while it is being played.
 */

import { RATE } from "./pcm.js";
import { aboutError, aboutIncomplete } from "./words.js";

const CHARACTERS_PER_S = 14; // of speech, until it is known how long the answer's is
const SHOWN = 200;
const ENDED = new Set(["final", "done", "cut", "incomplete"]);

const user = (fields) => ({ role: "user", id: null, text: "", state: "speaking", note: "", ...fields });

const answer = (response) => ({
  role: "assistant",
  id: null,
  response,
  text: "",
  state: "waiting",
  note: "",
  audio: false, // it has sound
  whole: false, // all its sound has come
  received: 0, // samples
  played: 0,
  marks: [], // [characters, ms] pairs, from the server
  kept: null, // characters that the server remembers of it
  silenced: false, // what comes of its sound is not to be played any more
  speaking: false,
});

/** Characters of an answer that were heard, up to the end of a word. */
export function heard(entry) {
  if (entry.kept !== null) return entry.kept;
  if (!entry.audio || playedOut(entry)) return entry.text.length;
  return entry.marks.length ? marked(entry) : estimated(entry);
}

const playedOut = ({ whole, played, received }) => whole && played >= received;

function marked({ marks, played, text }) {
  const ms = (played * 1000) / RATE;
  const passed = marks.findLast(([, at]) => at <= ms);
  return Math.min(text.length, passed?.[0] ?? 0);
}

/** Without marks the text is spread evenly over the sound. */
function estimated({ text, whole, received, played }) {
  const each = whole && text ? received / text.length : RATE / CHARACTERS_PER_S;
  const place = Math.floor(played / each);
  if (place >= text.length) return text.length;
  return Math.max(0, text.lastIndexOf(" ", place));
}

export class Conversation {
  entries = [];
  active = null; // the response under way
  #changed;

  constructor(changed) {
    this.#changed = changed;
  }

  find(id) {
    return this.entries.find((entry) => entry.id === id && id !== null);
  }

  /** The turn that is being spoken, or whose words are awaited. */
  get open() {
    return this.entries.findLast(({ state }) => state === "speaking" || state === "hearing");
  }

  get speaking() {
    return this.entries.some(({ speaking }) => speaking);
  }

  /** A typed line. */
  typed(id, text) {
    return this.#add(user({ id, text, state: "queued", typed: true }));
  }

  /** Somebody holds the button: a turn whose id the server will choose. */
  pressed() {
    return this.#add(user({ holding: true }));
  }

  set(entry, fields) {
    Object.assign(entry, fields);
    this.#changed();
  }

  drop(entry) {
    this.entries = this.entries.filter((one) => one !== entry);
    this.#changed();
  }

  /** Take in an event of the server. */
  hear(event) {
    const { type, item_id: id, item, response } = event;
    const handlers = {
      "input_audio_buffer.speech_started": () => this.#turn(id),
      "input_audio_buffer.speech_stopped": () => this.#awaits(id),
      "input_audio_buffer.committed": () => this.#awaits(id),
      "conversation.item.input_audio_transcription.delta": () => this.#onWords(this.#turn(id), event.delta),
      "conversation.item.input_audio_transcription.completed": () => this.#onFinal(this.#turn(id), event.transcript),
      "conversation.item.input_audio_transcription.failed": () => this.#onUnknown(this.#turn(id), event.error),
      "conversation.item.truncated": () => this.#onRemembered(id, event.transcript),
      "conversation.item.retrieved": () => this.#onRemembered(item?.id, item?.content?.[0]?.transcript),
      "response.created": () => this.#onCreated(response),
      "response.output_item.added": () => this.#onItem(event.response_id, item),
      "response.output_audio.done": () => this.#onSoundEnd(id),
      "response.output_audio_transcript.delta": () => this.#onText(id, (text) => text + event.delta, true),
      "response.output_audio_transcript.done": () => this.#onText(id, () => event.transcript),
      "response.output_text.delta": () => this.#onText(id, (text) => text + event.delta),
      "response.output_text.done": () => this.#onText(id, () => event.text),
      "response.done": () => this.#onDone(response),
    };
    if (!Object.hasOwn(handlers, type)) return;
    handlers[type]();
    this.#changed();
  }

  /** So many more samples of an answer have come. */
  received(entry, samples, marks) {
    entry.audio = true;
    entry.received += samples;
    for (const mark of marks ?? []) if (mark[1] > (entry.marks.at(-1)?.[1] ?? -1)) entry.marks.push(mark);
  }

  /** So many samples of an answer were played. */
  played(entry, samples) {
    if (entry.silenced) return;
    const before = heard(entry);
    entry.played = samples;
    if (heard(entry) !== before) this.#changed();
  }

  /** Nothing more of any answer is to be heard; returns those of which something may still have come. */
  silence() {
    const silenced = this.entries.filter((entry) => entry.role === "assistant" && !entry.silenced && this.#sounds(entry));
    for (const entry of silenced) Object.assign(entry, { silenced: true, speaking: false });
    return silenced;
  }

  #sounds(entry) {
    return entry.response === this.active || (entry.audio && !playedOut(entry));
  }

  /** An answer was silenced: returns whether some of it was not heard, which the server is to forget. */
  cut(entry) {
    const unheard = Boolean(entry.audio && entry.id) && !playedOut(entry);
    if (unheard && entry.state === "done") entry.state = "cut";
    this.#changed();
    return unheard;
  }

  /** What is under way comes to nothing: its session is gone. */
  lost() {
    this.active = null;
    for (const entry of this.entries) {
      if (entry.state === "waiting") entry.state = "failed";
      else if (entry.state === "writing") entry.state = "cut";
      else if (entry.state === "speaking" || entry.state === "hearing") entry.state = "failed";
      else continue;
      entry.note = "Lost with the connection.";
    }
    this.#changed();
  }

  /** What a new session has to be told: [{ id, role, text }]; of answers as much as was heard. */
  history(most) {
    const said = this.entries.filter(({ state, text, id }) => ENDED.has(state) && text && id);
    const told = said.map((entry) => ({ ...entry, text: entry.role === "user" ? entry.text : entry.text.slice(0, heard(entry)) }));
    return told.filter(({ text }) => text.trim()).slice(-most);
  }

  #add(entry) {
    this.entries.push(entry);
    this.entries.splice(0, this.entries.length - SHOWN);
    this.#changed();
    return entry;
  }

  // -- a user's turn

  /** The turn `id`; the one of the button has no id yet, and takes the first that comes. */
  #turn(id) {
    const known = this.find(id);
    if (known) return known;
    const pressed = this.entries.find((entry) => entry.role === "user" && entry.id === null && !entry.holding);
    if (!pressed) return this.#add(user({ id }));
    pressed.id = id;
    return pressed;
  }

  #awaits(id) {
    const entry = this.#turn(id);
    if (entry.state === "speaking") entry.state = "hearing";
  }

  #onWords(entry, delta) {
    if (entry.state === "speaking" || entry.state === "hearing") entry.text += delta ?? "";
  }

  #onFinal(entry, transcript) {
    const text = (transcript ?? "").trim();
    Object.assign(entry, { text, state: text ? "final" : "empty", note: "" });
  }

  #onUnknown(entry, error) {
    Object.assign(entry, { state: "failed", note: aboutError(error) });
  }

  // -- an answer

  #onCreated({ id }) {
    this.active = id;
    this.entries.push(answer(id));
  }

  /** The first item of a response goes into the entry that waits for it. */
  #onItem(response, item) {
    if (item?.type !== "message" || this.find(item.id)) return;
    const waiting = this.entries.find((entry) => entry.response === response && entry.id === null);
    const entry = waiting ?? this.#add(answer(response));
    entry.id = item.id;
  }

  #onSoundEnd(id) {
    const entry = this.find(id);
    if (entry && !entry.silenced) entry.whole = true;
  }

  #onText(id, change, audio = false) {
    const entry = this.find(id);
    if (!entry || entry.kept !== null) return;
    const text = change(entry.text);
    if (typeof text !== "string") return;
    entry.text = text;
    entry.audio ||= audio;
    if (entry.state === "waiting") entry.state = "writing";
  }

  #onDone({ id, status, status_details: details }) {
    if (this.active === id) this.active = null;
    for (const entry of this.entries.filter(({ response }) => response === id)) {
      entry.whole ||= !entry.silenced;
      if (status === "failed") Object.assign(entry, { state: "failed", note: aboutError(details?.error) });
      else if (status === "incomplete") Object.assign(entry, { state: "incomplete", note: aboutIncomplete(details?.reason) });
      else entry.state = status === "cancelled" ? "cut" : "done";
    }
    this.entries = this.entries.filter((entry) => entry.response !== id || entry.text || entry.state !== "cut");
  }

  /** What the server remembers of an answer that was cut. */
  #onRemembered(id, text) {
    const entry = this.find(id);
    if (entry?.silenced && typeof text === "string" && entry.text.startsWith(text)) entry.kept = text.length;
  }
}
