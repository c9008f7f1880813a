"""The demo's ear: a small Whisper that knows the shop's words, trained on espeak-ng's speech."""
