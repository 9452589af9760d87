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
from bioproxy.kv import actions, contexts, keeping
from bioproxy.kv.snapshot import Pin
from fakes.fake_engine import FakeEngine
from support.kv_rig import Asked, HeldCommit, Rig, rig, text
from support.leaks import until

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


async def test_next_turns_lose_no_slot_to_a_copy_of_what_they_began_with(tmp_path: Path) -> None:
    """Agents that have a slot each go on at once, after a save. A further one takes the slot that nobody wants."""
    async with FakeEngine(slot_folder=tmp_path, parallel=4, cache_ram=0, decode_rate=20) as engine, rig(engine) as one:
        one.gate.resize(4)
        answer = await kept(one)
        tasks = [(REPOSITORY, answer, text(10 * number, "a task")) for number in range(1, 5)]
        answers = [each.answer for each in await waiting_together(one, *tasks)]
        assert await one.save_idle() == 4
        before = one.keeper.restorer.restores["ok"]
        turns: list[tuple[str, ...]] = [(*task, said, " go on") for task, said in zip(tasks, answers, strict=True)]
        asked = await waiting_together(one, *turns)
        assert [each.evaluated < 10 for each in asked] == [True] * 4, [each.timings for each in asked]
        assert await one.save_idle() == 4
        turns = [(*turn, each.answer, " and on") for turn, each in zip(turns, asked, strict=True)]
        asked = await waiting_together(one, *turns[1:], (REPOSITORY, answer, " a fifth agent"))
        assert [each.evaluated < 10 for each in asked] == [True] * 4, [each.timings for each in asked]
        assert one.keeper.restorer.restores["ok"] == before


async def test_conversations_that_go_on_at_once_after_a_crash_are_all_brought_back(tmp_path: Path) -> None:
    """While the first is restored, the others wait; then they all run, and nobody could restore anything any more."""
    async with FakeEngine(slot_folder=tmp_path, parallel=4, cache_ram=0, decode_rate=20) as engine, rig(engine) as one:
        one.gate.resize(4)
        texts = [(text(300 + 10 * number, f"conversation {number}"),) for number in range(4)]
        answers = [each.answer for each in await waiting_together(one, *texts)]
        assert await one.save_idle() == 4
        await engine.restart()
        one.keeper.gone("killed")
        await one.attach()
        turns = [one.ask(*said, answer, " go on") for said, answer in zip(texts, answers, strict=True)]
        asked = await asyncio.gather(*turns)
        assert [each.evaluated < 20 for each in asked] == [True] * 4, [each.timings for each in asked]
        assert one.keeper.restorer.restores["ok"] == 4
        assert await engine.violations() == []


async def test_who_has_the_engine_waits_for_one_slow_restore_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they take counts, not what was expected: after a restart each file is read whole before it is restored."""
    monkeypatch.setattr(actions, "FOR_OTHERS", 0.2)
    async with FakeEngine(slot_folder=tmp_path, parallel=4, cache_ram=0, decode_rate=20) as engine, rig(engine) as one:
        one.gate.resize(4)
        texts = [(text(300 + 10 * number, f"conversation {number}"),) for number in range(4)]
        answers = [each.answer for each in await waiting_together(one, *texts)]
        assert await one.save_idle() == 4
        await engine.restart()
        one.keeper.gone("killed")
        await one.attach()
        await engine.faults(restore_seconds=0.3)
        turns = [one.ask(*said, answer, " go on") for said, answer in zip(texts, answers, strict=True)]
        await asyncio.gather(*turns)
        assert one.keeper.restorer.restores["ok"] <= 2  # the first one's own, and one more


async def test_once_a_slot_action_is_in_doubt_nothing_is_restored_for_others(tmp_path: Path) -> None:
    """What hung may still strike (rule 4). Nor is more restored than `seconds` allow."""
    async with FakeEngine(slot_folder=tmp_path, parallel=2, cache_ram=0) as engine, rig(engine) as one:
        asked = await one.ask(OTHER)
        await one.save_idle()
        await engine.restart()
        one.keeper.gone("killed")
        await one.attach()
        acting = one.keeper.actions
        acting.waiting = lambda: [one.want(OTHER, asked.answer, " go on")]
        assert acting.missed(set(), None, 1.0) is not None
        assert acting.missed(set(), None, 0.0) is None
        one.keeper.decisions.doubt = "a restore hung"
        assert acting.missed(set(), None, 1.0) is None


async def waiting_together(one: Rig, *texts: tuple[str, ...]) -> list[Asked]:
    """Requests that waited while something else had the engine alone."""
    grant = await one.gate.acquire(work="background", exclusive=True)
    requests = [aio.spawn(one.ask(*text), name="agent") for text in texts]
    await until(lambda: len(one.gate.queue.tickets()) == len(texts))
    await one.keeper.actions.fork()
    grant.release()
    return await asyncio.gather(*requests)


async def test_who_waits_for_a_snapshot_takes_no_slot_from_who_came_meanwhile(tmp_path: Path) -> None:
    """What is still being made a snapshot is waited for; in that time the slot that was free before got work to do."""
    step = HeldCommit()
    async with FakeEngine(slot_folder=tmp_path, parallel=2, cache_ram=0) as engine, rig(engine) as one:
        one.gate.resize(2)
        one.keeper.tenant.step = step
        first = await one.ask(OTHER)
        await one.save_idle(settle=False)
        await asyncio.to_thread(step.blocked.wait, 10)
        asked = [await one.ask(text(300, name), store=False) for name in ("second", "third")]
        again = aio.spawn(one.ask(OTHER, first.answer, " go on"), name="waits")
        await until(lambda: one.gate.queue.running)
        second = text(300, "second"), asked[0].answer, " more"
        await one.ask(*second, store=False)
        step.go_on.set()
        assert (await again).prepared.status == "restored"
        assert one.keeper.holds(one.want(*second))
        assert await engine.violations() == []
