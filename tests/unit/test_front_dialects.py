"""Errors in the shapes that clients of each API parse."""

from __future__ import annotations

import json

import pytest

from bioproxy.errors import BioproxyError, QueueFull, QueueTimeout, RequestError, Unauthorized
from bioproxy.front.dialects import dialect_of, ending, error_answer, error_event, error_json, keepalive


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/messages", "anthropic"),
        ("/v1/messages/count_tokens", "anthropic"),
        ("/v1/chat/completions", "openai"),
        ("/chat/completions", "openai"),
        ("/v1/anything", "openai"),
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


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "llama"])
def test_an_error_in_a_stream_is_one_whole_event(dialect: str) -> None:
    """An event ends with an empty line, and its data is JSON."""
    event = error_event(BioproxyError("broke"), dialect)  # type: ignore[arg-type]
    assert event.endswith(b"\n\n")
    data = next(line for line in event.splitlines() if line.startswith(b"data: "))
    assert b"broke" in json.dumps(json.loads(data[6:])).encode()


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
    ],
)
def test_done(stream: bytes, how: str) -> None:
    """The line that ends chats, in each way of writing it, split where it may be."""
    assert ending(stream) == how


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
@pytest.mark.parametrize(
    ("value", "name", "how"),
    [
        ({"type": "response.completed", "response": RESPONSE}, "response.completed", "whole"),
        ({"type": "response.completed", "response": RESPONSE}, "", "whole"),
        ({"response": RESPONSE, "type": "response.completed"}, "", "whole"),
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
    assert ending(tail + b"data: [DONE]" + end.encode(), begun) == "whole"
