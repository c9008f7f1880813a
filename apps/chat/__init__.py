"""The chat widget and its demo pages: static files, served by the gateway, with nothing to build."""
