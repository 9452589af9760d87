"""Contexts through the whole line, before the real llama.cpp: agents begin from one at once, also after a kill -9."""

from __future__ import annotations

import asyncio
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bioproxy.app import App
from support.apps import station
from support.conversation import Conversation, openai_client
from support.http import Answer, call
from support.kv_rig import text
from support.real_engine import crash, idle_saved, line, llama_server, real_engine

Json = Any
pytestmark = real_engine
SEVERAL = [{"no_kv_unified": True}, {"no_cache_idle_slots": True, "kv_unified": True}]
HEADERS = {"X-Requested-With": "bioproxy"}
SLACK = 16  # tokens at a prompt's end that the engine may evaluate again
AGENTS = 4


async def keep(app: App, name: str) -> Answer:
    """Keep what the last request left."""
    body = msgspec.json.encode({"name": name, "from": app.records[-1].id})
    return await call(app.admin_port, "POST", "/api/contexts", body=body, headers=HEADERS)


async def fork(talk: Conversation, number: int) -> Conversation:
    """An agent that goes on from where the conversation stands."""
    agent = talk.resumed(talk.client)
    await agent.say(f"You are agent {number}. " + text(20 + 5 * number, f"task {number}"))
    return agent


@pytest.mark.parametrize("flags", SEVERAL)
@pytest.mark.parametrize("killed", [False, True])
async def test_agents_fork_a_context_at_once(flags: Json, killed: bool, tmp_path: Path) -> None:
    """None evaluates it again, by the engine's own `cache_n`, then or in the next turn."""
    engine = llama_server(tmp_path, parallel=AGENTS, ctx_size=16384, **flags)
    async with engine, line(engine, tmp_path) as app, openai_client(app.proxy_port) as client:
        talk = Conversation(client)
        first = await talk.say(text(300, "This is the repository."))
        kept = await keep(app, "repo")
        assert kept.status == 201, kept.text
        if killed:
            await crash(engine, app)
        agents = await asyncio.gather(*(fork(talk, number) for number in range(AGENTS)))
        assert [one.turns[0].cached >= first.prompt - SLACK for one in agents] == [True] * AGENTS, [
            one.turns for one in agents
        ]
        turns = await asyncio.gather(*(one.say("go on") for one in agents))
        assert all(turn.cached >= first.prompt - SLACK for turn in turns), turns
        await idle_saved(app)
        names = [one.names for one in station(app).keeper.snapshots() if one.names]
        assert names == [("repo",)]


async def test_a_context_from_a_file_says_the_same(tmp_path: Path) -> None:
    """Out, deleted, in again: what is computed from it is what is computed without any cache."""
    async with llama_server(tmp_path) as engine, line(engine, tmp_path) as app, openai_client(app.proxy_port) as client:
        talk = Conversation(client)
        first = await talk.say(text(300, "This is the repository."))
        kept = await keep(app, "repo")
        assert kept.status == 201, kept.text
        plain = (await fork(talk, 1)).turns[0]
        exported = await call(app.admin_port, "GET", "/api/contexts/repo/export")
        assert exported.status == 200, exported.text
        raw = exported.body
        assert (await call(app.admin_port, "DELETE", "/api/contexts/repo", headers=HEADERS)).status == 200
        await idle_saved(app)
        for one in station(app).keeper.list():
            await station(app).keeper.tenant.shelf.drop([one], "deleted")
        await crash(engine, app)
        (tmp_path / "repo.tar").write_bytes(raw)
        await bring_in(app, tmp_path / "repo.tar")
        again = (await fork(talk, 1)).turns[0]
        assert again.cached >= first.prompt - SLACK
        assert again.answer == plain.answer


async def bring_in(app: App, path: Path) -> None:
    """What `bioproxy contexts import` sends."""
    with tarfile.open(path) as file:
        described, data = (file.extractfile(member) for member in file.getmembers())
        assert described is not None
        assert data is not None
        begin = msgspec.json.encode({"name": "again", "description": msgspec.Raw(described.read())})
        begun = (await call(app.admin_port, "POST", "/api/context-imports", body=begin, headers=HEADERS)).json()
        target = f"/api/context-imports/{begun['id']}?offset=0"
        done = await call(app.admin_port, "PUT", target, body=data.read(), headers=HEADERS)
    assert done.json()["done"], done.text
