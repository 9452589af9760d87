"""Errors in the shapes that clients of each API parse."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bioproxy.errors import BioproxyError, EngineRefused, QueueFull, QueueTimeout, RequestError, Unauthorized
from bioproxy.front.dialects import dialect_of, error_answer, error_event, error_json, keepalive, streamed


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/messages", "anthropic"),
        ("/v1/messages/count_tokens", "anthropic"),
        ("/v1/chat/completions", "openai"),
        ("/chat/completions", "openai"),
        ("/v1/anything", "openai"),
        ("/v/messages", "anthropic"),
        ("/v1/responses", "responses"),
        ("/v/responses", "responses"),
        ("/v/chat/completions", "openai"),
        ("/completion", "llama"),
        ("/slots/0", "llama"),
    ],
)
def test_the_path_tells_the_dialect(path: str, dialect: str) -> None:
    """Clients choose an API by its path."""
    assert dialect_of(path) == dialect


def test_openai_reads_message_type_param_and_code() -> None:
    """The shape of the official client."""
    error = json.loads(error_json(QueueFull("full", retry_after=3), "openai"))["error"]
    assert error == {"message": "full", "type": "rate_limit_error", "param": None, "code": "rate_limit_error"}


def test_anthropic_reads_a_typed_error_with_the_request_id() -> None:
    """503 is an overloaded_error there."""
    body = json.loads(error_json(QueueTimeout("late"), "anthropic", request_id="r1"))
    assert body == {"type": "error", "error": {"type": "overloaded_error", "message": "late"}, "request_id": "r1"}


def test_llama_reads_a_numeric_code() -> None:
    """As llama-server answers itself."""
    assert json.loads(error_json(RequestError("no"), "llama"))["error"]["code"] == 400


def test_retry_after_stands_in_the_headers() -> None:
    """SDKs wait that long."""
    headers, _ = error_answer(QueueFull("full", retry_after=7), "/v1/chat/completions")
    assert (b"Retry-After", b"7") in headers


def test_a_missing_key_asks_for_bearer() -> None:
    """RFC 9110 wants a challenge with a 401."""
    headers, _ = error_answer(Unauthorized("no key"), "/v1/models")
    assert any(name == b"WWW-Authenticate" for name, _ in headers)


@pytest.mark.parametrize("dialect", ["openai", "responses", "anthropic", "llama"])
def test_an_error_in_a_stream_is_one_whole_event(dialect: str) -> None:
    """An event ends with an empty line, and its data is JSON."""
    event = error_event(BioproxyError("broke"), dialect)  # type: ignore[arg-type]
    assert event.endswith(b"\n\n")
    data = next(line for line in event.splitlines() if line.startswith(b"data: "))
    assert b"broke" in json.dumps(json.loads(data[6:])).encode()


def test_an_engines_own_error_keeps_its_members() -> None:
    """Its type and code stand in place of ours, and its figures beside them, whatever the dialect."""
    said = {"code": 400, "type": "exceed_context_size_error", "n_ctx": 64}
    error = EngineRefused("too long", status=400, fields=said)
    for dialect in ("openai", "llama"):
        assert json.loads(error_json(error, dialect))["error"] == {"message": "too long", "param": None, **said}
    assert json.loads(error_json(error, "anthropic"))["error"] == {"message": "too long", **said}


def test_a_responses_stream_ends_in_two_numbered_events() -> None:
    """The numbers go on from the stream's last one; code and type are texts, for AI SDK takes nothing else."""
    tail = b'data: {"type":"response.in_progress","sequence_number": 41}\n\n'
    events = error_event(EngineRefused("no", status=500, fields={"code": 500}), "responses", tail=tail).split(b"\n\n")
    first, second = (json.loads(event.partition(b"\ndata: ")[2]) for event in events[:-1])
    assert (first["type"], first["sequence_number"]) == ("error", 42)
    assert (second["type"], second["sequence_number"]) == ("response.failed", 43)
    assert first["error"] == {"message": "no", "type": "server_error", "param": None, "code": "server_error"}
    assert {name: first[name] for name in ("message", "param", "code")} == {
        "message": "no", "param": None, "code": "server_error",
    }  # fmt: skip
    assert second["response"]["error"] == first["error"]


def events_of(stream: bytes) -> list[object]:
    """The payloads of a stream."""
    lines = [line.removeprefix("data: ") for line in stream.decode().splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_a_whole_chat_as_a_stream() -> None:
    """What the engine sent is all there, numbers as it wrote them, and what readers of chunks look for."""
    body = b'{"object": "chat.completion",\n "choices": [{"message": {"content": "hi"}}], "n": 1.10}'
    stream = streamed(body, "openai")
    assert b'"n":1.10' in stream
    assert events_of(stream) == [
        {
            "object": "chat.completion.chunk",
            "choices": [{"message": {"content": "hi"}, "delta": {"content": "hi"}}],
            "n": 1.1,
        },
        "[DONE]",
    ]


def test_a_whole_message_as_a_stream() -> None:
    """Each block begins empty and is filled by one delta, as the SDK puts them together again."""
    blocks = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "hi"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
        {"type": "other", "data": "x"},
    ]
    message = {"type": "message", "content": blocks, "stop_reason": "tool_use", "usage": {"output_tokens": 3}}
    events: list[Any] = events_of(streamed(json.dumps(message).encode(), "anthropic"))
    begun = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert begun == [
        {"type": "thinking", "thinking": ""},
        {"type": "text", "text": ""},
        {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        {"type": "other", "data": "x"},
    ]
    assert [event["delta"] for event in events if event["type"] == "content_block_delta"] == [
        {"type": "thinking_delta", "thinking": "hm"},
        {"type": "text_delta", "text": "hi"},
        {"type": "input_json_delta", "partial_json": '{"a":1}'},
    ]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    assert events[-1] == {"type": "message_stop"}


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "responses", "llama"])
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[1]", b'{"error": {"message": "no"}}', b'{"type": "error"}', b"\xff"]
)
def test_what_is_no_answer_is_no_stream(body: bytes, dialect: str) -> None:
    """It becomes an error instead."""
    assert streamed(body, dialect) == b""  # type: ignore[arg-type]


def test_a_waiting_openai_stream_gets_a_comment_and_an_anthropic_one_a_ping() -> None:
    """Both are whole events that no client shows."""
    assert keepalive("openai").startswith(b": ")
    assert keepalive("anthropic").startswith(b"event: ping\n")
    assert keepalive("openai").endswith(b"\n\n")
