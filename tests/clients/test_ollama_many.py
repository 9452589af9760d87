"""The official ollama package where models are many: lists, chats, loads, unloads and errors as it knows them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import ollama
import pytest
import pytest_asyncio

from support.swap_api import program_with_rules
from support.swap_models import fake
from support.swap_rig import Rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
HELLO: Json = [{"role": "user", "content": "hello"}]
WORDS = "word0 word1 word2 word3 "
SEES: Json = {"in": ["text", "image"], "out": ["text"], "tools": True, "context": 16384}
MODELS = {
    "a": fake(aliases=["gpt-4o"], ttl=600, capabilities=SEES),
    "b:7b": fake(capabilities={"in": ["text"], "out": ["text"], "context": 4096}),
    "slow": fake("--start-delay 0.2", sendLoadingState=True),
    "calls": fake("--tool-calls"),
    "bad": fake("--exit 3", sendLoadingState=True),
    "cuts": fake("--crash-on-request 1 --crash-mid-stream"),
    "one": fake(concurrencyLimit=1),
    "hidden": fake(unlisted=True),
}
rig = program_with_rules(MODELS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(rig: Rig) -> AsyncIterator[ollama.AsyncClient]:
    """Ollama's client before it."""
    async with ollama.AsyncClient(host=f"http://127.0.0.1:{rig.port}") as opened:
        yield opened


async def test_lists(client: ollama.AsyncClient) -> None:
    """Each name with a tag, and what the configuration says that it can."""
    listed = {one.model: one for one in (await client.list()).models}
    assert {"a:latest", "b:7b", "a+rules:latest"} <= set(listed)
    assert "hidden:latest" not in listed
    shown = await client.show("a")
    assert shown.capabilities == ["completion", "tools", "vision"]
    assert (await client.show("b:7b")).capabilities == ["completion"]
    assert shown.parameters == "num_ctx 16384"
    assert (await client.show("hidden:latest")).capabilities


@pytest.mark.parametrize("name", ["a", "a:latest", "gpt-4o", "gpt-4o:latest", "b:7b"])
async def test_chat(name: str, client: ollama.AsyncClient) -> None:
    """By a name and an alias, with and without the tag; the answer has the name that was asked for."""
    answer = await client.chat(name, HELLO)
    assert (answer.model, answer.message.content, answer.done_reason) == (name, WORDS, "stop")


async def test_a_template_by_name(client: ollama.AsyncClient, rig: Rig) -> None:
    """`a+rules`, as the list names it."""
    await client.chat("a+rules:latest", HELLO)
    assert "The rules.\\nhello" in (await rig.last("a"))["body"]


async def test_calls_of_tools(client: ollama.AsyncClient) -> None:
    """Whole, with arguments as an object, in a stream and without one; and back again."""
    whole = await client.chat("calls", HELLO)
    pieces = [piece async for piece in await client.chat("calls", HELLO, stream=True)]
    [call_of_stream] = [one for piece in pieces for one in piece.message.tool_calls or ()]
    assert whole.message.tool_calls is not None
    assert dict(call_of_stream.function.arguments) == dict(whole.message.tool_calls[0].function.arguments) != {}
    assert pieces[-1].done
    again: Json = [*HELLO, whole.message, {"role": "tool", "tool_name": "x", "content": "done"}]
    await client.chat("calls", again)


async def test_embeddings(client: ollama.AsyncClient) -> None:
    """Both routes."""
    found = await client.embed("a", ["one", "three"])
    assert [vector[0] for vector in found.embeddings] == [3.0, 5.0]
    assert (await client.embeddings("a", "one")).embedding[0] == 3.0


async def test_load_and_unload(client: ollama.AsyncClient, rig: Rig) -> None:
    """As Open WebUI does it; a model that runs says until when."""
    assert (await client.generate("b:7b", "", keep_alive=0)).done_reason == "unload"
    assert "b:7b" not in {one.model for one in (await client.ps()).models}
    assert (await client.generate("b:7b", "", keep_alive=-1)).done_reason == "load"
    assert (await client.generate("a:latest")).done_reason == "load"
    running = {one.model: one for one in (await client.ps()).models}
    assert {"a:latest", "b:7b"} <= set(running)
    [soon, never] = [running[name].expires_at for name in ("a:latest", "b:7b")]
    assert soon is not None
    assert never is not None
    assert soon.year < never.year
    assert (await rig.running())["b:7b"] == "ready"


async def test_a_stream_that_loads(client: ollama.AsyncClient, rig: Rig) -> None:
    """What is said of the load is a thought; the answer is whole, and its load took a while."""
    await rig.post("/api/models/unload/slow")
    pieces = [piece async for piece in await client.chat("slow", HELLO, stream=True)]
    assert "loading model: slow" in "".join(piece.message.thinking or "" for piece in pieces)
    assert "".join(piece.message.content or "" for piece in pieces) == WORDS
    assert pieces[-1].load_duration
    assert pieces[-1].load_duration >= 0.2e9


async def test_an_unknown_model(client: ollama.AsyncClient) -> None:
    """404, whatever is asked of it."""
    for asked in (client.chat("zzz", HELLO), client.show("zzz"), client.pull("zzz"), client.generate("zzz")):
        with pytest.raises(ollama.ResponseError) as caught:
            await asked
        assert caught.value.status_code == 404


async def test_too_many(client: ollama.AsyncClient, rig: Rig) -> None:
    """429, with the sentence alone."""
    held = await rig.ask_held("one")
    with pytest.raises(ollama.ResponseError, match="Too many requests") as caught:
        await client.chat("one", HELLO)
    assert caught.value.status_code == 429
    await rig.release("one")
    await held


@pytest.mark.parametrize("name", ["bad", "cuts"])
async def test_a_stream_that_fails(name: str, client: ollama.AsyncClient) -> None:
    """A load that fails and an engine that dies are errors while it reads, not half an answer."""
    with pytest.raises(ollama.ResponseError):
        [piece async for piece in await client.chat(name, HELLO, stream=True)]


async def test_the_version_stays_the_programs(rig: Rig) -> None:
    """Scripts that were made for llama-swap ask for it at the same place."""
    assert {"version", "commit", "build_date"} <= set((await rig.get("/api/version")).json())


async def test_the_activity_page_has_a_row(rig: Rig, client: ollama.AsyncClient) -> None:
    """By the path that the engine was asked for, with tokens counted."""
    await client.chat("a", HELLO)
    rows = (await rig.get("/api/metrics/activity?model=a&limit=1&sort=id&order=desc&record=1")).json()["data"]
    assert rows[0]["req_path"] == "/v1/chat/completions"
    assert rows[0]["tokens"]["output_tokens"] == 4
    assert rows[0]["request"]["path"] == "/api/chat"
