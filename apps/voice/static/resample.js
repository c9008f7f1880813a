/** From one sample rate to another: a polyphase windowed-sinc low-pass, as in Smith, "Digital Audio Resampling". */

const CROSSINGS = 16; // zero crossings of the sinc on either side

const divisor = (a, b) => (b ? divisor(b, a % b) : a);
const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
const blackman = (x) => 0.42 + 0.5 * Math.cos(Math.PI * x) + 0.08 * Math.cos(2 * Math.PI * x); // -1 to 1

/**
 * Resamples a stream piece by piece. Output sample n stands at n · from / to of the input; the filter looks `#half`
 * input samples to either side (at 48 kHz to 24 kHz less than 1 ms).
 */
export class Resampler {
  #phases; // one row of weights for each place that an output sample can have between two input samples
  #half;
  #up;
  #down;
  #input; // samples of the input that are still needed; the first one is number #first
  #first;
  #next = 0; // number of the next output sample

  constructor(from, to) {
    const common = divisor(from, to);
    [this.#up, this.#down] = [to / common, from / common];
    const cutoff = 0.94 * Math.min(1, to / from); // of the input's Nyquist frequency; the rest is for the slope
    this.#half = Math.ceil(CROSSINGS / cutoff);
    this.#phases = Array.from({ length: this.#up }, (_, phase) => weights(phase / this.#up, cutoff, this.#half));
    this.#input = new Float32Array(this.#half);
    this.#first = -this.#half;
  }

  /** The output samples that can be made now that these input samples are there. */
  push(samples) {
    const input = new Float32Array(this.#input.length + samples.length);
    input.set(this.#input);
    input.set(samples, this.#input.length);
    const made = [];
    let at = this.#place();
    for (; at + 2 * this.#half <= input.length; at = this.#place()) {
      made.push(weighted(input, at, this.#phases[(this.#next * this.#down) % this.#up]));
      this.#next += 1;
    }
    const done = Math.min(at, input.length);
    this.#input = input.slice(done);
    this.#first += done;
    return Float32Array.from(made);
  }

  /** Where in `#input` the first sample stands that the next output sample is made of. */
  #place() {
    return Math.floor((this.#next * this.#down) / this.#up) - this.#half + 1 - this.#first;
  }
}

/** What the 2 · `half` input samples around a place count, which is `offset` (0 to 1) after the middle one. */
function weights(offset, cutoff, half) {
  const row = new Float32Array(2 * half);
  for (let i = 0; i < row.length; i += 1) {
    const distance = i - half + 1 - offset;
    row[i] = Math.abs(distance) < half ? cutoff * sinc(cutoff * distance) * blackman(distance / half) : 0;
  }
  const sum = row.reduce((a, b) => a + b, 0);
  return row.map((weight) => weight / sum);
}

function weighted(input, at, row) {
  let sum = 0;
  for (let i = 0; i < row.length; i += 1) sum += input[at + i] * row[i];
  return sum;
}
