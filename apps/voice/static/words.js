/** What goes wrong, in words for whoever stands before the page. */

const MICROPHONE = {
  denied: "Your browser does not let this page use the microphone. Allow it beside the address, and try again.",
  missing: "There is no microphone. Plug one in and try again, or stream a sound file instead.",
  busy: "The microphone does not start; another program may be using it.",
  insecure: "Browsers give the microphone only to pages over HTTPS or on localhost, and this one is neither.",
  unable: "This browser gives pages no microphone. A sound file and typing work.",
  unusable: "The microphone cannot be used here. A sound file and typing work.",
  lost: "The microphone has gone. Plug it in again, and start once more.",
};

const FILE = {
  too_large: "The file has more than 100 MB; a shorter one will do.",
  undecodable: "Your browser cannot decode this file. WAV, MP3, M4A, Ogg and FLAC usually work.",
};

export const DEAF = "This server does not listen: it runs without speech recognition. You can still type.";
export const DUMB = "This server does not speak: answers come as text.";
export const UNHEARD = "The microphone hears something, but the server finds no speech in it. If you are talking: is its speech stage running?";
export const UNTRANSCRIBED = "No transcript came. Is the server’s speech stage running?";
export const MUTE = "Your browser holds the sound back. Click anywhere on the page to hear the answer.";
export const KEY_WANTED = "This server wants an API key.";
export const KEY_WRONG = "The server does not know this API key.";

/** Codes of the server's errors, and what they mean to a person. */
const SERVER = [
  [/audio_not_supported|speech_unavailable|transcription_unavailable/, DEAF],
  [/rate_limit|too_many/, "That was a little too fast."],
  [/quota/, "The limit of this key is used up for now."],
  [/api_key|token_expired/, KEY_WRONG],
  [/origin|permission|forbidden/, "The server does not let pages from here connect."],
  [/overload|capacity|unavailable|busy|queue_full|shed/, "Many people are asking right now."],
  [/deadline|timeout|timed_out/, "It took too long."],
  [/context|too_long|too_large|max_length|above_max/, "That is more than can be taken at once."],
  [/model_not_found/, "The server does not have its model."],
  [/shutting_down/, "The server is restarting."],
];

const INCOMPLETE = {
  max_output_tokens: "Cut off at its length limit.",
  content_filter: "Held back by a filter.",
};

export const aboutMicrophone = (code) => MICROPHONE[code] ?? MICROPHONE.unusable;
export const aboutFile = (code) => FILE[code] ?? FILE.undecodable;
export const aboutIncomplete = (reason) => INCOMPLETE[reason] ?? "Not complete.";

/** What an error of the server means; its own words where we have none. */
export function aboutError(error) {
  const code = String(error?.code ?? error?.type ?? "");
  const known = SERVER.find(([pattern]) => pattern.test(code));
  const own = typeof error?.message === "string" ? error.message.slice(0, 200) : "";
  return known?.[1] ?? (own ? `The server says: ${own}` : "Something went wrong on the server.");
}

/** Milliseconds after which a closing server wants to be asked again, as in "try again in 2.5 s"; 0 if not said. */
export function waitIn(text) {
  const found = /\b(?:in|after) (\d+(?:\.\d+)?) ?(ms|s|sec|seconds?)\b/i.exec(String(text ?? ""));
  return found ? Number(found[1]) * (found[2].toLowerCase() === "ms" ? 1 : 1000) : 0;
}

/** 83 → "1:23". */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
