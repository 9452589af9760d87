"""Reload by difference while requests run, and the orderly end: nothing that is under way is disturbed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from bioproxy import aio
from bioproxy.app import App
from bioproxy.cli.remote import notes
from fakes.fake_engine import FakeEngine
from support.faults import CHAT, ask, good, sent, tried
from support.http import call, parse
from support.leaks import owned, until

Json = Any
SLOW = 100  # generated tokens a second


def change(folder: Path, **values: Json) -> None:
    """Change keys of the running program's file."""
    path = folder / "conf.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


async def reload(app: App) -> Any:
    """`POST /reload`."""
    return await call(app.admin_port, "POST", "/reload")


async def test_a_prefix_more_does_not_disturb_a_stream(tmp_path: Path) -> None:
    """The stream goes on to its [DONE]; the new prefix works at once; a request that waited is served."""
    (tmp_path / "code.txt").write_text("rules: <{message}>")
    async with FakeEngine(faults={"hold_end": True}) as fake, tried(fake, tmp_path) as app:
        async with sent(app, data=ask(stream=True)) as reader:
            begun = await reader.readuntil(b"data: ")
            waiting = aio.spawn(good(app, "waits"), name="client")
            await until(lambda: owned(app)["waiters"] == 1)
            change(tmp_path, prefixes={"@code": "code.txt"})
            answer = await reload(app)
            assert (answer.status, "prefixes" in answer.text) == (200, True)
            await fake.faults(hold_end=False)
            whole = parse(begun + await reader.read(), "POST")
        assert whole.text.endswith("data: [DONE]\n\n")
        assert (await waiting).status == 200
        await good(app, "@code what?")
        assert (await fake.requests(CHAT))[-1].json()["messages"][0]["content"] == "rules: what?"


async def test_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    """Not JSON, a wrong type, an unknown key, a missing template: told in the answer and in /status; all goes on."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        path = tmp_path / "conf.json"
        good_file = path.read_text()
        broken: dict[str, Json] = {"queue_limit": "many", "queue_limt": 3, "prefixes": {"@x": "missing.txt"}}
        texts = ["{", "", *(json.dumps(json.loads(good_file) | {key: value}) for key, value in broken.items())]
        for text in texts:
            path.write_text(text)
            answer = await reload(app)
            assert answer.status >= 400, text
            assert answer.json()["error"]["message"]
            assert (await call(app.admin_port, "GET", "/status")).json()["config"]["reload_error"]
            assert (await good(app)).status == 200
        path.write_text(good_file)
        assert (await reload(app)).status == 200
        assert (await call(app.admin_port, "GET", "/status")).json()["config"]["reload_error"] == ""


async def test_a_key_that_wants_a_restart_is_named_as_long_as_it_does(tmp_path: Path) -> None:
    """In /status and by `bioproxy status`, after further reloads, too; no more once the file says what is in force."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        for values, late in (({"stall_timeout": 7}, ["stall_timeout"]), ({"queue_limit": 5}, ["stall_timeout"])):
            change(tmp_path, **values)
            await reload(app)
            status = (await call(app.admin_port, "GET", "/status")).json()
            assert status["config"]["late"] == late
            assert "changed in the configuration, and in force after a restart: stall_timeout" in notes(status)
        change(tmp_path, stall_timeout=app.config.stall_timeout)
        await reload(app)
        assert (await call(app.admin_port, "GET", "/status")).json()["config"]["late"] == []


async def test_keys_and_limits_change_under_running_requests(tmp_path: Path) -> None:
    """What runs keeps what it began with; the next request needs the new key."""
    async with FakeEngine(decode_rate=SLOW) as fake, tried(fake, tmp_path) as app:
        async with sent(app, data=ask(tokens=30, stream=True)) as reader:
            begun = await reader.readuntil(b"data: ")
            change(tmp_path, api_keys=["new"], queue_limit=1)
            assert (await reload(app)).status == 200
            assert (await good(app)).status == 401
            assert (begun + await reader.read()).rstrip().endswith(b"0")
        assert (await good(app, headers={"x-api-key": "new"})).status == 200


async def test_many_reloads_at_once(tmp_path: Path) -> None:
    """They come to the same end as one, and leak nothing."""
    (tmp_path / "code.txt").write_text("rules: <{message}>")
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        change(tmp_path, prefixes={"@code": "code.txt"})
        answers = await asyncio.gather(*(reload(app) for _ in range(10)), *(good(app) for _ in range(10)))
        assert {answer.status for answer in answers} == {200}
        assert app.catalogue.prefixes == ("@code",)
