"""`bioproxy pause` and `resume` beside a running program: what runs, waits and comes, and what is there again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bioproxy import aio
from bioproxy.app import App
from fakes.fake_engine import FakeEngine
from support.apps import looks_follow, running_app, station
from support.faults import good, ready
from support.http import Answer, call
from support.swap_api import verb
from support.swap_client import message, server
from support.swap_models import fakes
from support.swap_rig import swap_rig

Json = Any
PAUSED = "bioproxy is paused; `bioproxy resume` ends that"


async def test_many_models(tmp_path: Path) -> None:
    """What runs may finish, what waits or comes is refused, nothing is started; afterwards the preloaded is there."""
    hooks = {"on_startup": {"preload": ["a"]}}
    async with swap_rig(tmp_path, fakes("a b"), hooks=hooks, default_model="a", return_to_default=0.01) as rig:
        await rig.until_running(a="ready")
        held = await rig.ask_held("a")
        queued = await rig.ask_queued("b")
        pausing = aio.spawn(verb(rig, "pause"), name="pause")
        late = await queued
        assert (late.status, message(late), late.headers["retry-after"]) == (503, PAUSED, "60")
        await rig.release("a")
        assert server(await held) == "a"
        ended = await pausing
        assert (ended.code, ended.out) == (
            0,
            "paused until `bioproxy resume`: no engine of this bioproxy runs, and requests are refused\n",
        )
        assert await rig.running() == {}
        assert rig.children() == []
        assert (await rig.chat("b")).status == 503
        assert (await rig.post("/api/models/load/a")).status == 503
        shown = await verb(rig, "status")
        assert (shown.code, shown.out.partition(" for ")[0]) == (1, "paused")
        assert await rig.running() == {}
        assert (await verb(rig, "resume")).out == "requests are served again\n"
        await rig.until_running(a="ready")
        assert server(await rig.chat("b")) == "b"
    assert rig.log.starts() == ["a", "a", "b"]


async def test_for_a_time_that_is_none(tmp_path: Path) -> None:
    """Nothing is paused."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        ended = await verb(rig, "pause", "--for", "a while")
        assert (ended.code, "for: expected a duration such as" in ended.err) == (2, True)
        assert (await rig.chat("a")).status == 200


async def test_one_of_several_keys_pauses_nothing(tmp_path: Path) -> None:
    """It would stop the others; on the admin port it is done."""
    async with swap_rig(tmp_path, fakes("a"), apiKeys=["one", "two"]) as rig:
        answer = await call(rig.port, "POST", "/api/pause", data={}, headers={"Authorization": "Bearer one"})
        assert (answer.status, "one of several keys" in answer.text) == (403, True)


async def pause(app: App, query: str = "") -> Answer:
    return await call(app.admin_port, "POST", f"/api/pause{query}", data={})


async def test_an_engine_that_is_not_ours(tmp_path: Path) -> None:
    """It is saved and left alone, and runs on; requests that compute are refused, others pass."""
    async with FakeEngine(slot_folder=tmp_path / "slots") as engine:
        kv = {"min_seconds": 0.001, "min_free": 0}
        async with running_app(tmp_path, adjust=looks_follow, backend_url=engine.url, kv=kv) as app:
            await ready(app)
            assert (await good(app)).status == 200
            assert (await pause(app, "?for=1h")).json()["pause"]["until"] > 0
            assert station(app).keeper.list()
            late = await good(app)
            assert (late.status, "paused for another 1h" in late.text) == (503, True)
            assert 3500 < int(late.headers["retry-after"]) <= 3600
            assert (await call(app.proxy_port, "GET", "/v1/models")).status == 200
            unready = await call(app.admin_port, "GET", "/readyz")
            assert (unready.status, "is paused" in unready.json()["reason"]) == (503, True)
            assert "bioproxy_paused 1.0" in (await call(app.admin_port, "GET", "/metrics")).text
            assert (await call(app.admin_port, "POST", "/api/resume", data={})).json() == {"pause": None}
            await ready(app)
            assert (await good(app)).status == 200
        assert engine.running


async def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    """Afterwards requests hear at once that nothing answers, as they did before: it may never come."""
    async with running_app(tmp_path, adjust=looks_follow, backend_url="http://127.0.0.1:9", queue_timeout=5) as app:
        assert (await good(app)).status == 502
        await pause(app)
        assert (await good(app)).status == 503
        assert app.records[-1].outcome == "rejected"  # it did not wait
        await call(app.admin_port, "POST", "/api/resume", data={})
        assert (await good(app)).status == 502


async def test_a_mistyped_query_is_refused_by_each_of_our_routes_that_reads_one(tmp_path: Path) -> None:
    """With the words that the route knows; a pause without an end would begin, or all captures be sent, otherwise."""
    (tmp_path / "code.txt").write_text("text <{message}>")
    known = {
        "POST /api/pause": "for",
        "GET /requests": "limit, outcome",
        "GET /api/requests": "limit, before",
        "GET /api/captures": "start, end, model, client",
        "GET /api/live": "last",
        "GET /api/templates/@code": "model",
        "PUT /api/context-imports/x": "offset",
    }
    async with running_app(tmp_path, backend_url="http://127.0.0.1:9", prefixes={"@code": "code.txt"}) as app:
        for route, words in known.items():
            method, path = route.split()
            data: Json = None if method == "GET" else {}
            refused = await call(app.admin_port, method, f"{path}?fro=1h", data=data)
            said = f'{path} has no query parameter "fro"; it has {words}'
            assert (route, refused.status, refused.json()["error"]["message"]) == (route, 400, said)
        assert app.pause.status is None
        for lenient in ("/api/metrics/activity?fro=1", "/api/metrics/stats?fro=1", "/metrics?fro=1", "/health?fro=1"):
            assert (await call(app.admin_port, "GET", lenient)).status == 200
