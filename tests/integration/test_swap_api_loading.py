"""`sendLoadingState`: a stream that says what is going on while its model is being loaded."""

from __future__ import annotations

from typing import Any

import pytest

from support.http import call
from support.swap_api import CHAT, HELLO, program
from support.swap_models import apart, fake
from support.swap_rig import Rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
MODELS = {
    "slow": fake("--start-delay 0.2", aliases=["other"]),
    "quiet": fake(sendLoadingState=False),
    "bad": fake("--exit 3"),
    "one": fake(concurrencyLimit=1),
}
rig = program(MODELS, groups=apart("slow quiet bad one"), sendLoadingState=True)


async def events(rig: Rig, model: str, **body: Json) -> list[Json]:
    """A whole stream."""
    async with rig.stream(model, **body) as stream:
        assert await stream.head() == 200
        return await stream.rest()


def reasoning(events: list[Json]) -> str:
    """What was said before the answer."""
    deltas = [event["choices"][0]["delta"] for event in events if event != "[DONE]"]
    return "".join(delta.get("reasoning_content", "") for delta in deltas)


@pytest.mark.parametrize("name", ["slow", "other"])
async def test_the_stream_begins_before_the_model_is_there(name: str, rig: Rig) -> None:
    """As reasoning, in whole chunks; the engine's own stream follows in the same answer."""
    await rig.post("/api/models/unload/slow")
    got = await events(rig, name)
    said = reasoning(got)
    assert "loading model: slow\n" in said
    assert "Done! (" in said
    assert got[-1] == "[DONE]"
    first = got[0]
    assert {"id", "object", "created", "model", "choices"} <= set(first)
    texts = [event["choices"][0]["delta"].get("content", "") for event in got[:-1]]
    assert "".join(texts) == "word0 word1 word2 word3 "


async def test_nothing_is_said_where_the_model_is_there(rig: Rig) -> None:
    """The engine's bytes alone."""
    await rig.chat("slow")
    assert reasoning(await events(rig, "slow")) == ""


async def test_the_head_says_what_it_is(rig: Rig) -> None:
    """An event stream that nobody may buffer."""
    await rig.post("/api/models/unload/slow")
    answer = await call(rig.port, "POST", CHAT, data={"model": "slow", "messages": HELLO, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"].startswith("no-")
    assert answer.headers["x-accel-buffering"] == "no"


async def test_a_model_may_say_nothing(rig: Rig) -> None:
    """Its own key beats the global one."""
    await rig.post("/api/models/unload/quiet")
    assert reasoning(await events(rig, "quiet")) == ""


async def test_an_answer_that_is_no_stream_waits(rig: Rig) -> None:
    """As always."""
    await rig.post("/api/models/unload/slow")
    answer = await rig.chat("slow")
    assert answer.json()["choices"][0]["message"] == {"role": "assistant", "content": "word0 word1 word2 word3 "}


@pytest.mark.parametrize("path", ["/v1/completions", "/upstream/slow/v1/chat/completions"])
async def test_other_routes_wait(path: str, rig: Rig) -> None:
    """Only chats tell."""
    await rig.post("/api/models/unload/slow")
    answer = await call(rig.port, "POST", path, data={"model": "slow", "prompt": "x", "messages": [], "stream": True})
    assert answer.status == 200
    assert "loading model" not in answer.text


async def test_a_load_that_fails_is_an_event(rig: Rig) -> None:
    """The status is 200 by then; llama-swap appends bare JSON, which SDKs choke on."""
    got = await events(rig, "bad")
    assert "loading model: bad" in reasoning([event for event in got if "choices" in event])
    assert got[-1]["error"]["message"].startswith("unspecific error: upstream command exited prematurely")
    assert got[-1]["src"] == "llama-swap"


async def test_what_is_refused_is_refused_before_that(rig: Rig) -> None:
    """429 is a status, not an event; and nothing counts as served."""
    await rig.post("/api/models/unload/one")
    held = await rig.ask_held("one")
    async with rig.stream("one") as stream:
        assert await stream.head() == 429
    await rig.release("one")
    await held


async def test_tokens_are_counted_all_the_same(rig: Rig) -> None:
    """What was said about the load is none of them."""
    await rig.post("/api/models/unload/slow")
    await events(rig, "slow")
    (row,) = (await rig.get("/api/metrics/activity?limit=1")).json()["data"]
    assert (row["model"], row["resp_status_code"]) == ("slow", 200)
    assert row["tokens"]["output_tokens"] == 4
