"""The web page's stream of a running program."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bioproxy.admin.difference import TICKING
from support.apps import running_app
from support.clients import fake_line
from support.http import call
from support.live import LiveClient, watching
from support.page import app_of
from support.swap_models import fakes
from support.swap_rig import Rig, swap_rig

Json = Any
MOVING = {*TICKING, "servers", "last_used", "free", "logbook"}  # what the question itself, or the machine, moves


def still(part: Json) -> Json:
    """A status without what moves all the time."""
    if isinstance(part, dict):
        return {name: still(value) for name, value in part.items() if name not in MOVING}
    return [still(value) for value in part] if isinstance(part, list) else part


async def same(rig: Rig, page: LiveClient) -> None:
    """Read until the page shows what `/status` says."""
    while still(page.status) != still((await call(rig.ports.admin, "GET", "/status")).json()):
        await page.next()


async def test_all_that_is_told_makes_up_the_status(tmp_path: Path) -> None:
    """Through swaps, requests, an unload and another configuration."""
    models = fakes("a b c")
    async with swap_rig(tmp_path, models) as rig, watching(rig.port) as page:
        assert (await page.next())[0] == "state"
        for model in ("a", "b", "a"):
            await rig.chat(model)
            await same(rig, page)
        await rig.get("/unload")
        await same(rig, page)
        await rig.reload(models | fakes("d"))
        await same(rig, page)
        assert page.status["serves"] == "models"
        assert len(page.status["models"]) == 4


async def test_a_request_and_its_swap_are_told(tmp_path: Path) -> None:
    """Who asks, that it runs, what the swap cost, and how it ended."""
    async with swap_rig(tmp_path, fakes("a")) as rig, watching(rig.port) as page:
        await page.next()
        task = await rig.ask_held("a")
        came = await page.until("inflight", operation="upsert")
        assert (came["request"]["model"], came["request"]["client"]) == ("a", "127.0.0.1")
        ready = await page.until("swap", new="ready")
        assert ready["swap"]["start"] > 0
        await rig.release("a")
        await task
        assert (await page.until("inflight", operation="remove"))["id"] == came["id"]
        ended = await page.until("request", model="a")
        assert (ended["outcome"], ended["activity"] > 0, ended["why"] != "") == ("ok", True, True)


async def test_a_page_that_comes_back_gets_what_it_missed(tmp_path: Path) -> None:
    """And a new state from another run of the program."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        async with watching(rig.port) as page:
            await page.next()
        await rig.chat("a")
        async with watching(rig.port, last=page.last) as back:
            back.status = page.status
            await back.until("request", model="a")
            await same(rig, back)
        await rig.program.stop()
        await rig.program.start()
        async with watching(rig.port, last=back.last) as anew:
            assert (await anew.next())[0] == "state"


async def test_one_of_several_keys_sees_its_own_requests(tmp_path: Path) -> None:
    """The admin port shows all of them."""
    keys = [{"name": name, "key": f"sk-{name}"} for name in ("ann", "bob")]
    async with swap_rig(tmp_path, fakes("a"), api_keys=keys) as rig:
        async with watching(rig.port, key="sk-ann") as page, watching(rig.ports.admin) as admin:
            assert (await page.next())[1]["page"]["own"] is True
            for name in ("bob", "ann"):
                await rig.chat("a", headers={"Authorization": f"Bearer sk-{name}"})
            assert (await page.until("request"))["client"] == "ann"
            assert [(await admin.until("request"))["client"] for _ in range(2)] == ["bob", "ann"]
        assert (await rig.get("/api/live")).status == 401


async def test_the_shutdown_ends_the_stream(tmp_path: Path) -> None:
    """At once, before what takes long."""
    async with swap_rig(tmp_path, fakes("a")) as rig, watching(rig.port) as page, watching(rig.ports.admin) as other:
        stopping = asyncio.get_running_loop().create_task(rig.program.stop())
        await page.ended()
        await other.ended()
        await stopping


async def test_one_engine_has_the_stream_on_the_admin_port(tmp_path: Path) -> None:
    """It says where programs ask the engine."""
    async with (
        running_app(tmp_path, backend_url="http://127.0.0.1:1") as app,
        watching(app.admin_port) as page,
    ):
        _, state = await page.next()
        assert state["page"] | {"version": ""} == {
            "version": "", "title": "bioproxy", "many": False, "proxy": f"http://localhost:{app.proxy_port}",
            "edit_config": False, "admin": True, "own": False,
        }  # fmt: skip
        assert state["status"]["serves"] == "engine"


async def test_a_program_that_nobody_watches_has_no_stream(tmp_path: Path) -> None:
    """No status is made for it, and nothing of it hears a request."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        await rig.chat("a")
        live = app_of(rig).live
        assert (live.looked, live.number, live.subscriptions, live.timer) == (0.0, 0, [], None)


async def test_the_requests_are_on_both_ports(tmp_path: Path) -> None:
    """The page's own questions are not among them; one has its parts."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        await rig.chat("a", headers={"X-Request-Id": "mine/1"})
        for port in (rig.port, rig.ports.admin):
            (one,) = (await call(port, "GET", "/api/requests")).json()["requests"]
            assert (one["id"], one["model"]) == ("mine/1", "a")
            parts = (await call(port, "GET", "/api/requests/mine/1")).json()["parts"]
            assert "start" in [part["name"] for part in parts]
            by_row = (await call(port, "GET", f"/api/requests/{one['activity']}")).json()
            assert (by_row["request"]["id"], by_row["parts"]) == ("mine/1", parts)
            assert (await call(port, "GET", "/api/requests/other")).status == 404


async def test_requests_to_one_engine_are_told(tmp_path: Path) -> None:
    """In the stream, and in the list of the admin port; looks are not among them."""
    async with fake_line(tmp_path) as line, watching(line.app.admin_port) as page:
        assert [swap["new"] for swap in (await page.until("state"))["swaps"]][-1] == "ready"
        await call(line.app.proxy_port, "GET", "/props")
        data = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
        await call(line.app.proxy_port, "POST", "/v1/chat/completions", data=data)
        told = await page.until("request")
        (listed,) = (await call(line.app.admin_port, "GET", "/api/requests")).json()["requests"]
        assert (told["path"], listed["id"]) == ("/v1/chat/completions", told["id"])
        detail = (await call(line.app.admin_port, "GET", f"/api/requests/{told['id']}")).json()
        assert sum(part["seconds"] for part in detail["parts"]) == pytest.approx(told["total"])
        await page.until("change")
