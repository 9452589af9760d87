"""What a person does with one snapshot: verify it, pin it, delete it.

A name is looked up in the folder's table and nowhere else, so no path from outside reaches the disk. What is being
written has no place there yet, and what is being read is held (`Shelf.held`): neither is touched. All that is decided
over the table is decided and done in one go, as in shelf.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from bioproxy import aio
from bioproxy.errors import NotFound, RequestError
from bioproxy.kv import files
from bioproxy.kv.folder import FolderError
from bioproxy.kv.shelf import Shelf
from bioproxy.kv.snapshot import Snapshot

VERIFIED, SLOWEST = 60.0, 20e6  # seconds that a check may take at least, and bytes per second of a slow disk
CONFLICT = 409


def named(shelf: Shelf, name: str) -> Snapshot | None:
    """The snapshot with this name or id; RequestError (409) while it is written."""
    if any(name in (one.id, one.name) for one in shelf.committing.values()):
        raise RequestError(f"{name} is being written; try again in a moment", status=CONFLICT)
    known = shelf.index.snapshots.values()
    return next((one for one in known if name in (one.id, one.name) and not one.reference), None)


async def verify(shelf: Shelf, snapshot: Snapshot) -> str:
    """Read all of a file again, one file at a time; what is wrong with it, empty if nothing is.

    FolderError if that is not known: the disk hangs, or is very slow.
    """
    limit = VERIFIED + snapshot.size / SLOWEST
    try:
        async with shelf.verifying, asyncio.timeout(limit):  # that another one is read before is no fault of the disk
            with shelf.held(snapshot):
                shelf.proved.pop(snapshot.id, None)
                return await shelf.vet(snapshot)
    except TimeoutError:
        raise FolderError(f"{snapshot.name} could not be read within {limit:.0f} s; is the disk busy?") from None


async def pin(shelf: Shelf, snapshot: Snapshot, *, pinned: bool) -> Snapshot:
    """Keep it whatever the budget says, or no longer; it is on the disk when this returns.

    NotFound if it went meanwhile, RequestError (409) for one that is never used again, FolderError if the disk refuses.
    """

    def altered(known: Snapshot) -> Snapshot:
        if pinned:
            check_good(known)
        return msgspec.structs.replace(known, pinned=pinned)

    return await change(shelf, snapshot, altered)


def check_good(snapshot: Snapshot) -> None:
    """RequestError (409) for a snapshot that is never used again."""
    if snapshot.quarantined:
        raise RequestError(f"{snapshot.name} is never used again: {snapshot.quarantined}", status=CONFLICT)


async def change(shelf: Shelf, snapshot: Snapshot, alter: Callable[[Snapshot], Snapshot]) -> Snapshot:
    """Describe a snapshot anew, as `alter` makes it of the present one; it is on the disk when this returns.

    What `alter` raises leaves everything as it was, and so does a disk that refuses (FolderError). NotFound if the
    snapshot went meanwhile. Goes to its end also if whoever asked has left.
    """
    shelf.opened()
    return await aio.shielded(changed(shelf, snapshot, alter))


async def changed(shelf: Shelf, snapshot: Snapshot, alter: Callable[[Snapshot], Snapshot]) -> Snapshot:
    async with shelf.writing:
        known = shelf.index.snapshots.get(snapshot.id)
        if known is None:
            raise gone(snapshot)
        altered = alter(known)
        shelf.index.add(altered)  # first: the budget must not take it while the disk is waited for
        try:
            await shelf.put_down(altered)
        except (OSError, FolderError) as error:
            if (now := shelf.index.snapshots.get(snapshot.id)) is not None:
                shelf.index.add(msgspec.structs.replace(now, pinned=known.pinned, pins=known.pins))
            reason = error.message if isinstance(error, FolderError) else error.strerror
            raise FolderError(f"{known.name} cannot be described anew: {reason}") from error
        if snapshot.id not in shelf.index.snapshots:
            raise gone(snapshot)
    return altered


def gone(snapshot: Snapshot) -> NotFound:
    return NotFound(f"there is no snapshot {snapshot.name} any more")


async def delete(shelf: Shelf, snapshot: Snapshot) -> None:
    """Remove it for good. RequestError (409) while it is read; FolderError if it is forgotten, but still there."""
    folder = shelf.opened()
    if snapshot.id in shelf.reading:
        raise RequestError(f"{snapshot.name} is being read; try again in a moment", status=CONFLICT)
    shelf.forget(snapshot, "deleted")
    try:
        await shelf.on_disk(files.remove, folder.path, snapshot)
    except OSError as error:
        where = folder.path / snapshot.name
        raise FolderError(f"{where} is not used any more, but cannot be removed: {error.strerror}") from error
