"""What the configuration changes in a request on its way: `filters` and `useModelName`, seen from the engine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.http import call
from support.swap_api import CHAT, HELLO, program
from support.swap_models import apart, fake
from support.swap_rig import Rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
FILTERS: Json = {
    "stripParams": " temperature , top_k, model, options.deep",
    "setParams": {"top_p": 0.5, "chat_template_kwargs.enable_thinking": False, "model": "nobody", "stop.-1": "END"},
    "setParamsByID": {
        "a": {"min_p": 0.1},
        "a:high": {"reasoning_effort": "high", "top_p": 0.9},
        "a:low": {"reasoning_effort": "low"},
    },
}
rig = program(
    {
        "a": fake(filters=FILTERS, aliases=["plain"]),
        "named": fake(useModelName="real/name", aliases=["other"]),
        "old": fake(filters={"strip_params": "seed"}),
        "bare": fake(),
    },
    groups=apart("a named old bare"),
)


async def received(rig: Rig, name: str, engine: str, **body: Json) -> Json:
    """What the engine got of a chat."""
    answer = await rig.chat(name, **body)
    assert answer.status == 200, answer.text
    return json.loads((await rig.last(engine))["body"])


async def test_parameters_are_taken_out(rig: Rig) -> None:
    """Also nested ones; never the model."""
    got = await received(rig, "a", "a", temperature=1, top_k=3, options={"deep": 1, "flat": 2}, seed=5)
    assert not {"temperature", "top_k"} & set(got)
    assert (got["options"], got["seed"], got["model"]) == ({"flat": 2}, 5, "a")


async def test_the_older_spelling_works(rig: Rig) -> None:
    """`strip_params`."""
    assert "seed" not in await received(rig, "old", "old", seed=5)


async def test_parameters_are_set(rig: Rig) -> None:
    """Over the client's; dots nest; `-1` appends; the model's name is out of reach."""
    got = await received(rig, "a", "a", top_p=1, stop=["X"], chat_template_kwargs={"more": 1})
    assert (got["top_p"], got["stop"], got["model"]) == (0.5, ["X", "END"], "a")
    assert got["chat_template_kwargs"] == {"more": 1, "enable_thinking": False}


@pytest.mark.parametrize(
    ("name", "effort", "top_p", "min_p"),
    [("a", None, 0.5, 0.1), ("a:high", "high", 0.9, None), ("a:low", "low", 0.5, None), ("plain", None, 0.5, None)],
)
async def test_parameters_by_the_name_that_was_asked_for(
    name: str, effort: Json, top_p: float, min_p: Json, rig: Rig
) -> None:
    """One engine, several ways to ask for it; the name stays as the client wrote it."""
    got = await received(rig, name, "a")
    assert (got.get("reasoning_effort"), got["top_p"], got.get("min_p")) == (effort, top_p, min_p)
    assert got["model"] == name


@pytest.mark.parametrize("name", ["named", "other"])
async def test_the_name_can_be_replaced(name: str, rig: Rig) -> None:
    """`useModelName`, whichever name was asked for."""
    assert (await received(rig, name, "named"))["model"] == "real/name"


@pytest.mark.parametrize("path", ["/v1/embeddings", "/rerank", "/v1/responses", "/infill", "/v1/messages"])
async def test_every_json_route_is_filtered(path: str, rig: Rig) -> None:
    """Not only chats."""
    body = {"model": "a", "temperature": 1, "input": "x", "messages": HELLO, "max_tokens": 1}
    await rig.post(path, body)
    got = json.loads((await rig.last("a"))["body"])
    assert ("temperature" in got, got["top_p"]) == (False, 0.5)


async def test_what_is_not_changed_passes_as_it_came(rig: Rig) -> None:
    """Large integers, escapes and the order of members."""
    body = b'{"z": 123456789012345678901234567890, "model": "a", "e": "\\u00e9", "messages": []}'
    await call(rig.port, "POST", CHAT, body=body, headers={"Content-Type": "application/json"})
    got = (await rig.last("a"))["body"]
    assert got.startswith('{"z":123456789012345678901234567890,"model":"a","e":"\\u00e9","messages":[]')


async def test_a_model_without_filters_gets_the_bytes(rig: Rig) -> None:
    """Blanks and all."""
    body = b'{ "model" :"bare" ,\n "messages": [] }'
    await call(rig.port, "POST", CHAT, body=body, headers={"Content-Type": "application/json"})
    assert (await rig.last("bare"))["body"] == body.decode()


async def test_a_body_that_cannot_be_changed_is_refused(rig: Rig) -> None:
    """Rather than sent on unfiltered; llama-swap answers 500 to some of these."""
    body = b'{"model": "a", "messages": [}'
    answer = await call(rig.port, "POST", CHAT, body=body, headers={"Content-Type": "application/json"})
    assert answer.status == 400
    assert answer.json()["error"]["message"].startswith("error setting parameter ")


async def test_forms_are_not_filtered(rig: Rig) -> None:
    """Only JSON is."""
    body = b"model=a&temperature=1"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    await call(rig.port, "POST", "/v1/audio/speech", body=body, headers=headers)
    assert (await rig.last("a"))["body"] == body.decode()


async def test_upstream_is_not_filtered(rig: Rig) -> None:
    """`/upstream/<model>/…` passes by all of this."""
    body = {"model": "x", "temperature": 1}
    await rig.post("/upstream/a/v1/chat/completions", body)
    assert json.loads((await rig.last("a"))["body"]) == body
