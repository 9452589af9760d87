"""Whether a request goes to an engine again, after it was lost before its first byte."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from bioproxy.activity import Record
from bioproxy.engines.process import Exit
from bioproxy.errors import EngineDied, EngineUnavailable
from bioproxy.models.claim import Claim, Life
from bioproxy.models.supervisor import Supervisor
from bioproxy.models.unit import Unit
from bioproxy.station import Station


class Owned:
    """The only engine, if it is ours, as far as a claim looks at it."""

    looked_after = True

    def __init__(self) -> None:
        self.attachment = self
        self.owned = True
        self.suspected: list[str] = []

    def suspect(self, reason: str) -> None:
        """It will be looked at."""
        self.suspected.append(reason)


def ending(*, expected: bool, code: int = -9) -> Exit:
    """How a process ended."""
    return Exit(pid=1, code=code, reason="it ended", expected=expected, lived=1.0)


def broken(*, sent: bool, status: int | None = None) -> EngineUnavailable:
    """A connection that broke, or could not be had."""
    error = EngineUnavailable("no answer", status=status)
    error.sent = sent
    return error


class Known:
    """A supervisor that has no news."""

    async def confirm(self, model: str) -> None:
        """They come at once or never."""


class Living:
    """The unit of a process, which is watched."""

    def __init__(self, watcher: Life | None) -> None:
        self.process = self
        self.watcher = watcher


@pytest.fixture
async def life() -> Life:
    """The process that is there."""
    return asyncio.get_running_loop().create_future()


def place(life: Life | None, engine: Any = None) -> Claim:
    """A request's place; it is about to be sent."""
    record = Record(id="r", started=0.0, method="POST", path="/x", endpoint="x")
    only = Claim(cast("Supervisor", Known()), "engine", record, timeout=1.0, loading=None)
    only.station, only.unit = cast("Station", engine or Owned()), cast("Unit", Living(life))
    only.sending()
    return only


async def again(only: Claim, error: EngineUnavailable, attempt: int = 1) -> bool:
    """A try has failed; whether it is tried again."""
    await only.broke_off(error)
    return only.lost(error, attempt)


async def test_what_it_died_of_is_not_sent_again(life: Life) -> None:
    """The sentence says how it ended, and why the request is not tried once more."""
    only = place(life)
    life.set_result(ending(expected=False))
    with pytest.raises(EngineDied, match=r"was ended by SIGKILL while it had this request; it is not sent again"):
        await again(only, broken(sent=True))


async def test_news_that_come_late(life: Life) -> None:
    """The connection broke first, and it looked as if the process lived: it is seen before anything is sent."""
    only = place(life)
    assert await again(only, broken(sent=True))
    life.set_result(ending(expected=False))
    with pytest.raises(EngineDied):
        only.sending()


async def test_what_was_not_sent_goes_again(life: Life) -> None:
    """The process died before it had anything of this request."""
    only = place(life)
    life.set_result(ending(expected=False))
    assert await again(only, broken(sent=False))
    only.sending()


async def test_a_process_that_we_ended_is_another_matter(life: Life) -> None:
    """It was restarted: the next one may have the request."""
    only = place(life)
    life.set_result(ending(expected=True))
    assert await again(only, broken(sent=True))
    only.sending()


async def test_a_process_that_only_broke_the_connection(life: Life) -> None:
    """It lives, so it is asked again, a few times."""
    only = place(life)
    assert [await again(only, broken(sent=True), attempt) for attempt in (1, 2, 3)] == [True, True, False]


async def test_an_engine_that_is_not_ours_or_hung(life: Life) -> None:
    """Nobody brings the one back, and the other may be at it still; both are looked at."""
    foreign = Owned()
    foreign.owned = False
    assert not await again(place(None, foreign), broken(sent=False))
    hung = Owned()
    assert not await again(place(life, hung), broken(sent=True, status=504))
    assert foreign.suspected == hung.suspected == ["no answer"]
