"""The KV rules that hold at the front: what clients may do to slots, and what never reaches an engine."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from bioproxy.app import App
from fakes.fake_engine import PROGRAM, FakeEngine
from support.apps import engine_ready, running_app, station
from support.http import call
from support.kv_rig import text

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "hello there"}], "max_tokens": 4}


@asynccontextmanager
async def before(engine: FakeEngine, tmp_path: Path, **config: Any) -> AsyncIterator[App]:
    """An App before `engine`, ready."""
    async with running_app(tmp_path / "app", backend_url=engine.url, **config) as app:
        await engine_ready(app)
        yield app


async def post(app: App, target: str, body: Any = None, **headers: str) -> Any:
    """POST JSON to the proxy port."""
    raw = json.dumps(body).encode() if body is not None else b""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return await call(app.proxy_port, "POST", target, body=raw, headers=fields)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()


@pytest.mark.parametrize("path", [CHAT, "/completion", "/v1/responses"])
async def test_a_clients_id_slot_never_reaches_an_engine_with_one_slot(tmp_path: Path, path: str) -> None:
    """Rule 3: sent to a busy slot it corrupts the running request or hangs both."""
    async with FakeEngine(slot_folder=tmp_path / "slots") as engine, before(engine, tmp_path) as app:
        await engine.forget()
        body = {**BODY, "prompt": "hello there", "input": "hello there", "id_slot": 0}
        assert (await post(app, path, body)).status == 200
        assert [("id_slot" in request.json()) for request in await engine.requests(path)] == [False]


async def test_the_conversation_id_is_taken_out(tmp_path: Path) -> None:
    """Rule 8: with it the server would not notice that a client left."""
    async with FakeEngine(slot_folder=tmp_path / "slots") as engine, before(engine, tmp_path) as app:
        await post(app, CHAT, BODY, X_Conversation_Id="abc")
        assert (await engine.requests(CHAT))[0].header("x-conversation-id") is None
        assert await engine.violations() == []


async def test_a_clients_slot_action_waits_until_nothing_runs(tmp_path: Path) -> None:
    """Rule 4: it runs alone, and afterwards nobody knows what the slot holds."""
    flags: dict[str, Any] = {"decode_rate": 50, "predict": 10}
    async with FakeEngine(slot_folder=tmp_path / "slots", **flags) as engine, before(engine, tmp_path) as app:
        running = aio.spawn(post(app, CHAT, {**BODY, "max_tokens": 10}), name="running")

        async def under_way() -> bool | None:
            return bool(await engine.requests(CHAT)) or None

        assert await aio.poll(under_way, interval=0.005, deadline=30)
        assert (await post(app, "/slots/0?action=erase")).status == 200
        assert running.done()
        await running
        assert await engine.violations() == []
        assert station(app).keeper.statistics().slots[0].state == "unknown"


async def test_our_own_files_are_refused(tmp_path: Path) -> None:
    """Rule 4: a client must not overwrite or read a snapshot."""
    async with FakeEngine(slot_folder=tmp_path / "slots") as engine, before(engine, tmp_path) as app:
        await engine.forget()
        for action in ("save", "restore"):
            answer = await post(app, f"/slots/0?action={action}", {"filename": "bp-0123456789abcdef.kv"})
            assert answer.status == 403
        assert await engine.requests() == []


@pytest.mark.parametrize("target", ["/%73lots/0?action=erase", "/slots/0?%61ction=erase", "/slots/-1?action=erase"])
async def test_a_disguised_slot_action_is_one(tmp_path: Path, target: str) -> None:
    """Rule 4: the server decodes, so do we: it runs alone, and what is resident is unknown after it."""
    async with FakeEngine(slot_folder=tmp_path / "slots") as engine, before(engine, tmp_path) as app:
        await post(app, CHAT, BODY)
        assert station(app).keeper.statistics().slots[0].state == "conversation"
        await post(app, target)
        assert station(app).keeper.statistics().slots[0].state == "unknown"


@pytest.mark.parametrize(
    "target",
    ["/slots/0?action=save&action=erase", "/slots%2F0?action=erase", "//slots/0", "/x/../slots/0", "/slots/%00"],
)
async def test_a_target_that_could_mean_two_things_is_400(tmp_path: Path, target: str) -> None:
    """Rule 4: a repeated action, an encoded slash, an empty or a dot segment, a NUL."""
    async with FakeEngine(slot_folder=tmp_path / "slots") as engine, before(engine, tmp_path) as app:
        await engine.forget()
        assert (await post(app, target)).status == 400
        assert await engine.requests() == []


async def test_a_request_without_reuse_costs_no_snapshot(tmp_path: Path) -> None:
    """Rule 6: `cache_prompt: false` takes nothing from the cache, and that is not the snapshot's fault."""
    flags: dict[str, Any] = {"tokens_per_second": 5000}
    words = {"messages": [{"role": "user", "content": text(400, "long")}], "max_tokens": 4}
    config = {"kv": {"min_seconds": 0.001, "save_after": 0.01}}
    async with FakeEngine(slot_folder=tmp_path / "slots", **flags) as engine, before(engine, tmp_path, **config) as app:
        await post(app, CHAT, words)

        async def saved() -> bool | None:
            return bool(station(app).keeper.list()) or None

        assert await aio.poll(saved, interval=0.01, deadline=30)
        await post(app, CHAT, {"messages": [{"role": "user", "content": "another"}], "max_tokens": 1})
        assert (await post(app, CHAT, {**words, "cache_prompt": False})).status == 200
        assert not any(one.quarantined for one in station(app).keeper.list())
        again = await post(app, CHAT, words)
        assert again.json()["timings"]["cache_n"] > 300


async def test_clients_share_one_look_at_the_slots(tmp_path: Path) -> None:
    """Rule 5: however many ask, the engine is asked once in two seconds."""
    async with FakeEngine(slot_folder=tmp_path / "slots") as engine, before(engine, tmp_path) as app:
        answers = await asyncio.gather(*(call(app.proxy_port, "GET", "/slots") for _ in range(10)))
        assert {answer.status for answer in answers} == {200}
        assert await engine.violations() == []


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands for llama-server")
async def test_our_connections_are_closed_before_the_engine_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 9: llama-server does not exit while a connection is open; ours ends by SIGTERM, not by SIGKILL."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "llama-server"
    ended = tmp_path / "ended"
    program.write_text(f'#!/bin/sh\ntrap : TERM\n"{sys.executable}" "{PROGRAM}" "$@"\necho $? > "{ended}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF" + bytes(1000))
    async with running_app(tmp_path / "app", model=str(model)) as app:
        await engine_ready(app)
        assert (await post(app, CHAT, BODY)).status == 200
    assert ended.read_text().strip() == "0"
