/** What a session is told of how we listen and want to be answered, in the shapes of the Realtime API. */

/** Milliseconds before the speech that a turn begins with. */
export const PADDING_MS = 300;

/** How a page begins: hands-free, a turn ends after half a second of silence, answers are spoken. */
export const DEFAULTS = { mode: "free", ends: "500", reply: "audio" };

/** Where the server of a page listens. */
export function realtimeAddress(page) {
  const url = new URL("/v1/realtime", page);
  url.protocol = url.protocol.replace("http", "ws");
  return url.href;
}

/** Milliseconds of silence that end a turn; 0 where something else ends it. */
export function pause({ mode, ends }) {
  return mode === "push" || ends === "meaning" ? 0 : Number(ends);
}

/** The `session` of `session.update`; the server maps the model's name to its own. */
export function configuration(options) {
  const input = { transcription: { model: "default" }, turn_detection: detection(options) };
  return { type: "realtime", output_modalities: [options.reply], audio: { input } };
}

/** How turns end; null where a button says so. */
function detection(options) {
  const both = { create_response: true, interrupt_response: true };
  if (options.mode === "push") return null;
  if (options.ends === "meaning") return { type: "semantic_vad", eagerness: "auto", ...both };
  return { type: "server_vad", threshold: 0.5, prefix_padding_ms: PADDING_MS, silence_duration_ms: pause(options), ...both };
}

/** A line of the conversation as an item. */
export function item({ id, role, text }) {
  return { id, type: "message", role, content: [{ type: role === "user" ? "input_text" : "output_text", text }] };
}
