"""The supervisor in the moments in which two things happen at once: shutdown, reload, death, and a swap given up."""

from __future__ import annotations

import asyncio
from typing import cast

import msgspec
import pytest

from bioproxy import aio
from bioproxy.errors import ModelFailed, NotFound, QueueTimeout
from bioproxy.events import ModelStopped, SwapEnded
from bioproxy.models.state import State
from bioproxy.models.unit import Unit
from support.swap_standins import Machine, Standin, turns

SHUTDOWN = QueueTimeout("bioproxy is shutting down")


async def test_who_is_taken_back_while_the_shutdown_begins_is_told_at_once() -> None:
    """It waits nowhere at that moment: neither in the gate nor for the model."""
    machine = Machine("a b")
    hold = await machine.hold("a")
    hold.recalled = True
    machine.supervisor.refuse(lambda: SHUTDOWN)
    with pytest.raises(QueueTimeout, match="shutting down"):
        await machine.supervisor.again(hold, timeout=5.0)
    await machine.end()


async def test_after_the_shutdown_began_nobody_is_let_in() -> None:
    """Requests, loads, and whoever comes back because its engine died."""
    machine = Machine("a")
    hold = await machine.hold("a")
    machine.supervisor.refuse(lambda: SHUTDOWN)
    machine.units["a"].die()
    await turns()
    for work in (
        machine.supervisor.again(hold, timeout=5.0),
        machine.hold("a"),
        machine.supervisor.load("a", timeout=5.0),
    ):
        with pytest.raises(QueueTimeout, match="shutting down"):
            await work
    await machine.end()


async def test_a_swap_that_was_given_up_does_not_count_for_the_next_one() -> None:
    """Its client left before the other model had stopped; the next swap's time begins when it is decided."""
    machine = Machine("a b c")
    ended: list[SwapEnded] = []
    machine.bus.subscribe(SwapEnded, ended.append)
    machine.supervisor.release(await machine.hold("a"))
    machine.units["a"].may_stop.clear()
    leaves = aio.spawn(machine.hold("b"), name="leaves")
    await turns()
    leaves.cancel()
    await turns()
    machine.units["a"].may_stop.set()
    await turns(20)
    assert not machine.alive()
    machine.supervisor.release(await machine.hold("b"))
    assert ended[-1].model == "b"
    assert ended[-1].displaced == ()
    await machine.end()


async def test_a_start_that_failed_does_not_count_for_the_next_one() -> None:
    """What it displaced is no business of the start that worked."""
    machine = Machine("a b")
    ended: list[SwapEnded] = []
    machine.bus.subscribe(SwapEnded, ended.append)
    machine.supervisor.release(await machine.hold("a"))
    await machine.supervisor.unload("a")
    machine.units["b"].breaks = "no memory"
    machine.supervisor.schedule.book.records["b"].again = True  # no second try
    with pytest.raises(ModelFailed, match="no memory"):
        await machine.hold("b")
    assert not machine.supervisor.lives.swaps
    await machine.end()


async def test_the_death_of_a_process_is_heard_of_though_the_model_changed_meanwhile() -> None:
    """A request finds its engine gone; the model has another command by now, and its old process is what counts."""
    machine = Machine("a")
    hold = await machine.hold("a")
    old = machine.units["a"]
    changed = [msgspec.structs.replace(one, launch="another") for one in machine.settings]
    new = cast("dict[str, Unit]", {"a": Standin("a")})
    machine.supervisor.configure(changed, new, rules=machine.rules)
    asked = aio.spawn(machine.supervisor.confirm("a"), name="confirm")
    await turns()
    assert not asked.done()
    old.die()
    await asked
    assert machine.supervisor.schedule.state("a") is not State.READY
    machine.supervisor.release(hold)
    await machine.supervisor.close(5.0)
    assert not old.alive


async def test_a_model_that_is_taken_out_takes_its_unit_along() -> None:
    """Reloads that name new models again and again must not gather the old ones."""
    machine = Machine("a b")
    machine.supervisor.release(await machine.hold("a"))
    kept = cast("dict[str, Unit]", {"b": machine.units["b"]})
    machine.supervisor.configure(machine.settings[1:], kept, rules=machine.rules)
    await turns(20)
    assert set(machine.supervisor.units) == {"b"}
    with pytest.raises(NotFound):
        await machine.hold("a")
    await machine.end()


async def test_reloads_do_not_put_off_what_has_to_go() -> None:
    """A model that was taken out has its grace once, however often the configuration is read again."""
    machine = Machine("a b")
    hold = await machine.hold("a")
    record = machine.supervisor.schedule.book.records["a"]
    kept = cast("dict[str, Unit]", {"b": machine.units["b"]})
    for _ in range(2):
        machine.supervisor.configure(machine.settings[1:], kept, rules=machine.rules)
        leave_by = record.leave_by
        await asyncio.sleep(0.001)
    machine.supervisor.configure(machine.settings[1:], kept, rules=machine.rules)
    assert record.leave_by == leave_by
    machine.supervisor.release(hold)
    await turns(20)
    await machine.end()


async def test_what_has_to_go_for_another_command_goes_though_it_was_taken_out_and_put_back() -> None:
    """Its process is not the one that is configured."""
    machine = Machine("a")
    hold = await machine.hold("a")
    changed = [msgspec.structs.replace(one, launch="another") for one in machine.settings]
    old, new = machine.units["a"], cast("dict[str, Unit]", {"a": Standin("a")})
    for settings, units in ((changed, new), ([], {}), (changed, new)):
        machine.supervisor.configure(settings, units, rules=machine.rules)
    machine.supervisor.release(hold)
    await turns(20)
    assert not old.alive
    again = await machine.hold("a")
    assert again.unit is new["a"]
    machine.supervisor.release(again)
    await machine.supervisor.close(5.0)


async def test_a_shorter_grace_counts() -> None:
    """An unload with less grace than a reload gave ends the model earlier."""
    machine = Machine("a")
    hold = await machine.hold("a")
    stopped: list[ModelStopped] = []
    machine.bus.subscribe(ModelStopped, stopped.append)
    slow = aio.spawn(machine.supervisor.unload("a", grace=60.0), name="slow")
    await turns()
    await machine.supervisor.unload("a", grace=0.0)
    await slow
    assert [event.reason for event in stopped] == ["unload"]
    machine.supervisor.release(hold)
    await machine.end()


async def test_a_ticket_of_an_earlier_life_gives_nothing_back() -> None:
    """Whoever ran on a process that died and releases late must not free the place of somebody else."""
    machine = Machine("a")
    old = await machine.hold("a")
    machine.units["a"].die()
    await turns()
    new = await machine.hold("a")
    machine.supervisor.release(old)
    machine.supervisor.release(old)
    assert machine.supervisor.statistics().running == 1
    machine.supervisor.release(new)
    await machine.end()


async def test_a_fault_in_a_start_is_told_and_leaves_nothing() -> None:
    """Not only errors that are ours: whoever waits must not wait for ever."""
    machine = Machine("a")

    def broken() -> None:
        raise RuntimeError("a fault")

    unit = machine.units["a"]
    unit.go.wait = broken  # type: ignore[method-assign, assignment]
    with pytest.raises(ModelFailed, match="a fault"):
        await machine.hold("a")
    assert not machine.alive()
    await machine.end()


async def test_a_close_in_a_start_that_does_not_end() -> None:
    """It is cancelled, and its process goes all the same."""
    machine = Machine("a")
    unit = machine.units["a"]
    unit.may_stop.clear()
    machine.supervisor.release(await machine.hold("a"))
    asked = aio.spawn(machine.supervisor.unload("a"), name="unload")
    await turns()
    closing = aio.spawn(machine.supervisor.close(0.01), name="close")
    await asyncio.sleep(0.05)
    unit.may_stop.set()
    await closing
    await asked
    await machine.end()
