"""Comparing snapshots with their files, for `bioproxy snapshots verify`.

Every byte is read, as before a file's first restore, and nothing is changed: what is bad is reported, and the program
does not use it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from bioproxy.kv import files
from bioproxy.kv.folder import Folder
from bioproxy.kv.snapshot import Snapshot
from bioproxy.kv.store import Store


class Verified(msgspec.Struct, frozen=True):
    """One snapshot and what is wrong with it; `fault` is empty for a whole one."""

    snapshot: Snapshot
    fault: str = ""


async def verify(store: Store) -> tuple[Verified, ...]:
    """Every snapshot that this engine shows, the largest first."""
    if store.folder is None:
        return ()
    snapshots = store.listed()
    path = store.folder.path
    return tuple([await asyncio.to_thread(examine, path, one) for one in sorted(snapshots, key=lambda one: -one.size)])


def examine(path: Path, snapshot: Snapshot, *, whole: bool = True) -> Verified:
    """Read one file, or (not `whole`) samples of it. Blocks."""
    try:
        files.proved(path, snapshot) if whole else files.sampled(path, snapshot)
    except files.Unverified as error:
        return Verified(snapshot, error.message)
    return Verified(snapshot, snapshot.quarantined)


def read(path: Path, *, whole: bool = True) -> tuple[Verified, ...]:
    """The same for a folder that nobody needs to have open, without touching it. Blocks. Raises FolderError.

    Not `whole`: for a list, which must not wait for gigabytes.
    """
    found = [one for one in Folder(path).peek() if not one.reference]
    return tuple(examine(path, one, whole=whole) for one in sorted(found, key=lambda one: -one.size))
