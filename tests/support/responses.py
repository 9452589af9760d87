"""A stream of /v1/responses with all that llama-server can say in one, and what fills it in."""

from __future__ import annotations

import json
from typing import Any

from msgspec import Raw

from bioproxy.front.responses import Filling

Json = Any
EVENTS = [(b"Content-Type", b"text/event-stream"), (b"Server-Timing", b"queue;dur=0")]
OBJECT = [(b"Content-Type", b"application/json; charset=utf-8"), (b"Content-Length", b"99")]
TOOLS: Json = [{"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}]
USAGE = {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11, "input_tokens_details": {"cached_tokens": 3}}
PART = {"type": "output_text", "annotations": [], "logprobs": [], "text": "Hi"}
MESSAGE = {"type": "message", "status": "completed", "id": "msg_1", "content": [PART], "role": "assistant"}
THOUGHT = {
    "id": "rs_1", "summary": [], "type": "reasoning", "content": [{"text": "Hm", "type": "reasoning_text"}],
    "encrypted_content": "",
}  # fmt: skip
CALL = {
    "id": "fc_1", "type": "function_call", "status": "completed", "arguments": '{"id": "x"}', "call_id": "call_1",
    "name": "look",
}  # fmt: skip
BEGUN = {"id": "resp_1", "object": "response", "status": "in_progress"}
ANSWER = {
    "id": "resp_1", "object": "response", "created_at": 99, "status": "completed", "model": "engine.gguf",
    "output": [THOUGHT, MESSAGE, CALL], "usage": USAGE,
}  # fmt: skip


def event(name: str, **members: Json) -> bytes:
    """As llama-server writes it: compact, its type first."""
    name = f"response.{name}"
    body = json.dumps({"type": name, **members}, separators=(",", ":"))
    return f"event: {name}\ndata: {body}\n\n".encode()


STREAM = [  # thoughts, words, a call: in the order in which llama-server tells them
    event("created", response=BEGUN),
    event("in_progress", response=BEGUN),
    event("output_item.added", item={**THOUGHT, "content": [], "status": "in_progress"}),
    event("reasoning_text.delta", delta='say "item_id":"msg_7"', item_id="rs_1"),
    event("output_item.added", item={**MESSAGE, "content": [], "status": "in_progress"}),
    event("content_part.added", item_id="msg_1", part={"type": "output_text", "text": ""}),
    event("output_text.delta", item_id="msg_1", delta="Hi"),
    event("output_item.added", item={**CALL, "arguments": "", "status": "in_progress"}),
    event("function_call_arguments.delta", delta='{"id": "x"}', item_id="fc_1"),
    event("output_item.done", item=THOUGHT),
    event("output_text.done", item_id="msg_1", text="Hi"),
    event("content_part.done", item_id="msg_1", part=PART),
    event("output_item.done", item=MESSAGE),
    event("output_item.done", item=CALL),
    event("completed", response=ANSWER, timings={"cache_n": 3}),
]


def filling(*, status: int = 200, headers: Json = EVENTS, **fields: Json) -> Filling:
    """One that has begun."""
    raw = {name: Raw(json.dumps(value).encode()) for name, value in fields.items()}
    one = Filling(raw, model="qwen", now=1_700_000_000)
    one.begin(status, headers)
    return one
