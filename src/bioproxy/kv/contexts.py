"""Contexts: what a request left in its slot, kept under a name, so that others go on from exactly there.

A context is a snapshot with a pin that has a name (snapshot.py). A request that begins like it finds it as any other
snapshot of its group; the budget leaves it alone, and a longer conversation does not replace it. Several names may mean
one snapshot.

What a request left is known by the digest at its prompt's end, and is kept only if it is still there exactly: on disk,
in a slot, or in the engine's RAM cache. If it is not, the error says what became of it.

Exported it is one tar file with two members, the description and the slot file. The description names no key and no
pin; whose it is says whoever imports it (importing.py).
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import AsyncGenerator, Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from bioproxy.errors import EngineUnavailable, NotFound, RequestError
from bioproxy.kv import by_hand, keeping
from bioproxy.kv.index import usable
from bioproxy.kv.keeper import Keeper
from bioproxy.kv.resident import Resident, State
from bioproxy.kv.shelf import Shelf
from bioproxy.kv.snapshot import Pin, Snapshot, encode

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
GONE, CONFLICT, FULL = 410, 409, 507
COMMITTED = 60.0  # seconds for what the engine has written to become a snapshot
CHUNK = 4 << 20
BLOCK = tarfile.BLOCKSIZE
NOTHING = (
    "it left nothing that can be kept: it failed, was cut off, has no text as its prompt, or came before the start"
)


class Left(NamedTuple):
    """What a request left: the digest of its prompt, and whose it is."""

    end: bytes
    group: str


class Context(NamedTuple):
    """One name, and what it means."""

    shelf: Shelf
    snapshot: Snapshot
    pin: Pin


def contexts(shelves: Iterable[Shelf], group: str | None = None) -> list[Context]:
    """All names, or those of one group."""
    return [
        Context(shelf, snapshot, pin)
        for shelf in shelves
        for snapshot in shelf.index.snapshots.values()
        for pin in snapshot.pins
        if pin.name and group in (None, pin.group)
    ]


def named(shelves: Iterable[Shelf], name: str, group: str | None) -> Context:
    """The context with this name, or whose snapshot has this id; NotFound, or 409 if several groups have one."""
    known = contexts(shelves, group)
    found = [one for one in known if one.pin.name == name] or [one for one in known if one.snapshot.id == name]
    if not found:
        raise NotFound(f"there is no context {name[:100]!r}")
    if len(found) > 1:
        ids = ", ".join(one.snapshot.id for one in found)
        raise RequestError(f"several are called {name}; say which one by its snapshot: {ids}", status=CONFLICT)
    return found[0]


def check_name(shelves: Collection[Shelf], name: str, group: str) -> None:
    """RequestError for what cannot be a name, 409 for one that the group has already."""
    if NAME.fullmatch(name) is None:
        said = "a name has up to 64 letters, digits, dots, dashes and underscores, and begins with a letter or digit"
        raise RequestError(f"{name[:100]!r} cannot be the name of a context: {said}")
    coming = (pin for shelf in shelves for one in shelf.committing.values() for pin in one.pins if pin.group == group)
    if any(pin.name == name for pin in (*(one.pin for one in contexts(shelves, group)), *coming)):
        raise RequestError(f"there is a context {name} already; rename or delete it first", status=CONFLICT)


async def keep(keeper: Keeper, left: Left, name: str) -> Snapshot:
    """Keep what a request left, as `name`, which was checked.

    RequestError: 410 if it is not there any more, 400 if it is more than the group may keep, 507 if the disk has no
    room for it. EngineUnavailable (503) if the engine did not save it.
    """
    shelf = keeper.tenant.shelf
    await keeper.saver.settle(COMMITTED)
    found = on_disk(keeper, left)
    if found is None:
        await save(keeper, left, Pin(left.group, 0.0, name))
        await keeper.saver.settle(COMMITTED)
        found = on_disk(keeper, left)
        if found is None:
            raise EngineUnavailable(f"it was saved, and did not become a snapshot: {why(keeper)}", status=503)
    if any((pin.group, pin.name) == (left.group, name) for pin in found.pins):
        return found
    return await keeping.keep(shelf, found, group=left.group, name=name)


async def save(keeper: Keeper, left: Left, pin: Pin) -> None:
    """Have the engine save what a request left, kept from its first moment."""
    place = there(keeper, left)
    await keeping.demand(keeper.tenant, left.group, tokens=place.tokens, seconds=0.0)
    refusal = await keeper.saver.check(keeper.saver.describe(place, template=False, pins=(pin,)))
    if refusal is not None:
        raise RequestError(f"it cannot be saved: {refusal.reason}", status=FULL)
    grant = await keeper.moments.gate.acquire(exclusive=True)
    try:
        if not await keeper.actions.save(there(keeper, left), pins=(pin,)):
            raise EngineUnavailable(f"the engine did not save it: {why(keeper)}", status=503)
        await keeper.actions.fork()
    finally:
        grant.release()


def on_disk(keeper: Keeper, left: Left) -> Snapshot | None:
    """The snapshot of exactly what a request left."""
    scope = keeper.tenant.scope
    found = keeper.tenant.shelf.index.ending(left.end, scope.fingerprint, left.group)
    return next((one for one in found if usable(one, scope)), None)


def there(keeper: Keeper, left: Left) -> Resident:
    """The slot, or the place in the RAM cache, that holds exactly this; RequestError (410) says what became of it."""
    residents = keeper.residents
    known: list[Resident] = [*residents.where.get(left.end, ()), *residents.parked]
    places = [one for one in known if one.group == left.group]
    for one in places:
        if one.end == left.end and (one.savable or one.recallable):
            return one
    raise RequestError(f"what it left is gone: {became(keeper, left, places)}", status=GONE)


def became(keeper: Keeper, left: Left, places: list[Resident]) -> str:
    """What became of something that is not there any more."""
    same = [one for one in places if one.end == left.end]
    fingerprint, index = keeper.tenant.scope.fingerprint, keeper.tenant.shelf.index
    table = index.tables.get((fingerprint, left.group))
    if any(not one.store for one in same):
        return "it was not to be stored, or was deleted"
    if any(one.doubts for one in same):
        return "it is not known what its chat template made of it"
    if any(one.state is State.CHANGING for one in places):
        return "a later request of its conversation is at work in its slot; name that one when it has ended"
    if places or (table is not None and left.end in table.cuts):
        return "its conversation went on; name the last request of it"
    if keeper.decisions.facts is None:
        return "its model was stopped, and had not saved it"
    return "other requests took its slot, and it had not been saved before"


def why(keeper: Keeper) -> str:
    """What keeps an engine from saving."""
    notes = "; ".join(keeper.decisions.findings.notes)
    return keeper.pause.reason or keeper.decisions.doubt or notes or "its slot is not known, or the log says why"


# one that there is


async def rename(context: Context, name: str) -> Snapshot:
    """Give it another name, which was checked."""
    old = context.pin

    def altered(known: Snapshot) -> Snapshot:
        new = msgspec.structs.replace(old, name=name)
        return msgspec.structs.replace(known, pins=tuple(new if one == old else one for one in known.pins))

    return await by_hand.change(context.shelf, context.snapshot, altered)


async def delete(context: Context) -> bool:
    """Forget a name, and delete what nobody else wants kept; whether that was deleted."""
    shelf, snapshot, pin = context
    others = any(one != pin and one.live(shelf.wall()) for one in snapshot.pins)
    if others or snapshot.pinned or snapshot.bounded:
        await keeping.release(shelf, snapshot, group=pin.group, name=pin.name)
        return False
    await by_hand.delete(shelf, snapshot)
    return True


# one as a file


def length(context: Context) -> int:
    """Bytes of the file that `exported` makes."""
    return sum(BLOCK + padded(size) for size in (len(described(context)), context.snapshot.size)) + 2 * BLOCK


async def exported(context: Context) -> AsyncGenerator[bytes, None]:
    """The file, piece by piece; it was verified before, and is held meanwhile. FolderError if it cannot be read."""
    shelf, snapshot, pin = context
    folder = shelf.opened()
    sidecar = described(context)
    yield (member(f"{pin.name}.json", len(sidecar)) + sidecar + bytes(padded(len(sidecar)) - len(sidecar)))
    yield member(f"{pin.name}.kv", snapshot.size)
    with shelf.held(snapshot):
        for offset in range(0, snapshot.size, CHUNK):
            yield await shelf.on_disk(piece, folder.path / snapshot.name, offset)
    yield bytes(padded(snapshot.size) - snapshot.size + 2 * BLOCK)


def piece(path: Path, offset: int) -> bytes:
    """Opened anew each time: a client that leaves leaves a thread that reads, and nothing else."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(CHUNK)


def described(context: Context) -> bytes:
    """The description as it goes elsewhere: with nothing about keys, and nothing of what happened here."""
    there = msgspec.structs.replace(
        context.snapshot, group="", pins=(), pinned=False, uses=0, gained=0.0, used=context.snapshot.created
    )
    return encode(there)


def member(name: str, size: int) -> bytes:
    """The header of one file in a tar file."""
    found = tarfile.TarInfo(name)
    found.size, found.mode = size, 0o600
    return found.tobuf(tarfile.GNU_FORMAT)


def padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
