"""The official openai package through bioproxy: what it sends is understood, and what it gets is what it knows."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import openai
import pytest

from bioproxy.errors import BioproxyError
from bioproxy.events import RequestEnded
from bioproxy.wire import relay
from support.apps import MS, station
from support.clients import Line, fake_line
from support.conversation import openai_client
from support.kv_rig import text
from support.leaks import until
from support.real_engine import conversations_saved, llama_server, real_engine
from support.real_engine import line as real_line

Json = Any
HELLO: Json = [{"role": "user", "content": "hello"}]
FILLED = "These are the house rules.\nmay I?"


async def test_chat(tmp_path: Path) -> None:
    """A whole answer, with usage and the id of the request for support cases."""
    async with fake_line(tmp_path) as line, openai_client(line.app.proxy_port) as client:
        answer = await client.chat.completions.create(model="m", messages=HELLO, max_tokens=4)
        assert answer.choices[0].message.content
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 4
        assert answer._request_id


async def test_chat_stream(tmp_path: Path) -> None:
    """The same words in pieces, and the usage at the end where it was asked for."""
    async with fake_line(tmp_path) as line, openai_client(line.app.proxy_port) as client:
        whole = await client.chat.completions.create(model="m", messages=HELLO, max_tokens=6)
        stream = await client.chat.completions.create(
            model="m", messages=HELLO, max_tokens=6, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert said == whole.choices[0].message.content
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 6


@pytest.mark.parametrize("content", ["@rules may I?", [{"type": "text", "text": "@rules may I?"}]])
async def test_template(content: Json, tmp_path: Path) -> None:
    """A prefix is filled in, in plain content and in content parts."""
    async with fake_line(tmp_path) as line, openai_client(line.app.proxy_port) as client:
        await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": content}], max_tokens=1, seed=2**53 + 1
        )
        body = await line.received("/v1/chat/completions")
        got = body["messages"][0]["content"]
        assert (got if isinstance(got, str) else got[0]["text"]) == FILLED
        assert body["seed"] == 2**53 + 1


async def test_completions(tmp_path: Path) -> None:
    """The older API, whole and in pieces; its prompt is expanded as well."""
    async with fake_line(tmp_path) as line, openai_client(line.app.proxy_port) as client:
        whole = await client.completions.create(model="m", prompt="@rules may I?", max_tokens=4)
        stream = await client.completions.create(model="m", prompt="@rules may I?", max_tokens=4, stream=True)
        said = "".join([chunk.choices[0].text async for chunk in stream if chunk.choices])
        assert said == whole.choices[0].text
        assert (await line.received("/v1/completions"))["prompt"] == FILLED


async def test_responses(tmp_path: Path) -> None:
    """The newer API, whole and as typed events; its input is expanded as well."""
    async with fake_line(tmp_path) as line, openai_client(line.app.proxy_port) as client:
        whole = await client.responses.create(model="m", input="@rules may I?", max_output_tokens=4)
        assert whole.output_text
        stream = await client.responses.create(model="m", input="@rules may I?", max_output_tokens=4, stream=True)
        events = [event async for event in stream]
        said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert said == whole.output_text
        assert events[-1].type == "response.completed"
        assert FILLED in str((await line.received("/v1/responses"))["input"])


async def test_models(tmp_path: Path) -> None:
    """The engine's list of models, unchanged."""
    async with fake_line(tmp_path) as line, openai_client(line.app.proxy_port) as client:
        models = await client.models.list()
        assert [model.id for model in models.data] == ["fake.gguf"]


async def test_embeddings_that_the_engine_refuses(tmp_path: Path) -> None:
    """A chat engine's 501 reaches the client as it is, with the engine's own words."""
    async with fake_line(tmp_path) as line, openai_client(line.app.proxy_port) as client:
        await line.engine.faults(answer="status", status=501, paths=["/v1/embeddings"])
        with pytest.raises(openai.InternalServerError) as caught:
            await client.embeddings.create(model="m", input="hello")
        assert caught.value.status_code == 501
        assert (caught.value.body or {})["message"] == "fault"  # type: ignore[index] # a dict in every real answer


async def test_context_too_small(tmp_path: Path) -> None:
    """The engine's own refusal is a BadRequestError with its figures."""
    async with fake_line(tmp_path, engine={"ctx_size": 64}) as line, openai_client(line.app.proxy_port) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "word " * 200}])
        assert caught.value.status_code == 400
        assert "context" in caught.value.message


async def test_keys(tmp_path: Path) -> None:
    """The right key opens, and is not handed on; a wrong one is an AuthenticationError that says what to send."""
    async with fake_line(tmp_path, api_keys=["right"]) as line:
        async with openai_client(line.app.proxy_port, key="right") as client:
            await client.chat.completions.create(model="m", messages=HELLO, max_tokens=1)
        (seen,) = await line.engine.requests("/v1/chat/completions")
        assert seen.header("authorization") is None
        async with openai_client(line.app.proxy_port, key="wrong") as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                await client.chat.completions.create(model="m", messages=HELLO, max_tokens=1)
        assert "API key" in caught.value.message
        assert caught.value.request_id


async def test_model_that_the_key_is_not_for(tmp_path: Path) -> None:
    """A PermissionDeniedError that names the models it may ask for."""
    keys = [{"key": "right", "name": "ann", "models": ["small"]}]
    async with fake_line(tmp_path, api_keys=keys) as line, openai_client(line.app.proxy_port, key="right") as client:
        with pytest.raises(openai.PermissionDeniedError, match="small"):
            await client.chat.completions.create(model="large", messages=HELLO)


async def test_engine_that_is_gone(tmp_path: Path) -> None:
    """A 502 that says what was tried; the SDK takes it for a server error and would retry."""
    async with fake_line(tmp_path) as line, openai_client(line.app.proxy_port) as client:
        await line.engine.kill()
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="m", messages=HELLO)
        assert caught.value.status_code == 502
        assert caught.value.code == "engine_unavailable"


async def queue_up(line: Line, client: openai.AsyncOpenAI) -> list[asyncio.Task[Any]]:
    """Fill the only slot of an engine that computes nothing now, and the one place in the queue."""
    await line.engine.faults(stuck=True)
    work = [asyncio.get_running_loop().create_task(say(client)) for _ in range(2)]
    await until(lambda: station(line.app).gate.statistics().waiting["user"] == 1)
    return work


async def say(client: openai.AsyncOpenAI) -> str:
    """One short request; what was answered."""
    answer = await client.chat.completions.create(model="m", messages=HELLO, max_tokens=1)
    return answer.choices[0].message.content or ""


async def test_full_queue(tmp_path: Path) -> None:
    """One too many is a RateLimitError that says when to come back."""
    async with fake_line(tmp_path, queue_limit=1) as line, openai_client(line.app.proxy_port) as client:
        work = await queue_up(line, client)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="m", messages=HELLO)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        await line.engine.faults(stuck=False)
        await asyncio.gather(*work)


async def test_full_queue_is_retried_by_the_sdk(tmp_path: Path) -> None:
    """The SDK waits for as long as it is told, comes back by itself, and is served."""
    async with fake_line(tmp_path, queue_limit=1) as line, openai_client(line.app.proxy_port, retries=2) as client:
        work = await queue_up(line, client)
        rejected = asyncio.Event()
        line.app.bus.subscribe(RequestEnded, lambda _event: rejected.set())
        third = asyncio.get_running_loop().create_task(say(client))
        await rejected.wait()
        await line.engine.faults(stuck=False)
        assert all(await asyncio.gather(*work, third))


async def test_signs_of_life_are_skipped(tmp_path: Path) -> None:
    """While the engine is silent a stream gets comment lines, which the SDK never shows."""
    async with fake_line(tmp_path, stream_keepalive=20 * MS) as line, openai_client(line.app.proxy_port) as client:
        await line.engine.faults(stuck=True)
        stream = await client.chat.completions.create(model="m", messages=HELLO, max_tokens=3, stream=True)
        await line.engine.faults(stuck=False)
        said = [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]
        assert "".join(word or "" for word in said)


async def test_the_client_leaves_at_the_last_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK closes at `[DONE]`, before the last chunk: it was served, and what it said is known."""
    monkeypatch.setattr(relay, "ENDING", 60.0)
    async with fake_line(tmp_path) as line, openai_client(line.app.proxy_port) as client:
        await line.engine.faults(hold_end=True)
        stream = await client.chat.completions.create(model="m", messages=HELLO, max_tokens=3, stream=True)
        assert [chunk async for chunk in stream]
        await until(lambda: line.app.ports.proxy.statistics().connections == 0)
        await line.engine.faults(hold_end=False)
        await until(lambda: len(line.app.records))
        assert [record.outcome for record in line.app.records] == ["ok"]
        assert station(line.app).keeper.statistics().slots[0].state == "conversation"


@real_engine
async def test_streams_of_the_real_engine(tmp_path: Path) -> None:
    """However often the SDK leaves at the last event: it was served, and the conversation is saved."""
    async with (
        llama_server(tmp_path) as engine,
        real_line(engine, tmp_path) as app,
        openai_client(app.proxy_port) as client,
    ):
        for number in range(12):
            messages: Json = [{"role": "user", "content": text(60, f"talk {number}")}]
            stream = await client.chat.completions.create(model="m", messages=messages, max_tokens=2, stream=True)
            assert [chunk async for chunk in stream]
        await until(lambda: len(app.records) == 12)
        assert {record.outcome for record in app.records} == {"ok"}
        assert station(app).gate.cuts == 0
        await conversations_saved(app)


async def test_error_in_a_stream(tmp_path: Path) -> None:
    """What goes wrong after the first byte is an APIError with the message, not a stream that simply ends."""
    async with fake_line(tmp_path) as line, openai_client(line.app.proxy_port) as client:
        await line.engine.faults(error_event=2)
        stream = await client.chat.completions.create(model="m", messages=HELLO, max_tokens=9, stream=True)
        with pytest.raises(openai.APIError):
            [chunk async for chunk in stream]


async def late_refusal(line: Line, client: openai.AsyncOpenAI, call: Coroutine[Any, Any, None]) -> openai.APIError:
    """What the SDK raises if the engine refuses after the stream has begun, while another request ran."""
    loop = asyncio.get_running_loop()
    await line.engine.faults(stuck=True)
    first = loop.create_task(say(client))
    await until(lambda: station(line.app).gate.running == 1)
    late = loop.create_task(call)
    clients = line.app.ports.proxy.shared.connections
    await until(lambda: any(one.responder and one.responder.started for one in clients))
    await line.engine.faults(stuck=False)
    with pytest.raises(openai.APIError) as caught:
        await late
    await first
    return caught.value


async def test_late_error_of_the_engine(tmp_path: Path) -> None:
    """Its type and figures arrive, whichever API was called."""
    async with (
        fake_line(tmp_path, engine={"ctx_size": 64}, stream_keepalive=5 * MS) as line,
        openai_client(line.app.proxy_port) as client,
    ):
        words: Json = "word " * 200

        async def chat() -> None:
            messages: Json = [{"role": "user", "content": words}]
            stream = await client.chat.completions.create(model="m", messages=messages, max_tokens=2, stream=True)
            assert [chunk async for chunk in stream]

        async def respond() -> None:
            async with client.responses.stream(model="m", input=words) as stream:
                assert [event async for event in stream]

        for call in (chat(), respond()):
            error = await late_refusal(line, client, call)
            assert "exceeds the available context size" in error.message
            assert error.type == "exceed_context_size_error"
            assert isinstance(error.body, dict)
            assert error.body["n_ctx"] == 64


async def test_plain_json_after_the_stream_began(tmp_path: Path) -> None:
    """The SDK reads it as a stream of one chunk."""
    async with fake_line(tmp_path, stream_keepalive=5 * MS) as line, openai_client(line.app.proxy_port) as client:
        await line.engine.faults(stuck=True, no_stream=True)
        stream = await client.chat.completions.create(model="m", messages=HELLO, max_tokens=3, stream=True)
        await line.engine.faults(stuck=False)
        [chunk] = [chunk async for chunk in stream]
        assert chunk.choices[0].delta.content
        assert chunk.choices[0].finish_reason == "length"


async def test_shutdown_is_told(tmp_path: Path) -> None:
    """Who waits when the program ends gets a 503 in the SDK's own shape."""
    async with fake_line(tmp_path) as line, openai_client(line.app.proxy_port) as client:
        work = await queue_up(line, client)
        station(line.app).gate.refuse(BioproxyError("bioproxy is shutting down", status=503, retry_after=1))
        done, running = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(openai.InternalServerError, match="shutting down"):
            done.pop().result()
        station(line.app).gate.error = None
        await line.engine.faults(stuck=False)
        assert await running.pop()
