"""A random walk: requests, saves, kills, cut-offs and damage in any order; what must always hold, after each step."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from fakes.fake_engine import FakeEngine
from support.kv_rig import Rig, rig, text

SPEED = 20_000  # prompt tokens per second
TEMPLATES = [text(200, "code"), text(260, "rules")]
GROUPS = ["alice", "bob"]


class Walk:
    """One keeper on one engine, and a second engine without any cache that knows the right answers."""

    def __init__(self, one: Rig, oracle: FakeEngine, seed: int) -> None:
        self.one = one
        self.oracle = oracle
        self.random = random.Random(seed)
        self.talks: dict[tuple[str, int], list[str]] = {}

    async def step(self) -> None:
        """One random thing."""
        steps = (
            [self.ask] * 8 + [self.save] * 2 + [self.warm, self.kill, self.cut, self.unknown, self.disk, self.damage]
        )
        await self.random.choice(steps)()

    async def ask(self, *, complete: bool = True) -> None:
        """A turn of some conversation; its answer is that of an engine without a cache."""
        group, number = self.random.choice(GROUPS), self.random.randrange(3)
        talk = self.talks.setdefault(
            (group, number), [self.random.choice([*TEMPLATES, text(200, f"{group} {number}")])]
        )
        if len(talk) > 1 and self.random.random() < 0.2:
            del talk[-2:]  # the user edits the last question
        talk.append(text(self.random.randrange(5, 120), f" question {self.random.random()}"))
        asked = await self.one.ask(*talk, group=group, template=True, complete=complete)
        body: Any = {"prompt": "".join(talk), "n_predict": 4, "temperature": 0, "cache_prompt": False}
        assert asked.answer == (await self.oracle.post("/completion", body)).json()["content"]
        if asked.prepared.status in ("resident", "restored"):
            assert asked.cached >= 0.8 * asked.prepared.expected - 8  # between cuts tokens are estimated by bytes
        talk.append(asked.answer)

    async def save(self) -> None:
        """The engine was idle."""
        await self.one.save_idle()

    async def warm(self) -> None:
        """A template is warmed."""
        number = self.random.randrange(len(TEMPLATES))
        await self.one.warm(TEMPLATES[number], prefix=f"@{number}")

    async def kill(self) -> None:
        """The engine dies and comes back."""
        assert isinstance(self.one.engine, FakeEngine)
        await self.one.engine.restart()
        self.one.keeper.gone("killed")
        await self.one.attach()

    async def cut(self) -> None:
        """A client leaves in mid-stream."""
        await self.ask(complete=False)

    async def unknown(self) -> None:
        """Somebody else used the slot."""
        self.one.keeper.unknown("a test")

    async def disk(self) -> None:
        """The disk becomes full, or has room again."""
        assert isinstance(self.one.engine, FakeEngine)
        await self.one.engine.faults(save=self.random.choice(["", "", "full", "short"]))

    async def damage(self) -> None:
        """A slot file is cut, or goes away."""
        if found := self.one.keeper.list():
            assert self.one.keeper.tenant.shelf.folder is not None
            path = self.one.keeper.tenant.shelf.folder.path / self.random.choice(found).name
            if self.random.random() < 0.5 and path.exists():
                os.truncate(path, 1000)
            else:
                path.unlink(missing_ok=True)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_answers_are_right_and_files_are_whole(tmp_path: Path, seed: int) -> None:
    """Never a wrong answer, a claim that the engine does not keep, a forbidden call, or a file over the budget."""
    config: dict[str, Any] = {"disk_budget": 120_000, "options": {"first_retry": 0.0}, "known": {"started": None}}
    async with (
        FakeEngine(slot_folder=tmp_path, tokens_per_second=SPEED) as engine,
        FakeEngine(cache_ram=0) as oracle,
        rig(engine, min_seconds=0.001, **config) as one,
    ):
        walk = Walk(one, oracle, seed)
        for _ in range(40):
            await walk.step()
            assert one.keeper.statistics().bytes <= 120_000
            assert await engine.violations() == []
        await one.settle()
        names = {path.name for path in tmp_path.glob("bp-*.kv")}
        assert {found.name for found in one.keeper.tenant.shelf.index.snapshots.values()} >= names
        assert not list(tmp_path.glob("bp-tmp-*"))
        assert one.gate.idle
