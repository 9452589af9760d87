"""Side requests that a rule refuses: the official packages take the empty answer for one, whole or as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest

from support.clients import Line, fake_line
from support.conversation import openai_client

Json = Any
HELLO: Json = [{"role": "user", "content": "a title, please"}]
RULES: Json = {"side": [{"name": "all", "side": "refuse", "agents": ["*/*"]}]}


@asynccontextmanager
async def refusing(tmp_path: Path) -> AsyncIterator[Line]:
    """Every request is refused; the engine saw none of them."""
    async with fake_line(tmp_path, clients=RULES) as line:
        await line.engine.forget()
        yield line
        assert await line.engine.requests() == []


@asynccontextmanager
async def openai_refused(tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    async with refusing(tmp_path) as line, openai_client(line.app.proxy_port) as client:
        yield client


async def test_chat(tmp_path: Path) -> None:
    """Nothing is said, and it is over."""
    async with openai_refused(tmp_path) as client:
        answer = await client.chat.completions.create(model="m", messages=HELLO)
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("", "stop")
        assert answer.usage is not None
        assert answer.usage.total_tokens == 0
        stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
        chunks = [chunk async for chunk in stream]
        assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, "stop"]
        async with client.chat.completions.stream(model="m", messages=HELLO) as events:
            final = await events.get_final_completion()
        assert final.choices[0].message.content == ""


async def test_completions(tmp_path: Path) -> None:
    """The older API."""
    async with openai_refused(tmp_path) as client:
        answer = await client.completions.create(model="m", prompt="a title")
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("", "stop")
        stream = await client.completions.create(model="m", prompt="a title", stream=True)
        assert [chunk.choices[0].text async for chunk in stream] == ["", ""]


async def test_responses(tmp_path: Path) -> None:
    """With the package's own helper for streams, which wants every event."""
    async with openai_refused(tmp_path) as client:
        answer = await client.responses.create(model="m", input="a title")
        assert (answer.output_text, answer.status) == ("", "completed")
        async with client.responses.stream(model="m", input="a title") as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
        assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
        assert final.output_text == ""


async def test_messages(tmp_path: Path) -> None:
    """Anthropic's."""
    async with AsyncExitStack() as stack:
        line = await stack.enter_async_context(refusing(tmp_path))
        url = f"http://127.0.0.1:{line.app.proxy_port}"
        client = await stack.enter_async_context(anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0))
        answer = await client.messages.create(model="m", messages=HELLO, max_tokens=4)
        assert [(block.type, getattr(block, "text", None)) for block in answer.content] == [("text", "")]
        assert answer.stop_reason == "end_turn"
        async with client.messages.stream(model="m", messages=HELLO, max_tokens=4) as stream:
            assert "".join([piece async for piece in stream.text_stream]) == ""
            assert (await stream.get_final_message()).stop_reason == "end_turn"


@pytest.mark.parametrize("stream", [False, True])
async def test_ollama(stream: bool, tmp_path: Path) -> None:
    """Translated like any other answer."""
    async with AsyncExitStack() as stack:
        line = await stack.enter_async_context(refusing(tmp_path))
        host = f"http://127.0.0.1:{line.app.proxy_port}"
        client = await stack.enter_async_context(ollama.AsyncClient(host=host))
        if stream:
            parts = [part async for part in await client.chat("m", HELLO, stream=True)]
            assert (parts[-1].done, "".join(part.message.content or "" for part in parts)) == (True, "")
            lines = [part async for part in await client.generate("m", "a title", stream=True)]
            assert (lines[-1].done, lines[-1].response) == (True, "")
        else:
            chat = await client.chat("m", HELLO)
            assert (chat.done, chat.message.content) == (True, "")
            assert (await client.generate("m", "a title")).response == ""
