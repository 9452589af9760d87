"""What the cache costs where it has nothing to do, and before an idle save: counted in calls, not by a clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioproxy.engines.answers import Timings
from bioproxy.kv.keeper import Want
from bioproxy.prompt import Head, Piece
from fakes.fake_engine import FakeEngine
from support.kv_rig import Rig, rig, text
from support.steps import entered

HEAD = Head(messages=b'[{"role":"system","content":"Be brief."}]')
ANSWERED = Timings(cached=80, evaluated=1, generated=5, prefill=0.001, decode=0.01)


def wanted(one: Rig, question: str) -> Want:
    pieces = [Piece("head", text(20, question).encode()), Piece("message 1 (user)", text(30).encode())]
    return one.keeper.want(pieces, group="g", head=HEAD, again=("/v1/chat/completions", b"{}"))


async def ask(one: Rig, question: str) -> None:
    """A request's way through gate and keeper, whose answer nobody reads."""
    want = wanted(one, question)
    grant = await one.gate.acquire(client="c", key=want)
    prepared = await one.keeper.prepare(want, grant)
    one.keeper.served(want, prepared, ANSWERED, complete=True)
    await one.keeper.conclude(want, grant)
    grant.release()


@pytest.mark.parametrize("flags", [{}, {"parallel": 16}])
async def test_a_prompt_that_is_resident_costs_few_calls(tmp_path: Path, flags: dict[str, int]) -> None:
    """From naming it to giving the engine back; sixteen slots, each with a conversation, cost no more than one."""
    async with FakeEngine(slot_folder=tmp_path, **flags) as engine, rig(engine, tmp_path) as one:
        questions = [f"q{number}" for number in range(len(one.keeper.residents.slots))]
        for question in questions * 2:
            await ask(one, question)
        with entered() as calls:
            await ask(one, questions[0])
        assert len(calls) <= 32, calls


async def test_a_conversation_that_cannot_be_worth_a_save_wakes_no_idle_saver(tmp_path: Path) -> None:
    """However much of it is new: evaluating all of it again takes less than `kv.min_seconds`."""
    async with FakeEngine(slot_folder=tmp_path) as engine, rig(engine, tmp_path, min_seconds=60.0) as one:
        await ask(one, "short")
        assert not one.keeper.moments.grown.is_set()


async def test_a_grant_of_a_free_engine_costs_few_calls(tmp_path: Path) -> None:
    """Five to get it and three to give it back, alone or not."""
    async with FakeEngine(slot_folder=tmp_path) as engine, rig(engine, tmp_path) as one:
        (await one.gate.acquire(client="c")).release()
        for exclusive in (False, True):
            with entered() as calls:
                grant = await one.gate.acquire(client="c", exclusive=exclusive)
            assert len(calls) <= 5, calls
            with entered() as calls:
                grant.release()
            assert len(calls) <= 3, calls


async def test_an_idle_save_reaches_the_engine_in_few_calls(tmp_path: Path) -> None:
    """From the moment to the first byte of the slot action; what is worth a save is found out once."""
    async with FakeEngine(slot_folder=tmp_path, tokens_per_second=5000) as engine, rig(engine, tmp_path) as one:
        await one.ask(text(300))
        with entered() as calls:
            await one.keeper.moments.save_alone()
        await one.settle()
        assert len(one.keeper.list()) == 1
        sent = calls.index("wire/engine_connection.py:EngineConnection.exchange")
        assert sent <= 70, calls[:sent]
        assert calls.count("kv/moments.py:Moments.growing") == 1
