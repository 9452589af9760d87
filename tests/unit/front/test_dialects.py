"""Errors in the shapes that clients of each API parse."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bioproxy.errors import BioproxyError, EngineRefused, QueueFull, QueueTimeout, RequestError, Unauthorized
from bioproxy.front.dialects import dialect_of, ending, error_answer, error_event, error_json, keepalive, streamed


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


LONG = "x" * 20_000
RESPONSE: dict[str, object] = {"id": "resp_1", "output": [{"type": "message", "status": "completed", "text": LONG}]}


def event(value: object, name: str = "", *, end: str = "\n\n") -> bytes:
    """One event."""
    line = end[: len(end) // 2]
    return ((f"event: {name}{line}" if name else "") + f"data: {json.dumps(value)}{end}").encode()


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r"])
@pytest.mark.parametrize(
    ("last", "how"),
    [
        ({"choices": [{"delta": {"content": "data: [DONE]\n\n"}}]}, ""),
        ({"choices": [], "usage": {}, "error": None}, ""),
        ({"type": "response.output_text.done", "text": '{"type":"response.completed"}'}, ""),
        ({"type": "content_block_delta", "delta": {"text": '"stop":true'}}, ""),
        ({"content": '"stop":true', "stop": False}, ""),
        ([1], ""),
        ({"content": "", "stop": True}, "whole"),
        ({"type": "message_stop"}, "whole"),
        ({"type": "response.completed", "response": {}}, "whole"),
        ({"type": "response.incomplete", "response": {}}, "whole"),
        ({"type": "response.failed", "response": {}}, "failed"),
        ({"type": "transcript.text.done", "text": "hi"}, "whole"),
        ({"error": {"message": "no"}}, "failed"),
        ({"type": "error", "error": {"message": "no"}}, "failed"),
        ({"type": "error", "message": "no"}, "failed"),
    ],
)
def test_the_event_that_ends_a_stream(last: object, how: str, end: str) -> None:
    """Each API has its own, and what somebody wrote is never one; with or without its empty line, but whole."""
    stream = event({"choices": []}, end=end) + event(last, end=end)
    assert ending(stream) == how
    assert ending(stream.rstrip()) == how
    assert ending(stream + b": ping" + end.encode()) == how
    assert ending(stream.rstrip()[:-1]) == ""


@pytest.mark.parametrize(
    ("stream", "how"),
    [
        (b"data: [DONE]\n\n", "whole"),
        (b"data:[DONE]\r\n\r\n", "whole"),
        (b"data: {}\n\ndata: [DONE]", "whole"),
        (b"data: {}\n\ndata: [DON", ""),
        (b"data: 1\ndata: [DONE]\n\n", ""),
        (b": [DONE]\n\n", ""),
        (b"event: message_stop\n", ""),
        (b"event: message_stop\ndata: {}\n\n", "whole"),
        (b": ping\n\ndata: {}\r\n\r\ndata: [DONE]\r\n\r\n", "whole"),
        (b'data: {"error": {"message": "no"}}\n\ndata: [DONE]\n\n', "failed"),
        (b'data: {"object": "error", "message": "no", "code": 400}\n\ndata: [DONE]\n\n', "failed"),
        (b'data: {"object": "error", "message": "no", "code": 400}\n\n', "failed"),
        (b'event: error\ndata: {"code": 500, "type": "server_error", "message": "no"}\n\n', "failed"),
        (b'data: {}\n\nerror: {"code": 500, "message": "no"}\n\n', "failed"),
    ],
)
def test_done(stream: bytes, how: str) -> None:
    """The line that ends chats, in each way of writing it; an error before it counts, in each engine's shape."""
    assert ending(stream) == how


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
@pytest.mark.parametrize(
    ("value", "name", "how"),
    [
        ({"type": "response.completed", "response": RESPONSE}, "response.completed", "whole"),
        ({"type": "response.completed", "response": RESPONSE}, "", "whole"),
        ({"response": RESPONSE, "type": "response.completed"}, "", "whole"),
        ({"sequence_number": 7, "type": "response.completed", "response": RESPONSE}, "", "whole"),
        ({"response": RESPONSE, "type": "response.incomplete", "sequence_number": 7}, "", "whole"),
        ({"response": RESPONSE, "type": "response.failed", "sequence_number": 7}, "", "failed"),
        ({"index": 0, "content": "", "tokens": [], "id_slot": 0, "stop": True, "prompt": LONG}, "", "whole"),
        ({"index": 0, "content": LONG, "stop": False}, "", ""),
        ({"type": "response.output_item.done", "item": RESPONSE}, "response.output_item.done", ""),
        ({"item": {"type": "response.completed"}, "text": LONG}, "", ""),
        ({"text": LONG, "item": {"type": "response.completed"}}, "", ""),
    ],
)
def test_a_last_event_that_is_longer_than_what_is_kept(value: object, name: str, how: str, end: str) -> None:
    """Its type is known by how it began, or by how it ended; half of it is no end."""
    whole = event(value, name, end=end)
    begun, tail = whole[:256], whole[-1000:]
    assert ending(tail, begun) == how
    assert ending(tail + b": ping" + end.encode(), begun) == how
    assert ending(tail.rstrip(), begun) == ""
    assert ending(tail + b"data: {}" + end.encode(), begun) == ""
    assert ending(tail + b"data: [DONE]" + end.encode(), begun) == (how if how == "failed" else "whole")
