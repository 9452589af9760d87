"""The KV cache on disk: what a slot holds, what a snapshot is worth, and when to save or restore."""
