"""Slot files on disk: written so that each is whole or absent, whatever is killed when.

llama-server writes a slot file in place, without fsync, and may even answer 200 for one that is cut short; a cut file
kills the server that reads it (facts, 0.1). So the engine writes under a temporary name, and only what was measured to
be whole gets a final one. The order of the steps is the point, and each has a name so that a test can end the process
right after it:

    verified    the temporary file has exactly the bytes that the engine says it wrote
    private     its mode is 0600, where it is ours (an engine of another user must be able to read it)
    synced      its bytes are on the disk
    described   the sidecar is on the disk: size, mtime, inode, digest of samples, the chain
    renamed     the slot file has its final name: from here on the snapshot exists
    settled     the folder is on the disk, so the name survives a power cut

A crash before `renamed` leaves a temporary file or a sidecar without its file; both are removed at the next start. All
of this blocks and belongs in a thread.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from bioproxy.errors import BioproxyError
from bioproxy.kv.snapshot import PREFIX, TEMPORARY, Snapshot, encode

STEPS = ("verified", "private", "synced", "described", "renamed", "settled")
BLOCK, BLOCKS = 64 * 1024, 32
OWNER_ONLY = 0o600
OTHERS = 0o077


class Unverified(BioproxyError):
    """A file is not what it must be; the message says in which way."""

    code = "snapshot_unverified"


class Missing(Unverified):
    """There is no such file."""


class Stamp(msgspec.Struct, frozen=True):
    """What the file system tells about a file: enough to see that somebody touched it."""

    size: int
    mtime_ns: int
    inode: int


def quiet(_step: str) -> None:
    """Nobody wants to know about the steps."""


def look(path: Path) -> Stamp:
    """The stamp of a regular file. Raises Unverified where there is none."""
    try:
        status = path.stat(follow_symlinks=False)
    except FileNotFoundError as error:
        raise Missing(f"{path.name} is not in {path.parent}") from error
    except OSError as error:
        raise Unverified(f"cannot look at {path}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise Unverified(f"{path} is no regular file")
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)


def measured(path: Path, size: int) -> Stamp:
    """The stamp of a file that must have exactly `size` bytes; Unverified where it has not, or is not there."""
    stamp = look(path)
    if stamp.size != size:
        raise Unverified(f"{path.name} has {stamp.size} bytes, {size} were written")
    return stamp


def sample(path: Path, size: int) -> str:
    """A digest of the head, the tail and blocks in between: at most 2 MiB are read, whatever the size. OSError."""
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    steps = max(1, BLOCKS - 1)
    with path.open("rb") as file:
        for number in range(BLOCKS):
            file.seek(max(0, size - BLOCK) * number // steps)
            digest.update(file.read(BLOCK))
            if size <= BLOCK:
                break
    return digest.hexdigest()[:32]


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


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file of ours, 0600, so that its name never stands for half of it. OSError."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ONLY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def make_private(path: Path) -> None:
    """Mode 0600, where the file is ours; an engine that runs as another user keeps what it needs to read it."""
    if sys.platform == "win32":
        return
    status = path.stat()
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != OWNER_ONLY:
        path.chmod(OWNER_ONLY)


def make_folder_private(folder: Path, written: Path) -> None:
    """Mode 0700, where the folder is ours, holds nothing else, and so is what the engine has `written` into it.

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
        stamp = measured(path, snapshot.size)
        step("verified")
        make_private(path)
        step("private")
        sync_file(path)
        step("synced")
        snapshot = msgspec.structs.replace(
            snapshot, mtime_ns=stamp.mtime_ns, inode=stamp.inode, sample=sample(path, stamp.size)
        )
        write_whole(folder / snapshot.sidecar, encode(snapshot))
        step("described")
        path.replace(folder / snapshot.name)
        step("renamed")
        sync_folder(folder)
        step("settled")
    except Exception:
        for name in (temporary, snapshot.name, snapshot.sidecar):
            (folder / name).unlink(missing_ok=True)
        raise
    return snapshot


def unchanged(folder: Path, snapshot: Snapshot) -> None:
    """Raise Unverified unless the slot file is the one that was verified: size, mtime and inode."""
    stamp = measured(folder / snapshot.name, snapshot.size)
    if (stamp.mtime_ns, stamp.inode) != (snapshot.mtime_ns, snapshot.inode):
        raise Unverified(f"{snapshot.name} was changed or replaced after it was written")


def sampled(folder: Path, snapshot: Snapshot) -> None:
    """The same, and the content's samples too: Unverified where they differ. Reads up to 2 MiB."""
    unchanged(folder, snapshot)
    try:
        found = sample(folder / snapshot.name, snapshot.size)
    except OSError as error:
        raise Unverified(f"cannot read {snapshot.name}: {error.strerror}") from error
    if found != snapshot.sample:
        raise Unverified(f"the content of {snapshot.name} is not what was written")


def remove(folder: Path, snapshot: Snapshot) -> None:
    """Remove a snapshot; the slot file first, for a sidecar alone is harmless. OSError where that is not allowed."""
    (folder / snapshot.name).unlink(missing_ok=True)
    (folder / snapshot.sidecar).unlink(missing_ok=True)
