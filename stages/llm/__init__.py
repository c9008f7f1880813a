"""The LLM stage: prompts in, tokens out."""
