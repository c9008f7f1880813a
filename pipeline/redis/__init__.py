"""Redis: where it is, and how a client gets in. Nothing needs it; it makes some things faster."""
