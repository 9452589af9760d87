"""How an error, the wait before an answer, and the end of a stream look in the API that was called.

Clients parse errors: an OpenAI SDK reads `error.code`, an Anthropic SDK `error.type` and retries on 529, llama.cpp's
own web page reads a numeric code. The tables here are the only place that knows; everything else raises a
`BioproxyError`. Shapes: conventions of the three APIs as llama-server and the official clients use them.

The end of a stream is an event of its own in each of them, and clients leave when they have seen it, before the last
chunk of HTTP's. Every path knows every dialect's: `/upstream/…` and peers serve all of them.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from bioproxy.errors import BioproxyError
from bioproxy.wire import sse
from bioproxy.wire.message import Headers

Json = Any
Dialect = Literal["openai", "anthropic", "llama"]
Ending = Literal["", "whole", "failed"]

DONE = b"[DONE]"  # after chats and completions
ENDINGS: dict[str, Ending] = {  # the types of last events
    "message_stop": "whole",
    "response.completed": "whole",
    "response.incomplete": "whole",
    "response.failed": "failed",
    "speech.audio.done": "whole",
    "transcript.text.done": "whole",
    "image_generation.completed": "whole",
    "image_edit.completed": "whole",
    "error": "failed",
}
FIRST_TYPE = re.compile(rb'data:\s*\{\s*"type"\s*:\s*"([\w.]+)"')  # as the first member
LAST_TYPE = re.compile(rb'"type"\s*:\s*"([\w.]+)"\s*(?:,\s*"\w+"\s*:\s*[\w.-]+\s*)?\}$')  # or as the last (but one)
STOPPED = re.compile(rb'"stop"\s*:\s*true')  # llama.cpp's own; within a string its quotes would be escaped

JSON: tuple[bytes, bytes] = (b"Content-Type", b"application/json; charset=utf-8")

# Anthropic's own types by status; what is missing is an api_error.
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


def dialect_of(path: str) -> Dialect:
    """Which API a path belongs to: `/v1/messages…` is Anthropic's, other `/v1/…` OpenAI's, the rest llama.cpp's."""
    if path.startswith("/v1/messages"):
        return "anthropic"
    return "openai" if path.startswith(("/v1/", "/chat/")) else "llama"


def error_json(error: BioproxyError, dialect: Dialect, *, request_id: str = "") -> bytes:
    """The error as a JSON object in the shape that `dialect`'s clients parse."""
    if dialect == "anthropic":
        kind = ANTHROPIC.get(error.status, "api_error")
        body = {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": request_id}
        return msgspec.json.encode(body)
    kind = LLAMA.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    code: int | str = error.status if dialect == "llama" else error.code
    inner = {"message": error.message, "type": kind, "param": None, "code": code}
    return msgspec.json.encode({"error": inner})


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


def error_event(error: BioproxyError, dialect: Dialect, *, request_id: str = "") -> bytes:
    """The error as the last event of a stream that has begun: no status can be sent any more, and no [DONE] follows."""
    body = error_json(error, dialect, request_id=request_id)
    return b"event: error\ndata: " + body + b"\n\n" if dialect == "anthropic" else b"data: " + body + b"\n\n"


def keepalive(dialect: Dialect) -> bytes:
    """What a waiting stream is sent: Anthropic's clients know `ping` events, all others skip SSE comment lines."""
    return b'event: ping\ndata: {"type": "ping"}\n\n' if dialect == "anthropic" else b": bioproxy keeps this open\n\n"


class LastEvent(msgspec.Struct):
    """The members of an event that may say that it is the last one."""

    type: Json = None
    stop: Json = None
    error: Json = None


def ending(last: bytes, begun: bytes | None = None) -> Ending:
    """What the last bytes of a stream say about its end: nothing, that the answer is whole, or that it failed.

    `begun`: how the event begins that reaches into them from before; None if the stream begins here. The last event of
    a Responses stream repeats the whole answer, llama.cpp's own the prompt.
    """
    event, begins = sse.last_event(last)
    if begins or begun is None:
        return ending_of(event)
    if not last.endswith(sse.EVENT_ENDS):
        return ""
    name = sse.field(begun, b"event")
    if name is None:
        typed = FIRST_TYPE.search(begun) or LAST_TYPE.search(event)
        name = typed[1] if typed else b""
    return ENDINGS.get(name.decode("latin-1"), "whole" if STOPPED.search(begun) else "")


def ending_of(event: bytes) -> Ending:
    """The same of one event. Its `data` is read as JSON, so a `[DONE]` in somebody's text is none."""
    data = sse.field(event, b"data")
    if data is None:
        return ""
    if data.strip() == DONE:
        return "whole"
    try:
        said = msgspec.json.decode(data, type=LastEvent)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    kind = said.type if isinstance(said.type, str) else (sse.field(event, b"event") or b"").decode("latin-1")
    if kind in ENDINGS:
        return ENDINGS[kind]
    if said.stop is True:
        return "whole"
    return "failed" if said.error else ""


STREAM_HEADERS: Headers = [
    (b"Content-Type", b"text/event-stream"),
    (b"Cache-Control", b"no-cache"),
    (b"X-Accel-Buffering", b"no"),
]
