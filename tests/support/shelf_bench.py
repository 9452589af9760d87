"""A snapshot folder without an engine: saves as they would be committed, and what the folder published."""

from __future__ import annotations

import os
from pathlib import Path

from bioproxy.config.schema import Config, Kv
from bioproxy.events import Bus, Event
from bioproxy.kv.budget import budgets_of
from bioproxy.kv.chain import chain
from bioproxy.kv.shelves import Tenant
from bioproxy.kv.snapshot import Snapshot, new_id, temporary_name
from bioproxy.prompt import Piece

FINGERPRINT, BUILD = "f" * 16, "b1"
SIZE = 1000


class Bench:
    """An open tenant, and what it published."""

    def __init__(self, **config: object) -> None:
        bus = Bus()
        self.events: list[Event] = []
        bus.subscribe(Event, self.events.append)
        kv = Kv(**({"disk_budget": 100_000} | config))  # type: ignore[arg-type]
        self.tenant = Tenant(config=kv, bus=bus)
        self.tenant.shelves.budgets = lambda: budgets_of(Config(kv=kv))

    async def open(self, folder: Path) -> Tenant:
        await self.tenant.open(folder)
        self.tenant.use(FINGERPRINT, BUILD)
        return self.tenant

    async def save(self, *texts: str, **more: object) -> Snapshot | None:
        """What a save leaves: a temporary file, then the commit."""
        cuts = chain("", [Piece("", text.encode()) for text in texts])
        known = {
            "id": new_id(),
            "fingerprint": FINGERPRINT,
            "build": BUILD,
            "cuts": cuts,
            "used": self.tenant.shelf.wall(),
        }
        figures = {"tokens": 10 * len(texts), "prompt": 10 * len(texts), "size": SIZE, "seconds": 1.0}
        snapshot = Snapshot(**(known | figures | more))  # type: ignore[arg-type]
        assert self.tenant.shelf.folder is not None
        name = temporary_name(snapshot.id)
        (self.tenant.shelf.folder.path / name).write_bytes(os.urandom(SIZE))
        self.tenant.shelf.pending.add(name)
        return await self.tenant.shelf.commit(name, snapshot, seconds=0.1)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("bp-*.kv")}
