"""What a request cost, read from the end of answers as llama-server and others send them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.engines.answers import UNKNOWN, Timings, read_answer

TIMINGS = {"cache_n": 12, "prompt_n": 3, "prompt_ms": 500.0, "predicted_n": 2, "predicted_ms": 250, "draft_n": 9}
FULL = Timings(cached=12, evaluated=3, generated=2, prefill=0.5, decode=0.25)
USAGE = {"completion_tokens": 2, "prompt_tokens": 15, "prompt_tokens_details": {"cached_tokens": 12}}


def cost(path: str, last: bytes, *, events: bool = False, head: bytes = b"") -> Timings:
    return read_answer(last, path=path, events=events, head=head).timings


def sse(*values: object, names: bool = False) -> bytes:
    """A stream of events; with `names` as /v1/responses and /v1/messages send them."""
    lines = []
    for value in values:
        name = f"event: {value['type']}\n" if names and isinstance(value, dict) else ""
        lines.append(f"{name}data: {value if isinstance(value, str) else json.dumps(value)}\n\n")
    return "".join(lines).encode()


def compact(value: object) -> bytes:
    """JSON as llama-server writes it, without blanks."""
    return json.dumps(value, separators=(",", ":")).encode()


@pytest.mark.parametrize("endpoint", ["/completion", "/v1/completions", "/v1/chat/completions"])
def test_whole_answer(endpoint: str) -> None:
    """A whole answer ends with its timings; milliseconds become seconds."""
    body = compact({"content": "x", "usage": USAGE, "timings": TIMINGS})
    assert cost(endpoint, body) == FULL


def test_chat_stream_last_chunk() -> None:
    """Without include_usage the timings stand in the last chunk before [DONE]."""
    tail = sse(
        {"choices": [{"delta": {"content": "x"}}]},
        {"choices": [{"finish_reason": "length"}], "timings": TIMINGS},
        "[DONE]",
    )
    assert cost("/v1/chat/completions", tail, events=True) == FULL


@pytest.mark.parametrize("identity", ["chatcmpl-1", 5])
def test_the_usual_answer_tells_its_id(identity: object) -> None:
    """In a stream's last event and in a whole answer; one that is no text costs no figures."""
    said = {"id": identity, "timings": TIMINGS}
    known = identity if isinstance(identity, str) else ""
    for last, events in ((sse({"choices": []}, said, "[DONE]"), True), (compact(said), False)):
        answer = read_answer(last, path="/v1/chat/completions", events=events)
        assert (answer.id, answer.timings) == (known, FULL)


def test_newest_timings_count() -> None:
    """With timings_per_token every chunk has timings: the last ones are those of the whole request."""
    tail = sse({"timings": {**TIMINGS, "predicted_n": 1}}, {"timings": TIMINGS}, "[DONE]")
    assert cost("/completion", tail, events=True).generated == 2


def test_final_event_larger_than_the_tail() -> None:
    """/completion repeats the prompt in its last event: where that is cut, its timings are still found."""
    whole = sse({"content": "", "prompt": 'a "quoted" word ' * 5000, "timings": TIMINGS})
    assert cost("/completion", whole[-16384:], events=True) == FULL


def test_text_that_looks_like_timings() -> None:
    """What stands inside a string is no key: its quotes are escaped."""
    text = 'the key "timings":{"cache_n":99} in a text, and "usage":{"prompt_tokens":7}'
    body = compact({"content": text})
    assert cost("/completion", body) == UNKNOWN


def test_responses_stream() -> None:
    """/v1/responses streams have timings in their last event."""
    tail = sse({"type": "response.completed", "response": {"usage": USAGE}, "timings": TIMINGS}, names=True)
    assert cost("/v1/responses", tail, events=True) == FULL


def test_responses_whole() -> None:
    """/v1/responses whole has only usage, with input_tokens the whole prompt."""
    usage = {"input_tokens": 13, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 12}}
    found = cost("/v1/responses", compact({"usage": usage}))
    assert found == Timings(cached=12, evaluated=1, generated=3, given=13)


def test_messages_whole() -> None:
    """/v1/messages counts in input_tokens only what was not cached."""
    usage = {"cache_read_input_tokens": 12, "input_tokens": 1, "output_tokens": 3}
    found = cost("/v1/messages", compact({"usage": usage}))
    assert found == Timings(cached=12, evaluated=1, generated=3, given=1)


def test_messages_stream() -> None:
    """A /v1/messages stream tells the prompt at its beginning and what was generated at its end."""
    start = {
        "type": "message_start",
        "message": {"usage": {"cache_read_input_tokens": 12, "input_tokens": 1, "output_tokens": 0}},
    }
    end = {"type": "message_delta", "usage": {"output_tokens": 7}}
    tail = sse(start, {"type": "content_block_delta"}, end, {"type": "message_stop"}, names=True)
    assert cost("/v1/messages", tail, events=True) == Timings(cached=12, evaluated=1, generated=7, given=1)


def test_long_messages_stream() -> None:
    """Where the beginning has left the tail, it may be given; else what was cached is not known."""
    head = sse(
        {"type": "message_start", "message": {"usage": {"cache_read_input_tokens": 5, "input_tokens": 2}}}, names=True
    )
    tail = sse({"type": "message_delta", "usage": {"output_tokens": 7}}, names=True)
    assert cost("/v1/messages", tail, events=True) == Timings(generated=7)
    assert cost("/v1/messages", tail, events=True, head=head) == Timings(5, 2, 7, given=2)


def test_messages_with_written_cache() -> None:
    """What another server wrote to its cache was evaluated too."""
    usage = {"cache_read_input_tokens": 1, "cache_creation_input_tokens": 10, "input_tokens": 2, "output_tokens": 3}
    assert cost("/v1/messages", compact({"usage": usage})).evaluated == 12


def test_messages_in_the_words_of_completions() -> None:
    """A server that says `prompt_tokens` on /v1/messages, too, counts the whole prompt by it."""
    found = cost("/v1/messages", compact({"usage": USAGE}))
    assert found == Timings(cached=12, evaluated=3, generated=2, given=15)


def test_other_servers_usage() -> None:
    """A server without timings and without details tells how much was generated, not what was cached."""
    tail = sse(
        {"choices": [], "usage": None}, {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}, "[DONE]"
    )
    assert cost("/v1/chat/completions", tail, events=True) == Timings(generated=4, given=9)


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        b"[]",
        b'{"timings":',
        b'{"timings":{"cache_n":1',
        b'{"timings":[1]}',
        b'"timings" "usage"',
        b'{"usage":{"prompt_tokens":"x"}}',
    ],
)
def test_nothing_to_find(tail: bytes) -> None:
    """What is missing, cut or of another type is not known."""
    assert cost("/completion", tail) == UNKNOWN


def test_wrong_types() -> None:
    """Counts that are no counts are not known, the rest is."""
    body = compact({"timings": {**TIMINGS, "cache_n": True, "prompt_n": -1, "prompt_ms": "5"}})
    assert cost("/completion", body) == Timings(generated=2, decode=0.25)


@given(st.binary(max_size=400), st.sampled_from([b'"timings":', b'"usage":', b'"usage": {"prompt_tokens":']))
def test_never_raises(data: bytes, key: bytes) -> None:
    """Whatever an engine sends, reading it raises nothing."""
    for place in range(0, len(data), 97):
        tail = data[:place] + key + data[place:]
        assert isinstance(cost("/v1/messages", tail, events=True, head=data), Timings)


@given(st.text(), st.integers(0, 200))
def test_any_text_before_and_any_cut(text: str, cut: int) -> None:
    """While the timings are whole in the tail they are found, whatever text is in the answer, wherever it is cut."""
    body = compact({"content": text, "prompt": text, "timings": TIMINGS})
    start = min(cut, body.rfind(b'"timings"'))
    assert cost("/completion", body[start:]) == FULL
