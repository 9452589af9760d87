"""An answer that says nothing, in the form of the API that was asked: for side requests that a rule refuses.

It is whole and valid, so that a client goes on as after an answer that has no text; an error would be told to its user,
or tried again. Streams have all events that clients wait for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec

from bioproxy.front.dialects import JSON, STREAM_HEADERS
from bioproxy.front.exchange import Exchange

Json = Any
USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
STOPPED = {"role": "assistant", "content": ""}


def send(exchange: Exchange, *, model: str, stream: bool) -> None:
    """Answer with nothing; `model` is what the client calls it."""
    path = exchange.asked_path
    told = told_by(exchange, path, model)
    if stream:
        body = b"".join(event(one, named=exchange.dialect in {"anthropic", "responses"}) for one in events(told, path))
        done = b"" if exchange.dialect in {"anthropic", "responses", "llama"} else b"data: [DONE]\n\n"
        exchange.responder.send(200, STREAM_HEADERS, body + done)
    else:
        exchange.responder.send(200, [JSON], msgspec.json.encode(told))


def told_by(exchange: Exchange, path: str, model: str) -> dict[str, Json]:
    """The answer as one object."""
    now = int(time.time())
    match exchange.dialect:
        case "anthropic":
            return {
                "id": f"msg_{exchange.id}", "type": "message", "role": "assistant", "model": model,
                "content": [{"type": "text", "text": ""}], "stop_reason": "end_turn", "stop_sequence": None,
                "usage": {"input_tokens": 0, "output_tokens": 0},
            }  # fmt: skip
        case "responses":
            return {
                "id": f"resp_{exchange.id}", "object": "response", "created_at": now, "status": "completed",
                "model": model, "output": [response_item(exchange.id)], "parallel_tool_calls": True,
                "tool_choice": "auto", "tools": [], "error": None, "incomplete_details": None, "instructions": None,
                "metadata": {}, "usage": {
                    "input_tokens": 0, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                    "output_tokens": 0, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 0,
                },
            }  # fmt: skip
        case "llama":
            return {"content": "", "stop": True, "stop_type": "eos", "model": model, "tokens_predicted": 0}
    chat = "chat" in path
    choice = {"index": 0, "message": STOPPED} if chat else {"index": 0, "text": "", "logprobs": None}
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{exchange.id}",
        "object": "chat.completion" if chat else "text_completion",
        "created": now, "model": model, "choices": [choice | {"finish_reason": "stop"}], "usage": USAGE,
    }  # fmt: skip


def response_item(identity: str) -> dict[str, Json]:
    """A message of the Responses API without a text."""
    part = {"type": "output_text", "text": "", "annotations": []}
    return {"id": f"msg_{identity}", "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def events(told: dict[str, Json], path: str) -> Iterator[dict[str, Json]]:
    """The same as the events of a stream."""
    if told.get("type") == "message":
        yield {"type": "message_start", "message": told | {"content": [], "stop_reason": None}}
        yield {"type": "content_block_start", "index": 0, "content_block": told["content"][0]}
        yield {"type": "content_block_stop", "index": 0}
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 0}}
        yield {"type": "message_stop"}
    elif told.get("object") == "response":
        for number, one in enumerate(response_events(told)):
            yield one | {"sequence_number": number}
    elif "choices" in told:
        chunk = told | ({"object": "chat.completion.chunk"} if "chat" in path else {})
        choice = {"index": 0, "logprobs": None, "finish_reason": None}
        bit = {"delta": STOPPED} if "chat" in path else {"text": ""}
        yield chunk | {"choices": [choice | bit], "usage": None}
        end: dict[str, Json] = {"delta": {}} if "chat" in path else {"text": ""}
        yield chunk | {"choices": [choice | end | {"finish_reason": "stop"}]}
    else:
        yield told


def response_events(told: dict[str, Json]) -> Iterator[dict[str, Json]]:
    """The events of the Responses API, without their numbers."""
    item = told["output"][0]
    part, begun = item["content"][0], told | {"status": "in_progress", "output": [], "usage": None}
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    empty = item | {"status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": 0, "item": empty}
    yield {"type": "response.content_part.added", "part": part, **place}
    yield {"type": "response.output_text.done", "text": "", "logprobs": [], **place}
    yield {"type": "response.content_part.done", "part": part, **place}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": told}


def event(told: dict[str, Json], *, named: bool) -> bytes:
    """One event; some APIs name its type outside as well."""
    data = b"data: " + msgspec.json.encode(told) + b"\n\n"
    return b"event: " + told["type"].encode() + b"\n" + data if named else data
