"""The beginning of a GGUF file, without any weights."""

from __future__ import annotations

import struct


def header(*tensors: bytes, **keys: int | str) -> bytes:
    """A GGUF header with these keys and the names of tensors of one number each."""
    body = b""
    for name, value in keys.items():
        text = name.replace("__", ".").encode()
        body += struct.pack("<Q", len(text)) + text
        if isinstance(value, str):
            body += struct.pack("<IQ", 8, len(value)) + value.encode()
        else:
            body += struct.pack("<II", 4, value)
    for tensor in tensors:
        body += struct.pack("<Q", len(tensor)) + tensor + struct.pack("<IQIQ", 1, 1, 0, 0)
    return b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + body
