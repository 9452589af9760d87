"""bioproxy: the front door of self-hosted LLM servers.

It stands between clients and llama.cpp's `llama-server`, fills prompt templates in, lets users go before
background work, and keeps the KV cache warm and on disk, so that no prompt prefix is computed twice.

Where to start reading: `app.py` builds every part; `front/` is the way of a request; `kv/` decides what the
engine must not compute again. Imports point downwards only (the contract stands in pyproject.toml).
"""

__version__ = "0.1.0"  # the one place; pyproject.toml reads it here, and asking the metadata costs 40 ms
