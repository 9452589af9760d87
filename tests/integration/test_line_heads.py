"""Long heads without a prefix through the whole line, before the real engine: a new session of an agent is warm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bioproxy.app import App
from bioproxy.kv.snapshot import Snapshot
from support.apps import station
from support.conversation import Conversation, openai_client
from support.http import call
from support.kv_rig import text
from support.leaks import until
from support.real_engine import KEEN, crash, evaluated, idle_saved, line, llama_server, real_engine

Json = Any
pytestmark = real_engine
HEAD = text(500, "You are an agent.")
NEVER: Json = {"kv": KEEN | {"save_after": 1000}, "warmup": {"settle": 0}}  # a conversation is not saved when idle
LITTLE = 60  # tokens: of a question, its markers, and what a model that cannot be cut anywhere reads again
QUESTIONS = ("What about noise at night?", "When is the bath free?", "Who may leave at noon?", "And on Sundays?")


def heads(app: App) -> list[Snapshot]:
    """The snapshots of heads."""
    return [one for one in station(app).keeper.list() if one.head]


async def heads_saved(app: App, count: int = 1) -> None:
    """Wait until so many heads are on disk, and nothing is left to warm."""
    await until(lambda: len(heads(app)) >= count)
    await until(lambda: station(app).gate.idle)


@pytest.mark.parametrize("shape", ["tiny", "swa", "mamba"])
async def test_a_new_session_is_warm_after_a_kill(shape: Any, tmp_path: Path) -> None:
    """Two sessions with an equal head; the engine is killed before anything of them was saved: the third is warm."""
    engine = llama_server(tmp_path, shape=shape)
    async with engine, line(engine, tmp_path, **NEVER) as app, openai_client(app.proxy_port) as client:
        cold = await Conversation(client, system=HEAD).say(QUESTIONS[0])
        assert cold.cached == 0
        await Conversation(client, system=HEAD).say(QUESTIONS[1])
        await heads_saved(app)
        await crash(engine, app)
        turn = await Conversation(client, system=HEAD).say(QUESTIONS[2])
        assert turn.evaluated < LITTLE < cold.evaluated / 10
        assert station(app).keeper.statistics().restores == {"ok": 1}


async def test_equal_openings_with_different_second_turns(tmp_path: Path) -> None:
    """Two sessions that begin with the same words are two, and both go on warm after the engine was killed."""
    engine = llama_server(tmp_path)
    async with engine, line(engine, tmp_path) as app, openai_client(app.proxy_port) as client:
        talks = [Conversation(client, system=HEAD) for _ in range(2)]
        for talk, question in zip(talks, QUESTIONS, strict=False):
            await talk.say("Look around first.")
            assert not heads(app)
            await talk.say(question)
        await heads_saved(app)
        await idle_saved(app)
        await crash(engine, app)
        for talk in talks:
            assert (await talk.say("Go on.")).evaluated < LITTLE
        assert await evaluated(engine) < 2 * LITTLE


async def test_a_head_outlives_its_conversations(tmp_path: Path) -> None:
    """It is no ancestor of a conversation that goes on from it, and stays if the conversations' snapshots go."""
    engine = llama_server(tmp_path)
    async with engine, line(engine, tmp_path) as app, openai_client(app.proxy_port) as client:
        talks = [Conversation(client, system=HEAD) for _ in range(2)]
        for talk in talks:
            await talk.say(QUESTIONS[0] + str(len(talk.turns)) + str(talks.index(talk)))
        await heads_saved(app)
        await talks[0].say(QUESTIONS[1])
        await idle_saved(app)
        kept = station(app).keeper.list()
        assert len(heads(app)) == 1
        await station(app).keeper.tenant.shelf.drop([one for one in kept if not one.head], "budget")
        await crash(engine, app)
        assert (await Conversation(client, system=HEAD).say(QUESTIONS[3])).evaluated < LITTLE


async def test_heads_are_warmed_after_a_restart(tmp_path: Path) -> None:
    """Everything was killed and the snapshots are gone: the head is read again before a session asks for it."""
    engine = llama_server(tmp_path)
    async with engine:
        async with line(engine, tmp_path, **NEVER) as app, openai_client(app.proxy_port) as client:
            for question in QUESTIONS[:2]:
                await Conversation(client, system=HEAD).say(question)
            await heads_saved(app)
            await station(app).keeper.tenant.shelf.drop(heads(app), "deleted")
        await engine.restart()
        async with line(engine, tmp_path, **NEVER) as app, openai_client(app.proxy_port) as client:
            await heads_saved(app)
            assert (await Conversation(client, system=HEAD).say(QUESTIONS[2])).evaluated < LITTLE


async def test_a_head_is_its_groups(tmp_path: Path) -> None:
    """Another group's request never gets it from disk; it is warmed for that group once it has two sessions, too."""
    keys = [{"key": name, "group": name} for name in ("red", "blue")]
    engine = llama_server(tmp_path)
    async with (
        engine,
        line(engine, tmp_path, api_keys=keys, **NEVER) as app,
        openai_client(app.proxy_port, key="red") as red,
        openai_client(app.proxy_port, key="blue") as blue,
    ):
        for question in QUESTIONS[:2]:
            await Conversation(red, system=HEAD).say(question)
        await heads_saved(app)
        assert [one.group for one in heads(app)] == ["red"]
        await crash(engine, app)
        assert (await Conversation(blue, system=HEAD).say(QUESTIONS[2])).cached == 0
        await Conversation(blue, system=HEAD).say(QUESTIONS[3])
        await heads_saved(app, 2)
        assert {one.group for one in heads(app)} == {"red", "blue"}
        await crash(engine, app)
        assert (await Conversation(blue, system=HEAD).say(QUESTIONS[0])).evaluated < LITTLE


async def test_what_must_not_be_stored_makes_no_head(tmp_path: Path) -> None:
    """Requests with `Cache-Control: no-store` are neither remembered nor warmed."""
    engine = llama_server(tmp_path)
    async with engine, line(engine, tmp_path) as app:
        for question in QUESTIONS:
            await ask(app, question, headers={"Cache-Control": "no-store"})
        assert not station(app).heads.plain.watched
        assert not station(app).heads.statistics().plain


async def test_they_can_be_switched_off(tmp_path: Path) -> None:
    """`warmup.plain_heads: 0`."""
    engine = llama_server(tmp_path)
    async with engine, line(engine, tmp_path, warmup={"plain_heads": 0}) as app:
        for question in QUESTIONS:
            await ask(app, question)
        await idle_saved(app)
        assert not heads(app)
        assert not station(app).runner.statistics().targets


async def ask(app: App, question: str, **more: Json) -> None:
    """One session of one turn."""
    messages = [{"role": "system", "content": HEAD}, {"role": "user", "content": question}]
    headers = {"Content-Type": "application/json", **more.get("headers", {})}
    body = {"messages": messages, "max_tokens": 2}
    answer = await call(app.proxy_port, "POST", "/v1/chat/completions", body=json.dumps(body).encode(), headers=headers)
    assert answer.status == 200, answer.text
