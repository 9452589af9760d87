"""The snapshot folder: one owner, a table that can always be rebuilt, and nothing left over.

The folder is the engine's `--slot-save-path`, so files of others may lie in it; only names of ours are touched. The
process that holds the lock (`bp-lock`, an advisory lock that the kernel drops with its process) owns the snapshots; a
second bioproxy runs without any and says who holds them. What stands beside each slot file is the truth;
`bp-index.json` only adds how often each was used and what was learnt, and a broken one is replaced.

Everything here blocks and is called in threads.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import time
from pathlib import Path

import msgspec

from bioproxy.errors import NOT_JSON, BioproxyError
from bioproxy.files import Stuck, listed, read, touching, write_whole
from bioproxy.kv import files
from bioproxy.kv.policy import Ledger, read_ledger
from bioproxy.kv.snapshot import NAME, TEMPORARY, Snapshot, decode, encode

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = "bp-lock"
LEDGER = "bp-index.json"
LARGEST = 256 << 20  # bytes of a small file of ours


class FolderError(BioproxyError):
    """The folder cannot be used; the message says why and what to do."""

    code = "snapshot_folder"


def out_of_reach(error: Stuck) -> FolderError:
    return FolderError(f"the snapshot folder cannot be used: {error.message}")


class Found(msgspec.Struct):
    """What a look through the folder found: good snapshots, and what was taken away (name, reason)."""

    snapshots: list[Snapshot]
    removed: list[tuple[str, str]]
    ledger: Ledger


class Folder:
    """One folder of snapshots, owned between `occupy` and `leave`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1

    def occupy(self) -> None:
        """Take the lock, or see that it still is ours (the folder may have been replaced). Raises FolderError."""
        if self.holds():
            return
        self.leave()
        try:
            with touching(self.path):
                descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, files.OWNER_ONLY)
        except OSError as error:
            raise FolderError(f"cannot write to the snapshot folder {self.path}: {error.strerror}") from error
        try:
            lock(descriptor)
        except OSError as error:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() if hasattr(os, "pread") else ""
            os.close(descriptor)
            who = holder or "another process"
            raise FolderError(f"the snapshot folder {self.path} is in use by {who}; give each its own") from error
        with contextlib.suppress(OSError):  # on a full disk it is ours without our name in it
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"bioproxy, process {os.getpid()} on {socket.gethostname()}\n".encode())
        self.descriptor = descriptor

    def holds(self) -> bool:
        """Whether the lock file that we hold is the one in the folder."""
        try:
            with touching(self.path):
                return self.descriptor >= 0 and os.path.samestat(os.fstat(self.descriptor), (self.path / LOCK).stat())
        except OSError:
            return False

    def leave(self) -> None:
        """Give the lock back; does nothing if it is not held."""
        if self.descriptor >= 0:
            with touching(self.path):
                os.close(self.descriptor)
            self.descriptor = -1

    def probe(self) -> None:
        """Write, rename, look at and remove a small file. Raises FolderError with what went wrong."""
        path = self.path / f"{TEMPORARY}probe"
        try:
            write_whole(path, b"bioproxy looks whether it can write here", unfinished=TEMPORARY)
            files.look(path)
            path.unlink()
        except OSError as error:
            raise FolderError(f"cannot write to the snapshot folder {self.path}: {error.strerror}") from error
        except files.Unverified as error:
            raise FolderError(f"the snapshot folder {self.path} loses files: {error.message}") from error

    def free(self) -> int:
        """Bytes that are free there. Raises FolderError."""
        try:
            with touching(self.path):
                return shutil.disk_usage(self.path).free
        except OSError as error:
            raise FolderError(f"the snapshot folder {self.path} is gone: {error.strerror}") from error

    def load(self, spare: frozenset[str] = frozenset()) -> Found:
        """Read every sidecar, compare each with its file, and remove what is not whole. Raises FolderError.

        `spare`: what belongs to saves that are under way.
        """
        names = self.names()
        present = frozenset(names)
        found = Found([], [], self.read_ledger())
        for name in names:
            if name in spare:
                continue
            if name.startswith(TEMPORARY):
                self.drop(found, name, "left over from a save that did not end")
            elif (match := NAME.fullmatch(name)) is not None and match[3] == "kv":
                self.examine(found, name)
            elif match is not None and f"{name.removesuffix('.json')}.kv" not in present:
                self.drop(found, name, "its slot file is missing")
        return found

    def peek(self) -> list[Snapshot]:
        """Every readable sidecar, without the lock and without touching anything. Raises FolderError."""
        found = []
        for name in self.names():
            with contextlib.suppress(OSError, *NOT_JSON, ValueError):
                if (match := NAME.fullmatch(name)) is not None and match[3] == "json":
                    found.append(decode(read(self.path / name, most=LARGEST)))
        return found

    def names(self) -> list[str]:
        """What lies in the folder, in order. Raises FolderError."""
        try:
            return sorted(entry.name for entry in listed(self.path))
        except OSError as error:
            raise FolderError(f"cannot read the snapshot folder {self.path}: {error.strerror}") from error

    def examine(self, found: Found, name: str) -> None:
        """Take one slot file in, or remove it with the reason."""
        sidecar = f"{name.removesuffix('.kv')}.json"
        try:
            snapshot = decode(read(self.path / sidecar, most=LARGEST))
            if snapshot.name != name:
                raise ValueError("it describes another file")  # noqa: TRY301 - one way out for all that is wrong
            found.snapshots.append(self.moved(snapshot))
        except (OSError, *NOT_JSON, ValueError) as error:
            self.drop(found, name, f"its description is no good: {error}")
            self.drop(found, sidecar, "")
        except files.Unverified as error:
            self.drop(found, name, error.message)
            self.drop(found, sidecar, "")

    def moved(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot as it lies here. Another inode alone means a copied folder: the content's samples decide.

        All of it is read before its first use.
        """
        stamp = files.measured(self.path / snapshot.name, snapshot.size)
        if stamp.mtime_ns != snapshot.mtime_ns:
            raise files.Unverified(f"{snapshot.name} was changed after it was written")
        if stamp.inode == snapshot.inode:
            return snapshot
        moved = msgspec.structs.replace(snapshot, inode=stamp.inode)
        files.sampled(self.path, moved)
        with contextlib.suppress(OSError):  # on a full disk the next start looks at it again
            self.describe(moved)
        return moved

    def describe(self, snapshot: Snapshot, *, durable: bool = True) -> None:
        """Write a snapshot's sidecar anew. OSError."""
        write_whole(self.path / snapshot.sidecar, encode(snapshot), durable=durable, unfinished=TEMPORARY)

    def sweep(self, spare: frozenset[str], age: float) -> None:
        """Remove temporary files that were not written to for `age` seconds: of saves that did not end."""
        now = time.time()
        with contextlib.suppress(OSError):
            for entry in listed(self.path):
                if entry.name.startswith(TEMPORARY) and entry.name not in spare:
                    with contextlib.suppress(OSError):
                        if now - entry.stat(follow_symlinks=False).st_mtime > age:
                            (self.path / entry.name).unlink()

    def drop(self, found: Found, name: str, reason: str) -> None:
        """Remove one file and note it; one that cannot be removed is left, and never used."""
        with contextlib.suppress(OSError):
            (self.path / name).unlink()
        if reason:
            found.removed.append((name, reason))

    def read_ledger(self) -> Ledger:
        try:
            return read_ledger(read(self.path / LEDGER, most=LARGEST))
        except OSError:
            return Ledger()

    def write_ledger(self, ledger: bytes) -> None:
        """Keep the ledger. OSError."""
        write_whole(self.path / LEDGER, ledger, unfinished=TEMPORARY)


def lock(descriptor: int) -> None:
    """Take the whole file's lock without waiting; OSError if another process has it."""
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Verified(msgspec.Struct, frozen=True):
    """One snapshot and what is wrong with it; `fault` is empty for a whole one."""

    snapshot: Snapshot
    fault: str = ""


def examine(path: Path, snapshot: Snapshot, *, whole: bool = True) -> Verified:
    """Read one file, or (not `whole`) samples of it. Blocks."""
    try:
        files.proved(path, snapshot) if whole else files.sampled(path, snapshot)
    except files.Unverified as error:
        return Verified(snapshot, error.message)
    return Verified(snapshot, snapshot.quarantined)


def examine_all(path: Path, *, whole: bool = True) -> tuple[Verified, ...]:
    """Compare every snapshot in a folder with its file, the largest first; works without the lock and changes nothing.

    Blocks. Raises FolderError.

    Not `whole`: for a list, which must not wait for gigabytes.
    """
    found = [one for one in Folder(path).peek() if not one.reference]
    return tuple(examine(path, one, whole=whole) for one in sorted(found, key=lambda one: -one.size))
