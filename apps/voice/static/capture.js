/**
 * The microphone: frames of float samples at 24 kHz, as they are heard. Knows nothing of servers.
 *
 * The context runs at 24 kHz where the browser can record at that rate (Chromium, Safari); where it cannot (Firefox
 * joins no microphone to a context of another rate) it runs at the device's rate, and we resample.
 */

import { RATE } from "./pcm.js";
import { Resampler } from "./resample.js";

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
   * Ask for the microphone. `onFrame(samples)` gets 20 ms at a time, `onLost()` hears that the device has gone.
   *
   * Throws NoMicrophone.
   */
  static async open({ device, onFrame, onLost }) {
    const stream = await asked(device);
    try {
      const { context, source } = await joined(stream);
      await record(context, source, onFrame);
      stream.getAudioTracks()[0].addEventListener("ended", onLost);
      return new Microphone(stream, context);
    } catch (error) {
      silence(stream);
      throw error instanceof NoMicrophone ? error : new NoMicrophone("unusable");
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

/** A context and the stream in it: at our rate, else at the device's. */
async function joined(stream) {
  const context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
  try {
    return { context, source: context.createMediaStreamSource(stream) };
  } catch {
    await context.close();
  }
  const own = new AudioContext({ latencyHint: "interactive" });
  return { context: own, source: own.createMediaStreamSource(stream) };
}

async function record(context, source, onFrame) {
  await context.audioWorklet.addModule(WORKLET);
  const node = new AudioWorkletNode(context, "penstock-capture", {
    numberOfInputs: 1,
    outputChannelCount: [1],
    channelCount: 1,
    channelCountMode: "explicit",
    processorOptions: { frame: Math.round(context.sampleRate / FRAMES_PER_S) },
  });
  const resampler = context.sampleRate === RATE ? null : new Resampler(context.sampleRate, RATE);
  node.port.onmessage = ({ data }) => onFrame(resampler ? resampler.push(data) : data);
  source.connect(node).connect(context.destination); // its output is silent; without one it would not be run
  await context.resume();
}
