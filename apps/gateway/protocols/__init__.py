"""What clients speak: pure functions from frames to commands and from events to frames."""
