"""Bringing a context in that was exported elsewhere: piece by piece, and none counts before all of it is right.

The description comes first. It is judged as one that lies in the folder is, and a file of its size must fit into all
budgets. Then the slot file's bytes come in order, in requests of their own, so no more than one piece of it is in
memory; they go into a temporary file, as an engine's do. With the last byte its checksum is compared, and the file
becomes a snapshot as a saved one does. What was not brought to its end is removed like a save that was not.

The engine reads such a file without distrust: one that somebody made up may stop it. So who may import is the
operator's to say (admin/contexts_api.py). The checksums tell what the way did to a file, not who wrote it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from bioproxy.errors import NOT_JSON, NotFound, RequestError
from bioproxy.kv import files, keeping
from bioproxy.kv.shelf import LEFT_OVER, Shelf
from bioproxy.kv.snapshot import NAME, Newer, Pin, Snapshot, decode, new_id, temporary_name

PIECE = 8 << 20  # bytes that whoever sends is asked to send at once
MOST = 4  # imports at once
BUSY, FULL = 429, 507
DIGEST = 16  # bytes of a cut's


class Import(msgspec.Struct):
    """One that is under way: what it shall be, where its bytes go, how many came, and when the last did (monotonic)."""

    shelf: Shelf
    snapshot: Snapshot
    temporary: str
    path: Path
    received: int = 0
    at: float = 0.0
    busy: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)


class Imports:
    """Those that are under way, by the id of the snapshot that each becomes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.known: dict[str, Import] = {}

    async def begin(self, shelf: Shelf, described: Snapshot, *, group: str, name: str) -> Import:
        """Begin with a description (`read`); RequestError if what it describes has no room."""
        folder = shelf.opened()
        for identity, one in tuple(self.known.items()):
            if self.clock() - one.at > LEFT_OVER and not one.busy.locked():
                self.forget(identity)
        if len(self.known) >= MOST:
            raise RequestError(f"{MOST} imports are under way; try again later", status=BUSY, retry_after=60)
        now = shelf.wall()
        pins = (Pin(group, 0.0, name),)
        model = shelf.models.get(described.fingerprint, described.model)
        snapshot = msgspec.structs.replace(described, id=new_id(), group=group, pins=pins, used=now, model=model)
        await shelf.measure()
        found = keeping.room_now(shelf, group)
        if snapshot.size > found.left:
            raise keeping.too_much(shelf, group, found, asked=f"{snapshot.size:,} bytes")
        if (refusal := shelf.refusal(snapshot)) is not None:
            raise RequestError(f"it cannot be kept here: {refusal.reason}", status=FULL)
        temporary = temporary_name(snapshot.id)
        one = Import(shelf, snapshot, temporary, folder.path / temporary, at=self.clock())
        self.known[snapshot.id] = one
        shelf.pending.add(temporary)
        shelf.committing[snapshot.id] = snapshot  # its bytes are spoken for, and so is its name
        try:
            await shelf.on_disk(create, one.path)
        except BaseException as error:
            self.forget(snapshot.id)
            if isinstance(error, OSError):
                raise refused(error) from error
            raise
        return one

    async def add(self, identity: str, offset: int, data: bytes) -> tuple[Import, Snapshot | None]:
        """Take a piece in; the snapshot if it was the last one. RequestError if it is not the next piece."""
        one = self.known.get(identity)
        if one is None:
            raise NotFound(f"no import {identity[:100]!r} is under way; it may have taken too long: begin anew")
        async with one.busy:
            if offset != one.received or identity not in self.known:
                raise RequestError(f"the next piece begins at byte {one.received}, not {offset}", status=409)
            if one.received + len(data) > one.snapshot.size:
                self.forget(identity)
                raise RequestError(f"it has more than the {one.snapshot.size:,} bytes that were announced")
            try:
                await one.shelf.on_disk(append, one.path, data)
            except OSError as error:
                self.forget(identity)
                raise refused(error) from error
            one.received, one.at = one.received + len(data), self.clock()
            if one.received < one.snapshot.size:
                return one, None
            return one, await self.finish(one)

    async def finish(self, one: Import) -> Snapshot:
        """All bytes are here: compare them, and make them a snapshot."""
        shelf, snapshot = one.shelf, one.snapshot
        try:
            found = await asyncio.to_thread(files.checksum, one.path)
            if found != snapshot.checksum:
                raise RequestError("its bytes are not those that were exported: nothing was imported")
            kept = await shelf.commit(one.temporary, snapshot, seconds=0.0)
        except OSError as error:
            raise refused(error) from error
        finally:
            self.forget(snapshot.id)
        if kept is None:
            raise RequestError("the snapshot folder was closed meanwhile; try again", status=503)
        return kept

    def forget(self, identity: str) -> None:
        """It is over; what is left of its file goes."""
        one = self.known.pop(identity, None)
        if one is not None:
            one.shelf.pending.discard(one.temporary)
            one.shelf.committing.pop(identity, None)
            one.path.unlink(missing_ok=True)


def refused(error: OSError) -> RequestError:
    """The disk does not take it; nothing of it stays."""
    return RequestError(f"the snapshot folder does not take it: {error.strerror}; is the disk full?", status=FULL)


def read(sidecar: bytes) -> Snapshot:
    """The description of an exported context; RequestError."""
    try:
        found = decode(sidecar)
    except (*NOT_JSON, ValueError, Newer) as error:
        raise RequestError(f"this describes no context that can be read here: {error}") from error
    if NAME.fullmatch(found.name) is None or any(len(cut.digest) != DIGEST for cut in found.cuts):
        raise RequestError("this describes no context: its names or digests have another form")
    if found.checksum is None or found.template or found.quarantined:
        raise RequestError("this describes no context: it has no checksum, is a template's, or was found to be bad")
    return msgspec.structs.replace(found, pinned=False, uses=0, gained=0.0, head="")


def create(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, files.OWNER_ONLY))


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
