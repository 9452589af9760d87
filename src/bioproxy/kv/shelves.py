"""All snapshot folders of the program: each is opened once, however many models write into it.

Two models with the same folder (the default one, or the same `--slot-save-path`) must have one table, one lock and one
budget: with two tables each would throw out what it does not know, and the second lock would fail against the first.
Folders are the same where their resolved paths are, or where the system says so (a bind mount, a file system that does
not tell A from a). Made once by app and given to every keeper; closed last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bioproxy.config.schema import Kv
from bioproxy.events import Bus
from bioproxy.files import Stuck, away, touching
from bioproxy.kv.folder import FolderError
from bioproxy.kv.shelf import Shelf
from bioproxy.kv.snapshot import Snapshot


class ShelfStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One folder at this moment, all models together. Bytes; `open`: it is ours."""

    directory: str
    open: bool
    snapshots: int
    bytes: int
    budget: int
    free: int
    written_today: int
    dropped: dict[str, int]


class Shelves:
    """The folders by their resolved paths; each goes by the name that it was first asked for.

    `config` has the budgets of each of them; `wall`: unix time.
    """

    def __init__(self, config: Kv, *, bus: Bus, wall: Callable[[], float] = time.time) -> None:
        self.config = config
        self.bus = bus
        self.wall = wall
        self.known: dict[Path, Shelf] = {}
        self.filling = asyncio.Lock()  # of the model whose empty slots are being filled

    def nowhere(self) -> Shelf:
        """What stands for a folder as long as none is known: it is empty and stays so."""
        return Shelf(None, config=self.config, bus=self.bus, wall=self.wall)

    async def at(self, path: Path) -> Shelf:
        """The folder at `path`, not opened. Raises FolderError for a path that leads nowhere."""
        try:
            place = await away(same, path, tuple(self.known))
        except Stuck as error:
            raise FolderError(f"the snapshot folder cannot be used: {error.message}") from error
        except (OSError, RuntimeError) as error:  # RuntimeError: symbolic links in a ring
            raise FolderError(f"the snapshot folder {path} cannot be found: {error}") from error
        shelf = self.known.get(place)
        if shelf is None:
            self.known[place] = shelf = Shelf(path, config=self.config, bus=self.bus, wall=self.wall)
        return shelf

    async def close(self) -> None:
        """Give all folders back; after every keeper was closed."""
        for shelf in tuple(self.known.values()):
            await shelf.close()

    def list(self) -> tuple[Snapshot, ...]:
        """All snapshots in all folders, whoever's, the last used first."""
        found = [one for shelf in self.known.values() for one in shelf.index.snapshots.values() if not one.reference]
        return tuple(sorted(found, key=lambda one: -one.used))

    def statistics(self) -> tuple[ShelfStatistics, ...]:
        """Every folder."""
        return tuple(statistics_of(shelf) for shelf in self.known.values())


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
    """One folder."""
    found = [one for one in shelf.index.snapshots.values() if not one.reference]
    dropped: dict[str, int] = {}
    for (_, reason), count in shelf.dropped.items():
        dropped[reason] = dropped.get(reason, 0) + count
    return ShelfStatistics(
        directory=str(shelf.path),
        open=shelf.folder is not None,
        snapshots=len(found),
        bytes=sum(one.size for one in found),
        budget=shelf.budget,
        free=shelf.free,
        written_today=shelf.today(),
        dropped=dropped,
    )
