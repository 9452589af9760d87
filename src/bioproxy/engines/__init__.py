"""Inference servers: how to talk to one, how to start one, what it is."""
