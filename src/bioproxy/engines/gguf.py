"""Which model a file is: an identity that survives moving and copying, and notices an exchange.

A snapshot of the KV cache is right for one set of weights only, and llama-server cannot tell: it takes a snapshot of
another model of the same shape and writes nonsense. Path and time are no identity, for moving a models folder must lose
nothing and an overwritten file must be noticed. Reading 100 GB is too slow. So the digest covers each part's size,
its whole header (hyper-parameters, vocabulary, chat template, tensor table) and 64 blocks spread over its weights: two
models differ in nearly every weight, and a quantisation in size too. What a digest of samples cannot see is an edit of
a few weights in place; `kv.fingerprint` is there for who does that.

GGUF is little-endian: magic, version, counts, key-values, tensor table, then weights (gguf.md in ggml's docs). Only as
much is understood here as is needed to know where the header ends, and a few keys; a file that is no GGUF, or one of a
later version, gets an identity all the same.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from bioproxy import files
from bioproxy.errors import BioproxyError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
BLOCK, BLOCKS = 64 << 10, 64
FALLBACK_HEADER = 1 << 20  # bytes taken for the header of a file that cannot be parsed
LONGEST_HEADER = 256 << 20
FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
SLIDING = re.compile(r"\.attention\.(sliding_window|chunk_size)$")
RECURRENT = re.compile(r"\.(ssm\.|wkv|shortconv)")  # mamba, rwkv, lfm2 and the hybrids
LONG_ROPE = "rope_factors_long"  # a tensor: positions are turned by other factors if the context is long
SPLIT = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$", re.DOTALL)

Scalar = str | int | float | bool


class Header(msgspec.Struct, frozen=True):
    """What stands before the weights: scalar keys by name (an array counts as its length), `size` in bytes.

    `long_rope`: with a larger context all positions are turned otherwise (Phi 3 and 4, MiniCPM).
    """

    keys: dict[str, Scalar]
    tensors: int
    size: int
    long_rope: bool = False

    @property
    def architecture(self) -> str:
        """`llama`, `gemma3`, `mamba` ...; empty if the file does not say."""
        return str(self.keys.get("general.architecture", ""))

    @property
    def window(self) -> bool:
        """Whether some layers see a sliding window only."""
        return self.says(SLIDING)

    @property
    def recurrent(self) -> bool:
        """Whether some layers have a state instead of a cache that could be cut anywhere."""
        return self.says(RECURRENT)

    def says(self, names: re.Pattern[str]) -> bool:
        """Whether a key of these names has a value."""
        return any(names.search(key) and value for key, value in self.keys.items())


def identity(path: str | Path) -> str:
    """Digest (32 hex digits) of the model, projector or adapter at `path`, all its split parts included.

    Equal for equal bytes, wherever they lie; about 4 MB plus the header are read of each part. Raises BioproxyError
    that names the part which cannot be read.
    """
    digest = hashlib.sha256(b"bioproxy model identity 1")
    for part in parts(path):
        try:
            with files.opened(part) as file:
                for piece in samples(file):
                    digest.update(piece)
        except OSError as error:
            raise unreadable(part, error) from error
    return digest.hexdigest()[:32]


def parts(path: str | Path) -> list[Path]:
    """All files of the model that `path` belongs to: itself, or each part of a name such as `m-00001-of-00003.gguf`."""
    path = Path(path)
    match = SPLIT.match(path.name)
    if match is None:
        return [path]
    stem, count = match["stem"], int(match["count"])
    return [path.with_name(f"{stem}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]


def unreadable(part: Path, error: OSError) -> BioproxyError:
    """The sentence for a part that cannot be read."""
    return BioproxyError(f"cannot read the model file {part}: {error.strerror}")


def samples(file: BinaryIO) -> Iterator[bytes]:
    """Size, header, and blocks of the weights, the last one at the very end of the file."""
    size = file.seek(0, 2)
    yield size.to_bytes(8, "little")
    header = header_size(file, size)
    file.seek(0)
    yield file.read(header)
    weights = size - header
    if weights <= BLOCK * BLOCKS:
        yield file.read()
        return
    for number in range(BLOCKS):
        file.seek(header + (weights - BLOCK) * number // (BLOCKS - 1))
        yield file.read(BLOCK)


def header_size(file: BinaryIO, size: int) -> int:
    """Bytes before the weights; a megabyte if the file is no GGUF that we understand."""
    try:
        return read_header(file).size
    except BioproxyError:
        return min(size, FALLBACK_HEADER)


def read_header(file: BinaryIO) -> Header:
    """Parse the header of an open GGUF file; BioproxyError if it is none, or cut short."""
    file.seek(0)
    reader = Reader(file)
    if reader.bytes(4) != MAGIC:
        raise BioproxyError("no GGUF file: the magic is missing")
    version = reader.number("I")
    if version not in VERSIONS:
        raise BioproxyError(f"GGUF version {version} is not known here")
    tensors, entries = reader.number("Q"), reader.number("Q")
    keys = {reader.text(): reader.value(int(reader.number("I"))) for _ in range(int(entries))}
    long_rope = False
    for _ in range(int(tensors)):
        long_rope = LONG_ROPE in reader.text() or long_rope
        dimensions = int(reader.number("I"))
        reader.bytes(8 * dimensions + 4 + 8)  # lengths, type, offset
    return Header(keys=keys, tensors=int(tensors), size=reader.position, long_rope=long_rope)


class Reader:
    """GGUF's primitive values, one after the other; every length is checked before it is believed."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.position = 0

    def bytes(self, count: int) -> bytes:
        """The next `count` bytes; BioproxyError if the file ends before, or the header would be absurdly long."""
        if self.position + count > LONGEST_HEADER:
            raise BioproxyError(f"broken GGUF header: {count} bytes are announced at {self.position}")
        data = self.file.read(count)
        if len(data) < count:
            raise BioproxyError(f"broken GGUF header: the file ends at {self.position + len(data)}")
        self.position += count
        return data

    def number(self, code: str) -> int | float | bool:
        """One number, by its letter in `struct`."""
        (value,) = struct.unpack(f"<{code}", self.bytes(struct.calcsize(f"<{code}")))
        number: int | float | bool = value
        return number

    def text(self) -> str:
        """A length in eight bytes, then UTF-8."""
        return self.bytes(int(self.number("Q"))).decode("utf-8", "replace")

    def value(self, kind: int) -> Scalar:
        """A value of GGUF type `kind`; of an array only its length, its elements are passed over."""
        if kind == TEXT:
            return self.text()
        if kind == ARRAY:
            element, count = int(self.number("I")), int(self.number("Q"))
            self.skip(element, count)
            return count
        if kind not in FIXED:
            raise BioproxyError(f"broken GGUF header: value type {kind} at {self.position}")
        return self.number(FIXED[kind])

    def skip(self, element: int, count: int) -> None:
        """Pass over `count` array elements of type `element`: numbers or texts (there are no arrays of arrays)."""
        if element in FIXED:
            self.bytes(struct.calcsize(f"<{FIXED[element]}") * count)
            return
        if element != TEXT:
            raise BioproxyError(f"broken GGUF header: an array of type {element} at {self.position}")
        for _ in range(count):  # half a million of them in a large vocabulary
            self.bytes(int.from_bytes(self.bytes(8), "little"))
