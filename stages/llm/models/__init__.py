"""A model from its files to logits: loading, refusing, attention, products, one forward for a ragged batch."""
