"""How an error, the wait before an answer, and an answer's end look in the API that was called.

Clients parse errors: an OpenAI SDK reads `error.code`, an Anthropic SDK `error.type` and retries on 529, llama.cpp's
own web page reads a numeric code. The tables here are the only place that knows; everything else raises a
`BioproxyError`. Shapes: conventions of the three APIs as llama-server and the official clients use them.

The end of a stream is an event of its own in each of them, and clients leave when they have seen it, before the last
chunk of HTTP's. Every path knows every dialect's: `/upstream/…` and peers serve all of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

import msgspec

from bioproxy.engines.answers import DONE, ending
from bioproxy.errors import NOT_JSON, BioproxyError
from bioproxy.wire.http1.message import Headers
from bioproxy.wire.relay import EVENTS, UNBUFFERED

Json = Any
Dialect = Literal["openai", "responses", "anthropic", "llama", "ollama"]

OLLAMA = frozenset({  # its paths; others below `/api/` are llama-swap's, or ours
    "/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/tags", "/api/show", "/api/ps", "/api/pull",
    "/api/create", "/api/copy", "/api/push", "/api/delete",
})  # fmt: skip
DELTAS = {  # Anthropic's blocks: the member that a stream sends bit by bit, and the type of a bit
    "text": ("text", "text_delta"),
    "thinking": ("thinking", "thinking_delta"),
    "tool_use": ("input", "input_json_delta"),
}
CODES = {"exceed_context_size_error": "context_length_exceeded"}  # llama.cpp's type to the code that clients know
TOLD = ("code", "message", "param")  # of a Responses error, at the top
NUMBER = re.compile(rb'"sequence_number"\s*:\s*(\d{1,9})\b')

JSON: tuple[bytes, bytes] = (b"Content-Type", b"application/json; charset=utf-8")

# Anthropic's own types by status; what is missing is an invalid_request_error or an api_error.
ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}
# llama.cpp's names (server README, errors); OpenAI's differ only where noted below.
LLAMA = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    501: "not_supported_error",
    503: "unavailable_error",
}


@lru_cache(maxsize=64)
def dialect_of(path: str) -> Dialect:
    """Which API a path belongs to: `/v1/messages…` is Anthropic's, other `/v1/…` OpenAI's, the rest llama.cpp's.

    Some below `/api/` are Ollama's.

    OpenAI has two, with streams of different shapes. `/v/…` is `/v1/…` for engines whose base path is another one.
    """
    usual = f"/v1{path[2:]}" if path.startswith("/v/") else path
    if usual.startswith("/v1/messages"):
        return "anthropic"
    if usual.startswith(("/v1/responses", "/responses")):
        return "responses"
    if path in OLLAMA or path.startswith("/api/blobs/"):
        return "ollama"
    return "openai" if usual.startswith(("/v1/", "/chat/")) else "llama"


def error_json(error: BioproxyError, dialect: Dialect, *, request_id: str = "") -> bytes:
    """The error as a JSON object in the shape that `dialect`'s clients parse."""
    if dialect == "anthropic":
        kind = ANTHROPIC.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
        inner = {"type": kind, "message": error.message, **error.fields}
        return msgspec.json.encode({"type": "error", "error": inner, "request_id": request_id})
    if dialect == "ollama":
        return msgspec.json.encode({"error": error.message})
    return msgspec.json.encode({"error": error_members(error, error.status if dialect == "llama" else error.code)})


def error_members(error: BioproxyError, code: int | str) -> dict[str, Json]:
    """What stands in OpenAI's and llama.cpp's `error`; what an engine said itself has precedence."""
    kind = LLAMA.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    return {"message": error.message, "type": kind, "param": None, "code": code, **error.fields}


def error_headers(error: BioproxyError) -> Headers:
    """Headers of an error answer: JSON, never cached, and when to come back."""
    headers = [JSON, (b"Cache-Control", b"no-store")]
    if error.retry_after is not None:
        headers.append((b"Retry-After", b"%d" % error.retry_after))
    if error.status == 401:
        headers.append((b"WWW-Authenticate", b'Bearer realm="bioproxy"'))
    return headers


def error_answer(error: BioproxyError, path: str) -> tuple[Headers, bytes]:
    """Headers and body of an error on `path`; what wire uses for requests that never became one."""
    return error_headers(error), error_json(error, dialect_of(path))


def error_event(error: BioproxyError, dialect: Dialect, *, request_id: str = "", tail: bytes = b"") -> bytes:
    """The error as the end of a stream that has begun: no status can be sent any more, and no [DONE] follows.

    `tail`: the stream's last bytes; events of a Responses stream are numbered.
    """
    if dialect == "responses":
        return responses_failure(error, number=next_number(tail))
    body = error_json(error, dialect, request_id=request_id)
    return event_of("error", body) if dialect == "anthropic" else event_of("", body)


def responses_failure(error: BioproxyError, *, number: int) -> bytes:
    """An error in a Responses stream, told twice, as OpenAI's own API does.

    SDKs raise at `error` (its members stand at the top by the reference, under `error` on the wire), and Codex knows
    `response.failed` alone. Code and type are texts there: AI SDK takes nothing else.
    """
    members = error_members(error, error.code)
    kind = str(members["type"])
    code = members["code"] if isinstance(members["code"], str) else kind
    members |= {"type": kind, "code": CODES.get(kind, code)}
    first = {"type": "error", "sequence_number": number, **{name: members[name] for name in TOLD}, "error": members}
    response = {
        "id": f"resp_error_{number}", "object": "response", "created_at": int(time.time()), "status": "failed",
        "error": members, "incomplete_details": None, "model": "", "output": [], "parallel_tool_calls": False,
        "tool_choice": "auto", "tools": [], "usage": None,
    }  # fmt: skip
    second = {"type": "response.failed", "sequence_number": number + 1, "response": response}
    return b"".join(event_of(str(one["type"]), msgspec.json.encode(one)) for one in (first, second))


def next_number(tail: bytes) -> int:
    """The number of the next event, after those in the last bytes of a Responses stream."""
    found = NUMBER.findall(tail)
    return int(found[-1]) + 1 if found else 0


def event_of(name: str, data: bytes) -> bytes:
    """One event of a stream; `name` may be empty."""
    return (b"event: " + name.encode() + b"\n" if name else b"") + b"data: " + data + b"\n\n"


def keepalive(dialect: Dialect, said: str = "") -> bytes:
    """What a waiting stream is sent: Anthropic's clients know `ping` events, all others skip SSE comment lines.

    `said` is for people who look at the stream; Anthropic's clients skip it, too.
    """
    words = " ".join(said.split()).encode()
    if dialect == "anthropic":
        return (b": %b\n" % words if words else b"") + b'event: ping\ndata: {"type": "ping"}\n\n'
    return b": bioproxy keeps this open%b\n\n" % (b": " + words if words else b"")


def streamed(body: bytes, dialect: Dialect) -> bytes:
    """A whole answer as a stream, for a client that asked for one and whose stream has begun; b"" if it is no answer.

    An engine that cannot stream answers so. What it sent stands in one event, with what a stream's reader looks for
    beside it, and the dialect's own end follows.
    """
    try:
        line = msgspec.json.format(body, indent=-1)
        answer = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        if ending(b"data: " + line) == "failed":
            return b""
        if dialect == "anthropic":
            return b"".join(event_of(str(one["type"]), msgspec.json.encode(one)) for one in messages_of(answer))
        if dialect == "openai":
            return event_of("", msgspec.json.encode(chunk_of(answer))) + event_of("", DONE)
    except NOT_JSON:
        return b""
    if dialect == "llama":
        return event_of("", line)
    last = {"type": "response.completed", "sequence_number": 0, "response": msgspec.Raw(line)}
    return event_of("response.completed", msgspec.json.encode(last))


def chunk_of(answer: dict[str, msgspec.Raw]) -> dict[str, Json]:
    """A chat completion with the members that only a chunk has; any other answer as it is."""
    if "choices" not in answer:
        return answer
    choices = msgspec.json.decode(answer["choices"], type=list[dict[str, msgspec.Raw]])
    chats = [choice for choice in choices if "message" in choice]
    for choice in chats:
        choice.setdefault("delta", choice["message"])
    return {**answer, "choices": choices} | ({"object": "chat.completion.chunk"} if chats else {})


def messages_of(answer: dict[str, msgspec.Raw]) -> Iterator[dict[str, Json]]:
    """The events of a message of Anthropic's: what it is, each block at once, how it ended."""
    blocks = msgspec.json.decode(answer.get("content", b"[]"), type=list[dict[str, Json]])
    usage = answer.get("usage", msgspec.Raw(b"{}"))
    yield {"type": "message_start", "message": {**answer, "content": [], "stop_reason": None, "stop_sequence": None}}
    for index, block in enumerate(blocks):
        name, kind = DELTAS.get(str(block.get("type")), ("", ""))
        said = block.get(name)
        empty = {**block, name: "" if isinstance(said, str) else {}} if name else block
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        if name:
            text = said if isinstance(said, str) else msgspec.json.encode(said).decode()
            part = "partial_json" if name == "input" else name
            yield {"type": "content_block_delta", "index": index, "delta": {"type": kind, part: text}}
        yield {"type": "content_block_stop", "index": index}
    ended = {name: answer.get(name, msgspec.Raw(b"null")) for name in ("stop_reason", "stop_sequence")}
    yield {"type": "message_delta", "delta": ended, "usage": usage}
    yield {"type": "message_stop"}


STREAM_HEADERS: Headers = [
    (b"Content-Type", EVENTS),
    (b"Cache-Control", b"no-cache"),
    UNBUFFERED,
]
