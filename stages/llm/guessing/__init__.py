"""Speculation: who guesses ahead, how far it pays, and what has come of it."""
