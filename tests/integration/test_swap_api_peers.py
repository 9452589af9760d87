"""Models of other servers: their names, their keys, and what becomes of a request on its way to them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from support.http import call, free_port
from support.swap_api import CHAT, Server, header
from support.swap_client import message
from support.swap_models import apart, fake
from support.swap_rig import Rig, swap_rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """Another server, which wants a key."""
    async with Server("far", tmp_path_factory.mktemp("peer")) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def near(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """One more, which wants none."""
    async with Server("near", tmp_path_factory.mktemp("peer")) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(far: Server, near: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """The program with a model of its own and three peers, one of which is not there."""
    filters = {
        "stripParams": "temperature",
        "setParams": {"top_p": 0.5},
        "setParamsByID": {"far/one": {"by": "name"}, "one": {"by": "bare"}},
    }
    peers = {
        "far": {"proxy": far.url, "models": ["one", "both", "own", "org/deep"], "apiKey": "sesame", "filters": filters},
        "near": {"proxy": f"{near.url}/base", "models": ["two", "both"]},
        "gone": {"proxy": f"http://127.0.0.1:{free_port()}", "models": ["three"]},
    }
    models = {"own": fake(), "mine": fake(aliases=["two"])}
    folder = tmp_path_factory.mktemp("swap")
    async with swap_rig(folder, models, peers=peers, groups=apart("own mine")) as running:
        yield running


async def test_by_the_qualified_name(far: Server, rig: Rig) -> None:
    """`far/one`: the peer gets its own name for it."""
    answer = await rig.chat("far/one")
    assert (answer.json()["served_by"], answer.json()["model"]) == ("far", "one")


async def test_by_the_bare_name(far: Server, rig: Rig) -> None:
    """Where only one peer has it."""
    assert (await rig.chat("one")).json()["served_by"] == "far"
    assert json.loads((await far.last())["body"])["model"] == "one"


async def test_names_with_slashes(far: Server, rig: Rig) -> None:
    """Of a peer's model, too."""
    assert (await rig.chat("far/org/deep")).json()["model"] == "org/deep"
    assert (await rig.chat("org/deep")).json()["model"] == "org/deep"


async def test_a_bare_name_of_two_peers_means_nothing(rig: Rig) -> None:
    """Either is found by its qualified name."""
    answer = await rig.chat("both")
    assert (answer.status, message(answer)) == (404, "no router for requested model")
    assert (await rig.chat("far/both")).json()["served_by"] == "far"
    assert (await rig.chat("near/both")).json()["served_by"] == "near"


async def test_a_local_name_beats_a_bare_one(rig: Rig) -> None:
    """IDs and aliases."""
    assert (await rig.chat("own")).json()["served_by"] == "own"
    assert (await rig.chat("two")).json()["served_by"] == "mine"
    assert (await rig.chat("near/two")).json()["served_by"] == "near"


async def test_the_peers_key_is_sent(far: Server, rig: Rig) -> None:
    """As both headers, in place of whatever the client has."""
    await rig.chat("one", headers={"Authorization": "Bearer mine", "x-api-key": "mine"})
    request = await far.last()
    keys = [value for name, value in request["headers"] if name.lower() in {"authorization", "x-api-key"}]
    assert sorted(keys) == ["Bearer sesame", "sesame"]


async def test_without_a_key_the_clients_own_passes(near: Server, rig: Rig) -> None:
    """The program has no keys here, so the client's is for the peer."""
    await rig.chat("near/two", headers={"Authorization": "Bearer mine"})
    assert header(await near.last(), "authorization") == "Bearer mine"


async def test_the_host_is_the_peers(far: Server, rig: Rig) -> None:
    """And its answer says nothing of ours."""
    await rig.chat("one")
    request = await far.last()
    assert header(request, "host") == f"127.0.0.1:{far.port}"
    assert header(request, "x-forwarded-for") is None


async def test_a_base_path_stands_before_every_path(near: Server, rig: Rig) -> None:
    """`proxy: http://host/base`."""
    answer = await rig.chat("near/two")
    assert answer.json()["path"] == f"/base{CHAT}"


@pytest.mark.parametrize(("name", "by"), [("far/one", "name"), ("one", "bare"), ("far/both", None)])
async def test_a_peers_filters(name: str, by: Json, far: Server, rig: Rig) -> None:
    """Strip, set, and set by the name that was asked for."""
    await rig.chat(name, temperature=1)
    got = json.loads((await far.last())["body"])
    assert ("temperature" in got, got["top_p"], got.get("by")) == (False, 0.5, by)


async def test_another_peers_filters_do_not_count(near: Server, rig: Rig) -> None:
    """Each has its own."""
    await rig.chat("near/two", temperature=1)
    assert json.loads((await near.last())["body"])["temperature"] == 1


async def test_a_stream_comes_as_it_is_made(far: Server, rig: Rig) -> None:
    """The second event is not waited for to see the first."""
    async with rig.stream("far/one", hold=1) as stream:
        assert await stream.head() == 200
        assert (await stream.event())["choices"][0]["delta"]["content"] == "word0 "
        await far.post("/release")
        assert (await stream.rest())[-1] == "[DONE]"


async def test_an_error_of_the_peer_passes_as_it_is(rig: Rig) -> None:
    """Status and words."""
    answer = await rig.chat("far/one", status=418)
    assert (answer.status, message(answer)) == (418, "the fake was asked for 418")


async def test_a_peer_that_is_not_there_is_a_502(rig: Rig) -> None:
    """In llama-swap's words, in its envelope."""
    answer = await rig.chat("gone/three")
    error = answer.json()["error"]
    assert (answer.status, error["type"], error["code"]) == (502, "server_error", "bad_gateway")
    assert error["message"].startswith("peer proxy error: ")


async def test_a_peer_cannot_be_loaded_or_unloaded(rig: Rig) -> None:
    """It is not ours."""
    for target in ("/api/models/unload/far/one", "/api/models/load/far/one"):
        answer = await rig.post(target)
        assert (answer.status, message(answer)) == (404, "model not found")


async def test_upstream_reaches_peers(far: Server, rig: Rig) -> None:
    """With the peer's key, any method, and the rest of the path."""
    answer = await call(rig.port, "PUT", "/upstream/far/org/deep/some/where?x=1", body=b"data")
    assert (answer.json()["method"], answer.json()["target"], answer.json()["body"]) == (
        "PUT",
        "/some/where?x=1",
        "data",
    )
    assert header(await far.last(), "authorization") == "Bearer sesame"


async def test_a_form_for_a_peer_gets_its_name(far: Server, rig: Rig) -> None:
    """The qualified name is replaced in forms as well."""
    body = b'--cut\r\nContent-Disposition: form-data; name="model"\r\n\r\nfar/one\r\n--cut--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=cut"}
    answer = await call(rig.port, "POST", "/v1/audio/transcriptions", body=body, headers=headers)
    assert answer.json()["fields"][0]["value"] == "one"


async def test_a_get_for_a_peer_gets_its_name(far: Server, rig: Rig) -> None:
    """And so is it in the query."""
    answer = await rig.get("/v1/audio/voices?model=far%2Fone&x=1")
    assert answer.json()["query"] == {"model": "one", "x": "1"}


async def test_who_leaves_is_not_computed_for(far: Server, rig: Rig) -> None:
    """A client's leaving ends the peer's work."""
    before = [told.how for told in far.log.of("end")].count("gone")
    async with rig.stream("far/one", hold=1) as stream:
        await stream.event()
    await rig.until(lambda: [told.how for told in far.log.of("end")].count("gone") > before)


async def test_requests_of_peers_are_rows_too(rig: Rig) -> None:
    """With the peer's name for the model, and its tokens."""
    await rig.chat("far/both")
    row = (await rig.get("/api/metrics/activity?limit=1")).json()["data"][0]
    assert (row["model"], row["resp_status_code"], row["tokens"]["output_tokens"]) == ("both", 200, 4)


async def test_by_ollamas_api(far: Server, rig: Rig) -> None:
    """A peer's model is asked for a chat, and its answer becomes Ollama's; to load it is the peer's business."""
    data: Json = {"model": "far/one:latest", "messages": [{"role": "user", "content": "hello"}], "stream": False}
    answer = await call(rig.port, "POST", "/api/chat", data=data)
    assert (answer.json()["model"], answer.json()["done"]) == ("far/one:latest", True)
    assert json.loads((await far.last())["body"])["model"] == "one"
    refused = await call(rig.port, "POST", "/api/generate", data={"model": "far/one"})
    assert (refused.status, "of the peer far" in refused.json()["error"]) == (400, True)
    listed = (await call(rig.port, "GET", "/api/tags")).json()["models"]
    assert "far/one:latest" in {one["name"] for one in listed}
