"""The demo: a host and a guest exchange messages."""
