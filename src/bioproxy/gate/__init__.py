"""The queue in front of an engine: who may use it next."""
