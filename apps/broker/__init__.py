"""A Kafka broker of one's own on this machine, from the official jars: for the tests, and to be broken on purpose."""
