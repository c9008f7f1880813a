/** What the page shows of its state: the line under the name, the button, and which of the tools are there. */

import { clock } from "./words.js";

export class View {
  #find;
  #facts = () => ({});
  #drawn = true;

  /** `find(id)` gives the page's elements, `facts()` what is to be shown: see `#draw`. */
  constructor(find, facts) {
    [this.#find, this.#facts] = [find, facts];
  }

  /** Show how things are, with the next picture. */
  show() {
    if (!this.#drawn) return;
    this.#drawn = false;
    requestAnimationFrame(() => this.#draw(this.#facts()));
  }

  #draw(facts) {
    this.#drawn = true;
    const { ears, conversation } = facts;
    const [mic, label] = microphone(facts);
    const [state, words] = line(facts);
    this.#find("mic").dataset.mic = mic;
    this.#find("mic").disabled = mic === "opening";
    this.#find("end").hidden = !ears.open;
    this.#find("stop").hidden = !conversation.speaking && !conversation.active;
    this.#find("playing").hidden = !ears.streaming && !ears.reading;
    this.#find("empty").hidden = conversation.entries.length > 0;
    this.#find("state").dataset.state = state;
    this.#put("mic-label", label);
    this.#put("state-words", words);
    this.#drawProgress(ears);
  }

  #drawProgress({ streaming, reading, progress: { played, all } }) {
    if (!streaming && !reading) return;
    this.#find("playing-at").value = streaming ? played / all : 0;
    this.#put("playing-clock", streaming ? `${clock(played)} / ${clock(all)}` : "Reading it…");
  }

  #put(id, text) {
    if (this.#find(id).textContent !== text) this.#find(id).textContent = text;
  }
}

/** The button's look and its label: what a press does. */
function microphone({ opening, ears, mode, button }) {
  if (opening) return ["opening", "Allow it…"];
  if (!ears.open) return ["off", "Start"];
  if (mode === "free") return ears.muted ? ["muted", "Unmute"] : ["on", "Mute"];
  if (!button.down) return ["ready", "Hold to talk"];
  return ["talking", button.latched ? "Tap to send" : "Release to send"];
}

/** The line under the name: first how the connection is, then who speaks. */
function line({ state, until, conversation, ears, mode }) {
  const seconds = Math.max(0, Math.ceil((until - Date.now()) / 1000));
  if (state === "connecting") return [state, "Connecting…"];
  if (state === "waiting") return [state, seconds ? `No connection. Next try in ${seconds} s` : "Reconnecting…"];
  if (state === "refused") return [state, "Not available"];
  if (conversation.open?.state === "speaking") return ["listening", "Hearing you"];
  if (conversation.speaking) return ["speaking", "Speaking"];
  if (conversation.active || conversation.open) return [state, "Thinking…"];
  if (ears.open && mode === "free" && !ears.muted) return ["listening", "Listening"];
  return [state, state === "ready" ? "Connected" : "Ready when you are"];
}
