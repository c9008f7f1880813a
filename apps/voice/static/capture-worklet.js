/** On the audio thread: hands the microphone's samples to the page, `processorOptions.frame` at a time, with the context's time (s). */
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
      this.port.postMessage({ samples: this.frame.slice(), time: currentTime });
      this.filled = 0;
    }
    return taken.length;
  }
}

registerProcessor("penstock-capture", Capture);
