"""Which model a file is: an identity that survives moving and copying, and notices an exchange.

A snapshot of the KV cache is right for one set of weights only, and llama-server cannot tell: it takes a snapshot of
another model of the same shape and writes nonsense. Path and time are no identity, for moving a models folder must lose
nothing and an overwritten file must be noticed. Reading 100 GB is too slow. So the digest covers each part's size,
its whole header (hyper-parameters, vocabulary, chat template, tensor table) and 64 blocks spread over its weights: two
models differ in nearly every weight, and a quantisation in size too. What a digest of samples cannot see is an edit of
a few weights in place; `kv.fingerprint` is there for who does that.

GGUF is little-endian: magic, version, counts, key-values, tensor table, then weights (gguf.md in ggml's docs). Only as
much is understood here as is needed to know where the header ends, what the model's keys say, and how large its tensors
are; a file that is no GGUF, or one of a later version, gets an identity all the same. A header is somebody else's text:
every length in it is compared with the file and with a bound before anything is read or counted.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from bioproxy import files
from bioproxy.errors import BioproxyError

MAGIC = b"GGUF"
ENDING = ".gguf"
VERSIONS = (2, 3)
BLOCK, BLOCKS = 64 << 10, 64
FALLBACK_HEADER = 1 << 20  # bytes taken for the header of a file that cannot be parsed
LONGEST_HEADER = 256 << 20
LONGEST_TEXT = 16 << 20
MOST_KEYS, MOST_TENSORS, MOST_TEXTS = 1 << 16, 1 << 18, 1 << 22  # texts: of all arrays together
LISTED = 1024  # an array of at most so many numbers is kept: one for each layer
VOCABULARY = 1 << 10  # an array of more texts than this is one; a look for a listing stops there
CHUNK = 1 << 20
LENGTH = struct.Struct("<Q")
FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
SLIDING = re.compile(r"\.attention\.(sliding_window|chunk_size)$")
RECURRENT = re.compile(r"\.(ssm\.|wkv|shortconv)")  # mamba, rwkv, lfm2 and the hybrids
LONG_ROPE = "rope_factors_long"  # a tensor: positions are turned by other factors if the context is long
SPLIT = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$", re.DOTALL)
FILE_TYPES = (  # of weights, by their number in a GGUF file; "" is one that is gone
    "F32", "F16", "Q4_0", "Q4_1", "", "", "", "Q8_0", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S",
    "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ2_XXS", "IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL",
    "IQ3_S", "IQ3_M", "IQ2_S", "IQ2_M", "IQ4_XS", "IQ1_M", "BF16", "", "", "", "TQ1_0", "TQ2_0", "MXFP4_MOE",
)  # fmt: skip

Scalar = str | int | float | bool


class Header(msgspec.Struct, frozen=True):
    """What stands before the weights: scalar keys by name (an array counts as its length), `size` in bytes.

    `long_rope`: with a larger context all positions are turned otherwise (Phi 3 and 4, MiniCPM). `lists`: the arrays
    that say something of each layer. `table`: each tensor and where it begins, counted from the first one; empty after
    a look that stopped at the vocabulary.
    """

    keys: dict[str, Scalar]
    tensors: int
    size: int
    long_rope: bool = False
    lists: dict[str, tuple[Scalar, ...]] = {}
    table: tuple[tuple[str, int], ...] = ()

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


def quantisation(keys: Mapping[str, Scalar]) -> str:
    """How the weights are stored, as people call it (`Q4_K_M`); empty if the header does not say."""
    number = keys.get("general.file_type")
    return FILE_TYPES[number] if isinstance(number, int) and 0 <= number < len(FILE_TYPES) else ""


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


def stem(name: str) -> str:
    """A file's name without its ending, which may be written in any case; the same name if it has another one."""
    return name[: -len(ENDING)] if name.lower().endswith(ENDING) else name


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


def read_header(file: BinaryIO, *, whole: bool = True) -> Header:
    """Parse the header of an open GGUF file; BioproxyError if it is none, cut short, or larger than any real one.

    Not `whole`: only up to the vocabulary, which costs most (a hundred thousand texts) and comes after what describes
    the model.
    """
    reader = Reader(file)
    if reader.bytes(4) != MAGIC:
        raise BioproxyError("no GGUF file: the magic is missing")
    version = reader.number("I")
    if version not in VERSIONS:
        raise BioproxyError(f"GGUF version {version} is not known here")
    tensors, entries = reader.count(MOST_TENSORS, "tensors"), reader.count(MOST_KEYS, "keys")
    keys: dict[str, Scalar] = {}
    lists: dict[str, tuple[Scalar, ...]] = {}
    for _ in range(entries):
        name, kind = reader.text(), int(reader.number("I"))
        if kind != ARRAY:
            keys[name] = reader.value(kind)
            continue
        element, count = int(reader.number("I")), int(reader.number("Q"))
        keys[name] = count
        if element == TEXT and count > VOCABULARY and not whole:
            return Header(keys=keys, tensors=tensors, size=reader.position, lists=lists)
        if element in FIXED and count <= LISTED:
            lists[name] = reader.numbers(element, count)
        else:
            reader.skip(element, count)
    table = tuple(reader.tensor() for _ in range(tensors))
    return Header(
        keys=keys,
        tensors=tensors,
        size=reader.position,
        long_rope=any(LONG_ROPE in name for name, _ in table),
        lists=lists,
        table=table,
    )


class Reader:
    """GGUF's primitive values, one after the other; every length is checked before it is believed."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = file.seek(0, os.SEEK_END)
        self.position = file.seek(0)
        self.texts = 0  # passed over in arrays so far

    def bytes(self, count: int) -> bytes:
        """The next `count` bytes; BioproxyError if the file ends before, or the header would be absurdly long."""
        self.check(count)
        data = self.file.read(count)
        if len(data) < count:
            raise BioproxyError(f"broken GGUF header: the file ends at {self.position + len(data)}")
        self.position += count
        return data

    def check(self, count: int) -> None:
        """BioproxyError unless `count` more bytes are there."""
        if self.position + count > LONGEST_HEADER:
            raise BioproxyError(f"broken GGUF header: {count} bytes are announced at {self.position}")
        if self.position + count > self.size:
            raise BioproxyError(f"broken GGUF header: the file ends at {self.size}")

    def number(self, code: str) -> int | float | bool:
        """One number, by its letter in `struct`."""
        (value,) = struct.unpack(f"<{code}", self.bytes(struct.calcsize(f"<{code}")))
        number: int | float | bool = value
        return number

    def count(self, most: int, what: str) -> int:
        """How many `what` follow; BioproxyError for more than a model can have."""
        count = int(self.number("Q"))
        if count > most:
            raise BioproxyError(f"broken GGUF header: {count} {what} are announced")
        return count

    def numbers(self, element: int, count: int) -> tuple[Scalar, ...]:
        """An array of numbers."""
        form = f"<{count}{FIXED[element]}"
        return struct.unpack(form, self.bytes(struct.calcsize(form)))

    def text(self) -> str:
        """A length in eight bytes, then UTF-8."""
        count = int(self.number("Q"))
        if count > LONGEST_TEXT:
            raise BioproxyError(f"broken GGUF header: a text of {count} bytes is announced at {self.position}")
        return self.bytes(count).decode("utf-8", "replace")

    def value(self, kind: int) -> Scalar:
        """One text or number of GGUF type `kind`."""
        if kind == TEXT:
            return self.text()
        if kind not in FIXED:
            raise BioproxyError(f"broken GGUF header: value type {kind} at {self.position}")
        return self.number(FIXED[kind])

    def tensor(self) -> tuple[str, int]:
        """An entry of the tensor table: the name, and where its weights begin."""
        name, dimensions = self.text(), int(self.number("I"))
        self.bytes(8 * dimensions + 4)  # lengths, type
        return name, int(self.number("Q"))

    def skip(self, element: int, count: int) -> None:
        """Pass over `count` array elements of type `element`: numbers or texts (there are no arrays of arrays)."""
        if element in FIXED:
            self.move(struct.calcsize(f"<{FIXED[element]}") * count)
            return
        if element != TEXT:
            raise BioproxyError(f"broken GGUF header: an array of type {element} at {self.position}")
        self.texts += count
        if self.texts > MOST_TEXTS:
            raise BioproxyError(f"broken GGUF header: {self.texts} texts are announced at {self.position}")
        while count:  # half a million of them in a large vocabulary, so not one read for each
            self.check(LENGTH.size)
            chunk, at = self.file.read(CHUNK), 0
            last = len(chunk) - LENGTH.size
            while count and at <= last:
                at += LENGTH.size + LENGTH.unpack_from(chunk, at)[0]
                count -= 1
            self.move(at)

    def move(self, count: int) -> None:
        """Pass over `count` bytes that need not be read."""
        self.check(count)
        self.position = self.file.seek(self.position + count)
