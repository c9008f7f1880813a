/** What went wrong, above the dock: one thing at a time, with what can be done about it. */
export class Banner {
  #find;
  #retry = null;
  #key = null;
  topic = "";

  constructor(find) {
    this.#find = find;
    find("dismiss").addEventListener("click", () => this.clear());
    find("retry").addEventListener("click", () => this.#again());
    find("key-form").addEventListener("submit", (event) => this.#onKey(event));
  }

  /** Show `text` about `topic` (what it replaces or is cleared by), with Try again if `retry` can, or asking for a `key`. */
  show(topic, text, { retry = null, key = null, error = false } = {}) {
    [this.topic, this.#retry, this.#key] = [topic, retry, key];
    this.#find("banner-text").textContent = text;
    this.#find("retry").hidden = !retry;
    this.#find("key-form").hidden = !key;
    this.#find("banner").dataset.kind = error ? "error" : "notice";
    this.#find("banner").hidden = false;
  }

  /** Clear what is said about `topic`, or all. */
  clear(topic = this.topic) {
    if (topic !== this.topic) return;
    this.topic = "";
    this.#find("banner").hidden = true;
  }

  #again() {
    const retry = this.#retry;
    this.clear();
    retry?.();
  }

  #onKey(event) {
    event.preventDefault();
    const key = this.#find("key").value.trim();
    const use = this.#key;
    this.#find("key").value = "";
    this.clear();
    use?.(key);
  }
}
