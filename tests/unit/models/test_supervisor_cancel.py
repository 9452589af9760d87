"""Every place in the supervisor at which whoever waits can be cancelled: nothing is kept, nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from bioproxy import aio
from bioproxy.activity import Record
from bioproxy.errors import BioproxyError, ModelFailed, QueueTimeout
from bioproxy.models.claim import Claim, Recalled
from bioproxy.models.state import State
from bioproxy.models.wish import Wish
from support.leaks import cut, each_await
from support.swap_standins import Machine, turns


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    """Two models of which one runs at a time; afterwards nothing may be left of either."""
    made = Machine("a b")
    yield made
    await made.end()


async def use(machine: Machine, model: str) -> None:
    """One request from its beginning to its end."""
    hold = await machine.hold(model)
    try:
        await asyncio.sleep(0)
    finally:
        machine.supervisor.release(hold)


async def test_a_request(machine: Machine) -> None:
    """Cancelled wherever it waits, it leaves the queue; whoever comes next is served."""
    async for at in each_await(lambda: use(machine, "ab"[at_of(machine)])):
        machine.sound()
        await use(machine, "ab"[at % 2])
        machine.sound()


def at_of(machine: Machine) -> int:
    """The model that does not run now: asking for it is a swap."""
    return int(machine.supervisor.schedule.state("a") is State.READY)


async def test_a_request_whose_model_became_ready_in_the_same_moment(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was served, and its cancellation arrives before it knows: the model is free for others."""
    machine.units["a"].go.clear()
    task = aio.spawn(machine.hold("a"), name="request")
    await turns()
    settle = machine.supervisor.settle

    def settle_and_cancel(wish: Wish, error: BioproxyError | None) -> None:
        settle(wish, error)
        task.cancel()

    monkeypatch.setattr(machine.supervisor, "settle", settle_and_cancel)
    machine.units["a"].go.set()
    await asyncio.wait([task])
    monkeypatch.undo()
    assert task.cancelled()
    machine.sound()
    await use(machine, "b")


async def test_a_time_out_in_the_same_moment_as_the_model(machine: Machine) -> None:
    """Whichever of the two counts, the place is given back."""
    machine.units["a"].go.clear()
    task = aio.spawn(machine.hold("a", timeout=0.01), name="request")
    await turns()
    with pytest.raises(QueueTimeout, match="starting"):
        await task
    machine.units["a"].go.set()
    await turns()
    machine.sound()
    await use(machine, "b")


async def recalled(machine: Machine) -> Wish:
    """A hold of `a` that waits in its gate and is taken back, for somebody waits for `b`."""
    hold = await machine.hold("a")

    async def in_gate() -> None:
        hold.in_gate = asyncio.current_task()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            hold.in_gate = None

    task = aio.spawn(in_gate(), name="in the gate")
    await turns()
    machine.supervisor.take_back(hold)
    await asyncio.wait([task])
    return hold


async def test_a_request_that_was_taken_back(machine: Machine) -> None:
    """It waits anew, and cancelled there it gives back its new place."""

    async def again() -> None:
        hold = await recalled(machine)
        try:
            await cut(machine.supervisor.again(hold, timeout=5.0), 0)
        finally:
            machine.supervisor.release(hold)

    await again()
    machine.sound()
    other = aio.spawn(machine.hold("b"), name="other")
    machine.supervisor.release(await other)
    machine.sound()


@pytest.mark.parametrize("busy", [False, True])
async def test_again_at_each_await(busy: bool, machine: Machine) -> None:
    """With and without another model's request in between, for which it has to wait."""
    for at in range(5):
        hold = await recalled(machine)
        others = [aio.spawn(use(machine, "b"), name="other") for _ in range(busy)]
        was_cut = await cut(machine.supervisor.again(hold, timeout=5.0), at)
        if not was_cut:
            machine.supervisor.release(hold)
        await asyncio.gather(*others)
        machine.sound()
        if not was_cut:
            return
    raise AssertionError("it never came to its end")


async def test_a_load(machine: Machine) -> None:
    """A load that nobody waits for any more is forgotten."""
    async for _ in each_await(lambda: machine.supervisor.load("ab"[at_of(machine)], timeout=5.0)):
        machine.sound()
        await turns()


async def test_an_unload(machine: Machine) -> None:
    """It goes on where its caller has left."""

    async def once() -> None:
        await use(machine, "a")
        await machine.supervisor.unload("a")

    async for _ in each_await(once):
        machine.sound()
    await machine.supervisor.unload("a")
    assert machine.supervisor.schedule.state("a") is State.STOPPED
    machine.units["a"].may_stop.clear()
    await use(machine, "a")
    assert await cut(machine.supervisor.unload("a"), 0)
    machine.units["a"].may_stop.set()
    await turns(20)
    assert not machine.alive()


async def test_who_waits_is_told_when_its_model_is_unloaded(machine: Machine) -> None:
    """Also who waits to be told of a start."""
    machine.units["a"].go.clear()
    task = aio.spawn(machine.hold("a"), name="request")
    await turns()
    await machine.supervisor.unload("a")
    with pytest.raises(ModelFailed, match="unloaded"):
        await task
    assert not machine.alive()


def claim(machine: Machine, model: str, told: list[str]) -> Claim:
    """A claim on a model; what is told of its loading goes to `told`."""

    def loading(_wish: Wish) -> Callable[[bool], None]:
        told.append("begins")
        return lambda ready: told.append(f"ready: {ready}")

    record = Record(id="r", started=0.0, method="POST", path="/x", endpoint="x")
    return Claim(machine.supervisor, model, record, timeout=5.0, loading=loading)


async def test_a_claim(machine: Machine) -> None:
    """What was told of the loading comes to its end, and the place is given back."""
    told: list[str] = []

    async def sit() -> None:
        place = claim(machine, "ab"[at_of(machine)], told)
        try:
            await place.take(None)
        finally:
            place.leave()

    async for _ in each_await(sit):
        machine.sound()
        await turns(20)
    assert told[:2] == ["begins", "ready: False"]
    assert told[-1] == "ready: True"
    assert len(told) % 2 == 0


async def test_a_client_that_leaves_while_its_place_is_taken_back(machine: Machine) -> None:
    """Both cancel the task; that it left is what counts."""
    place = claim(machine, "a", [])

    async def in_gate() -> None:
        await place.take(None)
        place.in_gate = asyncio.current_task()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if place.taken_back():
                raise Recalled from None
            raise
        finally:
            place.in_gate = None
            place.leave()

    task = aio.spawn(in_gate(), name="in the gate")
    await turns(20)
    (hold,) = machine.supervisor.claims
    machine.supervisor.take_back(hold)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    machine.sound()
