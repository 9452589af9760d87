"""Old snapshots are read again now and then, so that a damaged one is known before somebody waits for it.

A disk may lose bits in a file that nobody opens for weeks. A restore would find out (`Shelf.prove`), but only when a
request is waiting, and until then the template is thought to be safe. So while the engine is idle the file that was not
read for the longest time is read and compared with its checksum, one for each look at the folder, `kv.verify_budget`
bytes a day. Reading gives way to requests between two pieces, and leaves the system's memory for files alone.

What is damaged is set aside like any other: quarantined, with a line in the log, an event and the count of those that
were dropped; a template is warmed and saved anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from bioproxy.kv import files
from bioproxy.kv.folder import FolderError
from bioproxy.kv.shelf import Shelf
from bioproxy.kv.snapshot import Snapshot

log = logging.getLogger(__name__)

OLD = 7 * 86400.0  # seconds since all of it was read last
PIECE = 64 << 20  # bytes that are read between two looks whether the engine is still idle


class Interrupted(Exception):
    """A request came."""


def oldest(shelf: Shelf) -> Snapshot | None:
    """What was not read for the longest time and may be today; None: nothing is old, or enough was read."""
    shelf.today()
    left, before = shelf.config.verify_budget - shelf.ledger.read, shelf.wall() - OLD
    found, since = None, before
    for one in shelf.index.snapshots.values():
        at = max(one.created, shelf.ledger.verified.get(one.id, 0.0))
        fits = one.size <= left or (left > 0 and not shelf.ledger.read)
        if at < since and fits and one.checksum is not None and not one.quarantined:
            found, since = one, at
    return found


async def reread_oldest(shelf: Shelf, *, go_on: Callable[[], bool]) -> Snapshot | None:
    """Read one old snapshot as long as `go_on` says so; the one that was found damaged. A disk that hangs is logged."""
    if shelf.folder is None or shelf.verifying.locked() or (snapshot := oldest(shelf)) is None:
        return None

    async def reread(snapshot: Snapshot) -> None:
        path = shelf.opened().path
        stamp, found = await shelf.on_disk(files.unchanged, path, snapshot), 0
        for start in range(0, snapshot.size, PIECE):
            if not go_on():
                raise Interrupted
            end = min(snapshot.size, start + PIECE)
            try:
                found = await shelf.on_disk(files.checksum_of, path / snapshot.name, start, end, found, apart=True)
            except OSError as error:
                raise files.Unverified(f"cannot read {snapshot.name}: {error.strerror}") from error
            shelf.ledger.read += end - start
        await shelf.on_disk(files.untouched, path / snapshot.name, stamp)
        if found != snapshot.checksum:
            raise files.damaged(snapshot)
        shelf.ledger.verified[snapshot.id] = shelf.wall()

    try:
        async with shelf.verifying:
            with shelf.held(snapshot):
                return snapshot if await shelf.vet(snapshot, reread) else None
    except Interrupted:
        log.debug("%s was not read to its end: a request came", snapshot.name)
    except FolderError as error:
        log.warning("%s could not be read again: %s", snapshot.name, error.message)
    return None
