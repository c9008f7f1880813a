"""From logits to tokens: sampling, penalties, grammars, and what may be asked for."""
