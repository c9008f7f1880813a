/** The voice page: puts the parts together. What is said is in `session.js`, what is seen in `transcript.js`. */

import { Banner } from "./banner.js";
import { Button } from "./button.js";
import { devices } from "./capture.js";
import { Ears } from "./ears.js";
import { Gauges } from "./gauges.js";
import { perceived } from "./pcm.js";
import { Scope } from "./scope.js";
import { Session } from "./session.js";
import { Measures } from "./timing.js";
import { Transcript } from "./transcript.js";
import { DEAF, MUTE, aboutFile, aboutMicrophone, clock } from "./words.js";

const KEY = "penstock-voice:key";
const QUIET_MS = 9_000; // after which the strip, now empty, need not move
const LONGEST_TAIL_S = 9; // of silence after a file, for a turn to end

const find = (id) => document.getElementById(id);

/** The tab's storage may be refused; the key is then forgotten with the page. */
function stored(value) {
  try {
    if (value !== undefined) sessionStorage.setItem(KEY, value);
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return value ?? "";
  }
}

class Page {
  #mode = "free";
  #opening = false;
  #soundAt = 0; // when anything was to be seen on the strip
  #announced = new WeakMap(); // entry → its state when it was last told to a screen reader
  #waitsUntil = 0;

  constructor() {
    this.banner = new Banner(find);
    this.gauges = new Gauges(find);
    this.transcript = new Transcript(find("turns"), find("scroll"));
    this.scope = new Scope(find("scope"), matchMedia("(prefers-reduced-motion: reduce)"));
    this.ears = new Ears({
      frame: (samples) => this.#onFrame(samples),
      level: (rms) => this.#onLevel(rms),
      lost: () => this.#onMicrophoneLost(),
      tail: (seconds) => this.#tail(seconds),
      ended: () => this.#onFileEnd(),
    });
    this.session = new Session(this.#address(), stored(), new Measures((exchange) => this.#onStep(exchange)), {
      state: (state, detail) => this.#onState(state, detail),
      changed: () => this.#onChanged(),
      notice: (text) => this.banner.show("server", text),
      deaf: () => this.#onDeaf(),
      flow: (flow, seconds) => this.#onFlow(flow, seconds),
      turn: (begins) => this.scope.mark(begins),
      silenced: (ms) => this.#onSilenced(ms),
      loudness: (rms) => this.#onPlayedLoudness(rms),
    });
    this.button = new Button(find("mic"), {
      holds: () => this.#mode === "push" && this.ears.open,
      press: () => this.#press(),
      latched: () => this.#show(),
      release: () => this.#release(),
      discard: () => this.#release(true),
      click: () => this.#onMic(),
    });
    this.#listen();
    this.#show();
    setInterval(() => this.#tick(), 250);
  }

  #address() {
    const url = new URL("/v1/realtime", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    return url.href;
  }

  #listen() {
    const on = (id, type, action) => find(id).addEventListener(type, action);
    on("stop", "click", () => this.session.interrupt());
    on("end", "click", () => this.#endMicrophone());
    on("pick", "click", () => find("file").click());
    on("file", "change", ({ target }) => this.#onPicked(target));
    on("playing-stop", "click", () => this.ears.stopFile());
    on("line", "submit", (event) => this.#onLine(event));
    on("ends", "change", ({ target }) => this.session.configure({ ends: target.value }));
    on("reply", "change", ({ target }) => this.session.configure({ reply: target.value }));
    on("device", "change", ({ target }) => this.ears.open && this.#startMicrophone(target.value));
    for (const radio of document.getElementsByName("mode")) radio.addEventListener("change", () => this.#onMode(radio.value));
    document.addEventListener("keydown", (event) => this.#onKey(event));
    for (const type of ["pointerdown", "keydown"]) addEventListener(type, () => this.session.playback.wake(), true);
    addEventListener("online", () => this.session.state === "waiting" && this.session.open());
    this.#takeDrops(find("talk"));
  }

  #takeDrops(node) {
    const carries = ({ dataTransfer }) => dataTransfer?.types.includes("Files");
    node.addEventListener("dragover", (event) => {
      if (!carries(event)) return;
      event.preventDefault();
      node.classList.add("dropping");
    });
    node.addEventListener("dragleave", () => node.classList.remove("dropping"));
    node.addEventListener("drop", (event) => {
      node.classList.remove("dropping");
      if (!carries(event)) return;
      event.preventDefault();
      this.#stream(event.dataTransfer.files[0]);
    });
  }

  // -- the microphone

  #onMic() {
    if (!this.ears.open) return this.#startMicrophone(find("device").value);
    this.ears.muted = !this.ears.muted;
    this.#say(this.ears.muted ? "Muted" : "Listening");
    return this.#show();
  }

  async #startMicrophone(device) {
    if (this.#opening) return;
    this.#opening = true;
    this.banner.clear();
    this.#show();
    this.#openSound();
    this.session.open();
    try {
      await this.ears.listen(device);
      this.#say(this.#mode === "push" ? "The microphone is on. Hold the button, or Space, to talk." : "Listening");
      this.#listDevices();
    } catch (error) {
      this.banner.show("microphone", aboutMicrophone(error.code), { error: true, retry: () => this.#startMicrophone(device) });
    }
    this.#opening = false;
    this.#show();
  }

  async #openSound() {
    const sounds = await this.session.playback.open().catch(() => false);
    if (!sounds) this.banner.show("sound", MUTE);
  }

  async #endMicrophone() {
    this.session.release(true);
    this.button.reset();
    await this.ears.close();
    this.#show();
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

  #onFrame(samples) {
    if (this.#mode === "push" && this.ears.streaming && !this.session.talking && !this.session.press()) return false;
    return this.session.hear(samples);
  }

  #onLevel(rms) {
    this.scope.heard(rms);
    this.#soundAt = performance.now();
    this.level = perceived(rms);
    find("mic").style.setProperty("--loud", this.level.toFixed(2));
  }

  #onPlayedLoudness(rms) {
    this.scope.played(rms);
    this.#soundAt = performance.now();
  }

  // -- push to talk

  #onMode(mode) {
    this.session.release(true);
    this.button.reset();
    this.#mode = mode;
    this.ears.muted = false;
    this.session.configure({ mode });
    this.#show();
  }

  #press() {
    const pressed = !this.ears.streaming && this.session.press();
    if (pressed) this.scope.mark(true);
    this.#show();
    return pressed;
  }

  #release(discarded = false) {
    const sent = this.session.release(discarded);
    this.scope.mark(false);
    if (!sent) this.#say("Discarded");
    this.#show();
  }

  #onKey(event) {
    if (event.key === "Escape" && !this.session.talking) this.session.interrupt();
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
    try {
      await this.ears.stream(file);
      find("playing-name").textContent = file.name;
    } catch (error) {
      this.banner.show("file", aboutFile(error.code), { error: true });
    }
    this.#show();
  }

  /** Whether the silence after a file goes on: as long as its last turn has not ended. */
  #tail(seconds) {
    if (this.#mode === "push" || seconds > LONGEST_TAIL_S) return false;
    return seconds < 1 || this.session.conversation.open?.state === "speaking";
  }

  #onFileEnd() {
    if (this.#mode === "push") this.session.release();
    this.#show();
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
    this.#waitsUntil = at;
    this.button.reset();
    if (state === "ready") this.banner.clear("connection");
    if (state === "refused") this.banner.show("connection", reason, this.#cure(key));
    if (state === "waiting") this.#say("The connection is lost. Reconnecting.");
    this.#show();
  }

  #cure(key) {
    if (!key) return { error: true, retry: () => this.session.open() };
    return { error: true, key: (given) => this.session.use(stored(given)) };
  }

  #onChanged() {
    const { entries } = this.session.conversation;
    this.transcript.show(entries);
    for (const entry of entries.slice(-4)) this.#announce(entry);
    this.#show();
  }

  /** Tell a screen reader what is not to be heard anyway. */
  #announce(entry) {
    const { role, state, text, audio, typed } = entry;
    if (this.#announced.get(entry) === state) return;
    this.#announced.set(entry, state);
    if (role === "user" && state === "final" && !typed) this.#say(`You said: ${text}`);
    if (role === "assistant" && state === "done" && !audio) this.#say(`Answer: ${text}`);
    if (role === "assistant" && state === "cut") this.#say("Interrupted");
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

  #onStep(exchange) {
    this.gauges.show(exchange);
    if (exchange.sound !== null) this.gauges.sounded(exchange);
  }

  #onSilenced(ms) {
    this.gauges.silenced(ms);
  }

  // -- what is seen

  #say(text) {
    find("say").textContent = text;
  }

  #microphoneState() {
    if (this.#opening) return ["opening", "Allow it…"];
    if (!this.ears.open) return ["off", "Start"];
    if (this.#mode === "push") return this.button.down ? ["talking", this.button.latched ? "Tap to send" : "Release to send"] : ["ready", "Hold to talk"];
    return this.ears.muted ? ["muted", "Unmute"] : ["on", "Mute"];
  }

  #show() {
    const [state, label] = this.#microphoneState();
    const { conversation } = this.session;
    find("mic").dataset.mic = state;
    find("mic").disabled = state === "opening";
    find("mic-label").textContent = label;
    find("end").hidden = !this.ears.open;
    find("stop").hidden = !conversation.speaking && !conversation.active;
    find("playing").hidden = !this.ears.streaming;
    find("empty").hidden = conversation.entries.length > 0;
    const [kind, words] = this.#stateWords();
    find("state").dataset.state = kind;
    find("state").querySelector("span").textContent = words;
    if (this.ears.open || this.ears.streaming || conversation.speaking) this.scope.start();
  }

  #stateWords() {
    const { state, conversation } = this.session;
    const seconds = Math.max(0, Math.ceil((this.#waitsUntil - Date.now()) / 1000));
    if (state === "connecting") return [state, "Connecting…"];
    if (state === "waiting") return [state, seconds ? `No connection. Next try in ${seconds} s` : "Reconnecting…"];
    if (state === "refused") return [state, "Not available"];
    if (conversation.open?.state === "speaking") return ["listening", "Hearing you"];
    if (conversation.speaking) return ["speaking", "Speaking"];
    if (conversation.active || conversation.open) return ["ready", "Thinking…"];
    if (this.ears.open && this.#mode === "free" && !this.ears.muted) return ["listening", "Listening"];
    return [state, state === "ready" ? "Connected" : "Ready when you are"];
  }

  /** What goes on by the clock: the wait for a connection, the file's progress, the meter. */
  #tick() {
    if (this.session.state === "waiting") this.#show();
    if (performance.now() - this.#soundAt > QUIET_MS) this.scope.stop();
    find("meter").setAttribute("aria-valuenow", String(Math.round(100 * (this.level ?? 0))));
    const { played, all } = this.ears.progress;
    if (!all) return;
    find("playing-at").value = played / all;
    find("playing-clock").textContent = `${clock(played)} / ${clock(all)}`;
  }
}

new Page();
