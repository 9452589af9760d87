"""Breakpoints before the fake engine: what goes wrong with one costs its request nothing but the cut."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fakes.fake_engine import PROGRAM, FakeEngine
from support.apps import MS, running_app, station
from support.clients import Line
from support.faults import sent
from support.http import call
from support.kv_rig import text
from support.leaks import until
from support.real_engine import line
from support.sdk_types import asked

Json = Any
EPHEMERAL: Json = {"type": "ephemeral"}
EXPLICIT: Json = {"mode": "explicit"}
KEEN: Json = {"min_seconds": 1 * MS, "save_after": 3600, "save_every": 3600}
PATH = "/v1/messages"


@asynccontextmanager
async def before(folder: Path, *, flags: Json = None, **values: Json) -> AsyncIterator[Line]:
    """An App that saves nothing but what is asked for, before a fake engine with a slot folder."""
    async with (
        FakeEngine(slot_folder=folder / "slots", **(flags or {})) as engine,
        line(engine, folder, **{"kv": KEEN} | values) as app,
    ):
        yield Line(engine, app)


def body(*parts: Json, **fields: Json) -> Json:
    return {"messages": [{"role": "user", "content": list(parts)}], "max_tokens": 2, **fields}


def part(words: str, *, marked: bool = True) -> Json:
    return {"type": "text", "text": words} | ({"cache_control": EPHEMERAL} if marked else {})


def cuts(found: Line) -> list[Json]:
    return [one for one in station(found.app).keeper.list() if one.head]


async def test_a_breakpoint_in_an_image(tmp_path: Path) -> None:
    """It is served, and nothing is cut: how many tokens an image has is not known."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 5000}}
    async with before(tmp_path) as found:
        usage = (await asked(found.app.proxy_port, PATH, body({**image, "cache_control": EPHEMERAL}, part("Why?"))))[
            "usage"
        ]
        assert usage["cache_creation_input_tokens"] > 0
        await station(found.app).keeper.saver.settle(10)
        assert not [one for one in cuts(found) if one.tokens > 100]


async def test_a_breakpoint_without_a_conversation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """There is no prompt to cut: the engine says what it thinks of the request, and that is all."""
    async with before(tmp_path) as found:
        raw = json.dumps({"system": [part("s")], "max_tokens": 2}).encode()
        headers = {"Content-Type": "application/json"}
        answer = await call(found.app.proxy_port, "POST", PATH, body=raw, headers=headers)
        assert answer.status == 400
        assert cuts(found) == []
    assert "failed" not in caplog.text


async def test_ninety_breakpoints(tmp_path: Path) -> None:
    """The latest four are cut, in prompt order, and no token is evaluated twice."""
    async with before(tmp_path) as found:
        before_it = (await found.engine.state())["totals"]["prompt"]
        answer = await asked(found.app.proxy_port, PATH, body(*(part(text(20, str(n))) for n in range(90))))
        await until(lambda: len(cuts(found)) == 4)
        usage = answer["usage"]
        state = await found.engine.until(lambda state: not state["slots"][0]["busy"])
        new = usage["cache_creation_input_tokens"] + usage["input_tokens"]
        assert state["totals"]["prompt"] - before_it - new in range(6)
        assert found.app.records[0].tokens_evaluated == usage["cache_creation_input_tokens"] + usage["input_tokens"]
        assert state["violations"] == []


async def test_a_large_body_with_marks(tmp_path: Path) -> None:
    """Twenty megabytes that no context holds: the engine refuses the request, and is asked about no breakpoint."""
    async with before(tmp_path, flags={"ctx_size": 4096}) as found:
        large = {"model": "m", **body(*(part("word " * 2000) for _ in range(2000)))}
        answer = await call(found.app.proxy_port, "POST", PATH, data=large)
        assert answer.status == 400
        assert "context" in answer.json()["error"]["message"]
        assert cuts(found) == []


async def test_an_engine_that_can_not_tell_tokens(tmp_path: Path) -> None:
    """Without `/tokenize` nothing is cut; usage is told by the share of the bytes."""
    async with before(tmp_path, flags={"no_tokenize": True}) as found:
        usage = (await asked(found.app.proxy_port, PATH, body(part(text(200)), part("Why?", marked=False))))["usage"]
        assert usage["cache_creation_input_tokens"] > 100
        assert usage["input_tokens"] > 0
        assert cuts(found) == []


async def test_the_client_leaves_while_a_beginning_is_evaluated(tmp_path: Path) -> None:
    """The engine's work ends as with any request, and nothing of it is kept by half."""
    slow: Json = {"tokens_per_second": 500, "batch_size": 16, "disconnect_poll": 0.02}
    async with before(tmp_path, flags=slow) as found:
        async with sent(found.app, PATH, body(part(text(2000)))):
            await found.engine.until(lambda state: state["totals"]["prompt"] > 100)
        state = await found.engine.until(lambda state: state["totals"]["cancelled"] and not state["slots"][0]["busy"])
        assert state["totals"]["prompt"] < 1500
        await until(lambda: [record.outcome for record in found.app.records] == ["client_left"])
        assert cuts(found) == []


async def test_nothing_of_it_is_kept_if_the_client_says_so(tmp_path: Path) -> None:
    """`no-store`, and a retention in memory alone."""
    words = part(text(200))
    async with before(tmp_path) as found:
        port = found.app.proxy_port
        await asked(port, PATH, body(words), **{"Cache-Control": "no-store"})
        marked = {"type": "text", "text": text(200, "b"), "prompt_cache_breakpoint": EXPLICIT}
        chat = {**body(marked), "prompt_cache_retention": "in_memory"}
        await asked(port, "/v1/chat/completions", chat)
        await station(found.app).keeper.saver.settle(10)
        assert station(found.app).keeper.list() == ()


@pytest.mark.parametrize("policy", ["always", "off"])
async def test_policies_without_cuts(policy: str, tmp_path: Path) -> None:
    """What would never be brought back is not written."""
    async with before(tmp_path, kv={**KEEN, "policy": policy}) as found:
        await asked(found.app.proxy_port, PATH, body(part(text(200)), part("Why?", marked=False)))
        await station(found.app).keeper.saver.settle(10)
        assert cuts(found) == []


async def test_another_group_has_no_use_of_it(tmp_path: Path) -> None:
    """A cut is its key's group's alone, whatever the other calls its conversation."""
    keys = [{"key": "one", "name": "one"}, {"key": "two", "name": "two"}]
    async with before(tmp_path, api_keys=keys) as found:
        request = body(part(text(200)), part("Why?", marked=False), metadata={"user_id": "a_session_b"})
        await asked(found.app.proxy_port, PATH, request, **{"x-api-key": "one"})
        await until(lambda: len(cuts(found)) == 1)
        await found.engine.restart()
        await until(lambda: station(found.app).attachment.generation == 2 and station(found.app).gate.idle)
        other = (await asked(found.app.proxy_port, PATH, request, **{"x-api-key": "two"}))["usage"]
        assert other["cache_read_input_tokens"] == 0
        await until(lambda: len(cuts(found)) == 2)
        assert {one.group for one in cuts(found)} == {group(found, "one"), group(found, "two")}


async def test_what_an_engine_dies_of_is_not_sent_to_the_next_one(tmp_path: Path) -> None:
    """Also if it died while it evaluated the beginning of the prompt."""
    (tmp_path / "slots").mkdir()
    slow = "--tokens-per-second 1000 --batch-size 16"
    command = f"{sys.executable} {PROGRAM} --port ${{PORT}} --slot-save-path {tmp_path / 'slots'} {slow}"
    async with running_app(tmp_path, models={"a": {"cmd": command}}, kv=KEEN) as app:
        port, attachment = app.proxy_port, app.fleet.stations["a"].attachment
        await asked(port, PATH, body(part("hello", marked=False), model="a"))
        data = body(part(text(2000)), model="a")
        running = asyncio.get_running_loop().create_task(call(port, "POST", PATH, data=data))
        await until(lambda: [one for one in app.under_way() if one.elapsed_ms > 300])  # the beginning takes 2 s
        assert attachment.facts is not None
        assert attachment.facts.pid is not None
        os.kill(attachment.facts.pid, signal.SIGKILL)
        answer = await running
        assert answer.status in {502, 503}
        assert "not sent again" in answer.text


async def test_another_model_in_between(tmp_path: Path) -> None:
    """What was cut is there when its model comes back, for a request that goes on in its own way."""
    (tmp_path / "slots").mkdir()
    command = f"{sys.executable} {PROGRAM} --port ${{PORT}} --slot-save-path {tmp_path / 'slots'}"
    models = {name: {"cmd": command} for name in "ab"}
    async with running_app(tmp_path, models=models, kv=KEEN) as app:
        port, words = app.proxy_port, part(text(300))
        first = (await asked(port, PATH, body(words, part("Why?", marked=False), model="a")))["usage"]
        await asked(port, PATH, body(part("hello", marked=False), model="b"))
        again = (await asked(port, PATH, body(words, part("How?", marked=False), model="a")))["usage"]
        assert again["cache_read_input_tokens"] == first["cache_creation_input_tokens"] > 300
        assert again["cache_creation_input_tokens"] == 0


def group(found: Line, name: str) -> str:
    """The group of a key."""
    principals = found.app.front.access.keyring.principals.values()
    return next(principal.group for _, principal in principals if principal.name == name)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_others_run_on_an_engine_with_several_slots(stream: bool, tmp_path: Path) -> None:
    """No slot action disturbs them: the request goes on without a snapshot."""
    async with before(tmp_path, flags={"parallel": 2, "decode_rate": 50}) as found:
        async with sent(
            found.app, PATH, body(part("hello", marked=False)) | {"max_tokens": 500, "stream": True}
        ) as other:
            await other.readuntil(b"data: ")
            async with asyncio.timeout(30):
                await asked(found.app.proxy_port, PATH, body(part(text(200)), stream=stream))
        assert cuts(found) == []
