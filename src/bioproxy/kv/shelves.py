"""All snapshot folders of the program: each is opened once, however many models write into it.

Two models with the same folder (the default one, or the same `--slot-save-path`) must have one table, one lock and one
budget: with two tables each would throw out what it does not know, and the second lock would fail against the first.
Folders are the same if their resolved paths are, or if the system says so (a bind mount, a file system that does not
tell A from a). Made once by app and given to every keeper; closed last.

A keeper is a `Tenant` of one of them: that is where its model's share of the folder is known, whichever folder it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from weakref import WeakSet

import msgspec

from bioproxy.config.schema import Kv
from bioproxy.events import Bus
from bioproxy.files import Stuck, away, in_short, touching
from bioproxy.gate.gate import Gate
from bioproxy.kv import files
from bioproxy.kv.budget import Budgets, Share, shares
from bioproxy.kv.folder import FolderError, out_of_reach
from bioproxy.kv.index import Scope
from bioproxy.kv.policy import Knowledge
from bioproxy.kv.shelf import Shelf, Versions
from bioproxy.kv.snapshot import Snapshot
from bioproxy.prompt import Cut

MOST_DENIED = 256  # contents of which it is remembered that the engine does not save them


class ShelfStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One folder at this moment, all models together. Bytes; `open`: it is ours; `pinned` are the budget's no more.

    `damaged`: snapshots whose bytes are not those that were written.
    `budget`, `min_free`, `write_budget`, `verify_budget` and `max_age` (seconds) are what is in force.
    """

    directory: str
    open: bool
    snapshots: int
    damaged: int
    bytes: int
    pinned: int
    budget: int
    free: int
    min_free: int
    written_today: int
    write_budget: int
    verified_today: int
    verify_budget: int
    max_age: float
    dropped: dict[str, int]


class Shelves:
    """The folders by their resolved paths; each goes by the name that it was first asked for.

    `config` has the budget of each of them, `budgets` what models and keys may take of it.
    """

    def __init__(self, config: Kv, *, bus: Bus, budgets: Callable[[], Budgets] = Budgets) -> None:
        self.config = config
        self.bus = bus
        self.budgets = budgets
        self.known: dict[Path, Shelf] = {}
        self.gates: WeakSet[Gate] = WeakSet()  # of all models whose keepers have a share
        self.filling = asyncio.Lock()  # of the model whose empty slots are being filled

    @property
    def quiet(self) -> bool:
        """Whether no model has anything to do."""
        return all(gate.idle for gate in self.gates)

    async def at(self, path: Path) -> Shelf:
        """The folder at `path`, not opened. Raises FolderError for a path that leads nowhere."""
        try:
            place = await away(same, path, tuple(self.known))
        except Stuck as error:
            raise out_of_reach(error) from error
        except (OSError, RuntimeError) as error:  # RuntimeError: symbolic links in a ring
            raise FolderError(f"the snapshot folder {path} cannot be found: {in_short(error)}") from error
        shelf = self.known.get(place)
        if shelf is None:
            self.known[place] = shelf = Shelf(path, config=self.config, bus=self.bus, budgets=self.budgets)
        return shelf

    async def close(self) -> None:
        """Give all folders back; after every keeper was closed."""
        for shelf in tuple(self.known.values()):
            await shelf.close()

    def list(self) -> tuple[Snapshot, ...]:
        """All snapshots of all models in all folders, the last used first."""
        found = [one for shelf in self.known.values() for one in shelf.index.snapshots.values() if not one.reference]
        return tuple(sorted(found, key=lambda one: -one.used))

    def shares(self) -> tuple[Share, ...]:
        """What models and keys have in all folders together."""
        found: dict[tuple[str, str], Share] = {}
        for one in (one for shelf in self.known.values() for one in shares_of(shelf)):
            before = found.get((one.kind, one.name))
            found[one.kind, one.name] = one if before is None else before.plus(one)
        return tuple(found.values())

    def statistics(self) -> tuple[ShelfStatistics, ...]:
        return tuple(statistics_of(shelf) for shelf in self.known.values())


def shares_of(shelf: Shelf) -> tuple[Share, ...]:
    """What models and keys have in one folder."""
    return shares(shelf.index.snapshots.values(), shelf.outlook(), shelf.budgets())


def same(path: Path, known: Sequence[Path]) -> Path:
    """The one of `known` that is the folder at `path`, or its own path. Blocks."""
    with touching(path):
        place = path.resolve()
        there = place.exists()
    if place in known or not there:
        return place
    return next((one for one in known if is_at(one, place)), place)


def is_at(folder: Path, place: Path) -> bool:
    """Whether a known folder is the one at `place`; not if it does not answer, for then that one is another."""
    try:
        with touching(folder):
            return folder.exists() and folder.samefile(place)
    except Stuck:
        return False


def statistics_of(shelf: Shelf) -> ShelfStatistics:
    found = [one for one in shelf.index.snapshots.values() if not one.reference]
    return ShelfStatistics(
        directory=str(shelf.path),
        open=shelf.folder is not None,
        snapshots=len(found),
        damaged=sum(one.damaged for one in found),
        bytes=sum(one.size for one in found),
        pinned=sum(one.size for one in found if one.pinned),
        budget=shelf.budget,
        free=shelf.free,
        min_free=shelf.config.min_free,
        written_today=shelf.today(),
        write_budget=shelf.config.write_budget,
        verified_today=shelf.ledger.read,
        verify_budget=shelf.config.verify_budget,
        max_age=shelf.config.max_age,
        dropped=shelf.dropped_of(None),
    )


class Tenant:
    """One model's share of a snapshot folder (`shelf`): its own snapshots, and what was learnt about its engine.

    It lives as long as its keeper: the engine may be stopped and started, as the same model or another, and may even
    come back with another folder. Before the folder is known `shelf` is an empty one. Without `shelves` the folder
    is this tenant's alone, and all snapshots in it are shown as its own. `model` is its ID among many; `budgets` is
    what keys may take of a folder that is this tenant's alone; `step` hears the steps of each commit.
    """

    def __init__(
        self,
        *,
        config: Kv,
        bus: Bus,
        shelves: Shelves | None = None,
        versions: Versions = dict,
        model: str = "",
        budgets: Callable[[], Budgets] = Budgets,
        step: Callable[[str], None] = files.quiet,
    ) -> None:
        self.config = config
        self.bus = bus
        self.model = model
        self.versions = versions
        self.step = step
        self.sole = shelves is None
        self.shelves = shelves or Shelves(config, bus=bus, budgets=budgets)
        self.shelf = Shelf(None, config=self.shelves.config, bus=bus)  # until one is known
        self.path: Path | None = None  # the folder that we want, whether or not it can be had
        self.scope = Scope()
        self.days: frozenset[str] = frozenset()  # what the chat template prints today; empty: nothing that changes
        self.nameless = Knowledge()  # of an engine that must have no snapshots
        self.knowledge = self.nameless
        self.denied: dict[bytes, str] = {}  # the end of what the engine does not save, and what it says about it

    # the folder

    async def open(self, path: Path) -> None:
        """Have the folder at `path`; at once if it is ours already. Raises FolderError; there is no folder then."""
        self.path = path
        shelf = await self.shelves.at(path)
        before, self.shelf = self.shelf, shelf
        shelf.users.add(self)
        if before is not shelf:
            await before.leave(self)
        await shelf.open()

    async def close(self) -> None:
        """The model needs neither the folder any more nor its templates in there."""
        for users in self.shelf.versions.values():
            users.pop(self, None)
        await self.shelf.leave(self)

    def use(self, fingerprint: str, build: str) -> None:
        """From now on the engine is this one, with what was learnt about it before (empty: it has no fingerprint)."""
        shelf = self.shelf
        if not fingerprint:
            self.scope = Scope(fingerprint, build, self.days)
            self.knowledge = self.nameless = self.nameless.upgraded(build)
            return
        self.knowledge = shelf.ledger.of(fingerprint, build)
        self.scope = Scope(fingerprint, build, self.days, frozenset(self.knowledge.refused))
        shelf.scopes[fingerprint] = self.scope
        shelf.models[fingerprint] = self.model
        shelf.versions[fingerprint][self] = self.versions
        if 0 < self.config.disk_budget != shelf.config.disk_budget:
            shelf.bounds[fingerprint] = self.config.disk_budget

    def know_days(self, days: frozenset[str]) -> None:
        """From now on snapshots of other days are of no use."""
        self.days = days
        self.see(msgspec.structs.replace(self.scope, days=days))

    def refuse(self, build: str) -> None:
        """From now on snapshots of another build are of no use: this one was seen to misread them."""
        self.knowledge.refused = (*self.knowledge.refused, build)
        self.see(msgspec.structs.replace(self.scope, refused=frozenset(self.knowledge.refused)))

    def see(self, scope: Scope) -> None:
        self.scope = scope
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
    def budget(self) -> int:
        """Bytes that a snapshot of this engine may have."""
        return self.shelf.allowed(self.scope.fingerprint)

    @property
    def dropped(self) -> dict[str, int]:
        """Snapshots that left the folder, by reason: this engine's, or all if the folder is ours alone."""
        return self.shelf.dropped_of(None if self.sole else self.scope.fingerprint)

    def listed(self) -> tuple[Snapshot, ...]:
        """The snapshots that this engine shows, the last used first: its own, or all if the folder is ours alone."""
        own = self.scope.fingerprint
        found = [one for one in self.shelf.index.snapshots.values() if self.sole or (own and one.fingerprint == own)]
        return tuple(sorted([one for one in found if not one.reference], key=lambda one: -one.used))

    # changes

    def adopt(self, snapshots: Iterable[Snapshot]) -> None:
        """Take snapshots of another build as the present one's, which was proved to read them."""
        for snapshot in snapshots:
            self.shelf.index.add(msgspec.structs.replace(snapshot, build=self.scope.build))
            self.shelf.dirty.add(snapshot.id)

    def asked(self, cuts: Sequence[Cut]) -> None:
        """A request with a template was served: the snapshot that it goes on from is in use, restored or not."""
        match = next(self.shelf.index.matches(cuts, scope=self.scope, group=None, exact=True), None)
        if match is not None:
            self.shelf.touch(match.snapshot)
