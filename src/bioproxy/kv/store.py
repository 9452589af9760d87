"""One engine's side of a snapshot folder: which snapshots are its own, and what was learnt about it.

The folder itself (table, disk, lock, budget) is a `Shelf`, which several engines may share. Before the engine's folder
is known there is an empty one, so that nobody has to ask whether there is any. A store lives as long as its keeper: its
engine may be stopped and started, as the same model or another, and may even come back with another folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from bioproxy.config.schema import Kv
from bioproxy.events import Bus
from bioproxy.kv import files
from bioproxy.kv.folder import Folder
from bioproxy.kv.index import Index, Scope
from bioproxy.kv.knowledge import Knowledge
from bioproxy.kv.policy import Refusal
from bioproxy.kv.shelf import Versions
from bioproxy.kv.shelves import Shelves
from bioproxy.kv.snapshot import Snapshot
from bioproxy.prompt import Cut

MOST_DENIED = 256  # contents of which it is remembered that the engine does not save them


class Store:
    """Snapshots for the engine with the present `scope`. `step` hears a commit's steps.

    Without `shelves` the folder is this store's alone, and it counts everything in there as its own to show.
    """

    def __init__(
        self,
        *,
        config: Kv,
        bus: Bus,
        shelves: Shelves | None = None,
        versions: Versions = dict,
        step: Callable[[str], None] = files.quiet,
    ) -> None:
        self.config = config
        self.bus = bus
        self.versions = versions
        self.step = step
        self.sole = shelves is None
        self.shelves = shelves or Shelves(config, bus=bus)
        self.shelf = self.shelves.nowhere()
        self.path: Path | None = None  # the folder that we want, whether or not it can be had
        self.scope = Scope()
        self.days: frozenset[str] = frozenset()  # what the chat template prints today; empty: nothing that changes
        self.nameless = Knowledge()  # of an engine that must have no snapshots
        self.knowledge = self.nameless
        self.denied: dict[bytes, str] = {}  # the end of what the engine does not save, and what it says about it

    # the folder

    async def open(self, path: Path) -> None:
        """Have the folder at `path`; at once where it is ours already. Raises FolderError; there is no folder then."""
        self.path = path
        shelf = await self.shelves.at(path)
        before, self.shelf = self.shelf, shelf
        shelf.users.add(self)
        if before is not shelf:
            await before.leave(self)
        await shelf.open()

    async def reopen(self) -> None:
        """See that the folder is still ours and can be written; read it anew where it was replaced. FolderError."""
        if self.path is not None:
            await self.shelf.reopen()

    async def probe(self) -> None:
        """See that we can write into the folder. FolderError."""
        await self.shelf.probe()

    async def close(self) -> None:
        """The engine needs its folder no more, nor its templates."""
        for users in self.shelf.versions.values():
            users.pop(self, None)
        await self.shelf.leave(self)

    def use(self, fingerprint: str, build: str) -> None:
        """From now on the engine is this one; what was learnt about it before counts. Empty: it is no one yet."""
        self.scope = Scope(fingerprint, build, self.days)
        if not fingerprint:
            self.knowledge = self.nameless = self.nameless.upgraded(build)
            return
        shelf = self.shelf
        self.knowledge = shelf.ledger.of(fingerprint, build)
        shelf.scopes[fingerprint] = self.scope
        shelf.versions[fingerprint][self] = self.versions
        if 0 < self.config.disk_budget != shelf.config.disk_budget:
            shelf.limits[fingerprint] = self.config.disk_budget

    def know_days(self, days: frozenset[str]) -> None:
        """From now on snapshots of other days are of no use."""
        self.days = days
        self.scope = msgspec.structs.replace(self.scope, days=days)
        if self.scope.fingerprint in self.shelf.scopes:
            self.shelf.scopes[self.scope.fingerprint] = self.scope

    def deny(self, cuts: Sequence[Cut], reason: str) -> None:
        """The engine does not save what these cuts describe, nor what goes on from it."""
        if cuts:
            while len(self.denied) >= MOST_DENIED:
                self.denied.pop(next(iter(self.denied)))
            self.denied[cuts[-1].digest] = reason

    def unsavable(self, cuts: Sequence[Cut]) -> str:
        """Why the engine does not save such a content, as it said when it was asked to; empty if it never did."""
        return next((self.denied[cut.digest] for cut in cuts if cut.digest in self.denied), "") if self.denied else ""

    # looking

    @property
    def wall(self) -> Callable[[], float]:
        """Unix time."""
        return self.shelf.wall

    @wall.setter
    def wall(self, clock: Callable[[], float]) -> None:
        self.shelf.wall = clock

    @property
    def folder(self) -> Folder | None:
        """The folder while it is ours."""
        return self.shelf.folder

    @property
    def index(self) -> Index:
        """Everybody's snapshots in the folder; `scope` tells which are this engine's."""
        return self.shelf.index

    @property
    def pending(self) -> set[str]:
        """Temporary files that wait for their commit."""
        return self.shelf.pending

    @property
    def committing(self) -> dict[str, Snapshot]:
        """What was written by an engine and is not yet verified for good."""
        return self.shelf.committing

    @property
    def pinned(self) -> set[str]:
        """Snapshots that are being read."""
        return self.shelf.pinned

    @property
    def budget(self) -> int:
        """Bytes that a snapshot of this engine may have."""
        return self.shelf.allowed(self.scope.fingerprint)

    @property
    def dropped(self) -> dict[str, int]:
        """Snapshots that left the folder, by reason: this engine's, or all where the folder is ours alone."""
        found: dict[str, int] = {}
        for (fingerprint, reason), count in self.shelf.dropped.items():
            if self.sole or fingerprint == self.scope.fingerprint:
                found[reason] = found.get(reason, 0) + count
        return found

    def listed(self) -> tuple[Snapshot, ...]:
        """The snapshots that this engine shows, the last used first: its own, or all where the folder is ours alone."""
        own = self.scope.fingerprint
        found = [one for one in self.index.snapshots.values() if self.sole or (own and one.fingerprint == own)]
        return tuple(sorted([one for one in found if not one.reference], key=lambda one: -one.used))

    def has(self, identity: str) -> bool:
        """Whether this snapshot is on disk, or about to be."""
        return self.shelf.has(identity)

    def today(self) -> int:
        """Bytes written into the folder on the present day (UTC)."""
        return self.shelf.today()

    async def measure(self) -> None:
        """Look how much is free, and how much of it is ours. Raises FolderError."""
        await self.shelf.measure()

    def refusal(self, snapshot: Snapshot) -> Refusal | None:
        """Whether the disk and the budget allow a file like `snapshot`."""
        return self.shelf.refusal(snapshot)

    async def prove(self, snapshot: Snapshot) -> None:
        """See that a file is what was written; see `Shelf.prove`. Raises Unverified, FolderError."""
        await self.shelf.prove(snapshot)

    def fits(self, snapshot: Snapshot) -> bool:
        """Whether room can be made for `snapshot` without throwing out what is worth more."""
        return self.shelf.fits(snapshot)

    # changes

    def adopt(self, snapshots: Iterable[Snapshot]) -> None:
        """Take snapshots of another build as the present one's, which was proved to read them."""
        for snapshot in snapshots:
            self.shelf.index.add(msgspec.structs.replace(snapshot, build=self.scope.build))
            self.shelf.dirty.add(snapshot.id)

    async def commit(self, temporary: str, snapshot: Snapshot, *, seconds: float) -> Snapshot | None:
        """Make the engine's temporary file a snapshot, and room for it; see `Shelf.commit`."""
        return await self.shelf.commit(temporary, snapshot, seconds=seconds, step=self.step)

    async def drop(self, snapshots: Iterable[Snapshot], reason: str) -> None:
        """Remove snapshots from table and disk."""
        await self.shelf.drop(snapshots, reason)

    def mark(self, snapshot: Snapshot, reason: str) -> None:
        """Never use `snapshot` again, and say why in the list."""
        self.shelf.mark(snapshot, reason)

    async def quarantine(self, snapshot: Snapshot, reason: str) -> None:
        """The same, and on disk when this returns."""
        await self.shelf.quarantine(snapshot, reason)

    def used(self, snapshot: Snapshot, *, gained: float = 0.0) -> None:
        """`snapshot` served a request and spared `gained` seconds of prefill."""
        self.shelf.used(snapshot, gained=gained)

    def asked(self, cuts: Sequence[Cut]) -> None:
        """A request with a template was served: the snapshot that it goes on from is in use, restored or not."""
        match = next(self.index.matches(cuts, scope=self.scope, group=None, exact=True), None)
        if match is not None:
            self.shelf.touch(match.snapshot)

    async def look_after(self) -> None:
        """Housekeeping of the folder. Raises FolderError."""
        await self.shelf.look_after()
