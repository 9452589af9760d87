"""Answers and events judged by the official SDKs' own types, strictly: the SDKs themselves construct without a look."""

from __future__ import annotations

from typing import Any

import pydantic
from anthropic.types import Message, RawMessageStreamEvent
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent

from support.http import Answer, call, events

Json = Any

WHOLE: dict[str, pydantic.TypeAdapter[Any]] = {
    "/v1/chat/completions": pydantic.TypeAdapter(ChatCompletion),
    "/v1/responses": pydantic.TypeAdapter(Response),
    "/v1/messages": pydantic.TypeAdapter(Message),
}
STREAMED: dict[str, pydantic.TypeAdapter[Any]] = {
    "/v1/chat/completions": pydantic.TypeAdapter(ChatCompletionChunk),
    "/v1/responses": pydantic.TypeAdapter(ResponseStreamEvent),
    "/v1/messages": pydantic.TypeAdapter(RawMessageStreamEvent),
}


async def asked(port: int, path: str, body: Json, **headers: str) -> Json:
    """The answer to a POST, or its events; each is what the SDK's type of it wants."""
    answer = await call(port, "POST", path, data={"model": "m", **body}, headers=headers or None)
    assert answer.status == 200, answer.body
    return judged(path, answer, streams=bool(body.get("stream")))


def judged(path: str, answer: Answer, *, streams: bool) -> Json:
    """A whole answer, or the events of a stream (without Anthropic's `ping`, which its type does not have)."""
    if not streams:
        WHOLE[path].validate_json(answer.body)
        return answer.json()
    found = [one for one in events(answer) if one.get("type") != "ping"]
    for one in found:
        STREAMED[path].validate_python(one)
    return found
