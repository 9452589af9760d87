"""Slot files on disk: written so that each is whole or absent, whatever is killed when.

llama-server writes a slot file in place, without fsync, and may even answer 200 for one that is cut short; a cut file
kills the server that reads it (facts, 0.1). So the engine writes under a temporary name, and only what was measured to
be whole gets a final one. The order of the steps is the point, and each has a name so that a test can end the process
right after it:

    verified    the temporary file has exactly the bytes that the engine says it wrote
    private     its mode is 0600, if it is ours (an engine of another user must be able to read it)
    read        its checksum is known, and nothing was written to it meanwhile
    synced      its bytes are on the disk
    described   the sidecar is on the disk: size, mtime, inode, checksum, the chain
    renamed     the slot file has its final name: from here on the snapshot exists
    settled     the folder is on the disk, so the name survives a power cut

A crash before `renamed` leaves a temporary file or a sidecar without its file; both are removed at the next start.

Size and times say that a file was not written to, not that its bytes are the ones that were written: a disk or its
cable may flip one, and the server restores that without a word and answers something else, or nothing but NaN. So there
is a CRC-32C over the whole file. It is compared before a file's first use in this run, and whenever its times look
otherwise than then (`proved`). With the processor's own instruction, and several parts at a time, it costs a fraction
of the engine's reading of the same file.

All of this blocks and belongs in a thread.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from bioproxy.aio import Threads
from bioproxy.errors import BioproxyError
from bioproxy.files import changed, replace, touching, write_whole
from bioproxy.kv.snapshot import DAMAGED, PREFIX, TEMPORARY, Snapshot, encode

STEPS = ("verified", "private", "read", "synced", "described", "renamed", "settled")
BLOCK, BLOCKS = 64 * 1024, 32
CHUNK = 1 << 20  # bytes read at once: more would not fit into the processor's cache
PART = 32 << 20  # bytes that are worth a thread
READERS = min(4, os.cpu_count() or 1)
POLYNOMIAL = 0x82F63B78  # of CRC-32C
OWNER_ONLY = 0o600
OTHERS = 0o077


class Unverified(BioproxyError):
    """A file is not what it must be; the message says in which way."""

    code = "snapshot_unverified"


class Missing(Unverified):
    """There is no such file."""


class Damaged(Unverified):
    """Size and times are right, the bytes are not."""


class Stamp(msgspec.Struct, frozen=True):
    """What the file system tells about a file: enough to see that it was touched.

    `ctime_ns` changes with every write and cannot be set; it changes with a rename and a backup's return, too, so that
    it is no property of a snapshot.
    """

    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int = 0


def quiet(_step: str) -> None:
    """Hears the steps of a commit, and does nothing."""


def look(path: Path) -> Stamp:
    """The stamp of a regular file. Raises Unverified if there is none."""
    try:
        with touching(path.parent):
            status = path.stat(follow_symlinks=False)
            ctime = changed(path, status, follow=False)
    except FileNotFoundError as error:
        raise Missing(f"{path.name} is not in {path.parent}") from error
    except OSError as error:
        raise Unverified(f"cannot look at {path}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise Unverified(f"{path} is no regular file")
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino, ctime)


def measured(path: Path, size: int) -> Stamp:
    """The stamp of a file that must have exactly `size` bytes. Raises Unverified if it has not, or is not there."""
    stamp = look(path)
    if stamp.size != size:
        raise Unverified(f"{path.name} has {stamp.size} bytes, {size} were written")
    return stamp


def checksum(path: Path) -> int:
    """CRC-32C of all bytes of a file; of a large one, several parts at a time. OSError."""
    size = path.stat().st_size
    count = max(1, min(READERS, size // PART))
    bounds = [size * number // count for number in range(count + 1)]
    with Threads(count) as readers:  # reading and the sum give the interpreter's lock away
        parts = list(readers.map(partial(checksum_of, path), bounds[:-1], bounds[1:]))
    found = parts[0]
    for start, end, part in zip(bounds[1:-1], bounds[2:], parts[1:], strict=True):
        found = multiplied(zeros(end - start), found) ^ part
    return found


def checksum_of(path: Path, start: int, end: int, found: int = 0, *, apart: bool = False) -> int:
    """CRC-32C of the bytes from `start` to `end`, after what has the sum `found`. OSError; Stuck if the disk hangs.

    `apart`: they are read from the disk, and the system's memory for files is left as it is, in which a model may lie.
    """
    from crc32c import crc32c  # it takes 4 MB, with what it imports

    view = memoryview(bytearray(CHUNK))
    with touching(path):
        file = path.open("rb", buffering=0)
    with file:
        file.seek(start)
        if apart and sys.platform == "linux":
            os.posix_fadvise(file.fileno(), start, end - start, os.POSIX_FADV_DONTNEED)
        while start < end:
            with touching(path):
                count = file.readinto(view[: min(end - start, CHUNK)])
            if not count:
                break
            found = crc32c(view[:count], found)
            if apart and sys.platform == "linux":
                os.posix_fadvise(file.fileno(), start, count, os.POSIX_FADV_DONTNEED)
            start += count
    return found


def multiplied(one: int, other: int) -> int:
    """The product of two remainders of CRC-32C; its polynomials have their highest power in the lowest bit."""
    product = 0
    for bit in range(31, -1, -1):
        if one >> bit & 1:
            product ^= other
        other = (other >> 1) ^ POLYNOMIAL if other & 1 else other >> 1
    return product


def zeros(length: int) -> int:
    """What a remainder is multiplied with when `length` further bytes follow: x to the power of their bits."""
    power, square, bits = 1 << 31, 1 << 30, 8 * length
    while bits:
        power = multiplied(square, power) if bits & 1 else power
        square = multiplied(square, square)
        bits >>= 1
    return power


def sample(path: Path, size: int) -> str:
    """A digest of the head, the tail and blocks in between: at most 2 MiB are read, whatever the size. OSError.

    For a look at a whole folder: reading everything would take too long.
    """
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    steps = max(1, BLOCKS - 1)
    with path.open("rb") as file:
        for number in range(BLOCKS):
            file.seek(max(0, size - BLOCK) * number // steps)
            digest.update(file.read(BLOCK))
            if size <= BLOCK:
                break
    return digest.hexdigest()[:32]


def untouched(path: Path, stamp: Stamp) -> None:
    """Raise Unverified if a file was written to while it was read."""
    if look(path) != stamp:
        raise Unverified(f"{path.name} was written to while it was read")


def sync_file(path: Path) -> None:
    """Bring a file's bytes to the disk; another process may have written them."""
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Bring a folder's names to the disk; Windows has no such thing."""
    if sys.platform != "win32":
        sync_file(path)


def make_private(path: Path) -> None:
    """Mode 0600, if the file is ours; an engine that runs as another user keeps what it needs to read it."""
    if sys.platform == "win32":
        return
    status = path.stat()
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != OWNER_ONLY:
        path.chmod(OWNER_ONLY)


def make_folder_private(folder: Path, written: Path) -> None:
    """Mode 0700, if the folder and what the engine has `written` into it are ours and it holds nothing else.

    An engine of another user would be locked out, and so would be others from a folder that is not for snapshots only.
    """
    if sys.platform == "win32":
        return
    status, user = folder.stat(), os.geteuid()
    ours = status.st_uid == user and written.stat().st_uid == user
    if ours and stat.S_IMODE(status.st_mode) & OTHERS and all(one.name.startswith(PREFIX) for one in folder.iterdir()):
        folder.chmod(0o700)


def commit(folder: Path, temporary: str, snapshot: Snapshot, *, step: Callable[[str], None] = quiet) -> Snapshot:
    """Turn what the engine wrote under `temporary` into `snapshot`, step by step; returns it with its stamp.

    Raises Unverified (the size is wrong) or OSError; the temporary file is removed then. `step` hears each step's name
    when it is done.
    """
    path = folder / temporary
    try:
        measured(path, snapshot.size)
        step("verified")
        make_private(path)
        step("private")
        stamp = measured(path, snapshot.size)
        snapshot = msgspec.structs.replace(
            snapshot,
            mtime_ns=stamp.mtime_ns,
            inode=stamp.inode,
            checksum=checksum(path),
            sample=sample(path, stamp.size),
        )
        untouched(path, stamp)
        step("read")
        sync_file(path)
        step("synced")
        write_whole(folder / snapshot.sidecar, encode(snapshot), unfinished=TEMPORARY)
        step("described")
        replace(path, folder / snapshot.name)
        step("renamed")
        sync_folder(folder)
        step("settled")
    except Exception:
        for name in (temporary, snapshot.name, snapshot.sidecar):
            (folder / name).unlink(missing_ok=True)
        raise
    return snapshot


def unchanged(folder: Path, snapshot: Snapshot) -> Stamp:
    """Raise Unverified unless the slot file is the one that was verified: size, mtime and inode. Its stamp."""
    stamp = measured(folder / snapshot.name, snapshot.size)
    if (stamp.mtime_ns, stamp.inode) != (snapshot.mtime_ns, snapshot.inode):
        raise Unverified(f"{snapshot.name} was changed or replaced after it was written")
    return stamp


def sampled(folder: Path, snapshot: Snapshot) -> None:
    """The same, and the content's samples too: Unverified (Damaged) if they differ. Reads up to 2 MiB."""
    unchanged(folder, snapshot)
    try:
        found = sample(folder / snapshot.name, snapshot.size)
    except OSError as error:
        raise Unverified(f"cannot read {snapshot.name}: {error.strerror}") from error
    if found != snapshot.sample:
        raise damaged(snapshot)


def proved(folder: Path, snapshot: Snapshot) -> tuple[Snapshot, Stamp]:
    """Read all of a slot file: Unverified (Damaged) unless its bytes are the ones that were written.

    Returns the snapshot with its checksum, which one of an older version did not have, and the stamp of what was read.
    """
    stamp = unchanged(folder, snapshot)
    path = folder / snapshot.name
    if snapshot.checksum is None:
        sampled(folder, snapshot)
    try:
        found = checksum(path)
    except OSError as error:
        raise Unverified(f"cannot read {snapshot.name}: {error.strerror}") from error
    untouched(path, stamp)
    if snapshot.checksum not in (None, found):
        raise damaged(snapshot)
    return msgspec.structs.replace(snapshot, checksum=found), stamp


def damaged(snapshot: Snapshot) -> Damaged:
    """The sentence for a file whose bytes are wrong."""
    return Damaged(f"the content of {snapshot.name} {DAMAGED}")


def remove(folder: Path, snapshot: Snapshot) -> None:
    """Remove a snapshot; the slot file first, for a sidecar alone is harmless. OSError if that is not allowed."""
    with touching(folder):
        (folder / snapshot.name).unlink(missing_ok=True)
        (folder / snapshot.sidecar).unlink(missing_ok=True)
