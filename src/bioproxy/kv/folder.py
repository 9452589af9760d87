"""The snapshot folder: one owner, a table that can always be rebuilt, and nothing left over.

The folder is the engine's `--slot-save-path`, so files of others may lie in it; only names of ours are touched. The
process that holds the lock (`bp-lock`, an advisory lock that the kernel drops with its process) owns the snapshots; a
second bioproxy runs without any and says who holds them. What stands beside each slot file is the truth;
`bp-index.json` only adds how often each was used and what was learnt, and a broken one is replaced. `bp-copies.bin` has
copies of all those descriptions, because to open ten thousand files takes a second and one takes none. A copy counts
only as long as both files still look as they did, so it may be old, broken or missing.

If a newer bioproxy wrote `bp-index.json`, the folder is not used at all; a newer one's description is passed over. In
both cases nothing is removed: after a downgrade everything is still there for the next upgrade.

Everything here blocks and is called in threads.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from bioproxy.errors import NOT_JSON, BioproxyError
from bioproxy.files import Stuck, listed, read, touching, write_whole
from bioproxy.kv import files
from bioproxy.kv.ledger import Ledger, read_ledger
from bioproxy.kv.snapshot import (
    NAME,
    SIDECAR,
    TEMPORARY,
    VERSION,
    Newer,
    Snapshot,
    checksum,
    decode,
    encode,
    refuse_newer,
)

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = "bp-lock"
UNREAD = 1 << 30  # the byte that is locked on Windows, far behind what stands in the file
LEDGER = "bp-index.json"
COPIES = "bp-copies.bin"
LARGEST = 256 << 20  # bytes of a small file of ours
AT_ONCE = 256  # files that are looked at between two signs of life


class FolderError(BioproxyError):
    """The folder cannot be used; the message says why and what to do."""

    code = "snapshot_folder"


def out_of_reach(error: Stuck) -> FolderError:
    return FolderError(f"the snapshot folder cannot be used: {error.message}")


class Found(msgspec.Struct):
    """What a look through the folder found: good snapshots, and what was taken away (name, reason).

    `read`: how many descriptions were read one by one, because there was no copy of them; `newer`: how many a newer
    bioproxy wrote.
    """

    snapshots: list[Snapshot]
    removed: list[tuple[str, str]]
    ledger: Ledger
    read: int = 0
    newer: int = 0


Look = tuple[int, int, int]  # size, mtime and inode: another one means that a file was written anew


class Copy(msgspec.Struct, frozen=True):
    """A snapshot's description, and how its sidecar looked when it said that."""

    sidecar: Look
    snapshot: Snapshot


class Copies(msgspec.Struct, frozen=True):
    """All of `bp-copies.bin`; `checksum` is that of `copies`, a list of Copy."""

    version: int
    checksum: int
    copies: msgspec.Raw


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
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
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
        path = self.path / f"{TEMPORARY}probe-{os.urandom(4).hex()}"  # models that start at once look at once
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
        copies = self.read_copies(names)
        useless = dict[str, str]()  # by name, why
        for name in names:
            if name in spare:
                continue
            if name.startswith(TEMPORARY):
                useless[name] = "left over from a save that did not end"
            elif name in copies:
                found.snapshots.append(copies[name])
            elif (match := NAME.fullmatch(name)) is not None and match[3] == "kv":
                self.examine(found, useless, name)
            elif match is not None and f"{name.removesuffix('.json')}.kv" not in present:
                useless[name] = "its slot file is missing"
        for name, reason in useless.items():
            self.drop(found, name, reason)
        return found

    def peek(self) -> list[Snapshot]:
        """Every readable sidecar, without the lock and without touching anything. Raises FolderError."""
        found = []
        self.read_ledger()  # a newer bioproxy's folder is refused
        for name in self.names():
            with contextlib.suppress(OSError, *NOT_JSON, ValueError, Newer):
                if (match := NAME.fullmatch(name)) is not None and match[3] == "json":
                    found.append(decode(read(self.path / name, most=LARGEST)))
        return found

    def names(self) -> list[str]:
        """What lies in the folder, in order. Raises FolderError."""
        try:
            return sorted(entry.name for entry in listed(self.path))
        except OSError as error:
            raise FolderError(f"cannot read the snapshot folder {self.path}: {error.strerror}") from error

    def examine(self, found: Found, useless: dict[str, str], name: str) -> None:
        """Take one slot file in, or note why it is of no use."""
        sidecar = f"{name.removesuffix('.kv')}.json"
        found.read += 1
        try:
            snapshot = decode(read(self.path / sidecar, most=LARGEST))
            if snapshot.name != name:
                raise ValueError("it describes another file")  # noqa: TRY301 - one way out for all that is wrong
            found.snapshots.append(self.moved(snapshot))
        except (OSError, *NOT_JSON, ValueError) as error:
            useless |= {name: f"its description is no good: {error}", sidecar: ""}
        except files.Unverified as error:
            useless |= {name: error.message, sidecar: ""}
        except Newer:
            found.newer += 1

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
        """The ledger; a fresh one if it is missing or broken. FolderError if a newer bioproxy wrote it."""
        try:
            data = read(self.path / LEDGER, most=LARGEST)
            refuse_newer(data)
        except OSError:
            return Ledger()
        except Newer as error:
            raise FolderError(
                f"the snapshot folder {self.path} is not used, and nothing in it was removed: {error.message}; upgrade "
                "bioproxy, or give this one another folder (kv.directory, or the engine's --slot-save-path)"
            ) from error
        return read_ledger(data)

    def write_ledger(self, ledger: bytes) -> None:
        """Keep the ledger. OSError."""
        write_whole(self.path / LEDGER, ledger, unfinished=TEMPORARY)

    # copies of the descriptions

    def looks(self, names: Sequence[str]) -> dict[str, Look]:
        """How those of these files look that are regular ones. Stuck if the disk does not answer."""
        found = dict[str, Look]()
        where = os.path.join(self.path, "")  # a Path for each of ten thousand names takes as long again
        for start in range(0, len(names), AT_ONCE):
            with touching(self.path):
                for name in names[start : start + AT_ONCE]:
                    with contextlib.suppress(OSError):
                        status = os.lstat(where + name)
                        if stat.S_ISREG(status.st_mode):
                            found[name] = status.st_size, status.st_mtime_ns, status.st_ino
        return found

    def read_copies(self, names: Sequence[str]) -> dict[str, Snapshot]:
        """The snapshots, by file name, that are here as they were when their copies were written."""
        try:
            copies = decode_copies(read(self.path / COPIES, most=LARGEST))
        except (OSError, *NOT_JSON, ValueError):
            return {}
        looks = self.looks([name for name in names if NAME.fullmatch(name)])
        found = {}
        for copy in copies:
            one = copy.snapshot
            if looks.get(one.sidecar) == copy.sidecar and looks.get(one.name) == (one.size, one.mtime_ns, one.inode):
                found[one.name] = one
        return found

    def sidecars(self) -> dict[str, Look]:
        """How every sidecar looks: to be asked *before* what the copies shall say is taken from the table.

        If a sidecar is written after that, its copy does not fit it and is not used. FolderError, Stuck.
        """
        return self.looks([name for name in self.names() if name.endswith(SIDECAR)])

    def write_copies(self, snapshots: Iterable[Snapshot], sidecars: Mapping[str, Look]) -> None:
        """Keep copies for the next start. One that a power cut spoils is not used, so the disk is not waited for.

        OSError, Stuck.
        """
        copies = [Copy(sidecars[one.sidecar], one) for one in snapshots if one.sidecar in sidecars]
        data = msgspec.msgpack.encode(copies)
        whole = msgspec.msgpack.encode(Copies(VERSION, checksum(data), msgspec.Raw(data)))
        write_whole(self.path / COPIES, whole, durable=False, unfinished=TEMPORARY)


def decode_copies(data: bytes) -> list[Copy]:
    """The copies in the bytes of their file; NOT_JSON or ValueError if they are not what was written."""
    whole = msgspec.msgpack.decode(data, type=Copies)
    if (whole.version, whole.checksum) != (VERSION, checksum(bytes(whole.copies))):
        raise ValueError("they are not what was written")
    return msgspec.msgpack.decode(whole.copies, type=list[Copy])


def lock(descriptor: int) -> None:
    """Take the whole file's lock without waiting; OSError if another process has it."""
    if sys.platform == "win32":
        os.lseek(descriptor, UNREAD, os.SEEK_SET)  # nobody can read what is locked there: not the name of whose it is
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
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
