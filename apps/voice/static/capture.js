/**
 * The microphone: frames of float samples at 24 kHz, as they are heard. Knows nothing of servers.
 *
 * The context runs at 24 kHz where the browser can record at that rate (Chromium, Safari); where it cannot (Firefox
 * joins no microphone to a context of another rate) it runs at the device's rate, and we resample.
 */

import { RATE } from "./pcm.js";
import { Resampler } from "./resample.js";
import { Sync } from "./timing.js";

const FRAMES_PER_S = 50;
const WORKLET = new URL("./capture-worklet.js", import.meta.url);

/** Why there is no microphone; `code` is one of those in `words.js`. */
export class NoMicrophone extends Error {
  constructor(code) {
    super(code);
    this.code = code;
  }
}

const CODES = {
  NotAllowedError: "denied",
  SecurityError: "denied",
  NotFoundError: "missing",
  OverconstrainedError: "missing",
  NotReadableError: "busy",
  AbortError: "busy",
};

export class Microphone {
  #context;
  #stream;

  constructor(stream, context) {
    this.#stream = stream;
    this.#context = context;
    this.device = stream.getAudioTracks()[0].getSettings().deviceId ?? "";
  }

  /**
   * Ask for the microphone. `onFrame(samples, at)` gets 20 ms at a time and when they were heard, `onLost()` hears that the device has gone.
   *
   * Throws NoMicrophone.
   */
  static async open({ device, onFrame, onLost }) {
    const asking = asked(device);
    const preparing = prepared(RATE).catch(() => null); // meanwhile: what is said first is not to be missed
    const stream = await asking;
    try {
      const context = await connected(stream, await preparing, onFrame);
      stream.getAudioTracks()[0].addEventListener("ended", onLost);
      return new Microphone(stream, context);
    } catch {
      silence(stream);
      throw new NoMicrophone("unusable");
    }
  }

  async close() {
    silence(this.#stream);
    if (this.#context.state !== "closed") await this.#context.close();
  }
}

/** The audio inputs; they have names only once the microphone may be used. */
export async function devices() {
  const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  return all.filter(({ kind, deviceId }) => kind === "audioinput" && deviceId).map(({ deviceId: id, label }) => ({ id, label }));
}

function silence(stream) {
  for (const track of stream.getTracks()) track.stop();
}

/** Without echo cancellation a reply from the loudspeaker would interrupt itself. */
async function asked(device) {
  if (!navigator.mediaDevices?.getUserMedia) throw new NoMicrophone(isSecureContext ? "unable" : "insecure");
  const wanted = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
  if (device) wanted.deviceId = { exact: device };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: wanted });
  } catch (error) {
    throw new NoMicrophone(CODES[error.name] ?? "unusable");
  }
}

/** A context that can record: at `rate`, or the device's. */
async function prepared(rate) {
  const context = new AudioContext({ sampleRate: rate, latencyHint: "interactive" });
  await context.audioWorklet.addModule(WORKLET);
  return context;
}

/** The context in which the stream is recorded: the one at our rate, or another one at the device's. */
async function connected(stream, ours, onFrame) {
  try {
    record(ours, ours.createMediaStreamSource(stream), onFrame);
    return ours;
  } catch {
    await ours?.close();
  }
  const own = await prepared(undefined);
  record(own, own.createMediaStreamSource(stream), onFrame);
  return own;
}

function record(context, source, onFrame) {
  const node = new AudioWorkletNode(context, "penstock-capture", {
    numberOfInputs: 1,
    outputChannelCount: [1],
    channelCount: 1,
    channelCountMode: "explicit",
    processorOptions: { frame: Math.round(context.sampleRate / FRAMES_PER_S) },
  });
  const resampler = context.sampleRate === RATE ? null : new Resampler(context.sampleRate, RATE);
  const sync = new Sync();
  node.port.onmessage = ({ data: { samples, time } }) => onFrame(resampler ? resampler.push(samples) : samples, sync.at(1000 * time));
  source.connect(node).connect(context.destination); // its output is silent; without one it would not be run
  context.resume();
}
