"""GGUF files of a test's own making: headers that say what it wants, and weights that take no room on the disk."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Json = Any
ALIGNMENT = 32
QWEN: Json = {  # a model of 8B parameters, as its header describes it
    "general.architecture": "qwen3",
    "general.name": "Qwen3 8B",
    "general.file_type": 15,
    "qwen3.block_count": 36,
    "qwen3.context_length": 40960,
    "qwen3.embedding_length": 4096,
    "qwen3.feed_forward_length": 12288,
    "qwen3.attention.head_count": 32,
    "qwen3.attention.head_count_kv": 8,
    "qwen3.attention.key_length": 128,
    "qwen3.attention.value_length": 128,
}


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def value(given: Json) -> bytes:
    """A value with its type before it: a text, a whole number, or a list of either."""
    match given:
        case bool():
            return struct.pack("<IB", 7, given)
        case str():
            return struct.pack("<I", 8) + text(given)
        case int():
            return struct.pack("<II", 4, given)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(given)) + b"".join(text(one) for one in given)
        case [bool(), *_]:
            return struct.pack("<IIQ", 9, 7, len(given)) + bytes(given)
        case _:
            return struct.pack("<IIQ", 9, 4, len(given)) + struct.pack(f"<{len(given)}I", *given)


def header(keys: Mapping[str, Json], tensors: Mapping[str, int] | None = None) -> bytes:
    """A header with these keys, and tensors of so many bytes each."""
    sizes = {"blk.0.attn_q.weight": ALIGNMENT} if tensors is None else tensors
    body = b"".join(text(name) + value(one) for name, one in keys.items())
    begin = 0
    for name, size in sizes.items():
        body += text(name) + struct.pack("<IQIQ", 1, size, 24, begin)
        begin += -(-size // ALIGNMENT) * ALIGNMENT
    return b"GGUF" + struct.pack("<IQQ", 3, len(sizes), len(keys)) + body


def write(path: Path, keys: Mapping[str, Json] = QWEN, tensors: Mapping[str, int] | None = None) -> Path:
    """A whole file; its weights are a hole."""
    data = header(keys, tensors)
    weights = sum(-(-size // ALIGNMENT) * ALIGNMENT for size in (tensors or {"": ALIGNMENT}).values())
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.truncate(-(-len(data) // ALIGNMENT) * ALIGNMENT + weights)
    return path


def layers(count: int, **parts: int) -> dict[str, int]:
    """Tensors of a model: parts of each layer by their names, with their bytes."""
    return {f"blk.{number}.{name}.weight": size for number in range(count) for name, size in parts.items()}


def ollama(folder: Path, name: str, model: bytes, *, projector: bytes = b"", also: Sequence[Json] = ()) -> None:
    """A model as Ollama keeps it: a manifest, and blobs."""
    blobs = {"model": model, **({"projector": projector} if projector else {})}
    entries: list[Json] = [*also]
    for kind, data in blobs.items():
        digest = f"{len(data):064x}"
        (folder / "blobs").mkdir(parents=True, exist_ok=True)
        (folder / "blobs" / f"sha256-{digest}").write_bytes(data)
        entries.append({"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}"})
    manifest = folder / "manifests" / "registry.ollama.ai" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(str({"layers": entries}).replace("'", '"'))
