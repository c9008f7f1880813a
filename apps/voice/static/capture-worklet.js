/** On the audio thread: hands the microphone's samples to the page in frames of `processorOptions.frame` samples. */
class Capture extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.frame = new Float32Array(processorOptions.frame);
    this.filled = 0;
  }

  process([[channel]]) {
    for (let at = 0; channel && at < channel.length; ) at += this.take(channel.subarray(at));
    return true;
  }

  /** Put samples into the frame, and send it when it is full; returns how many were taken. */
  take(samples) {
    const taken = samples.subarray(0, this.frame.length - this.filled);
    this.frame.set(taken, this.filled);
    this.filled += taken.length;
    if (this.filled === this.frame.length) {
      this.port.postMessage(this.frame.slice());
      this.filled = 0;
    }
    return taken.length;
  }
}

registerProcessor("penstock-capture", Capture);
