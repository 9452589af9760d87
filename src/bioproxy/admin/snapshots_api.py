"""`/api/snapshots`: what is on disk, in the order in which it would go, and what a person may do with one of them.

A snapshot is named as the list names it, and looked up in the table of its folder: nothing else in a path from outside
reaches the disk. What is done with it is kv/by_hand.py's, which sees what is being written and read. For one of several
keys there are only templates' snapshots: a conversation is somebody's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from bioproxy.admin.routes import Entry, Question, answer
from bioproxy.errors import NotFound
from bioproxy.kv import by_hand, policy
from bioproxy.kv.budget import Share, values_of
from bioproxy.kv.shelf import Shelf
from bioproxy.kv.shelves import ShelfStatistics, shares_of, statistics_of
from bioproxy.kv.snapshot import Snapshot
from bioproxy.kv.statistics import SnapshotStatistics
from bioproxy.station import Station

GIGABYTE = 1e9


class SnapshotRow(SnapshotStatistics, frozen=True, kw_only=True):
    """One snapshot as the eviction sees it.

    `worth`: seconds of prefill for each gigabyte, halved for each week without use. `turn`: its place in the order in
    which its folder's snapshots go, 1 first; 0: it does not, because it is pinned or being read. `model`: the ID of the
    one of many models whose it is; "" if an older program wrote it.
    """

    folder: str
    worth: float
    turn: int
    model: str


class FolderShares(msgspec.Struct, frozen=True):
    """What models and keys have in one folder; one of several keys sees no others."""

    folder: str
    shares: tuple[Share, ...]


class SnapshotList(msgspec.Struct, frozen=True):
    """All snapshots, the last used first, their folders, and who has what in these."""

    snapshots: tuple[SnapshotRow, ...]
    folders: tuple[ShelfStatistics, ...]
    shares: tuple[FolderShares, ...]


class SnapshotsApi:
    """`stations` are those of all models, `snapshots` what `/status` lists of them."""

    def __init__(
        self, stations: Callable[[], Iterable[Station]], *, snapshots: Callable[[], tuple[SnapshotStatistics, ...]]
    ) -> None:
        self.stations = stations
        self.snapshots = snapshots

    def entries(self) -> tuple[Entry, ...]:
        one = "/api/snapshots/{name}"
        return (
            Entry("GET", "/api/snapshots", "Snapshots, in which order they go, and their folders.", self.listed,
                  guard="manage"),
            Entry("POST", f"{one}/verify", "Compare a snapshot's file with what was written.", self.verify,
                  guard="manage"),
            Entry("PUT", f"{one}/pin", "Keep a snapshot whatever the budget says.", self.pin, guard="manage"),
            Entry("DELETE", f"{one}/pin", "The budget may take it again.", self.unpin, guard="manage"),
            Entry("DELETE", one, "Delete a snapshot.", self.delete, guard="manage"),
        )  # fmt: skip

    async def listed(self, question: Question) -> None:
        shelves = self.shelves()
        found = list_of(shelves, self.snapshots(), own=question.own)
        shares = (FolderShares(str(one.path), seen(shares_of(one), own=question.own)) for one in shelves)
        answer(question.responder, SnapshotList(found, tuple(map(statistics_of, shelves)), tuple(shares)))

    async def verify(self, question: Question) -> None:
        """Returns when all of it was read; `fault` says what is wrong."""
        shelf, snapshot = self.named(question)
        answer(question.responder, {"name": snapshot.name, "fault": await by_hand.verify(shelf, snapshot)})

    async def pin(self, question: Question) -> None:
        await self.set_pin(question, pinned=True)

    async def unpin(self, question: Question) -> None:
        await self.set_pin(question, pinned=False)

    async def set_pin(self, question: Question, *, pinned: bool) -> None:
        shelf, snapshot = self.named(question)
        changed = await by_hand.pin(shelf, snapshot, pinned=pinned)
        answer(question.responder, {"name": changed.name, "pinned": changed.pinned})

    async def delete(self, question: Question) -> None:
        shelf, snapshot = self.named(question)
        try:
            await by_hand.delete(shelf, snapshot)
        finally:  # whatever became of the file: if it is forgotten, a slot that holds the same is not to bring it back
            if not shelf.has(snapshot.id):
                for station in self.stations():
                    station.keeper.deleted(snapshot.id)
        answer(question.responder, {"name": snapshot.name})

    def shelves(self) -> list[Shelf]:
        """Every folder once, of models that were stopped, too."""
        found = (shelf for one in self.stations() for shelf in one.keeper.tenant.shelves.known.values())
        return list(dict.fromkeys(found))

    def named(self, question: Question) -> tuple[Shelf, Snapshot]:
        """The snapshot that the path names, by name or id; NotFound."""
        name = question.parameters["name"]
        for shelf in self.shelves():
            snapshot = by_hand.named(shelf, name)
            if snapshot is not None and (snapshot.template or not question.own):
                return shelf, snapshot
        raise NotFound(f"there is no snapshot {name}: it may have been replaced or dropped meanwhile")


def seen(shares: Iterable[Share], *, own: bool) -> tuple[Share, ...]:
    return tuple(one for one in shares if one.kind == "model" or not own)


def list_of(shelves: Iterable[Shelf], snapshots: Iterable[SnapshotStatistics], *, own: bool) -> tuple[SnapshotRow, ...]:
    """What `/status` lists, with what the eviction thinks of each; `own`: only templates, and no groups."""
    seen: dict[str, tuple[str, float, int, str]] = {}
    for shelf in shelves:
        values = policy.in_order(values_of(shelf.index.snapshots.values(), shelf.outlook()))
        listed = {one.id: one for one in shelf.index.snapshots.values() if not one.reference}
        turns = {value.id: turn for turn, value in enumerate((one for one in values if one.id in listed), 1)}
        for one in listed.values():
            worth = policy.worth(one.seconds, one.size, shelf.wall() - one.used) * GIGABYTE
            seen[one.name] = str(shelf.path), worth, turns.get(one.id, 0), one.model
    shown = (one for one in snapshots if one.name in seen and (one.template or not own))
    return tuple(row_of(one, *seen[one.name], own=own) for one in shown)


def row_of(one: SnapshotStatistics, folder: str, worth: float, turn: int, model: str, *, own: bool) -> SnapshotRow:
    fields = msgspec.structs.asdict(one) | ({"group": "", "kept_until": None, "names": ()} if own else {})
    return SnapshotRow(**fields, folder=folder, worth=worth, turn=turn, model=model)
