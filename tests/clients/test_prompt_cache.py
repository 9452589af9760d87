"""The prompt-cache APIs, through the official packages and judged by their own types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from anthropic import AsyncAnthropic

from support.clients import fake_line
from support.conversation import openai_client
from support.http import call
from support.kv_rig import text
from support.sdk_types import asked

Json = Any
EPHEMERAL: Json = {"type": "ephemeral"}
EXPLICIT: Json = {"mode": "explicit"}
FORMS = ("/v1/chat/completions", "/v1/responses", "/v1/messages")


def prompt(path: str, *parts: str, mark: int = -1, **fields: Json) -> Json:
    """A request with one user message of these parts, with a breakpoint after one of them."""
    kind = "input_text" if path == "/v1/responses" else "text"
    content: list[Json] = [{"type": kind, "text": part} for part in parts]
    if mark >= 0:
        name, value = ("cache_control", EPHEMERAL) if path == "/v1/messages" else ("prompt_cache_breakpoint", EXPLICIT)
        content[mark][name] = value
    messages = [{"role": "user", "content": content}]
    limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    return {"input" if path == "/v1/responses" else "messages": messages, limit: 4} | fields


def read_and_written(usage: Json) -> tuple[int, int, int]:
    """The prompt, what of it was read, and what was written."""
    if "cache_creation_input_tokens" in usage:
        read, written = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
        return usage["input_tokens"] + read + written, read, written
    details = usage.get("prompt_tokens_details") or usage["input_tokens_details"]
    return usage.get("prompt_tokens") or usage["input_tokens"], details["cached_tokens"], details["cache_write_tokens"]


def usage_in(found: Json) -> Json:
    """The usage of a whole answer, or the last one that the events of a stream tell."""
    if isinstance(found, dict):
        return found["usage"]
    said = [one.get("response") or one.get("message") or one for one in found]
    return [one["usage"] for one in said if one.get("usage")][-1]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", FORMS)
async def test_usage_is_honest(path: str, stream: bool, tmp_path: Path) -> None:
    """What is new is written up to the last breakpoint and read the next time; the three parts are the prompt."""
    extra: Json = {"stream_options": {"include_usage": True}} if stream and "chat" in path else {}
    body = prompt(path, text(120), "Why is that so?", mark=0, stream=stream, **extra)
    async with fake_line(tmp_path) as line:
        first = read_and_written(usage_in(await asked(line.app.proxy_port, path, body)))
        again = read_and_written(usage_in(await asked(line.app.proxy_port, path, body)))
        received = await line.received(path)
    assert first[1] < 5  # the fake's first token
    assert first[2] > 100
    assert (first[1] + first[2] < first[0]) is (path == "/v1/messages")  # the prompt's end is a breakpoint with OpenAI
    assert again == (first[0], first[0] - 1, 1) if path != "/v1/messages" else again == (first[0], first[0] - 1, 0)
    assert "cache" not in json.dumps(received)


async def test_openais_fields_through_its_sdk(tmp_path: Path) -> None:
    """The options come back as they were applied, and none of the fields reaches the engine."""
    async with fake_line(tmp_path) as line, openai_client(line.app.proxy_port) as client:
        answer = await client.responses.create(
            model="m",
            input="hello",
            prompt_cache_key="a conversation",
            prompt_cache_options={"mode": "implicit", "ttl": "12h"},
            prompt_cache_retention="24h",
            max_output_tokens=2,
        )
        assert answer.prompt_cache_options is not None
        assert (answer.prompt_cache_options.mode, answer.prompt_cache_options.ttl) == ("implicit", "12h")
        assert answer.prompt_cache_key == "a conversation"
        assert answer.usage is not None
        details = answer.usage.input_tokens_details
        assert details.cache_write_tokens_details is not None
        assert details.cache_write_tokens == details.cache_write_tokens_details.ttl_12h_tokens > 0
        assert "cache" not in json.dumps(await line.received("/v1/responses"))
        chat = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hello"}], prompt_cache_key="k", max_tokens=2
        )
        assert chat.usage is not None
        assert chat.usage.prompt_tokens_details is not None
        assert chat.usage.prompt_tokens_details.cache_write_tokens is not None
        assert "cache" not in json.dumps(await line.received("/v1/chat/completions"))


async def test_anthropics_marks_through_its_sdk(tmp_path: Path) -> None:
    """In a stream, too: what was written by its lifetime in the first event, and the sums in the last one."""
    async with (
        fake_line(tmp_path) as line,
        AsyncAnthropic(base_url=line.url, api_key="none", max_retries=0) as client,
        client.messages.stream(
            model="m",
            max_tokens=2,
            system=[{"type": "text", "text": text(60), "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
            messages=[{"role": "user", "content": "hello"}],
        ) as stream,
    ):
        message = await stream.get_final_message()
        usage = message.usage
        assert usage.cache_creation is not None
        assert usage.cache_creation.ephemeral_1h_input_tokens == usage.cache_creation_input_tokens
        assert usage.cache_creation_input_tokens
        assert usage.cache_creation_input_tokens > 50
        assert usage.input_tokens > 0
        assert (await line.received("/v1/messages"))["system"] == [{"type": "text", "text": text(60)}]


async def test_what_a_client_calls_its_conversation(tmp_path: Path) -> None:
    """The name stands in the record: by header, else by the body."""
    messages: Json = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    async with fake_line(tmp_path) as line:
        port, seen = line.app.proxy_port, []
        from bioproxy.events import RequestEnded

        line.app.bus.subscribe(RequestEnded, lambda event: seen.append(event.record.session))
        await asked(port, "/v1/chat/completions", {**messages, "prompt_cache_key": "k"})
        user = {"user_id": "user_1_account_2_session_3"}
        await asked(port, "/v1/messages", {**messages, "metadata": user})
        head = {"X-Claude-Code-Session-Id": "4"}
        await asked(port, "/v1/messages", {**messages, "metadata": user}, **head)
        await asked(port, "/v1/chat/completions", messages)
    assert seen == ["k", "3", "4", ""]


@pytest.mark.parametrize("path", FORMS)
async def test_a_field_that_cannot_be_meant(path: str, tmp_path: Path) -> None:
    """400 in the form of the API, and the sentence names it."""
    name, value = (
        ("cache_control", {"type": "x"}) if path == "/v1/messages" else ("prompt_cache_options", {"mode": "x"})
    )
    async with fake_line(tmp_path) as line:
        answer = await call(line.app.proxy_port, "POST", path, data={**prompt(path, "hello"), name: value})
    assert answer.status == 400
    assert name in answer.json()["error"]["message"]


async def test_counting_takes_the_marks_out_as_well(tmp_path: Path) -> None:
    """`count_tokens` gets the body that the engine would get."""
    async with fake_line(tmp_path) as line:
        body = {"system": [{"type": "text", "text": "s", "cache_control": EPHEMERAL}], "messages": [], "model": "m"}
        answer = await call(line.app.proxy_port, "POST", "/v1/messages/count_tokens", data=body)
        assert answer.json()["input_tokens"] > 0
        assert "cache" not in json.dumps(await line.received("/v1/messages/count_tokens"))
