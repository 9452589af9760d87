"""Slot files of the fake engine: real files on disk, written in place, believed as blindly as the real server does.

Layout: magic "ggsq", version 4, the count of words, the words (a marker, a version, the count of tokens, the tokens,
the count of media chunks), then the cells: count, a checksum of the model's shape, a checksum of its weights, and
`bytes_per_token` bytes for each token. As with the real one a file that is cut within the cells ends the process, a
file of another shape is 400, one of other weights is taken; and whatever fails leaves the slot empty.
"""

from __future__ import annotations

import os
import signal
import struct
import time
import zlib
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakes.fake_faults import Faults, end_process

if TYPE_CHECKING:
    from fakes.fake_core import Settings, Slot

Json = Any
MAGIC, VERSION, MARKER = 0x67677371, 4, -1
FORBIDDEN = set('/\\:*?"<>|') | {chr(code) for code in (*range(0x20), 0x7F, 0xFF0E, 0x2215, 0x2216, 0xFFFD, 0xFEFF)}
UNABLE = "Unable to restore slot: No available space in KV cache or invalid slot save file"


class Refused(Exception):
    """The engine answers an error: status, message, type."""

    def __init__(self, status: int, message: str, kind: str) -> None:
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind


def valid_name(name: str) -> bool:
    """Whether the real server takes this file name."""
    size = len(name.encode("utf-8", "surrogatepass"))
    if not 1 <= size <= 255 or set(name) & FORBIDDEN or any(0x80 <= ord(letter) < 0xA0 for letter in name):
        return False
    return ".." not in name and name.strip(" ") == name and not name.endswith(".")


def encode(settings: Settings, slot: Slot) -> bytes:
    """The whole file for what `slot` holds."""
    words = array("i", [MARKER, 1, len(slot.tokens), *slot.tokens, 0])
    head = struct.pack("<III", MAGIC, VERSION, len(words)) + words.tobytes()
    cells = struct.pack(
        "<III", len(slot.tokens), zlib.crc32(settings.shape.encode()), zlib.crc32(slot.weights.encode())
    )
    return (
        head + cells + slot.weights.encode()[:32].ljust(32, b"\0") + bytes(len(slot.tokens) * settings.bytes_per_token)
    )


def save(settings: Settings, faults: Faults, slot: Slot, name: str) -> Json:
    """Write in place; answer as the real server does, or raise Refused."""
    started = time.perf_counter()
    if faults.save == "media":  # as older builds say of a slot with an image in it
        raise Refused(501, "This feature is not supported by multimodal", "not_supported_error")
    data = encode(settings, slot)
    path = Path(settings.folder) / name
    cut = len(data) // 2
    try:
        with path.open("wb") as file:
            file.write(data[:cut])
            file.flush()
            faults.dies_in("save")
            if faults.save not in ("full", "short"):
                file.write(data[cut:])
    except OSError as error:
        raise Refused(500, "Unable to save slot", "server_error") from error
    if faults.save == "lost":
        path.unlink()
    if faults.save == "full":
        raise Refused(500, "Unable to save slot", "server_error")
    return {
        "filename": name,
        "n_saved": len(slot.tokens),
        "n_written": len(data),
        "timings": {"save_ms": (time.perf_counter() - started) * 1e3},
    }


def load(settings: Settings, faults: Faults, slot: Slot, name: str) -> Json:
    """Read into the slot; Refused (and an empty slot) for a bad file, the end of the process for a cut one."""
    started = time.perf_counter()
    faults.dies_in("restore")
    slot.tokens = []
    try:
        data = (Path(settings.folder) / name).read_bytes()
    except OSError as error:
        raise Refused(400, UNABLE, "invalid_request_error") from error
    tokens, weights, read = decode(settings, data)
    if len(tokens) > settings.context:
        raise Refused(400, UNABLE, "invalid_request_error")
    slot.tokens, slot.weights, slot.worthless, slot.used = tokens, weights, faults.worthless, time.monotonic()
    return {
        "filename": name,
        "n_restored": len(tokens),
        "n_read": read,
        "timings": {"restore_ms": (time.perf_counter() - started) * 1e3},
    }


def decode(settings: Settings, data: bytes) -> tuple[list[int], str, int]:
    """Tokens, weights and length of a file; Refused for a bad one, the end of the process for a cut one."""
    bad = Refused(400, UNABLE, "invalid_request_error")
    if len(data) < 12:
        raise bad
    magic, version, count = struct.unpack_from("<III", data)
    start = 12 + 4 * count
    if magic != MAGIC or version != VERSION or len(data) < start + 44:
        raise bad
    words = array("i", data[12:start])
    cells, shape, _ = struct.unpack_from("<III", data, start)
    if words[0] != MARKER or words[2] != cells or shape != zlib.crc32(settings.shape.encode()):
        raise bad
    end = start + 44 + cells * settings.bytes_per_token
    if len(data) < end:
        print("GGML_ASSERT(nread <= state_size) failed", flush=True)
        end_process(signal.SIGABRT)
    return list(words[3 : 3 + cells]), data[start + 12 : start + 44].rstrip(b"\0").decode(), end


def writable(folder: str) -> bool:
    """Whether the folder is there; the real server refuses to start without."""
    return os.path.isdir(folder)
