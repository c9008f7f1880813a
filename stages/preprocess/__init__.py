"""The stages before the LLM: what a client sent in, prompts out."""
