"""What llama-server leaves out of /v1/responses, filled in: each event as the official SDK's types want it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from support.responses import ANSWER, BEGUN, CALL, EVENTS, OBJECT, STREAM, TOOLS, event, filling
from support.steps import calls

Json = Any


def told(data: bytes) -> list[Json]:
    """The events of a stream; each names its type twice."""
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        head, body = block.split("\ndata: ", 1)
        found.append(json.loads(body))
        assert head == f"event: {found[-1]['type']}"
    return found


@pytest.fixture
def whole() -> list[Json]:
    """The stream, filled in."""
    one = filling(tools=TOOLS, tool_choice="required")
    return told(b"".join(map(one.feed, STREAM)) + one.end())


def test_every_event_is_one_of_the_sdks(whole: list[Json]) -> None:
    """Strictly by its types, which know every member that a client may read."""
    for one in whole:
        TypeAdapter(ResponseStreamEvent).validate_json(json.dumps(one), strict=True)


def test_events_are_numbered(whole: list[Json]) -> None:
    """From 0, without a gap."""
    assert [one["sequence_number"] for one in whole] == list(range(len(STREAM) + 1))


def test_an_event_knows_its_place_in_the_output(whole: list[Json]) -> None:
    """Items are counted as they begin; a text that looks like an id is none."""
    places = {one["type"][9:]: one["output_index"] for one in whole if "output_index" in one}
    assert places["reasoning_text.delta"] == 0
    assert places["output_text.delta"] == places["content_part.done"] == 1
    assert places["function_call_arguments.delta"] == 2
    ended = [one["output_index"] for one in whole if one["type"] == "response.output_item.done"]
    assert ended == [0, 1, 2]


def test_the_arguments_of_a_call_are_told_to_the_end(whole: list[Json]) -> None:
    """The event that llama-server does not send comes before the call's end."""
    at = next(place for place, one in enumerate(whole) if one["type"].endswith("arguments.done"))
    assert whole[at]["arguments"] == '{"id": "x"}'
    assert (whole[at]["name"], whole[at]["item_id"], whole[at]["output_index"]) == ("look", "fc_1", 2)
    assert whole[at + 1]["item"] == CALL


def test_a_response_repeats_what_was_asked_for(whole: list[Json]) -> None:
    """From the first event on, with the same second; the engine's own members stay."""
    first, last = whole[0]["response"], whole[-1]["response"]
    assert (first["tools"], first["tool_choice"], first["parallel_tool_calls"]) == (TOOLS, "required", True)
    assert (first["model"], first["created_at"]) == ("qwen", 1_700_000_000)
    assert (last["tools"], last["model"], last["created_at"]) == (TOOLS, "engine.gguf", 1_700_000_000)
    assert last["usage"]["input_tokens_details"] == {"cached_tokens": 3, "cache_write_tokens": 0}
    assert whole[-1]["timings"] == {"cache_n": 3}


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_pieces_of_any_size(size: int, whole: list[Json]) -> None:
    """However the bytes come, the events are the same."""
    one, data = filling(tools=TOOLS, tool_choice="required"), b"".join(STREAM)
    pieces = [one.feed(data[at : at + size]) for at in range(0, len(data), size)]
    assert told(b"".join(pieces) + one.end()) == whole


def test_an_older_llama_server_gives_a_call_one_id() -> None:
    """Its `call_id` is what the pieces of its arguments name."""
    call = {name: value for name, value in CALL.items() if name != "id"} | {"call_id": "fc_1"}
    one = filling()
    found = told(
        one.feed(STREAM[0])
        + one.feed(event("output_item.added", item={**call, "arguments": ""}))
        + one.feed(event("function_call_arguments.delta", delta="{}", item_id="fc_1"))
        + one.feed(event("output_item.done", item=call))
    )
    assert [one.get("output_index") for one in found] == [None, 0, 0, 0, 0]


@pytest.mark.parametrize("at", [0, 5, 20])
def test_an_engine_that_numbers_its_events_is_left_alone(at: int) -> None:
    """Its stream passes byte by byte as it came."""
    stream = [event("created", sequence_number=0, response=BEGUN), *STREAM[1:]]
    one, data = filling(), b"".join(stream)
    assert b"".join([one.feed(data[:at]), one.feed(data[at:]), one.end()]) == data
    assert one.feed(b"more") == b"more"


def test_signs_of_life_stay_what_they_are() -> None:
    """A comment before the first event decides nothing."""
    one = filling()
    assert one.feed(b": bioproxy keeps this open\n\n") == b": bioproxy keeps this open\n\n"
    assert told(one.feed(STREAM[0]))[0]["sequence_number"] == 0


def test_an_error_of_ours_goes_on_with_the_numbers() -> None:
    """It was numbered without those that the engine left out."""
    one = filling()
    one.feed(STREAM[0])
    own = b'event: error\ndata: {"type":"error","sequence_number":0,"message":"m","code":null,"param":null}\n\n'
    failed = b'event: response.failed\ndata: {"type":"response.failed","sequence_number":1,"response":{"id":"x"}}\n\n'
    assert [each["sequence_number"] for each in told(one.feed(own + failed))] == [1, 2]


@pytest.mark.parametrize("cut", [30, 60, 90])
def test_a_stream_that_breaks_off_stays_broken(cut: int) -> None:
    """The end of an event that was cut goes out as it came."""
    one = filling()
    one.feed(STREAM[0])
    rest = STREAM[-1][:-cut]
    assert one.feed(rest) + one.end() == rest
    one.feed(STREAM[0])
    assert one.feed(STREAM[-1][:-cut] + b"\n\n").endswith(STREAM[-1][-cut - 20 : -cut] + b"\n\n")


def test_a_whole_answer() -> None:
    """The SDK's type takes it, strictly; `endings` had their say."""
    one = filling(headers=OBJECT, tools=None)
    one.endings.append(lambda answer: answer.update(status="incomplete"))
    assert one.feed(json.dumps(ANSWER).encode()) == b""
    body = one.end()
    Response.model_validate_json(body, strict=True)
    answer = json.loads(body)
    assert answer["tools"] == []
    assert answer["created_at"] == 99
    assert answer["status"] == "incomplete"


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (400, OBJECT, b'{"error":{"message":"no"}}'),
        (200, OBJECT, b"not json"),
        (200, [*OBJECT, (b"Content-Encoding", b"gzip")], b"\x1f\x8b"),
        (200, [*EVENTS, (b"Content-Encoding", b"gzip")], b"\x1f\x8b\n\n"),
    ],
)
def test_what_is_no_answer_passes(status: int, headers: Json, body: bytes) -> None:
    """Errors, what is no JSON, what the engine compressed."""
    one = filling(status=status, headers=headers)
    assert one.feed(body) + one.end() == body
    assert one.status == status


def test_an_event_costs_little() -> None:
    """A piece of text is not opened: few calls, however long it is."""
    one = filling()
    one.feed(b"".join(STREAM[:6]))
    data = event("output_text.delta", item_id="msg_1", delta="x" * 10_000)
    assert calls(lambda: one.feed(data)) <= 6
