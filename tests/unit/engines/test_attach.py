"""What an engine may be after what, without one."""

from __future__ import annotations

import pytest

from bioproxy.engines.attach import Attachment, State
from support.station_rig import Told, make

NOWHERE = "http://127.0.0.1:9"


def attached(told: Told, *states: State) -> Attachment:
    """An attachment that went through these states."""
    attachment = make(NOWHERE, told)
    for state in states:
        attachment.become(state, "a test says so")
    told.calls.clear()
    return attachment


async def test_an_engine_is_met_before_it_is_ready() -> None:
    """Nothing opens the gate for one that was not looked at."""
    with pytest.raises(RuntimeError, match="an engine cannot be ready after it was absent"):
        attached(Told()).become(State.READY, "it looks fine")


async def test_a_request_that_saw_another_engine_closes_the_gate_until_it_was_met_again() -> None:
    """It is told once, and looked at at once."""
    told = Told()
    attachment = attached(told, State.LOADING, State.READY)
    attachment.meet_again("it answered 503")
    attachment.meet_again("it answered 503")
    assert told.names() == ["loading", "on_gone"]
    assert attachment.now.is_set()


async def test_a_stuck_engine_stays_stuck_until_it_computes() -> None:
    """An answer alone is no token."""
    attachment = attached(Told(), State.LOADING, State.READY, State.STUCK)
    attachment.meet_again("it answered 503")
    assert attachment.state is State.STUCK


async def test_the_silence_of_an_engine_that_was_lost_meanwhile_is_no_news() -> None:
    """It is not started again a second time for it."""
    told = Told()
    attachment = attached(told, State.LOADING, State.READY)
    attachment.ended("its process was stopped")
    await attachment.stalled("no sign of life")
    assert told.names() == ["absent", "on_gone"]
