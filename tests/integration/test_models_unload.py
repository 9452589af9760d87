"""Unloading: by the API, by time; what becomes of those who wait for the model, and of those whom it serves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from support.swap_client import message, server
from support.swap_models import apart, fake, fakes
from support.swap_rig import swap_rig

Json = Any
MATRIX = {"sets": {"one": "a"}}


@pytest.mark.parametrize(("rules", "name"), [({}, "group"), ({"matrix": MATRIX}, "matrix")])
async def test_who_waits_for_a_model_that_is_unloaded_is_told(rules: Json, name: str, tmp_path: Path) -> None:
    """In the words that scripts match on."""
    async with swap_rig(tmp_path, {"a": fake("--health-503-for 60")}, **rules) as rig:
        task = rig.ask("a")
        await rig.until_event("listening", "a")
        await rig.post("/api/models/unload/a")
        answer = await task
    assert (answer.status, message(answer)) == (500, f"unspecific error: {name}: model unloaded")


async def test_a_queued_request_is_told_too(tmp_path: Path) -> None:
    """The model that it waits for does not even run; the one that is in its way goes on."""
    async with swap_rig(tmp_path, fakes("a b")) as rig:
        held = await rig.ask_held("a")
        queued = await rig.ask_queued("b")
        await rig.post("/api/models/unload/b")
        assert message(await queued) == "unspecific error: group: model unloaded"
        await rig.release("a")
        assert server(await held) == "a"
    assert rig.log.starts() == ["a"]


async def test_what_is_being_served_gets_time_to_finish(tmp_path: Path) -> None:
    """The unload returns after it."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        held = await rig.ask_held("a")
        unload = aio.spawn(rig.post("/api/models/unload/a"), name="unload")
        await rig.until_leaving("a")
        await rig.ask_queued("a")  # newcomers wait for the next process
        await rig.release("a")
        assert server(await held) == "a"
        assert (await unload).status == 200


async def test_what_does_not_finish_in_time_is_cut(tmp_path: Path) -> None:
    """With an error in JSON, after `unloadTimeout`."""
    async with swap_rig(tmp_path, {"a": fake(unloadTimeout=1)}) as rig:
        held = await rig.ask_held("a")
        assert (await rig.post("/api/models/unload/a")).status == 200
        answer = await asyncio.wait_for(held, 25)
        assert rig.children() == []
    assert answer.status in (500, 502, 503)
    assert message(answer)


async def test_an_unload_blocks_nobody_else(tmp_path: Path) -> None:
    """Other models are started and serve while one takes its time to end."""
    models = {"a": fake("--ignore-sigterm", unloadTimeout=60), "b": fake()}
    async with swap_rig(tmp_path, models, groups=apart("a b")) as rig:
        await rig.chat("a")
        unload = aio.spawn(rig.post("/api/models/unload/a"), name="unload")
        await rig.until_running(a="stopping")
        assert server(await rig.chat("b")) == "b"
        assert not unload.done()
        rig.kill("a")
        await unload


@pytest.mark.parametrize(
    ("method", "target", "body"), [("GET", "/unload", "OK"), ("POST", "/api/models/unload", '{"msg":"ok"}')]
)
async def test_everything_can_be_unloaded_at_once(method: str, target: str, body: str, tmp_path: Path) -> None:
    """When the call returns, nothing runs."""
    async with swap_rig(tmp_path, fakes("a b", "--slow-stop 0.2"), groups=apart("a b")) as rig:
        await rig.chat("a")
        await rig.chat("b")
        answer = await (rig.get(target) if method == "GET" else rig.post(target))
        assert (answer.status, answer.text.strip()) == (200, body)
        assert rig.children() == []
        assert await rig.running() == {}


async def test_one_model_is_unloaded_by_any_of_its_names(tmp_path: Path) -> None:
    """An ID with slashes, an alias; and a model that is not loaded is no error."""
    async with swap_rig(tmp_path, {"org/a": fake(aliases=["short"])}) as rig:
        await rig.chat("org/a")
        first = await rig.post("/api/models/unload/short")
        assert rig.children() == []
        second = await rig.post("/api/models/unload/org/a")
    assert [(answer.status, answer.text.strip()) for answer in (first, second)] == [(200, "OK")] * 2


async def test_an_unknown_model_cannot_be_unloaded(tmp_path: Path) -> None:
    """404."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        answer = await rig.post("/api/models/unload/b")
    assert (answer.status, message(answer)) == (404, "model not found")


async def test_a_model_is_unloaded_when_nobody_has_used_it_for_its_ttl(tmp_path: Path) -> None:
    """And the next request starts it again."""
    async with swap_rig(tmp_path, {"a": fake(ttl=1)}) as rig:
        await rig.chat("a")
        await rig.until_event("exit", "a")
        assert server(await rig.chat("a")) == "a"
    assert rig.log.starts() == ["a", "a"]
    assert rig.log.of("exit", "a")[0].t - rig.log.of("begin", "a")[0].t >= 1


async def test_a_request_that_runs_longer_than_the_ttl_is_not_cut(tmp_path: Path) -> None:
    """The time begins when nobody uses the model any more."""
    async with swap_rig(tmp_path, fakes("a", ttl=1)) as rig:
        answer = await rig.chat("a", delay=1.3)
        assert server(answer) == "a"
    assert rig.log.of("exit", "a")[0].t - rig.log.of("begin", "a")[0].t >= 1.3


async def test_the_time_to_live_of_all_models_is_a_key_too(tmp_path: Path) -> None:
    """`globalTTL`, unless a model has its own: 0 is never."""
    async with swap_rig(tmp_path, {"a": fake(), "b": fake(ttl=0)}, groups=apart("a b"), globalTTL=1) as rig:
        await rig.chat("b")
        await rig.chat("a")
        await rig.until_running(b="ready")


async def test_a_model_that_was_loaded_for_nobody_keeps_its_time_to_live(tmp_path: Path) -> None:
    """The client left during the load; llama-swap unloads it about a second after it is ready, whatever its ttl."""
    async with swap_rig(tmp_path, {"a": fake("--health-503-for 0.2", ttl=30)}) as rig:
        task = rig.ask("a")
        await rig.until_event("listening", "a")
        task.cancel()
        await rig.until_running(a="ready")
        assert server(await rig.chat("a")) == "a"
    assert rig.log.starts() == ["a"]
