"""The road's answers as Ollama's clients read them."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from bioproxy.front.ollama.answers import Moment, Rewriting, nothing_said
from bioproxy.front.ollama.requests import Shape
from support.steps import calls

Json = Any
NOW = Moment("2026-01-02T03:04:05.000006Z", 2.0, 0.5)
EVENTS = [(b"Content-Type", b"text/event-stream"), (b"Server-Timing", b"queue;dur=0")]
OBJECT = [(b"Content-Type", b"application/json"), (b"Content-Length", b"99")]
TIMINGS = {"cache_n": 90, "prompt_n": 10, "prompt_ms": 40.0, "predicted_n": 7, "predicted_ms": 70.0}
COSTS = {
    "total_duration": 2_000_000_000, "load_duration": 500_000_000, "prompt_eval_count": 100,
    "prompt_eval_duration": 40_000_000, "eval_count": 7, "eval_duration": 70_000_000,
}  # fmt: skip


def rewriting(shape: Shape = "chat", *, status: int = 200, headers: Json = EVENTS) -> Rewriting:
    """One that has begun."""
    one = Rewriting(shape, "qwen:latest", moment=lambda: NOW)
    one.begin(status, headers)
    return one


def sse(*events: Json) -> bytes:
    """A stream, with its end."""
    texts = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return b"".join(f"data: {text}\n\n".encode() for text in texts)


def delta(reason: str | None = None, **said: Json) -> Json:
    """One event of a chat."""
    return {"choices": [{"index": 0, "delta": said, "finish_reason": reason}]}


def lines(data: bytes) -> list[Json]:
    """Lines of JSON, each whole."""
    assert not data or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


STREAM = sse(
    delta(role="assistant", content=None), delta(reasoning_content="Hm."), delta(content="Hel"), delta(content="lo €"),
    delta("stop"), {"choices": [], "usage": {"prompt_tokens": 1}, "timings": TIMINGS}, "[DONE]",
)  # fmt: skip


def test_a_chat_in_lines() -> None:
    """Thoughts apart from words; the last line has the costs in nanoseconds, and counts what the cache held."""
    one = rewriting()
    found = lines(one.feed(STREAM) + one.end())
    head = {"model": "qwen:latest", "created_at": NOW.written}
    words = [{"content": "", "thinking": "Hm."}, {"content": "Hel"}, {"content": "lo €"}]
    assert found[:-1] == [{**head, "message": {"role": "assistant", **said}, "done": False} for said in words]
    empty = {"role": "assistant", "content": ""}
    assert found[-1] == {**head, "message": empty, "done": True, "done_reason": "stop", **COSTS}


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_pieces_may_be_cut_anywhere(size: int, ends: bytes) -> None:
    """Within a letter, too; lines may end as on Windows."""
    stream = STREAM.replace(b"\n", ends)
    one, whole = rewriting(), rewriting()
    found = b"".join(one.feed(stream[at : at + size]) for at in range(0, len(stream), size)) + one.end()
    assert found == whole.feed(STREAM) + whole.end()


def test_the_head_says_lines() -> None:
    """What else the engine said stays; its length is not the other answer's."""
    headers, streams = Rewriting("chat", "m", moment=lambda: NOW).begin(200, EVENTS)
    assert streams
    assert headers == [EVENTS[1], (b"Content-Type", b"application/x-ndjson")]
    headers, streams = Rewriting("chat", "m", moment=lambda: NOW).begin(200, OBJECT)
    assert not streams
    assert headers == [(b"Content-Type", b"application/json; charset=utf-8")]


def test_a_completion_in_lines() -> None:
    """`response` instead of a message, out of a chat, a raw completion, and a gap that is filled."""
    chat = sse(delta(content="Hi"), {**delta("length"), "timings": TIMINGS}, "[DONE]")
    end = {"choices": [{"text": "", "finish_reason": "length"}], "timings": TIMINGS}
    text = sse({"choices": [{"text": "Hi"}]}, end, "[DONE]")
    gap = sse({"content": "Hi", "stop": False}, {"content": "", "stop": True, "stop_type": "limit", "timings": TIMINGS})
    for stream in (chat, text, gap):
        one = rewriting("generate")
        first, last = lines(one.feed(stream) + one.end())
        assert (first["response"], first["done"]) == ("Hi", False)
        assert last == {
            "model": "qwen:latest", "created_at": NOW.written, "response": "", "done": True, "done_reason": "length",
            **COSTS,
        }  # fmt: skip


def test_calls_of_tools_come_whole() -> None:
    """However the engine cut them; each has its arguments as an object, and stands before the last line."""
    parts = [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "turn_on", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"ro'}},
        {"index": 0, "function": {"arguments": 'om":"hall"}'}},
        {"index": 1, "id": "c2", "function": {"name": "now", "arguments": ""}},
    ]
    one = rewriting()
    found = lines(one.feed(sse(*(delta(tool_calls=[part]) for part in parts), delta("tool_calls"), "[DONE]")))
    assert [line["done"] for line in found] == [False, True]
    assert found[0]["message"]["tool_calls"] == [
        {"id": "c1", "function": {"index": 0, "name": "turn_on", "arguments": {"room": "hall"}}},
        {"id": "c2", "function": {"index": 1, "name": "now", "arguments": {}}},
    ]
    assert found[1]["done_reason"] == "stop"


def test_a_call_that_was_cut() -> None:
    """It is no call: the client hears so, and no line says that all is done."""
    part = {"index": 0, "function": {"name": "turn_on", "arguments": '{"ro'}}
    one = rewriting()
    [found] = lines(one.feed(sse(delta(tool_calls=[part]), delta("length"), "[DONE]")) + one.end())
    assert "call of a tool cannot be read" in found["error"]


def test_a_sign_of_life_is_a_blank() -> None:
    """It stands before the next line, where no reader of JSON sees it."""
    one = rewriting()
    found = one.feed(b": bioproxy keeps this open\n\n") + one.feed(sse(delta(content="Hi")))
    assert found.startswith(b' {"model"')
    assert lines(found)[0]["message"]["content"] == "Hi"


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"error": {"message": "out of memory", "code": 500}}, "out of memory"),
        ({"src": "llama-swap", "error": {"message": "the model failed"}}, "the model failed"),
        ("no JSON", "cannot be read"),
    ],
)
def test_an_error_ends_a_stream(event: Json, words: str) -> None:
    """As a line of its own; nothing follows."""
    one = rewriting()
    [first, last] = lines(one.feed(sse(delta(content="Hi"), event, "[DONE]")) + one.end())
    assert first["done"] is False
    assert list(last) == ["error"]
    assert words in last["error"]


def test_a_stream_without_its_last_event() -> None:
    """If the model had ended, so has the stream; a stream that was cut says nothing of the kind."""
    one = rewriting()
    assert lines(one.feed(sse(delta(content="Hi"), delta("stop"))) + one.end())[-1]["done"] is True
    one = rewriting()
    assert lines(one.feed(sse(delta(content="Hi"))) + one.end())[-1]["done"] is False


def test_a_whole_answer_is_one_object() -> None:
    """Words, thoughts, calls and costs."""
    call = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": '{"zone":"UTC"}'}}
    said = {"role": "assistant", "content": "Hi", "reasoning_content": "Hm.", "tool_calls": [call]}
    body = {"choices": [{"finish_reason": "tool_calls", "message": said}], "timings": TIMINGS, "usage": {}}
    one = rewriting(headers=OBJECT)
    assert one.feed(json.dumps(body).encode()) == b""
    assert json.loads(one.end()) == {
        "model": "qwen:latest", "created_at": NOW.written, "message": {
            "role": "assistant", "content": "Hi", "thinking": "Hm.",
            "tool_calls": [{"id": "c1", "function": {"index": 0, "name": "now", "arguments": {"zone": "UTC"}}}],
        }, "done": True, "done_reason": "stop", **COSTS,
    }  # fmt: skip


@pytest.mark.parametrize("body", [
    {"choices": [{"text": "Hi", "finish_reason": "stop"}], "usage": {"prompt_tokens": 12, "completion_tokens": 3}},
    {"content": "Hi", "stop": True, "stop_type": "eos", "tokens_predicted": 3,
     "timings": {"cache_n": 2, "prompt_n": 10, "predicted_n": 3}},
])  # fmt: skip
def test_a_whole_completion(body: Json) -> None:
    """Of an engine that counts by OpenAI's words alone, and of a filled gap."""
    one = rewriting("generate", headers=OBJECT)
    one.feed(json.dumps(body).encode())
    found = json.loads(one.end())
    assert (found["response"], found["done_reason"]) == ("Hi", "stop")
    assert (found["prompt_eval_count"], found["eval_count"]) == (12, 3)


def test_embeddings() -> None:
    """In the order of the texts, their numbers as they came; the older route has one vector."""
    data = b'{"data":[{"embedding":[2.50],"index":1},{"embedding":[1.0],"index":0}],"usage":{"prompt_tokens":5}}'
    one = rewriting("embed", headers=OBJECT)
    one.feed(data)
    whole = one.end()
    assert b'"embeddings":[[1.0],[2.50]]' in whole
    assert json.loads(whole)["prompt_eval_count"] == 5
    one = rewriting("embeddings", headers=OBJECT)
    one.feed(data)
    assert one.end() == b'{"embedding":[1.0]}'


@pytest.mark.parametrize(
    ("status", "body", "expected", "words"),
    [
        (400, b'{"error":{"message":"too long","type":"x","code":400}}', 400, "too long"),
        (503, b'{"error":{"message":"the queue is full"}}', 503, "the queue is full"),
        (500, b"<html>", 500, "500 Internal Server Error"),
        (200, b'{"error":{"message":"no"}}', 502, "no"),
        (200, b"<html>", 502, "not JSON"),
    ],
)
def test_an_error_is_a_text(status: int, body: bytes, expected: int, words: str) -> None:
    """With the status that it had, or one that says that it is none."""
    one = rewriting(status=status, headers=OBJECT)
    one.feed(body)
    found = json.loads(one.end())
    assert one.status == expected
    assert list(found) == ["error"]
    assert words in found["error"]


def test_an_answer_that_came_compressed() -> None:
    """Some engines do that unasked: it is read, and goes out in plain."""
    one = rewriting(headers=[*OBJECT, (b"Content-Encoding", b"gzip")])
    headers, _ = one.begin(200, [*OBJECT, (b"Content-Encoding", b"gzip")])
    assert [name for name, _ in headers] == [b"Content-Type"]
    one.feed(gzip.compress(json.dumps({"choices": [{"message": {"content": "Hi"}}]}).encode()))
    assert json.loads(one.end())["message"]["content"] == "Hi"


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("chat", {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "load"}),
        ("generate", {"response": "", "done": True, "done_reason": "load"}),
        ("embed", {"embeddings": []}),
        ("embeddings", {"embedding": []}),
    ],
)
def test_nothing_was_asked(shape: Shape, said: Json) -> None:
    """What clients read after a load."""
    found = nothing_said(shape, "m", written="now", reason="load")
    assert said.items() <= found.items()


def test_what_an_event_costs() -> None:
    """A handful of calls: it is paid for each token."""
    one, event = rewriting(), sse(delta(content="Hi"))
    one.feed(event)
    assert calls(lambda: one.feed(event)) <= 12
