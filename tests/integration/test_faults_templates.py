"""Templates that cannot be used, behind the whole program: who asks for them hears why, everybody else is served."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from bioproxy.front import ways
from bioproxy.models.fleet import Fleet
from bioproxy.templates.parse import Filled
from fakes.fake_engine import FakeEngine
from support.apps import MS, running_app, station
from support.faults import CHAT, MESSAGES, RESPONSES, good, tried
from support.http import call
from support.kv_rig import text
from support.leaks import until

Json = Any


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
async def test_longer_than_the_context(path: str, tmp_path: Path) -> None:
    """The error names the template, by how much it is too long, and the flag that mends it."""
    (tmp_path / "code.txt").write_text(text(700) + "<{message}>")
    prefixes = {"@code": str(tmp_path / "code.txt")}
    async with FakeEngine(ctx_size=256) as fake, tried(fake, tmp_path, prefixes=prefixes) as app:
        await until(lambda: station(app).runner.too_long("@code"))
        answer = await good(app, "@code what?", path=path)
        assert answer.status == 400
        message = answer.json()["error"]["message"]
        assert all(part in message for part in ("@code", "256", "-c"))
        warmup = (await call(app.admin_port, "GET", "/status")).json()["warmup"]
        assert "too long" in str(warmup)
        assert all(request.path != path for request in await fake.requests())


async def test_an_include_that_goes_away(tmp_path: Path) -> None:
    """The last good text stays in use; the fault shows in /status and metrics until the file is back."""
    include = tmp_path / "rules.txt"
    include.write_text("never panic")
    (tmp_path / "code.txt").write_text("<{rules.txt}> <{message}>")
    prefixes = {"@code": str(tmp_path / "code.txt")}
    async with FakeEngine() as fake, tried(fake, tmp_path, prefixes=prefixes) as app:
        include.unlink()
        await app.catalogue.check()
        await good(app, "@code what?")
        assert (await fake.requests(CHAT))[-1].json()["messages"][0]["content"] == "never panic what?"
        (state,) = (await call(app.admin_port, "GET", "/status")).json()["templates"]
        assert (state["state"], "rules.txt" in state["last_error"]) == ("fault", True)
        include.write_text("never panic")
        await app.catalogue.check()
        assert app.catalogue.statistics()[0].state == "ok"


async def test_files_are_looked_at_whatever_engines_there_are(tmp_path: Path) -> None:
    """Of many models none runs: a change of the common templates, and of a model's own, is seen all the same."""
    files = {"@code": tmp_path / "code.txt", "@own": tmp_path / "own.txt"}
    for path in files.values():
        path.write_text("old <{message}>")
    models = {"a": {"cmd": "nothing --port ${PORT}", "prefixes": {"@own": "own.txt"}}}
    prefixes = {"@code": "code.txt"}
    async with running_app(tmp_path, models=models, prefixes=prefixes, warmup_check_interval=10 * MS) as app:
        assert isinstance(app.fleet, Fleet)
        own = app.fleet.own["a"]
        for path in files.values():
            path.write_text("new <{message}>")
        await until(lambda: {own.current(prefix).parts[0] for prefix in files} == {"new "})
        await until(lambda: app.catalogue.current("@code").parts[0] == "new ")


async def test_a_request_that_waited_is_filled_in_with_the_text_of_now(tmp_path: Path) -> None:
    """The files are looked at once more when its turn comes, and the new text is what it is pinned to."""
    (tmp_path / "code.txt").write_text("old <{message}>")
    prefixes = {"@code": str(tmp_path / "code.txt")}
    async with FakeEngine() as fake, tried(fake, tmp_path, prefixes=prefixes) as app:
        with await station(app).gate.acquire():
            waiting = aio.spawn(good(app, "@code what?"), name="request")
            await until(lambda: station(app).gate.statistics().waiting["user"])
            (tmp_path / "code.txt").write_text("new <{message}>")
        await waiting
        turns = [{"role": "user", "content": "@code what?"}, {"role": "assistant", "content": "that"}]
        (tmp_path / "code.txt").write_text("newer <{message}>")
        await app.catalogue.check()
        body = {"model": "m", "messages": [*turns, {"role": "user", "content": "why?"}], "max_tokens": 4}
        await call(app.proxy_port, "POST", CHAT, data=body)
        sent = [request.json()["messages"][0]["content"] for request in await fake.requests(CHAT)]
        assert sent == ["new what?", "new what?"]


async def test_a_large_request_that_waited_does_not_hold_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is filled in beside the loop, also the second time."""
    (tmp_path / "code.txt").write_text("old <{message}>")
    prefixes = {"@code": str(tmp_path / "code.txt")}
    message = "@code " + "x" * ways.LARGE
    async with FakeEngine() as fake, tried(fake, tmp_path, prefixes=prefixes) as app:
        current, threads = app.catalogue.current, []

        def noted(prefix: str) -> Filled:
            threads.append(threading.current_thread())
            return current(prefix)

        with await station(app).gate.acquire():
            monkeypatch.setattr(app.catalogue, "current", noted)
            waiting = aio.spawn(good(app, message), name="request")
            await until(lambda: station(app).gate.statistics().waiting["user"])
            (tmp_path / "code.txt").write_text("new <{message}>")
        await waiting
        assert [request.json()["messages"][0]["content"][:5] for request in await fake.requests(CHAT)] == ["new x"]
    filled = [thread for thread in threads if thread is not threading.main_thread()]
    assert len(filled) == 2, threads
