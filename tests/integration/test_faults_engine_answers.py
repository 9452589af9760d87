"""An engine that answers what it should not, and one that comes back as another, behind the whole program."""

from __future__ import annotations

import http.client
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bioproxy import aio
from bioproxy.app import App
from bioproxy.embedded import model as demo_model
from bioproxy.engines.facts import EngineFacts
from fakes.fake_engine import PROGRAM, FakeEngine
from support.apps import MS, running_app, station
from support.faults import (
    CHAT,
    MESSAGES,
    SAVING,
    SPEED,
    ask,
    body_for,
    conversation,
    go_on,
    good,
    quicken,
    ready,
    saved,
    sent,
    tried,
)
from support.http import call, parse
from support.leaks import nothing_leaked, owned, until

Json = Any


def engine(tmp_path: Path, **flags: Json) -> FakeEngine:
    """A fake engine whose prefill costs something."""
    return FakeEngine(slot_folder=tmp_path / "slots", **{"tokens_per_second": SPEED, **flags})


async def test_an_error_of_the_engine_is_passed_on(tmp_path: Path) -> None:
    """Its status and its body, byte for byte: a client may know what they mean."""
    async with engine(tmp_path) as fake, tried(fake, tmp_path) as app:
        await fake.faults(answer="status", status=500, paths=[CHAT], times=1)
        answer = await good(app)
        assert answer.status == 500
        assert answer.json() == {"error": {"code": 500, "message": "fault", "type": "server_error"}}


@pytest.mark.parametrize("status", [418, 500, 503])
async def test_a_row_has_the_engines_own_words(status: int, tmp_path: Path) -> None:
    """Not the status and its name: whoever looks at the table wants to know what was wrong."""
    faults = json.dumps({"answer": "status", "status": status, "message": "out of memory", "paths": [CHAT]})
    command = shlex.join([sys.executable, str(PROGRAM), "--faults", faults])
    async with running_app(tmp_path, models={"m": {"cmd": f"{command} --port ${{PORT}}"}}) as app:
        answer = await good(app)
        assert (answer.status, answer.json()["error"]["message"]) == (status, "out of memory")
        table = (await call(app.proxy_port, "GET", "/api/metrics/activity")).json()
        assert [row["error_msg"] for row in table["data"]] == ["out of memory"]
        assert [record.error for record in app.records if record.metered] == ["out of memory"]


@pytest.mark.parametrize("path", [CHAT, "/v1/models"])
@pytest.mark.parametrize("how", ["garbage", "half_head", "close"])
async def test_what_is_no_answer_is_a_502(how: str, path: str, tmp_path: Path) -> None:
    """The client gets a JSON error in place of nonsense; a reused connection that was closed is tried once more."""
    async with engine(tmp_path) as fake, tried(fake, tmp_path) as app:
        await fake.faults(answer=how, paths=[path], times=2 if how == "close" else 1)
        method = "GET" if path == "/v1/models" else "POST"
        answer = await call(app.proxy_port, method, path, data=ask() if method == "POST" else None)
        while answer.status == 200:  # the fresh connection of the second try had the luck
            answer = await call(app.proxy_port, method, path, data=ask() if method == "POST" else None)
        assert answer.status == 502
        assert answer.json()["error"]["code"] in {"engine_unavailable", "engine_protocol_error"}
        await fake.faults(answer="", times=-1)


@pytest.mark.parametrize("how", ["wrong_length", "half_chunk"])
async def test_a_body_that_ends_early_never_looks_whole(how: str, tmp_path: Path) -> None:
    """The head was passed on already, so the connection is cut: the client's own parser sees that bytes are missing."""
    async with engine(tmp_path) as fake, tried(fake, tmp_path) as app:
        await fake.faults(answer=how, paths=[CHAT], times=1)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            await good(app)


@pytest.mark.parametrize(
    ("path", "comment", "event"), [(CHAT, ": ", "data: "), (MESSAGES, "event: ping\n", "event: err")]
)
async def test_a_fault_after_a_keepalive_is_an_event(path: str, comment: str, event: str, tmp_path: Path) -> None:
    """The 200 is out: what the engine answers then can only be told in the stream, in each dialect's way."""
    async with engine(tmp_path) as fake, tried(fake, tmp_path, stream_keepalive=5 * MS) as app:
        await fake.faults(stuck=True)
        async with sent(app, data=ask(stream=True)) as first:
            await fake.until(lambda state: state["slots"][0]["busy"])
            async with sent(app, path, body_for(path, stream=True)) as second:
                raw = await second.readuntil(b"\n\n")
                await fake.faults(answer="status", status=500, paths=[path], times=1, stuck=False)
                await first.read()
                raw += await second.read()
        answer = parse(raw, "POST")
        assert answer.status == 200
        assert answer.text.startswith((comment, ": place "))
        assert comment in answer.text
        last = answer.text.rstrip().rsplit("\n\n", 1)[-1]
        assert last.startswith(event)
        assert "fault" in last


async def test_loading_is_waited_for(tmp_path: Path) -> None:
    """503 "Loading model" is no answer to a user: the request waits and is served."""
    async with (
        FakeEngine(faults={"loading": 1000}) as fake,
        running_app(tmp_path, adjust=quicken, backend_url=fake.url) as app,
        nothing_leaked(app),
    ):
        assert station(app).attachment.state != "ready"
        waiting = aio.spawn(good(app), name="client")
        await until(lambda: owned(app)["waiters"] == 1)
        await fake.faults(loading=0)
        assert (await waiting).status == 200


async def test_loading_for_too_long_is_a_503(tmp_path: Path) -> None:
    """After `queue_timeout` the client hears when to come back, in its dialect; later ones are served."""
    async with FakeEngine(faults={"loading": 1000}) as fake:
        values: Json = {"backend_url": fake.url, "queue_timeout": 50 * MS}
        async with running_app(tmp_path, adjust=quicken, **values) as app, nothing_leaked(app):
            answer = await good(app, path=MESSAGES)
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["type"] == "overloaded_error"
            await fake.faults(loading=0)
            await ready(app)
            assert (await good(app)).status == 200


async def test_restarts_behind_our_back(tmp_path: Path) -> None:
    """What it held is gone, and what was saved is brought back: the conversation goes on where it was."""
    async with engine(tmp_path) as fake, tried(fake, tmp_path, kv=SAVING) as app:
        turn = await conversation(app, "one")
        await saved(app)
        await fake.restart()
        await ready(app, generation=2)
        assert (await go_on(app, turn))["cache_n"] > 400
        assert station(app).keeper.statistics().restores["ok"] == 1


async def test_comes_back_with_another_model(tmp_path: Path) -> None:
    """The other model never sees the first one's snapshots; when the first one is back, they are there."""
    for name in "ab":
        (tmp_path / f"{name}.gguf").write_text(name)
    first, second = ({"model": tmp_path / f"{name}.gguf", "weights": name} for name in "ab")
    async with engine(tmp_path, **first) as fake, tried(fake, tmp_path, kv=SAVING) as app:
        turn = await conversation(app, "one")
        await saved(app)
        await fake.restart(**second)
        await ready(app, generation=2)
        assert (await go_on(app, turn))["cache_n"] <= 1  # the first token is the same in any text
        await fake.restart(**first)
        await ready(app, generation=3)
        assert (await go_on(app, turn))["cache_n"] > 400


async def test_comes_back_with_another_build(tmp_path: Path) -> None:
    """An upgrade of llama.cpp keeps the cache: it is tried once, adopted, and `/status` says so."""
    async with engine(tmp_path, build="b1") as fake, tried(fake, tmp_path, kv=SAVING, adjust=hide_flags) as app:
        turn = await conversation(app, "one")
        await saved(app)
        await fake.restart(build="b2")
        await ready(app, generation=2)
        assert (await go_on(app, turn))["cache_n"] > 400
        status = (await call(app.admin_port, "GET", "/status")).json()
        assert (status["engine"]["facts"]["build"], "adopted" in status["kv"]["build_check"]) == ("b2", True)


def hide_flags(app: App) -> None:
    """Keep the fake's own flags out of the fingerprint: a real engine's build is none."""

    async def engine_ready(facts: EngineFacts) -> None:
        await station(app).engine_ready(msgspec.structs.replace(facts, command=("llama-server",)))

    station(app).attachment.on_ready = engine_ready


async def test_a_model_file_that_is_overwritten_under_a_running_engine(tmp_path: Path) -> None:
    """The new file must not get the old one's cache: nothing is saved any more, users are served."""
    model = tmp_path / "model.gguf"
    demo_model.write_model(model, shape="tiny")
    async with engine(tmp_path, model=str(model)) as fake, tried(fake, tmp_path, kv=SAVING) as app:
        await conversation(app, "one")
        await saved(app)
        demo_model.write_model(model, shape="tiny", seed=1)
        await conversation(app, "two")
        await until(lambda: station(app).keeper.statistics().refused.get("model"))
        assert station(app).keeper.statistics().snapshots == 1
        assert "model" in station(app).keeper.statistics().reason
