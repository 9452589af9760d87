"""Comparing snapshots with their files, for `bioproxy snapshots verify`.

More is read than before a restore (samples of the content), and nothing is changed: what is bad is reported, and the
next restore or start removes it.
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


def examine(path: Path, snapshot: Snapshot) -> Verified:
    """Look at one file. Blocks."""
    try:
        files.sampled(path, snapshot)
    except files.Unverified as error:
        return Verified(snapshot, error.message)
    return Verified(snapshot, snapshot.quarantined)


def read(path: Path) -> tuple[Verified, ...]:
    """The same for a folder that nobody needs to have open, without touching it. Blocks. Raises FolderError."""
    found = Folder(path).peek()
    return tuple(examine(path, one) for one in sorted(found, key=lambda one: -one.size) if not one.reference)
