"""Reading the files that templates include, and seeing cheaply that they did not change.

Files are looked at with `stat` every few seconds, in a worker thread: bind mounts, network folders and config maps
defeat inotify. A file whose times, size and inode are as before is not read again. One exception, as git makes it for
its index: a file that changed within two seconds of being read may change again in the same tick of the file system's
clock, so it is read once more at the next look.

A `Look` is one pass over all templates. It works on a cache of its own and returns it with the readings, so that a look
that was given up (its caller was cancelled) disturbs no other one.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path

import msgspec

from bioproxy import files
from bioproxy.errors import TemplateError

LARGEST = 64 << 20  # bytes of one file; no context is that long, and reading /dev/zero must end
UNSURE = 2_000_000_000  # nanoseconds
BINARY = 8000  # bytes in which a NUL makes a file binary, as git has it


class Entry(msgspec.Struct, frozen=True):
    """A file as it was read: its text (None: binary), a digest of it, and what `stat` said.

    `sure` is false if it may have changed since without a trace in `stat`.
    """

    text: str | None
    digest: bytes
    signature: tuple[int, int, int, int]
    sure: bool


Cache = dict[Path, Entry]


class Look:
    """One pass over the files: `before` is what the last one knew, `cache` what this one knows."""

    def __init__(self, before: Cache | None = None) -> None:
        self.before = before or {}
        self.cache: Cache = {}

    def text(self, path: Path, *, shown: str) -> str:
        """The text of a file, as it is; TemplateError (naming it as `shown`) if there is none to be had."""
        entry = self.entry(path, shown=shown)
        if entry.text is None:
            return utf8(self.bytes(path, shown=shown), shown=shown)  # asked for by name: NUL is a letter like others
        return entry.text

    def entry(self, path: Path, *, shown: str) -> Entry:
        """A file, read only if it may have changed; what is no regular file has no text."""
        if (known := self.cache.get(path)) is not None:
            return known
        try:
            status = files.stat(path)
        except OSError as error:
            raise TemplateError(f"{shown}: cannot be read: {files.reason(error)}") from error
        known = self.before.get(path)
        if known is None or not known.sure or known.signature != signature(status):
            known = self.fresh(path, status, shown=shown)
        self.cache[path] = known
        return known

    def fresh(self, path: Path, status: os.stat_result, *, shown: str) -> Entry:
        """Read a file anew. Its first bytes tell whether it is binary, before its size is judged."""
        sure = abs(time.time_ns() - status.st_mtime_ns) > UNSURE
        large = status.st_size > LARGEST
        if not stat.S_ISREG(status.st_mode) or (large and b"\0" in self.bytes(path, shown=shown, most=BINARY)):
            return Entry(None, b"", signature(status), sure)
        data = self.bytes(path, shown=shown)
        text = None if b"\0" in data[:BINARY] else utf8(data, shown=shown)
        return Entry(text, hashlib.sha256(data).digest(), signature(status), sure)

    def bytes(self, path: Path, *, shown: str, most: int = LARGEST) -> bytes:
        try:
            data = files.read(path, most=most)
        except files.Irregular as error:
            raise TemplateError(f"{shown}: is no regular file; a template can include texts only") from error
        except OSError as error:
            raise TemplateError(f"{shown}: cannot be read: {files.reason(error)}") from error
        if len(data) > LARGEST:
            raise TemplateError(f"{shown}: is larger than {LARGEST >> 20} MiB; no model reads that much")
        return data


def signature(status: os.stat_result) -> tuple[int, int, int, int]:
    """What tells one state of a file from another without reading it.

    `ctime`, because who builds reproducibly gives each version of a file the same mtime. (On Windows it never changes.)
    """
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def utf8(data: bytes, *, shown: str) -> str:
    """`data` as text; TemplateError that says where it is no UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TemplateError(
            f"{shown}:{line}: not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start:,}; convert it to UTF-8"
        ) from error
