"""Speech synthesis: sentences in, paced pieces of sound out."""
