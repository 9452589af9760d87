"""What answers say of the prompt cache: usage in three forms, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bioproxy.engines.answers import Timings
from bioproxy.front.caching.answers import Bill, Chain, End, Rewriting, counted
from bioproxy.front.caching.answers import rewriting as next_rewriting
from bioproxy.front.caching.fields import Form, Options, Wishes
from bioproxy.front.cutting import as_whole
from bioproxy.front.responses import Filling

Json = Any
JSON = [(b"Content-Type", b"application/json"), (b"Content-Length", b"5")]
STREAM = [(b"Content-Type", b"text/event-stream")]
MESSAGE = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "a"}]}


def rewriting(form: Form = "anthropic", *ends: End, before: int = 0, **wishes: Json) -> Rewriting:
    return Rewriting(Wishes(form=form, asked=True, **wishes), lambda: Bill(ends, before))


def whole(one: Rewriting | Chain, answer: Json) -> Json:
    _, streams = one.begin(200, JSON)
    assert not streams
    assert one.feed(json.dumps(answer).encode()) == b""
    return json.loads(one.end())


def event(name: str, **data: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), json.dumps({"type": name, **data}).encode())


def streamed(one: Rewriting | Chain, *pieces: bytes) -> list[Json]:
    """The data of the events that come out."""
    assert one.begin(200, STREAM)[1]
    out = b"".join([*map(one.feed, pieces), one.end()])
    return [json.loads(line[6:]) for line in out.splitlines() if line.startswith(b"data: {")]


@pytest.mark.parametrize(
    ("ends", "cached", "before", "implicit", "read", "written"),
    [
        ([], 40, 0, None, 40, {}),
        ([], 40, 0, "30m", 40, {"30m": 60}),
        ([End(0.5, "5m")], 40, 0, None, 40, {"5m": 10}),
        ([End(0.5, "5m", tokens=60)], 40, 0, None, 40, {"5m": 20}),
        ([End(0.5, "1h"), End(0.8, "5m")], 40, 0, None, 40, {"1h": 10, "5m": 30}),
        ([End(0.5, "1h", tokens=50)], 50, 50, None, 0, {"1h": 50}),  # it was cut there just before
        ([End(0.5, "30m")], 99, 0, "30m", 99, {"30m": 1}),
        ([End(0.5, "30m", tokens=500)], 0, 0, None, 0, {"30m": 100}),  # nonsense counts as the whole prompt
        ([], 10, 50, None, 0, {}),
    ],
)
def test_what_is_read_and_what_is_written(
    ends: list[End], cached: int, before: int, implicit: Any, read: int, written: dict[str, int]
) -> None:
    """Of a prompt of 100 tokens; together never more than the prompt has."""
    found = counted(100, cached, bill=Bill(ends, before), implicit=implicit)
    assert (found.read, found.written) == (read, written)
    assert found.read + found.kept <= found.total


def test_a_message() -> None:
    """`input_tokens` is what was neither read nor written."""
    usage = {"cache_read_input_tokens": 40, "input_tokens": 60, "output_tokens": 2}
    answer = whole(rewriting("anthropic", End(0.5, "5m"), End(0.9, "1h")), {**MESSAGE, "usage": usage})
    assert answer["usage"] == {
        "cache_read_input_tokens": 40, "input_tokens": 10, "output_tokens": 2, "cache_creation_input_tokens": 50,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 40},
    }  # fmt: skip
    assert answer["content"] == MESSAGE["content"]


def test_a_stream_of_messages() -> None:
    """The counts stand in the first event, and once more in the last one that has any; the words pass untouched."""
    start = event("message_start", message={**MESSAGE, "usage": {"cache_read_input_tokens": 0, "input_tokens": 10}})
    words = event("content_block_delta", index=0, delta={"type": "text_delta", "text": 'a "usage" of words'})
    last = event("message_delta", delta={}, usage={"output_tokens": 3})
    one = rewriting("anthropic", End(0.5, "5m"))
    first, said, end = streamed(one, start[:20], start[20:] + words, last)
    assert first["message"]["usage"]["cache_creation_input_tokens"] == 5
    assert said == json.loads(words.split(b"data: ")[1])
    assert end["usage"] == {
        "output_tokens": 3, "input_tokens": 5, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 5,
    }  # fmt: skip


def test_words_pass_as_the_same_object() -> None:
    """An event that says nothing of the prompt costs a look."""
    one = rewriting("chat")
    one.begin(200, STREAM)
    words = b'data: {"choices":[{"delta":{"content":"hello"}}]}\n\n'
    assert one.feed(words) is words


def test_a_chat() -> None:
    """All that was evaluated is written: the prompt's end is a breakpoint."""
    usage = {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 40}}
    (answer,) = streamed(
        rewriting("chat"), b"data: %b\n\n" % json.dumps({"usage": usage}).encode(), b"data: [DONE]\n\n"
    )
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 40, "cache_write_tokens": 60}


def test_a_response() -> None:
    """With the options as they were applied, and what was written by its lifetime."""
    usage = {
        "input_tokens": 100,
        "output_tokens": 1,
        "total_tokens": 101,
        "input_tokens_details": {"cached_tokens": 40},
    }
    one = rewriting("responses", End(0.5, "12h"), key="k", options=Options("implicit", "30m"))
    answer = whole(Chain(one, Filling({}, model="m", now=1)), {"object": "response", "usage": usage})
    assert answer["usage"]["input_tokens_details"] == {
        "cached_tokens": 40, "cache_write_tokens": 60,
        "cache_write_tokens_details": {"ttl_30m_tokens": 50, "ttl_12h_tokens": 10},
    }  # fmt: skip
    assert answer["usage"]["output_tokens_details"] == {"reasoning_tokens": 0}
    assert answer["prompt_cache_options"] == {"mode": "implicit", "ttl": "30m"}
    assert answer["prompt_cache_key"] == "k"


def test_explicit_without_breakpoints_writes_nothing() -> None:
    """As OpenAI has it."""
    usage = {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 40}}
    answer = whole(rewriting("responses", options=Options("explicit")), {"usage": usage})
    assert answer["usage"]["input_tokens_details"]["cache_write_tokens"] == 0


def test_a_response_in_which_nothing_is_said() -> None:
    """Of a prewarm only the frame goes out, and its events are numbered without a gap."""
    created = event("response.created", response={"id": "resp_1", "object": "response", "status": "in_progress"})
    item = event("response.output_item.added", item={"id": "msg_1", "type": "message"})
    words = event("response.output_text.delta", item_id="msg_1", delta="a")
    usage = {"input_tokens": 9, "output_tokens": 1, "total_tokens": 10, "input_tokens_details": {"cached_tokens": 0}}
    done = event("response.completed", response={"id": "resp_1", "output": [{"type": "message"}], "usage": usage})
    one = rewriting("responses", options=Options(prewarm=True), prewarm=True)
    first, last = streamed(Chain(one, Filling({}, model="m", now=1)), created, item + words, done)
    assert (first["sequence_number"], last["sequence_number"]) == (0, 1)
    assert last["response"]["output"] == []
    assert last["response"]["usage"]["output_tokens"] == 0
    assert last["response"]["usage"]["total_tokens"] == 9
    assert last["response"]["usage"]["input_tokens_details"]["cache_write_tokens"] == 9


def test_a_message_in_which_nothing_is_said() -> None:
    """`max_tokens: 0`: no block begins."""
    start = event("message_start", message={**MESSAGE, "usage": {"cache_read_input_tokens": 4, "input_tokens": 1}})
    block = event("content_block_start", index=0) + event("content_block_delta", index=0, delta={"text": "a"})
    last = event("message_delta", delta={"stop_reason": "max_tokens"}, usage={"output_tokens": 1})
    found = streamed(rewriting(prewarm=True), start + block, event("ping"), last, event("message_stop"))
    assert [one["type"] for one in found] == ["message_start", "ping", "message_delta", "message_stop"]
    assert found[0]["message"]["content"] == []
    assert found[2]["usage"]["output_tokens"] == 0


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (400, JSON, b'{"error":{"usage":{"input_tokens":1}}}'),
        (200, [*JSON, (b"Content-Encoding", b"gzip")], b"\x1f\x8b\x08"),
        (200, JSON, b"no JSON"),
        (200, JSON, b'{"usage":{"input_tokens":"many","cache_read_input_tokens":[]}}'),
        (200, JSON, b'{"usage":null}'),
        (200, STREAM, b'data: {"usage": cut'),
        (200, STREAM, b': a comment with "usage"\n\n'),
    ],
)
def test_what_cannot_be_read_passes(status: int, headers: Json, body: bytes) -> None:
    """Errors, codings, nonsense and what is cut off go out as they came."""
    one = rewriting()
    one.begin(status, headers)
    assert one.feed(body) + one.end() == body


def test_another_model_answers() -> None:
    """A stream that had begun goes on with the figures of the model that could."""
    wishes = Wishes(form="anthropic", asked=True, compare="msg_1")
    first = next_rewriting(None, wishes, lambda: Bill([End(0.1, "5m")]), diagnose=lambda _: "the first")
    both = next_rewriting(Filling({}, model="m", now=1), wishes, Bill, diagnose=None)
    assert isinstance(both, Chain)
    assert next_rewriting(both, wishes, Bill, diagnose=None) is both
    again = next_rewriting(first, wishes, lambda: Bill([End(0.5, "5m")]), diagnose=lambda _: "the second")
    assert again is first
    assert isinstance(first, Rewriting)
    usage = {"cache_read_input_tokens": 0, "input_tokens": 100, "output_tokens": 2}
    answer = whole(first, {**MESSAGE, "usage": usage})
    assert answer["usage"]["cache_creation_input_tokens"] == 50
    assert answer["diagnostics"] == "the second"


def test_what_an_engine_says_itself_stays() -> None:
    """Its own counts of what was written are not replaced."""
    usage = {"input_tokens": 1, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 3}
    assert whole(rewriting("anthropic", End(0.5, "5m")), {**MESSAGE, "usage": usage})["usage"] == usage


@pytest.mark.parametrize(("given", "told"), [(20, 70), (100, 100), (None, None)])
def test_what_was_evaluated_for_breakpoints_is_counted_as_the_api_counts(given: int | None, told: int | None) -> None:
    """Anthropic's input is what was not cached, OpenAI's the whole prompt, whatever came ahead of the request."""
    timings = as_whole(Timings(cached=80, evaluated=20, given=given), Timings(evaluated=50))
    assert (timings.cached, timings.evaluated, timings.given) == (30, 70, told)
