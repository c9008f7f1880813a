"""The demo domain: a made-up shop, the grammar of its chats, and two small models trained on it."""
