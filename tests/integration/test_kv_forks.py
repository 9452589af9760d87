"""Agents that begin from one context at once, on the fake engine: none evaluates it anew, whatever else is done then.

Before a real engine: test_line_contexts.py. Here they come in each moment of what the keeper does by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from bioproxy.kv import contexts, keeping
from bioproxy.kv.snapshot import Pin
from fakes.fake_engine import FakeEngine
from support.kv_rig import Asked, Rig, rig, text

AGENTS = 4
REPOSITORY = text(300, "a repository")
OTHER, MORE = text(300, "a conversation"), text(300, "and more")


async def kept(one: Rig) -> str:
    """Two conversations on disk, the repository with a name; what was answered to it."""
    asked = await one.ask(REPOSITORY)
    await one.save_idle()
    [snapshot] = one.keeper.list()
    await keeping.keep(one.keeper.tenant.shelf, snapshot, group="", name="repo")
    await one.ask(OTHER)
    await one.save_idle()
    return asked.answer


async def late(step: int, one: Rig, *texts: str) -> Asked:
    """A request that comes after so many turns of the event loop."""
    for _ in range(step):
        await asyncio.sleep(0)
    return await one.ask(*texts)


async def fills(one: Rig) -> None:
    await one.keeper.moments.fill()


async def brings_back(one: Rig) -> None:
    """As after a swap, for one request that waits; the gate opens right after it."""
    one.gate.close("the engine starts")
    await one.keeper.moments.bring_back([one.want(REPOSITORY)])
    one.gate.open()


async def saves(one: Rig) -> None:
    """A conversation that has grown, as after some idle seconds."""
    await one.keeper.moments.save_alone()


async def keeps_another(one: Rig) -> None:
    """A person keeps what a conversation left."""
    await contexts.save(one.keeper, contexts.Left(one.want(OTHER, MORE).end, ""), Pin("", 0.0, "other"))


async def serves_another(one: Rig) -> None:
    """A conversation's next turn, which has the engine alone while its beginning is brought back."""
    assert (await one.ask(OTHER, MORE)).prepared.status == "restored"


Does = Callable[[Rig], Coroutine[Any, Any, None]]


ENDS = [(does, step) for does in (fills, brings_back, saves, keeps_another) for step in range(6)]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("does", "step"), [*ENDS, (serves_another, 0), (serves_another, 1)])  # later it runs
async def test_agents_may_come_in_any_moment(does: Does, step: int, *, together: bool, tmp_path: Path) -> None:
    """After the first slot action, in each turn of the loop in which its grant ends; or the first one a bit earlier."""
    flags = {"parallel": AGENTS + 1, "cache_ram": 0}
    async with FakeEngine(slot_folder=tmp_path, **flags) as engine, rig(engine) as one:
        one.gate.resize(AGENTS + 1)
        answer = await kept(one)
        await engine.restart()
        one.keeper.gone("killed")
        await one.attach()
        if does in {saves, keeps_another}:
            await one.ask(OTHER, MORE)
        agents: list[asyncio.Task[Asked]] = []
        doubted = one.keeper.actions.doubted

        def acted(reason: str) -> None:
            """A slot action has ended, and the agents come."""
            doubted(reason)
            for number in range(AGENTS if not agents else 0):
                wait = step if together or number else 0
                agents.append(aio.spawn(late(wait, one, REPOSITORY, answer, f" agent {number}"), name="agent"))

        one.keeper.actions.doubted = acted  # type: ignore[method-assign]
        await does(one)
        asked = await asyncio.gather(*agents)
        assert [each.evaluated < 50 for each in asked] == [True] * AGENTS, [each.timings for each in asked]
        assert await engine.violations() == []


async def test_a_conversation_that_has_gone_on_waits_for_nobody(tmp_path: Path) -> None:
    """Its slot holds more than the context. Two of them go on from it all the same: only one can have that slot."""
    async with FakeEngine(slot_folder=tmp_path, parallel=2, cache_ram=0) as engine, rig(engine) as one:
        one.gate.resize(2)
        answer = await kept(one)
        agent = await one.ask(REPOSITORY, answer, " agent")
        actions = one.keeper.actions
        next_turn = one.want(REPOSITORY, answer, " agent", agent.answer, " go on")
        actions.waiting = lambda: [next_turn]
        assert actions.awaited(set()) is None
        actions.waiting = lambda: [next_turn, one.want(REPOSITORY, answer, " another agent")]
        match = actions.awaited(set())
        assert match is not None
        assert [pin.name for pin in match.snapshot.pins] == ["repo"]
        assert actions.awaited({match.snapshot.id}) is None
