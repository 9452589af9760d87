"""The official anthropic package through bioproxy, as Claude Code and others use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest

from support.apps import MS, station
from support.clients import fake_line
from support.kv_rig import text
from support.leaks import until
from support.real_engine import line as real_line
from support.real_engine import llama_server, real_engine, warmed

Json = Any
HELLO: Json = [{"role": "user", "content": "hello"}]
FILLED = "These are the house rules.\nmay I?"


@asynccontextmanager
async def anthropic_client(port: int, *, key: str = "none") -> AsyncIterator[anthropic.AsyncAnthropic]:
    """The official client before the proxy on `port`, closed afterwards."""
    url = f"http://127.0.0.1:{port}"
    async with anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0) as client:
        yield client


async def test_messages(tmp_path: Path) -> None:
    """A whole answer with usage, and the id of the request where the SDK looks for it."""
    async with fake_line(tmp_path) as line, anthropic_client(line.app.proxy_port) as client:
        answer = await client.messages.create(model="m", messages=HELLO, max_tokens=4, system="Be brief.")
        assert answer.content[0].type == "text"
        assert answer.usage.output_tokens == 4
        assert answer._request_id
        assert (await line.received("/v1/messages"))["system"] == "Be brief."


async def test_stream(tmp_path: Path) -> None:
    """The same words in pieces, put together by the SDK's own helper."""
    async with fake_line(tmp_path) as line, anthropic_client(line.app.proxy_port) as client:
        whole = await client.messages.create(model="m", messages=HELLO, max_tokens=6)
        async with client.messages.stream(model="m", messages=HELLO, max_tokens=6) as stream:
            said = "".join([piece async for piece in stream.text_stream])
            final = await stream.get_final_message()
        assert whole.content[0].type == "text"
        assert said == whole.content[0].text
        assert final.usage.output_tokens == 6


async def test_template_in_content_blocks(tmp_path: Path) -> None:
    """The first block that begins with a prefix is filled in; reminders before it stay where they are."""
    blocks: Json = [{"type": "text", "text": "<reminder>"}, {"type": "text", "text": "@rules may I?"}]
    async with fake_line(tmp_path) as line, anthropic_client(line.app.proxy_port) as client:
        await client.messages.create(model="m", messages=[{"role": "user", "content": blocks}], max_tokens=1)
        content = (await line.received("/v1/messages"))["messages"][0]["content"]
        assert [block["text"] for block in content] == ["<reminder>", FILLED]


async def test_count_tokens_counts_the_filled_template(tmp_path: Path) -> None:
    """A client that plans its context sees the tokens that the engine will see."""
    async with fake_line(tmp_path) as line, anthropic_client(line.app.proxy_port) as client:
        filled = await client.messages.count_tokens(model="m", messages=[{"role": "user", "content": FILLED}])
        prefix = await client.messages.count_tokens(model="m", messages=[{"role": "user", "content": "@rules may I?"}])
        assert prefix.input_tokens == filled.input_tokens > 5


async def test_keys(tmp_path: Path) -> None:
    """`x-api-key` opens and is not handed on; a wrong one is an AuthenticationError of Anthropic's shape."""
    async with fake_line(tmp_path, api_keys=["right"]) as line:
        async with anthropic_client(line.app.proxy_port, key="right") as client:
            await client.messages.create(model="m", messages=HELLO, max_tokens=1)
        (seen,) = await line.engine.requests("/v1/messages")
        assert seen.header("x-api-key") is None
        async with anthropic_client(line.app.proxy_port, key="wrong") as client:
            with pytest.raises(anthropic.AuthenticationError) as caught:
                await client.messages.create(model="m", messages=HELLO, max_tokens=1)
        body: Json = caught.value.body
        assert (body["type"], body["error"]["type"]) == ("error", "authentication_error")
        assert caught.value.request_id == body["request_id"]


async def test_full_queue(tmp_path: Path) -> None:
    """A RateLimitError with the time to come back."""
    async with fake_line(tmp_path, queue_limit=1) as line, anthropic_client(line.app.proxy_port) as client:
        await line.engine.faults(stuck=True)
        create = client.messages.create
        work = [
            asyncio.get_running_loop().create_task(create(model="m", messages=HELLO, max_tokens=1)) for _ in range(2)
        ]
        await until(lambda: station(line.app).gate.statistics().waiting["user"] == 1)
        with pytest.raises(anthropic.RateLimitError) as caught:
            await client.messages.create(model="m", messages=HELLO, max_tokens=1)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        await line.engine.faults(stuck=False)
        await asyncio.gather(*work)


async def test_engine_that_is_gone(tmp_path: Path) -> None:
    """An APIStatusError that says what was tried."""
    async with fake_line(tmp_path) as line, anthropic_client(line.app.proxy_port) as client:
        await line.engine.kill()
        with pytest.raises(anthropic.InternalServerError) as caught:
            await client.messages.create(model="m", messages=HELLO, max_tokens=1)
        assert caught.value.status_code == 502
        assert line.engine.url.removeprefix("http://") in caught.value.message


async def test_pings_while_the_engine_is_silent(tmp_path: Path) -> None:
    """`ping` events before the first one of the message are what this SDK expects; it puts the rest together."""
    async with fake_line(tmp_path, stream_keepalive=20 * MS) as line, anthropic_client(line.app.proxy_port) as client:
        await line.engine.faults(stuck=True)
        async with client.messages.stream(model="m", messages=HELLO, max_tokens=3) as stream:
            await line.engine.faults(stuck=False)
            final = await stream.get_final_message()
        assert final.usage.output_tokens == 3


async def test_plain_json_after_the_stream_began(tmp_path: Path) -> None:
    """The SDK's helper puts together what the engine sent whole."""
    async with fake_line(tmp_path, stream_keepalive=5 * MS) as line, anthropic_client(line.app.proxy_port) as client:
        await line.engine.faults(stuck=True, no_stream=True)
        async with client.messages.stream(model="m", messages=HELLO, max_tokens=3) as stream:
            await line.engine.faults(stuck=False)
            said = "".join([piece async for piece in stream.text_stream])
            final = await stream.get_final_message()
        assert said
        assert (final.stop_reason, final.usage.output_tokens) == ("max_tokens", 3)


async def test_error_in_a_stream(tmp_path: Path) -> None:
    """The engine dies after some words: the SDK raises what the error event says."""
    async with fake_line(tmp_path, engine={"decode_rate": 100}) as line:
        await line.engine.faults(die="stream", die_after=3)
        async with anthropic_client(line.app.proxy_port) as client:
            with pytest.raises(anthropic.APIStatusError) as caught:
                async with client.messages.stream(model="m", messages=HELLO, max_tokens=50) as stream:
                    await stream.get_final_message()
        body: Json = caught.value.body
        assert body["error"]["type"] == "api_error"


@real_engine
async def test_template_from_the_cache_of_a_real_engine(tmp_path: Path) -> None:
    """The usage that Anthropic's clients show: nearly everything was read from the cache."""
    template = text(300, "House rules.") + "\n<{message}>"
    async with llama_server(tmp_path) as engine, real_line(engine, tmp_path, template) as app:
        await warmed(app)
        async with anthropic_client(app.proxy_port) as client:
            answer = await client.messages.create(
                model="m", messages=[{"role": "user", "content": "@code may I?"}], max_tokens=4
            )
        (target,) = station(app).runner.statistics().targets
        assert (answer.usage.cache_read_input_tokens or 0) >= target.total > 500
        assert answer.usage.input_tokens < 50
