/**
 * The button that is held while one talks, by pointer, Space or Enter. Pressed briefly it stays down until it is
 * pressed again, for whoever cannot hold it; Escape discards. Hands-free it is an ordinary button.
 */

const HOLD_MS = 300;
const OTHERS = "input:not([type=radio]), textarea, select, button, a, summary, [contenteditable]"; // where the keys have a meaning of their own

/** `hooks.holds()`: whether it is to be held; `.press()` (false: not now), `.release()`, `.discard()`, `.click()`. */
export class Button {
  #node;
  #hooks;
  #since = 0; // of this press
  #ours = false; // the click that follows was dealt with
  down = false;
  latched = false;

  constructor(node, hooks) {
    [this.#node, this.#hooks] = [node, hooks];
    node.addEventListener("pointerdown", (event) => this.#onPointer(event));
    node.addEventListener("pointerup", () => this.#up());
    node.addEventListener("pointercancel", () => this.#up());
    node.addEventListener("contextmenu", (event) => this.#hooks.holds() && event.preventDefault()); // of a long touch
    node.addEventListener("click", () => this.#onClick());
    document.addEventListener("keydown", (event) => this.#onKey(event));
    document.addEventListener("keyup", (event) => this.#isOurs(event) && this.#up());
    addEventListener("blur", () => this.down && !this.latched && this.#end("release"));
  }

  /** It is over, for another reason. */
  reset() {
    this.down = this.latched = false;
  }

  #onPointer(event) {
    if (!this.#hooks.holds() || event.button !== 0) return;
    this.#node.setPointerCapture(event.pointerId);
    this.#ours = true;
    this.#press();
  }

  #onKey(event) {
    if (event.key === "Escape" && this.down) return this.#end("discard");
    if (!this.#isOurs(event) || !this.#hooks.holds()) return undefined;
    event.preventDefault(); // no scrolling, and no click
    return event.repeat ? undefined : this.#press();
  }

  #isOurs({ key, target }) {
    if (key !== " " && key !== "Enter") return false;
    return target === this.#node || (key === " " && !target.closest?.(OTHERS));
  }

  #press() {
    if (this.down) return this.#end("release"); // it was latched
    this.#since = performance.now();
    this.down = this.#hooks.press();
    return undefined;
  }

  /** Let go: after a long press it is over, after a brief one it stays down. */
  #up() {
    if (!this.down || this.latched) return;
    if (performance.now() - this.#since > HOLD_MS) this.#end("release");
    else this.#latch();
  }

  #latch() {
    this.latched = true;
    this.#hooks.latched();
  }

  #end(how) {
    this.reset();
    this.#hooks[how]();
  }

  /** A click that no pointer and no key has made comes from a screen reader or the like: it toggles. */
  #onClick() {
    const dealt = this.#ours;
    this.#ours = false;
    if (!this.#hooks.holds()) return this.#hooks.click();
    if (dealt) return undefined;
    this.#press();
    return this.down ? this.#latch() : undefined;
  }
}
