"""How a stream ended, by its own last event."""

from __future__ import annotations

import json

import pytest

from bioproxy.engines.answers import ending

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
