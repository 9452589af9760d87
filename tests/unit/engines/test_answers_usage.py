"""Token figures as llama-swap counts them, from the first and the last bytes of answers."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bioproxy.activity import Usage
from bioproxy.engines.answers import LARGEST, NOTHING, read_answer, usage_of
from bioproxy.engines.refused import error_message
from bioproxy.wire.coding import decoded

TIMINGS = {
    "cache_n": 40, "prompt_n": 5, "prompt_ms": 50.0, "prompt_per_second": 100.0,
    "predicted_n": 8, "predicted_ms": 200.0, "predicted_per_second": 40.0,
}  # fmt: skip
FOUND = Usage(cache_tokens=-1, draft_tokens=-1, draft_acc_tokens=-1, prompt_per_second=-1.0, tokens_per_second=-1.0)
OF_TIMINGS = replace(
    FOUND,
    input_tokens=5,
    output_tokens=8,
    cache_tokens=40,
    prompt_per_second=100.0,
    tokens_per_second=40.0,
    seconds=0.25,
)


def of_json(body: Any, *, path: str = "/v1/chat/completions") -> Usage:
    return usage_of(read_answer(json.dumps(body).encode(), path=path).timings)


def of_stream(*events: Any, head: bytes = b"", cut: int = 0) -> Usage:
    tail = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return usage_of(read_answer(tail[cut:], path="/v1/chat/completions", events=True, head=head).timings)


def test_openai_usage_counts_the_whole_prompt() -> None:
    """Its three counts, and nothing about speed."""
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 7}}
    assert of_json({"usage": usage}) == replace(FOUND, input_tokens=12, output_tokens=3, cache_tokens=7)


def test_responses_and_anthropic_have_names_of_their_own() -> None:
    """`input_tokens` and what was cached of it, by either name."""
    responses = {"input_tokens": 12, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 7}}
    anthropic = {"input_tokens": 12, "output_tokens": 3, "cache_read_input_tokens": 7}
    expected = replace(FOUND, input_tokens=12, output_tokens=3, cache_tokens=7)
    assert of_json({"usage": responses}) == of_json({"usage": anthropic}) == expected


def test_the_first_name_wins_where_an_engine_gives_several() -> None:
    """`prompt_tokens` before `input_tokens`, Anthropic's cache before the others'."""
    usage = {
        "prompt_tokens": 1, "input_tokens": 2, "completion_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 6}, "prompt_tokens_details": {"cached_tokens": 7},
    }  # fmt: skip
    assert of_json({"usage": usage}) == replace(FOUND, input_tokens=1, output_tokens=3, cache_tokens=5)


def test_timings_of_llama_server_override_usage() -> None:
    """Input is what was newly read; speeds and the engine's own time are known."""
    assert of_json({"usage": {"prompt_tokens": 45, "completion_tokens": 8}, "timings": TIMINGS}) == OF_TIMINGS


def test_timings_without_a_cache_count_keep_the_one_of_usage() -> None:
    """Older servers do not say `cache_n`."""
    timings = {name: value for name, value in TIMINGS.items() if name != "cache_n"}
    body = {"usage": {"prompt_tokens_details": {"cached_tokens": 9}}, "timings": timings}
    assert of_json(body).cache_tokens == 9
    assert of_json({"timings": timings}).cache_tokens == -1


def test_a_draft_counts_only_with_both_figures() -> None:
    """Drafted tokens without the accepted ones say nothing."""
    assert of_json({"timings": {**TIMINGS, "draft_n": 6}}).draft_tokens == -1
    both = of_json({"timings": {**TIMINGS, "draft_n": 6, "draft_n_accepted": 4}})
    assert (both.draft_tokens, both.draft_acc_tokens) == (6, 4)


def test_latencies_of_vllm_become_speeds() -> None:
    """New prompt tokens by the time to the first one, and the inverse of the time between two."""
    found = of_json({
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40}},
        "metrics": {
            "time_to_first_token_ms": 500.0,
            "mean_itl_ms": 20.0,
            "speculative_decoding": {"num_draft_tokens": 8, "num_accepted_draft_tokens": 5},
        },
    })  # fmt: skip
    assert (found.prompt_per_second, found.tokens_per_second) == (120.0, 50.0)
    assert (found.draft_tokens, found.draft_acc_tokens) == (8, 5)


def test_metrics_of_somebody_else_are_no_figures() -> None:
    """The word alone does not make an answer measured."""
    assert of_json({"metrics": {"colour": "red"}}) == NOTHING


def test_an_answer_without_figures_is_all_zero() -> None:
    """-1 means "not that one", so it needs another one."""
    assert of_json({"data": []}) == NOTHING
    assert of_json({"usage": None}) == NOTHING
    assert NOTHING.cache_tokens == 0


def test_figures_deeper_in_an_answer_do_not_count() -> None:
    """A tool's own `usage` object is part of the answer, not about it."""
    assert of_json({"choices": [{"usage": {"prompt_tokens": 5}}]}) == NOTHING


def test_of_an_infill_array_the_last_element_counts() -> None:
    """Only on its own route; other arrays have no figures."""
    body = [{"timings": {"prompt_n": 1}}, {"timings": TIMINGS}]
    assert of_json(body, path="/infill") == OF_TIMINGS
    assert of_json(body, path="/upstream/m/infill") == OF_TIMINGS
    assert of_json(body, path="/v1/embeddings") == NOTHING
    assert of_json([], path="/infill") == NOTHING


def test_of_a_long_answer_the_end_suffices() -> None:
    """Its beginning is gone, so it is no JSON any more."""
    body = json.dumps({"content": "x" * 500, "usage": {"prompt_tokens": 12}, "timings": TIMINGS}).encode()
    tail = body[-400:]
    assert usage_of(read_answer(tail, path="/completion").timings) == OF_TIMINGS


def test_of_a_long_answer_the_beginning_may_have_it() -> None:
    """llama-server writes an embedding's `usage` in front of a hundred kilobytes of numbers."""
    head = b'{"object":"list","usage":{"prompt_tokens":12,"total_tokens":12},"data":[0.1'
    found = usage_of(read_answer(b",0.2,0.3]}", path="/v1/embeddings", head=head).timings)
    assert found == replace(FOUND, input_tokens=12)


def test_in_a_stream_the_last_count_that_is_not_zero_wins() -> None:
    """Each count for itself: Anthropic says the prompt at the beginning and the answer at the end."""
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 12, "cache_read_input_tokens": 7}}}
    found = of_stream(start, {"usage": {"output_tokens": 1}}, {"usage": {"input_tokens": 0, "output_tokens": 9}})
    assert found == replace(FOUND, input_tokens=12, output_tokens=9, cache_tokens=7)


def test_what_a_stream_said_at_its_beginning_is_read_there() -> None:
    """A long answer's end has forgotten it."""
    head = b'data: {"message":{"usage":{"input_tokens":12,"cache_read_input_tokens":7}}}\n\n'
    found = of_stream({"delta": {}, "usage": {"output_tokens": 9}}, head=head)
    assert found == replace(FOUND, input_tokens=12, output_tokens=9, cache_tokens=7)


def test_the_usage_of_a_response_event_counts() -> None:
    """The Responses API puts it into `response`."""
    found = of_stream({"type": "response.completed", "response": {"usage": {"input_tokens": 4, "output_tokens": 2}}})
    assert (found.input_tokens, found.output_tokens) == (4, 2)


def test_the_last_timings_of_a_stream_win_though_its_beginning_is_cut() -> None:
    """Nulls and the end mark in between mean nothing."""
    events = [{"usage": None, "timings": {"prompt_n": 1}}, {"usage": None, "choices": [], "timings": TIMINGS}]
    assert of_stream(*events, cut=11) == OF_TIMINGS


def test_a_stream_that_broke_before_its_figures_is_all_zero() -> None:
    """The client left: nothing was said, so nothing is unknown."""
    assert of_stream({"choices": [{"delta": {"content": "He"}}]}) == NOTHING


def test_a_speed_that_is_null_is_unknown() -> None:
    """llama-server divides by zero where a prompt took no time."""
    assert of_json({"timings": {**TIMINGS, "prompt_per_second": None}}).prompt_per_second == -1


def test_nonsense_counts_nothing() -> None:
    """Texts, truth values and numbers that no database holds."""
    found = of_json({"usage": {"prompt_tokens": "12", "completion_tokens": True, "cache_read_input_tokens": 10**30}})
    assert found == NOTHING
    assert of_json({"usage": {"prompt_tokens": LARGEST}}).input_tokens == LARGEST


@pytest.mark.parametrize(("encoding", "kind"), [("gzip", 31), ("GZIP ", 31), ("deflate", 15), ("deflate", -15)])
def test_a_small_compressed_answer_is_read(encoding: str, kind: int) -> None:
    """Where its end is all of it."""
    squeeze = zlib.compressobj(wbits=kind)
    packed = squeeze.compress(json.dumps({"timings": TIMINGS}).encode()) + squeeze.flush()
    found = usage_of(read_answer(packed, path="/x", head=packed[:10], encoding=encoding).timings)
    assert found == OF_TIMINGS


def test_a_compressed_answer_of_which_only_the_end_is_there_is_unknown() -> None:
    """Nothing can be made of it, and that is no error."""
    packed = gzip.compress(json.dumps({"timings": TIMINGS}).encode())
    found = usage_of(read_answer(packed[5:], path="/x", head=packed[:20], encoding="gzip").timings)
    assert found == NOTHING
    assert decoded(b"abc", "zstd", limit=10) is None
    assert decoded(b"abc", "identity", limit=10) == b"abc"


def test_what_an_answer_unpacks_to_is_bounded() -> None:
    """Sixteen kilobytes may stand for sixteen megabytes."""
    assert decoded(gzip.compress(b"x" * 100_000), "gzip", limit=1000) == b"x" * 1000


@given(
    tail=st.binary() | st.text().map(str.encode),
    encoding=st.sampled_from(["", "gzip", "deflate", "br"]),
    events=st.booleans(),
)
def test_no_answer_makes_it_raise(*, tail: bytes, encoding: str, events: bool) -> None:
    """What an engine sends never costs a client its answer."""
    read_answer(tail, path="/infill", events=events, head=tail[:5], encoding=encoding)
    error_message(tail, 500, encoding=encoding)


numbers: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just([])
)


@given(
    st.fixed_dictionaries({}, optional={name: st.dictionaries(st.sampled_from([*TIMINGS, "draft_n", "mean_itl_ms",
        "draft_n_accepted", "prompt_tokens", "time_to_first_token_ms"]), numbers) | numbers
        for name in ("usage", "timings", "metrics")})
)  # fmt: skip
def test_all_figures_fit_into_a_row(body: dict[str, Any]) -> None:
    """Counts are 0, -1 or more, in 64 bits; speeds are numbers that JSON knows."""
    found = of_json(body)
    for count in (found.input_tokens, found.output_tokens, found.cache_tokens, found.draft_tokens):
        assert -1 <= count <= LARGEST
    json.loads(json.dumps([found.prompt_per_second, found.tokens_per_second, found.seconds], allow_nan=False))
