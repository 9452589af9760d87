"""Side requests let others go first: until it is quiet, their conversation went on, or they waited long enough."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest

from bioproxy.aio import finish, spawn
from bioproxy.errors import BioproxyError, QueueTimeout
from bioproxy.gate import Gate
from bioproxy.gate.queue import AGEING, Queue, Ticket
from support.config_files import settings

MS = 0.001


def make(wait: float = 60.0, *, capacity: int = 1) -> Gate:
    return Gate(settings(clients__side_wait=wait), capacity=capacity)


async def aside(gate: Gate, conversation: str = "c") -> asyncio.Task[None]:
    """A side request that steps aside."""
    task = spawn(gate.step_aside(conversation), name="aside")
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def turn(gate: Gate, conversation: str = "c", *, cut: bool = False) -> None:
    """A user's request, from its grant to its end."""
    (await gate.acquire(conversation=conversation)).release(cut=cut)


async def test_an_engine_that_nobody_uses_is_used_at_once() -> None:
    """Nothing stands in anybody's way."""
    assert (await aside(make())).done()


async def test_it_waits_after_a_users_request() -> None:
    """For as long as the user may ask the next question."""
    gate = make(30 * MS)
    await turn(gate)
    waiting = await aside(gate)
    assert (waiting.done(), gate.statistics().aside) == (False, 1)
    await waiting
    assert gate.quiet_in() <= 0
    assert gate.statistics().aside == 0


async def test_background_work_is_no_user() -> None:
    """A warm-up goes on for minutes, and a side request goes before it."""
    gate = make()
    grant = await gate.acquire(work="background")
    assert (await aside(gate)).done()
    grant.release()
    assert (await aside(gate)).done()


async def test_the_next_turn_of_its_conversation_lets_it_go() -> None:
    """Not the one that ran when it came, nor another conversation's, nor one that was cut off."""
    gate = make(capacity=4)
    running = await gate.acquire(conversation="c")
    waiting = await aside(gate)
    running.release()
    await turn(gate, "other")
    await turn(gate, cut=True)
    gate.settled()
    await asyncio.sleep(0)
    assert not waiting.done()
    await turn(gate)
    await asyncio.wait_for(waiting, 25)


async def test_an_engine_that_was_stopped_is_not_started_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes when somebody else has it started; if nobody does, its client is told."""
    monkeypatch.setattr("bioproxy.gate.gate.LOOK_AGAIN", 5 * MS)
    gate = make(0)
    await turn(gate)
    gate.close("it was stopped")
    waiting = await aside(gate)
    assert not waiting.done()
    gate.open()
    await asyncio.wait_for(waiting, 25)
    gate.close("it was stopped")
    gate.settings = settings(queue_timeout=20 * MS)
    with pytest.raises(QueueTimeout, match="a side request does not"):
        await gate.step_aside("c")
    assert not gate.aside


async def test_one_that_nobody_used_lately_is_started_for_it() -> None:
    """A small model for titles, which has unloaded itself."""
    gate = make()
    gate.close("it is not loaded")
    assert (await aside(gate)).done()


async def test_on_a_busy_engine_it_goes_on_after_its_time() -> None:
    """From then on it waits in the queue, as any request."""
    gate = make()
    grant = await gate.acquire()
    with patch("bioproxy.gate.gate.MOST_ASIDE", 20 * MS):
        await gate.step_aside("c")
    grant.release()


async def test_the_shutdown_ends_it() -> None:
    """What it asks for then is refused, as all others are."""
    gate = make()
    await turn(gate)
    waiting = await aside(gate)
    gate.refuse(BioproxyError("shutting down", status=503))
    await asyncio.wait_for(waiting, 25)
    with pytest.raises(BioproxyError, match="shutting down"):
        await gate.acquire(work="side")


async def test_a_client_that_leaves_is_forgotten() -> None:
    """Nothing of it is kept."""
    gate = make()
    await turn(gate)
    waiting = await aside(gate)
    await finish([waiting])
    assert not gate.aside
    await turn(gate)


def test_a_side_ticket_that_waited_a_minute_is_a_users() -> None:
    """However many users come: it goes before those that came later."""
    queue = Queue(capacity=1)
    running = Ticket(client="u")
    assert queue.admit(running, 0.0)
    side = Ticket(client="s", work="side", arrived=0.0)
    queue.push(side)
    for number in range(5):
        queue.push(Ticket(client=f"u{number}", arrived=AGEING / 2))
    queue.release(running, AGEING - 1, unsent=True)
    first = queue.pick(AGEING - 1, lambda _key: False)
    assert first is not None
    assert first.work == "user"
    queue.release(first, AGEING, unsent=True)
    assert queue.pick(AGEING, lambda _key: False) is side
