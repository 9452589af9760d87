"""Selectors: one name for several models, one of which takes each request."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from bioproxy import aio
from support.swap_api import Server, program
from support.swap_client import message, server
from support.swap_models import apart, fakes
from support.swap_rig import Rig, swap_rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
TARGETS = ["a", "b", "c"]
SELECTORS: Json = {
    "first": {"strategy": "pin", "targets": ["alias", "b"]},
    "whoever": {"strategy": "warm", "targets": TARGETS, "name": "Whoever"},
    "spread": {"strategy": "spillover", "targets": TARGETS, "settings": {"spillover": 2}},
    "one by one": {"strategy": "spillover", "targets": ["a", "b"]},
}
MODELS = fakes("a b c d")
MODELS["a"]["aliases"] = ["alias"]
MODELS["a"]["filters"] = {"setParamsByID": {"alias": {"by": "alias"}}}
MODELS["c"]["filters"] = {"setParams": {"set": "c"}}
rig = program(
    MODELS, selectors=SELECTORS, groups={"all": {"swap": False, "exclusive": False, "members": ["a", "b", "c"]}}
)


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def nothing_runs(rig: Rig) -> None:
    """Each test begins with no model loaded."""
    await rig.get("/unload")


async def metadata(rig: Rig) -> Json:
    """Of the newest row of the activity table."""
    return (await rig.get("/api/metrics/activity?limit=1")).json()["data"][0]["metadata"]


async def test_pin_takes_the_first_always(rig: Rig) -> None:
    """Whatever else runs; the engine gets the target's name, and filters by that name apply."""
    await rig.chat("b")
    assert server(await rig.chat("first")) == "a"
    got = json.loads((await rig.last("a"))["body"])
    assert (got["model"], got["by"]) == ("alias", "alias")


async def test_warm_takes_the_first_where_none_runs(rig: Rig) -> None:
    """And starts it."""
    assert server(await rig.chat("whoever")) == "a"
    assert await rig.running() == {"a": "ready"}


async def test_warm_takes_one_that_runs(rig: Rig) -> None:
    """Nothing is started for it; that model's filters apply."""
    await rig.chat("c")
    assert server(await rig.chat("whoever")) == "c"
    assert json.loads((await rig.last("c"))["body"])["set"] == "c"
    assert await rig.running() == {"c": "ready"}


async def test_the_row_tells_who_chose(rig: Rig) -> None:
    """As metadata; the model is the real one."""
    await rig.chat("whoever")
    row = (await rig.get("/api/metrics/activity?limit=1")).json()["data"][0]
    assert (row["model"], row["metadata"]["selector"]) == ("a", "whoever")
    await rig.chat("a")
    assert "selector" not in await metadata(rig)


async def test_spillover_starts_the_next_where_all_are_busy(rig: Rig) -> None:
    """Two each here; the third one is for `b`."""
    first, second = await held(rig, "a"), await held(rig, "a")
    assert await rig.running() == {"a": "ready"}
    third = await held(rig, "b")
    assert await rig.running() == {"a": "ready", "b": "ready"}
    fourth = await held(rig, "b")
    fifth = await held(rig, "c")
    for name in TARGETS:
        await rig.release(name)
    served = [server(await task) for task in (first, second, third, fourth, fifth)]
    assert served == ["a", "a", "b", "b", "c"]


async def held(rig: Rig, model: str) -> Json:
    """A request to `spread` that is held, which shows that it went to `model`."""
    before = len(rig.log.of("held", model))
    task = rig.ask("spread", hold=0)
    await rig.until(lambda: len(rig.log.of("held", model)) > before)
    return task


async def test_spillover_goes_round_where_all_are_equal(rig: Rig) -> None:
    """Of two that run and are idle each gets every other request."""
    await rig.chat("a")
    await rig.chat("b")
    got = [server(await rig.chat("one by one")) for _ in range(4)]
    assert sorted(got) == ["a", "a", "b", "b"]
    assert got[0] != got[1]


async def test_spillover_counts_its_own_requests_only(rig: Rig) -> None:
    """Who asks for `a` by its name does not make it busy for others."""
    direct = await rig.ask_held("a")
    assert server(await rig.chat("one by one")) == "a"
    await rig.release("a")
    await direct


async def test_a_path_does_not_take_selectors(rig: Rig) -> None:
    """`/upstream/<selector>/…` is none."""
    answer = await rig.get("/upstream/whoever/x")
    assert (answer.status, message(answer)) == (404, "model not found")


async def test_a_selector_cannot_be_loaded(rig: Rig) -> None:
    """It has no process."""
    answer = await rig.post("/api/models/load/whoever")
    assert (answer.status, message(answer)) == (404, "model not found")


async def test_they_are_listed(rig: Rig) -> None:
    """Loaded where a target is; of `pin` only the first counts."""
    await rig.chat("b")
    listed = {one["id"]: one for one in (await rig.get("/v1/models")).json()["data"]}
    states = {name: listed[name]["status"]["value"] for name in SELECTORS}
    assert states == {"first": "unloaded", "whoever": "loaded", "spread": "loaded", "one by one": "loaded"}
    assert listed["whoever"]["name"] == "Whoever"
    assert listed["spread"]["meta"]["llamaswap"] == {
        "type": "selector",
        "strategy": "spillover",
        "targets": TARGETS,
        "spillover": 2,
    }


async def test_selectors_work_in_every_place_of_a_name(rig: Rig) -> None:
    """Query and form, where the target's name replaces it."""
    assert (await rig.get("/sdapi/v1/loras?model=whoever")).json()["query"] == {"model": "a"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """Another server."""
    async with Server("far", tmp_path_factory.mktemp("peer")) as running:
        yield running


async def test_a_busy_model_spills_over_to_a_peer(far: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    """With the peer's own name for its model."""
    selectors = {"mixed": {"strategy": "spillover", "targets": ["a", "far/big"]}}
    peers = {"far": {"proxy": far.url, "models": ["big"]}}
    models = fakes("a")
    folder = tmp_path_factory.mktemp("swap")
    async with swap_rig(folder, models, selectors=selectors, peers=peers, groups=apart("a")) as rig:
        local = rig.ask("mixed", hold=0)
        await rig.until_event("held", "a")
        answer = await rig.chat("mixed")
        assert (server(answer), answer.json()["model"]) == ("far", "big")
        await rig.release("a")
        assert server(await local) == "a"


async def test_no_target_that_can_serve_is_a_503(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where all of them are being stopped, in llama-swap's words."""
    models = {"a": {"words": "--slow-stop 60", "unloadTimeout": 60}}
    selectors = {"s": {"strategy": "spillover", "targets": ["a"]}}
    async with swap_rig(tmp_path_factory.mktemp("swap"), models, selectors=selectors) as rig:
        await rig.chat("a")
        unload = aio.spawn(rig.post("/api/models/unload/a"), name="unload")
        await rig.until_running(a="stopping")
        answer = await rig.chat("s")
        assert (answer.status, message(answer)) == (503, 'selector "s" has no available spillover targets')
        rig.kill("a")
        assert (await unload).status == 200
