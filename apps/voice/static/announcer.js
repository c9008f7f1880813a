/** Tells a screen reader what is not to be heard anyway: what was understood, written answers, how the line is. */
export class Announcer {
  #node;
  #told = new WeakMap(); // entry → its state when it was last told

  constructor(node) {
    this.#node = node;
  }

  say(text) {
    this.#node.textContent = text;
  }

  /** Tell what is new in the last entries of the conversation. */
  follow(entries) {
    for (const entry of entries.slice(-4)) {
      if (this.#told.get(entry) === entry.state) continue;
      this.#told.set(entry, entry.state);
      const news = newsOf(entry);
      if (news) this.say(news);
    }
  }
}

function newsOf({ role, state, text, note, audio, typed }) {
  if (state === "failed") return note;
  if (role === "user") return state === "final" && !typed ? `You said: ${text}` : "";
  if (state === "cut") return "Interrupted";
  return state === "done" && !audio ? `Answer: ${text}` : "";
}
