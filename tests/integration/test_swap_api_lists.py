"""`/v1/models` and `/models`: which names are listed, and what is said of each."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import pytest

from support.http import call
from support.swap_api import program
from support.swap_client import message
from support.swap_models import apart, fake
from support.swap_rig import Rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
MODELS = {
    "plain": fake(),
    "full": fake(
        name=" Full ",
        description=" has everything ",
        aliases=["short"],
        filters={"setParamsByID": {"full:high": {"effort": "high"}}},
        metadata={"owner": "me", "type": "mine", "context_length": 1, "nested": {"a": [1, None]}},
        capabilities={"in": ["text", "image"], "out": ["text"], "tools": True, "reranker": True, "context": 4096},
    ),
    "voice": fake(metadata={"context_length": 7}, capabilities=None),
    "sound": fake(capabilities={"in": ["audio"], "out": ["text", "audio"]}),
    "hidden": fake(unlisted=True, aliases=["hidden too"]),
    "starting": fake("--health-503-forever"),
}
rig = program(
    MODELS,
    includeAliasesInList=True,
    groups=apart(" ".join(MODELS)),
    peers={"far": {"proxy": "http://127.0.0.1:9", "models": ["one", "plain"]}},
    selectors={
        "pick": {"strategy": "pin", "targets": ["plain"], "name": "Pick", "description": "d", "metadata": {"x": 1}},
        "secret": {"strategy": "pin", "targets": ["plain"], "unlisted": True},
    },
    profiles={"p": {"pins": {"new": "plain"}}},
)


async def listed(rig: Rig, path: str = "/v1/models") -> dict[str, Json]:
    """The records by their ids."""
    return {one["id"]: one for one in (await rig.get(path)).json()["data"]}


async def test_who_is_listed(rig: Rig) -> None:
    """Models, aliases, peers and selectors, sorted; what is unlisted is not there, nor are its aliases."""
    answer = (await rig.get("/v1/models")).json()
    assert answer["object"] == "list"
    assert [one["id"] for one in answer["data"]] == [
        "far/one", "far/plain", "full", "full:high", "pick", "plain", "short", "sound", "starting", "voice",
    ]  # fmt: skip


async def test_what_is_unlisted_can_be_asked(rig: Rig) -> None:
    """By any of its names."""
    assert (await rig.chat("hidden")).status == 200
    assert (await rig.chat("hidden too")).status == 200
    assert (await rig.chat("secret")).status == 200


async def test_a_plain_record(rig: Rig) -> None:
    """What every record has, and nothing that was not said."""
    await rig.post("/api/models/unload/plain")
    record = (await listed(rig))["plain"]
    assert abs(record.pop("created") - time.time()) < 60
    assert record == {
        "id": "plain",
        "object": "model",
        "owned_by": "llama-swap",
        "status": {"value": "unloaded"},
        "meta": {"llamaswap": {"type": "model"}},
    }


async def test_a_full_record(rig: Rig) -> None:
    """Capabilities in the words of those who list models; metadata under its own key, which ours beat."""
    record = (await listed(rig))["full"]
    assert (record["name"], record["description"]) == ("Full", "has everything")
    assert record["architecture"] == {
        "input_modalities": ["text", "image"],
        "output_modalities": ["text"],
        "modality": "text+image->text",
    }
    assert record["capabilities"] == {"vision": True, "function_calling": True, "reranker": True}
    assert (record["supported_parameters"], record["context_length"]) == (["tools", "tool_choice"], 4096)
    assert record["meta"] == {
        "n_ctx": 4096,
        "llamaswap": {
            "owner": "me",
            "type": "model",
            "nested": {"a": [1, None]},
            "aliases": ["short", "full:high"],
        },
    }


async def test_other_capabilities(rig: Rig) -> None:
    """From what goes in to what comes out; without any, the metadata says what it likes."""
    records = await listed(rig)
    assert records["sound"]["capabilities"] == {"audio_transcriptions": True}
    assert "supported_parameters" not in records["sound"]
    assert records["voice"]["meta"]["llamaswap"]["context_length"] == 7


@pytest.mark.parametrize("alias", ["short", "full:high"])
async def test_an_aliass_record(alias: str, rig: Rig) -> None:
    """Its model's, under its own name."""
    records = await listed(rig)
    whole, other = records["full"], records[alias]
    assert {**other, "id": "full", "meta": whole["meta"], "created": whole["created"]} == whole
    assert other["meta"]["llamaswap"]["type"] == "alias"
    assert other["meta"]["llamaswap"]["modelID"] == "full"


async def test_a_peers_record(rig: Rig) -> None:
    """Always unloaded, for nothing is known of it."""
    record = (await listed(rig))["far/one"]
    assert (record["name"], record["status"]) == ("far: one", {"value": "unloaded"})
    assert record["meta"] == {"llamaswap": {"type": "peer", "peerID": "far"}}


async def test_a_selectors_record(rig: Rig) -> None:
    """What it picks from."""
    record = (await listed(rig))["pick"]
    assert (record["name"], record["description"]) == ("Pick", "d")
    assert record["meta"]["llamaswap"] == {"x": 1, "type": "selector", "strategy": "pin", "targets": ["plain"]}


async def test_what_is_loaded(rig: Rig) -> None:
    """By every name of it; a model that is starting counts as loaded here, and as loading where llama.cpp's do."""
    await rig.chat("full")
    waiting = rig.ask("starting")
    await rig.until_event("listening", "starting")
    records, router = await listed(rig), await listed(rig, "/models")
    states = {name: records[name]["status"]["value"] for name in ("full", "short", "full:high", "starting")}
    assert states == dict.fromkeys(states, "loaded")
    assert router["starting"]["status"]["value"] == "loading"
    assert router["full"]["status"]["value"] == router["short"]["status"]["value"] == "loaded"
    await rig.post("/api/models/unload/starting")
    assert (await waiting).status == 500
    await rig.post("/api/models/unload/full")
    assert (await listed(rig))["short"]["status"]["value"] == "unloaded"


async def test_both_lists_have_the_same_names(rig: Rig) -> None:
    """Only `status` differs."""
    assert set(await listed(rig)) == set(await listed(rig, "/models"))


@pytest.mark.parametrize(
    "name", ["plain", "full", "short", "full:high", "hidden", "hidden too", "far/one", "one", "pick", "secret"]
)
async def test_one_model_by_any_of_its_names(name: str, rig: Rig) -> None:
    """As the list shows it, and what is unlisted too: who knows the name may ask."""
    record = (await rig.get(f"/v1/models/{quote(name)}")).json()
    assert (record["id"], record["object"], record["owned_by"]) == (name, "model", "llama-swap")
    known = (await listed(rig)).get(name, record)
    assert {**record, "created": 0} == {**known, "created": 0}


async def test_one_models_slash_may_be_an_escape(rig: Rig) -> None:
    """OpenAI's SDK writes it so; nothing is started for it."""
    escaped, plain = await rig.get("/v1/models/far%2Fone"), await rig.get("/v1/models/far/one")
    assert escaped.json()["id"] == plain.json()["id"] == "far/one"
    assert (await call(rig.port, "HEAD", "/v1/models/plain")).status == 200
    await rig.post("/api/models/unload/plain")
    assert (await rig.get("/v1/models/plain")).json()["status"] == {"value": "unloaded"}


async def test_no_model_by_that_name(rig: Rig) -> None:
    """In OpenAI's form."""
    answer = await rig.get("/v1/models/nobody")
    assert answer.status == 404
    assert message(answer) == "the model 'nobody' does not exist; GET /v1/models lists those that do"
