"""The stages: callables that turn one message into a stream of messages. They do not know each other."""
