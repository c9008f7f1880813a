/** Sound as numbers: float samples (-1 to 1), PCM16 (little-endian), base64. Everything is mono. */

/** Samples in a second, on the wire and in all positions. */
export const RATE = 24_000;

/** Bytes on the wire for a second of sound: two a sample, in base64, and what is around each frame. */
export const WIRE_BYTES = (RATE * 2 * 4) / 3 + 50 * 70;

const STEP = 0x8000; // characters that String.fromCharCode takes at a time

/** Float samples as PCM16; what is beyond -1 and 1 is clipped, what is no number is silence. */
export function toPCM16(samples) {
  const data = new DataView(new ArrayBuffer(samples.length * 2));
  for (let i = 0; i < samples.length; i += 1) {
    const clipped = Math.max(-1, Math.min(1, samples[i] || 0));
    data.setInt16(2 * i, Math.round(clipped < 0 ? clipped * 0x8000 : clipped * 0x7fff), true);
  }
  return new Uint8Array(data.buffer);
}

/** PCM16 as float samples; an odd last byte is left out. */
export function fromPCM16(bytes) {
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const samples = new Float32Array(bytes.byteLength >> 1);
  for (let i = 0; i < samples.length; i += 1) samples[i] = data.getInt16(2 * i, true) / 0x8000;
  return samples;
}

export function toBase64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += STEP) text += String.fromCharCode(...bytes.subarray(at, at + STEP));
  return btoa(text);
}

/** Throws a DOMException where `text` is not base64. */
export function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** Root mean square of samples, 0 to 1. */
export function loudness(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return samples.length ? Math.sqrt(sum / samples.length) : 0;
}

/** Loudness as the ear takes it: 0 at -48 dB and below, 1 at full scale. */
export function perceived(rms) {
  return Math.max(0, 1 + Math.log10(rms + 1e-9) / 2.4);
}

/** The mean of several channels of the same length. */
export function mixed(channels) {
  if (channels.length === 1) return channels[0];
  const samples = new Float32Array(channels[0].length);
  for (const channel of channels) {
    for (let i = 0; i < samples.length; i += 1) samples[i] += channel[i] / channels.length;
  }
  return samples;
}
