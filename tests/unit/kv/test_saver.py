"""Saving: what is asked of disk and engine, and what is left when something comes in between."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bioproxy.config.schema import Kv
from bioproxy.engines.facts import Saved
from bioproxy.events import Bus
from bioproxy.kv.chain import chain
from bioproxy.kv.folder import FolderError
from bioproxy.kv.moments import TICK
from bioproxy.kv.resident import Resident
from bioproxy.kv.saver import FIRST_RETRY, LAST_RETRY, Pause, Saver
from bioproxy.kv.shelves import Tenant
from bioproxy.prompt import Piece

TOKENS, SIZE = 100, 1000


class Engine:
    """Writes a slot file of the right size; `meanwhile` happens before it answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meanwhile: Callable[[], Any] = lambda: None

    async def save(self, _slot: int, filename: str) -> Saved:
        (self.folder / filename).write_bytes(os.urandom(SIZE))
        found = self.meanwhile()
        if asyncio.iscoroutine(found):
            await found
        return Saved(TOKENS, SIZE, 0.01)


class Bench:
    """A saver with its engine and an open folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        bus = Bus()
        self.engine = Engine(folder)
        self.tenant = Tenant(config=Kv(min_free=0), bus=bus)
        self.pause = Pause(self.tenant, asyncio.get_running_loop().time)
        self.saver = Saver(self.engine, self.tenant, self.pause)  # type: ignore[arg-type]

    async def open(self, folder: Path) -> None:
        await self.tenant.open(folder)
        self.tenant.use("f" * 16, "b1")

    async def save(self, text: str = "a") -> bool:
        place = Resident(0)
        cuts = chain("", [Piece("", text.encode())])
        place.fill(cuts, prompt=TOKENS, tokens=TOKENS, group="", prefix="", version="")
        done = await self.saver.save(place, 0)
        await self.saver.settle(10)
        return done


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("kind", ["folder", "disk", "engine", "short", "min_free", "write_budget"])
def test_what_may_pass_is_looked_at_within_a_minute(kind: str) -> None:
    """However often it was in vain; with the pause between two looks at the folder."""
    clock = Clock()
    pause = Pause(Tenant(config=Kv(), bus=Bus()), clock)
    for _ in range(20):
        pause.enter(kind, "the disk is full")
        assert not pause.due
        clock.now += FIRST_RETRY
        assert pause.due
    assert FIRST_RETRY < TICK
    assert FIRST_RETRY + TICK <= 60


def test_a_save_that_hung_is_tried_later_and_later() -> None:
    """Somebody waits each time until it is given up."""
    clock = Clock()
    pause = Pause(Tenant(config=Kv(), bus=Bus()), clock)
    delays = []
    for _ in range(8):
        pause.enter("timeout", "it hung")
        delays.append(pause.delay)
    assert delays[1] == 2 * delays[0]
    assert delays[-1] == LAST_RETRY


async def bench(folder: Path) -> Bench:
    made = Bench(folder)
    await made.open(folder)
    return made


async def test_a_folder_that_goes_in_the_middle_fails_nobody(tmp_path: Path) -> None:
    """It was given up while the engine wrote: there is no snapshot, and the request goes on."""
    made = await bench(tmp_path / "slots")

    async def lose() -> None:
        (tmp_path / "slots" / "bp-lock").unlink()
        (tmp_path / "slots").rename(tmp_path / "away")
        with pytest.raises(FolderError):
            await made.tenant.shelf.reopen()

    made.engine.meanwhile = lose
    assert await made.save() is False
    assert made.tenant.shelf.folder is None
    assert made.pause


async def test_a_save_ends_in_the_folder_in_which_it_began(tmp_path: Path) -> None:
    """The engine came back with another one meanwhile: nothing of the save is left in either."""
    made = await bench(tmp_path / "before")
    before = made.tenant.shelf
    (tmp_path / "after").mkdir()

    async def move() -> None:
        for path in (tmp_path / "before").glob("bp-tmp-*"):
            path.write_bytes(b"cut short")
        await made.tenant.open(tmp_path / "after")

    made.engine.meanwhile = move
    assert await made.save() is False
    assert (before.pending, made.tenant.shelf.pending) == (set(), set())
    assert list((tmp_path / "before").glob("bp-tmp-*")) == []
    await made.tenant.close()


async def test_what_nobody_expected_fails_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, what the slots hold is in doubt, and no temporary file is left."""
    made = await bench(tmp_path)

    def wrong() -> None:
        raise ValueError("a bug")

    made.engine.meanwhile = wrong
    assert await made.save() is False
    assert "a bug" in made.saver.uncertain
    assert "a bug" in caplog.text
    assert list(tmp_path.glob("bp-tmp-*")) == []
    await made.tenant.close()


async def test_a_disk_that_does_not_answer_pauses_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the save does not wait for it; here the answer never comes."""
    made = await bench(tmp_path)
    never = asyncio.Event()

    async def measure(_also: object) -> str:
        await never.wait()
        return ""

    monkeypatch.setattr(made.tenant.shelf, "measure", measure)
    monkeypatch.setattr("bioproxy.kv.saver.AT_LEAST", 0.0)
    assert await made.save() is False
    assert (made.pause.kind, "did not answer" in made.pause.reason) == ("folder", True)
    await made.tenant.close()
