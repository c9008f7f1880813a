"""The speech stage: sound in; turns, their words as they come, and what was said out."""
