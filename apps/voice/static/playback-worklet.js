/**
 * On the audio thread: plays pieces of sound one after the other, and counts the samples of each item that were played.
 *
 * In:  { add: item, samples }  { end: item }  { flush: number }
 * Out: { begun: item }  { at: item, played, loudness }, every 8 blocks while there is something  { starved: item }  { ended: item }
 *      { flushed: number, cut: [{ item, played }, …] }, the items that were not played to their end, in order
 *      all with `time`, the context's (s)
 */

const READY = 0.04 * sampleRate; // an item begins, and goes on after it had run dry, with so much in the queue
const FADE = 96; // samples, so that a cut does not click
const REPORT = 8 * 128; // samples

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.items = []; // { item, pieces, at (in the first piece), left, played, whole, begun, dry }
    this.fading = null; // { flush, left }
    this.since = 0; // samples since the last report
    this.power = 0; // sum of squares since then
    this.port.onmessage = ({ data }) => this.hear(data);
  }

  tell(news) {
    this.port.postMessage({ ...news, time: currentTime });
  }

  hear(data) {
    if (data.add !== undefined) this.add(data.add, data.samples);
    else if (data.end !== undefined) this.find(data.end).whole = true;
    else this.cut(data.flush);
  }

  /** Forget the queue: at once where nothing is to be heard, else after a fade. */
  cut(number) {
    if (this.fading) this.flush(this.fading.flush);
    if (!this.items.some(({ begun, dry }) => begun && !dry)) this.flush(number);
    else this.fading = { flush: number, left: FADE };
  }

  find(item) {
    const known = this.items.find((one) => one.item === item);
    if (known) return known;
    const made = { item, pieces: [], at: 0, left: 0, played: 0, whole: false, begun: false, dry: true };
    this.items.push(made);
    return made;
  }

  add(item, samples) {
    const one = this.find(item);
    one.pieces.push(samples);
    one.left += samples.length;
  }

  process(_, [[out]]) {
    for (let at = 0; at < out.length; ) {
      const taken = this.take(out.subarray(at));
      if (!taken) break;
      at += taken;
    }
    for (const sample of out) this.power += sample * sample;
    this.report(out.length);
    return true;
  }

  /** Fill the beginning of `out` from the first item; returns how many samples that were. */
  take(out) {
    const one = this.items[0];
    if (!one) return 0;
    if (one.dry && !one.whole && one.left < READY) return 0;
    if (!one.left) return this.runOut(one) ? this.take(out) : 0;
    if (!one.begun) this.tell({ begun: one.item });
    [one.begun, one.dry] = [true, false];
    const part = one.pieces[0].subarray(one.at, one.at + Math.min(out.length, this.fading?.left ?? out.length));
    out.set(part);
    this.advance(one, part.length);
    if (this.fading) this.fade(out.subarray(0, part.length));
    return part.length;
  }

  advance(one, count) {
    one.at += count;
    one.left -= count;
    one.played += count;
    if (one.at === one.pieces[0].length) {
      one.pieces.shift();
      one.at = 0;
    }
  }

  /** An item has nothing in the queue: it is over, or has run dry. Returns whether there is another one. */
  runOut(one) {
    if (one.whole) {
      this.items.shift();
      this.tell({ at: one.item, played: one.played, loudness: 0 });
      this.tell({ ended: one.item });
    } else {
      this.tell({ starved: one.item });
      one.dry = true;
    }
    const more = one.whole && this.items.length > 0;
    if (this.fading && !more) this.flush(this.fading.flush);
    return more;
  }

  fade(out) {
    for (let i = 0; i < out.length; i += 1) out[i] *= (this.fading.left - i) / FADE;
    this.fading.left -= out.length;
    if (this.fading.left <= 0) this.flush(this.fading.flush);
  }

  /** Forget the queue, and tell how far each item in it was played. */
  flush(number) {
    const cut = this.items.map(({ item, played }) => ({ item, played }));
    this.tell({ flushed: number, cut });
    this.items = [];
    this.fading = null;
  }

  report(count) {
    this.since += count;
    if (this.since < REPORT) return;
    const one = this.items[0];
    if (one?.begun) this.tell({ at: one.item, played: one.played, loudness: Math.sqrt(this.power / this.since) });
    [this.since, this.power] = [0, 0];
  }
}

registerProcessor("penstock-playback", Playback);
