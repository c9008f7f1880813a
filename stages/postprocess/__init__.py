"""The stages after the LLM: tokens in, what a client is told out."""
