"""What model files are, remembered: a model that is swapped in again need not be read again.

An identity (gguf.py) costs some megabytes of reading and, with a large vocabulary, a tenth of a second of parsing. It
holds as long as the file is the same one and nobody has written to it: device, inode, size, and both of its times. That
`mtime` can be set back is no matter, for `ctime` cannot. Everything here blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from bioproxy.engines import gguf
from bioproxy.errors import BioproxyError
from bioproxy.files import opened, stat

MOST = 64  # files that are remembered; models are few, but a container shows each under a new name
BYTES = 2  # of a cached value; another type only makes the first guess a bad one

T = TypeVar("T")
Stamp = tuple[tuple[int, ...], ...]


class Traits(msgspec.Struct, frozen=True):
    """What a model's header says. `window`: sliding-window layers (None: not known); `recurrent`: layers with a state.

    `token_bytes`: about what a token takes in a slot file, 0 where that cannot be told; a guess until one was written.
    `long_rope`: the size of the context decides how positions are turned.
    """

    window: bool | None = None
    recurrent: bool = False
    token_bytes: int = 0
    long_rope: bool = False

    @property
    def full(self) -> bool:
        """Whether it is known that a cache of this model can be cut at any place."""
        return self.window is False and not self.recurrent


class Identities:
    """Remembers what `identify` said of a file, and its traits, as long as the file is the same."""

    def __init__(self, identify: Callable[[str], str] = gguf.identity) -> None:
        self.identify = identify
        self.identities: dict[Stamp, str] = {}
        self.read: dict[Stamp, Traits] = {}

    def __call__(self, path: str) -> str:
        """The identity of the model at `path`. Raises what `identify` raises, OSError."""
        return recall(self.identities, path, self.identify)

    def traits(self, path: str) -> Traits:
        """What the header of the model at `path` says; nothing where it cannot be read."""
        try:
            return recall(self.read, path, traits_of)
        except (BioproxyError, OSError):
            return Traits()


def recall(known: dict[Stamp, T], path: str, find: Callable[[str], T]) -> T:
    """What `find` said of the file at `path`, asked once as long as the file stays the same."""
    stamp = stamp_of(path)
    if stamp not in known:
        found = find(path)
        if stamp_of(path) != stamp:  # written to meanwhile
            return found
        while len(known) >= MOST:
            known.pop(next(iter(known)))
        known[stamp] = found
    return known[stamp]


def stamp_of(path: str) -> Stamp:
    """How all parts of a file look to the system. OSError."""
    found = [stat(part) for part in gguf.parts(path)]
    return tuple((one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in found)


def traits_of(path: str) -> Traits:
    """Read the header of a model, and which tensors its other parts have. BioproxyError, OSError."""
    header, *others = map(header_of, gguf.parts(path))

    def number(name: str) -> int:
        value = header.keys.get(f"{header.architecture}.{name}", 0)
        return value if isinstance(value, int) else 0

    heads = number("attention.head_count")
    width = number("embedding_length") // heads if heads else 0
    both = (number("attention.key_length") or width) + (number("attention.value_length") or width)
    values = number("block_count") * (number("attention.head_count_kv") or heads) * both
    return Traits(
        window=header.window,
        recurrent=header.recurrent,
        token_bytes=BYTES * values,
        long_rope=any(one.long_rope for one in (header, *others)),
    )


def header_of(part: Path) -> gguf.Header:
    """The header of one part. BioproxyError, OSError."""
    with opened(part) as file:
        return gguf.read_header(file)
