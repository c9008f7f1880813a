/** The voice page: puts the parts together. What is said is in `session.js`, what is seen in `transcript.js`. */

import { Announcer } from "./announcer.js";
import { Banner } from "./banner.js";
import { Button } from "./button.js";
import { devices } from "./capture.js";
import { realtimeAddress } from "./config.js";
import { Ears } from "./ears.js";
import { takeDrops } from "./file.js";
import { Gauges } from "./gauges.js";
import { storedKey } from "./key.js";
import { perceived } from "./pcm.js";
import { Scope } from "./scope.js";
import { Session } from "./session.js";
import { Measures } from "./timing.js";
import { Transcript } from "./transcript.js";
import { View } from "./view.js";
import { DEAF, MUTE, aboutFile, aboutMicrophone } from "./words.js";

const QUIET_MS = 9_000; // after which the strip, now empty, need not move
const LONGEST_TAIL_S = 9; // of silence after a file, for a turn to end
const LEAST = 0.03; // change of the loudness that is worth painting
const find = (id) => document.getElementById(id);

class Page {
  #mode = "free";
  #opening = false;
  #soundAt = 0; // when anything was to be seen on the strip
  #level = 0; // of the microphone, 0 to 1
  #until = 0; // of the next attempt to connect

  constructor() {
    this.banner = new Banner(find);
    this.announcer = new Announcer(find("say"));
    this.view = new View(find, () => this.#facts());
    this.gauges = new Gauges(find);
    this.transcript = new Transcript(find("turns"), find("scroll"));
    this.scope = new Scope(find("scope"), matchMedia("(prefers-reduced-motion: reduce)"));
    this.ears = new Ears({
      frame: (samples, at) => this.#onFrame(samples, at),
      level: (rms, at) => this.#onLevel(rms, at),
      lost: () => this.#onMicrophoneLost(),
      tail: (seconds) => this.#tail(seconds),
      ended: () => this.#onFileEnd(),
    });
    this.session = new Session(realtimeAddress(location.href), storedKey(), new Measures((exchange) => this.gauges.show(exchange)), {
      state: (state, detail) => this.#onState(state, detail),
      changed: () => this.#onChanged(),
      notice: (text) => this.banner.show("server", text),
      deaf: () => this.#onDeaf(),
      flow: (flow, seconds) => this.#onFlow(flow, seconds),
      turn: (begins, at) => this.scope.mark(begins, at),
      silenced: (ms) => this.gauges.silenced(ms),
      loudness: (rms, at) => this.#onPlayedLoudness(rms, at),
    });
    this.button = new Button(find("mic"), {
      holds: () => this.#mode === "push" && this.ears.open,
      press: () => this.#press(),
      latched: () => this.view.show(),
      release: () => this.#release(),
      discard: () => this.#release(true),
      click: () => this.#onMic(),
    });
    this.#listen();
    this.view.show();
    setInterval(() => this.#tick(), 250);
  }

  #listen() {
    const on = (id, type, action) => find(id).addEventListener(type, action);
    on("stop", "click", () => this.session.interrupt());
    on("end", "click", () => this.#endMicrophone());
    on("pick", "click", () => find("file").click());
    on("file", "change", ({ target }) => this.#onPicked(target));
    on("playing-stop", "click", () => this.#stopFile());
    on("line", "submit", (event) => this.#onLine(event));
    on("ends", "change", ({ target }) => this.session.configure({ ends: target.value }));
    on("reply", "change", ({ target }) => this.session.configure({ reply: target.value }));
    on("device", "change", ({ target }) => this.ears.open && this.#startMicrophone(target.value));
    for (const radio of document.getElementsByName("mode")) radio.addEventListener("change", () => this.#onMode(radio.value));
    document.addEventListener("keydown", (event) => this.#onKey(event));
    for (const type of ["pointerdown", "keydown"]) addEventListener(type, () => this.#wake(), true);
    addEventListener("online", () => this.session.state === "waiting" && this.session.open());
    document.addEventListener("click", ({ target }) => find("settings").contains(target) || (find("settings").open = false));
    takeDrops(find("talk"), (file) => this.#stream(file));
  }

  // -- the microphone

  #onMic() {
    if (!this.ears.open) return this.#startMicrophone(find("device").value);
    this.ears.muted = !this.ears.muted;
    this.announcer.say(this.ears.muted ? "Muted" : "Listening");
    return this.view.show();
  }

  async #startMicrophone(device) {
    if (this.#opening) return;
    this.#opening = true;
    this.banner.clear();
    this.view.show();
    this.#openSound();
    this.session.open();
    try {
      await this.ears.listen(device);
      this.announcer.say(this.#mode === "push" ? "The microphone is on. Hold the button, or Space, to talk." : "Listening");
      this.#listDevices();
    } catch (error) {
      this.banner.show("microphone", aboutMicrophone(error.code), { error: true, retry: () => this.#startMicrophone(device) });
    }
    this.#opening = false;
    this.view.show();
  }

  async #openSound() {
    const sounds = await this.session.playback.open().catch(() => false);
    if (!sounds) this.banner.show("sound", MUTE);
  }

  #wake() {
    this.session.playback.wake();
    this.banner.clear("sound");
  }

  async #endMicrophone() {
    this.session.release(true);
    this.button.reset();
    await this.ears.close();
    this.view.show();
  }

  #onMicrophoneLost() {
    this.#endMicrophone();
    this.banner.show("microphone", aboutMicrophone("lost"), { error: true, retry: () => this.#startMicrophone("") });
  }

  /** Devices have names once one of them may be used. */
  async #listDevices() {
    const options = (await devices()).map(({ id, label }, n) => new Option(label || `Microphone ${n + 1}`, id));
    find("device").replaceChildren(new Option("the browser’s choice", ""), ...options);
    if (options.some(({ value }) => value === this.ears.device)) find("device").value = this.ears.device;
  }

  #onFrame(samples, at) {
    if (this.#mode === "push" && this.ears.streaming && !this.session.talking && !this.session.press()) return false;
    return this.session.hear(samples, at);
  }

  #onLevel(rms, at) {
    this.scope.heard(rms, at);
    this.#soundAt = at;
    const level = perceived(rms);
    this.scope.start();
    if (Math.abs(level - this.#level) < LEAST && level) return;
    this.#level = level;
    find("mic").style.setProperty("--loud", level.toFixed(2));
  }

  #onPlayedLoudness(rms, at) {
    this.scope.played(rms, at);
    this.#soundAt = at;
  }

  // -- push to talk

  #onMode(mode) {
    this.session.release(true);
    this.button.reset();
    this.#mode = mode;
    this.ears.muted = false;
    this.session.configure({ mode });
    this.view.show();
  }

  #press() {
    const pressed = !this.ears.streaming && this.session.press();
    if (pressed) this.scope.mark(true);
    this.view.show();
    return pressed;
  }

  #release(discarded = false) {
    const sent = this.session.release(discarded);
    this.scope.mark(false);
    if (!sent) this.announcer.say("Discarded");
    this.view.show();
  }

  #onKey(event) {
    if (event.key !== "Escape" || this.session.talking) return;
    if (find("settings").open) this.#closeSettings();
    else this.session.interrupt();
  }

  #closeSettings() {
    const within = find("settings").contains(document.activeElement);
    find("settings").open = false;
    if (within) find("settings").querySelector("summary").focus();
  }

  // -- a file

  #onPicked(input) {
    const [file] = input.files;
    input.value = "";
    if (file) this.#stream(file);
  }

  async #stream(file) {
    this.banner.clear();
    this.#openSound();
    this.session.open();
    find("playing-name").textContent = file.name;
    const begun = this.ears.stream(file);
    this.view.show();
    await begun.catch((error) => this.banner.show("file", aboutFile(error.code), { error: true }));
    this.view.show();
  }

  #stopFile() {
    this.ears.stopFile();
    this.view.show();
  }

  /** Whether the silence after a file goes on: as long as its last turn has not ended. */
  #tail(seconds) {
    if (this.#mode === "push" || seconds > LONGEST_TAIL_S) return false;
    return seconds < 1 || this.session.conversation.open?.state === "speaking";
  }

  #onFileEnd() {
    if (this.#mode === "push") this.session.release();
    this.view.show();
  }

  // -- typing

  #onLine(event) {
    event.preventDefault();
    const text = find("text").value.trim();
    if (!text) return;
    this.#openSound();
    if (this.session.say(text)) find("text").value = "";
    else this.banner.show("server", "Your last lines still wait to be sent.");
  }

  // -- what the session tells

  #onState(state, { at = 0, reason = "", key = false }) {
    this.#until = at;
    this.button.reset();
    if (state === "ready") this.banner.clear("connection");
    if (state === "refused") this.banner.show("connection", reason, this.#cure(key));
    if (state === "waiting") this.announcer.say("The connection is lost. Reconnecting.");
    this.view.show();
  }

  #cure(key) {
    if (!key) return { error: true, retry: () => this.session.open() };
    return { error: true, key: (given) => this.session.use(storedKey(given)) };
  }

  #onChanged() {
    const { entries } = this.session.conversation;
    this.transcript.show(entries);
    this.announcer.follow(entries);
    if (this.session.conversation.speaking) this.scope.start();
    this.view.show();
  }

  #onDeaf() {
    this.ears.stopFile();
    this.#endMicrophone();
    this.banner.show("server", DEAF, { error: true });
  }

  #onFlow(flow, seconds) {
    if (flow === "fine") this.banner.clear("flow");
    if (flow === "slow") this.banner.show("flow", `Your connection is slow: what you say arrives ${seconds.toFixed(0)} s late.`);
    if (flow === "full") this.banner.show("flow", "Your connection is too slow: some of what you say is left out.", { error: true });
  }

  #facts() {
    const { state, conversation } = this.session;
    const { ears, button } = this;
    return { state, conversation, ears, button, mode: this.#mode, opening: this.#opening, until: this.#until };
  }

  /** What goes on by the clock: the wait for a connection, the file's progress, the meter. */
  #tick() {
    if (this.session.state === "waiting" || this.ears.streaming) this.view.show();
    if (performance.now() - this.#soundAt > QUIET_MS) this.scope.stop();
    find("meter").setAttribute("aria-valuenow", String(Math.round(100 * this.#level)));
  }
}

new Page();
