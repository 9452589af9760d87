"""What of a client's request the engine gets to see, and what of its answer the client does.

A body that came compressed goes on in plain, whatever the route is: what it asks for is judged in plain text, and an
engine that takes a coding off itself would read what we have not (an `id_slot`, a template's prefix, another model).

Hop-by-hop headers go (RFC 9110, 7.6.1; the pool takes those out), and three kinds besides: the client's key, because
it is ours and not the engine's; `X-Conversation-Id`, because llama-server stops noticing that a client left when it
sees one (facts, section 2); and the engine's own CORS headers, because front/cors.py decides who may read.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from itertools import islice

from bioproxy.wire import coding
from bioproxy.wire.http1.message import Headers, Request

ALWAYS_DROPPED = frozenset({b"x-conversation-id", b"x-request-id"})
KEYS = frozenset({b"authorization", b"x-api-key", b"api-key"})
CORS_OF_ENGINE = (b"access-control-",)
LENGTHS = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive"})
CODED = frozenset({b"content-encoding", b"content-md5", b"digest", b"content-digest", b"repr-digest"})  # of coded bytes
SMALL = 16 << 10  # bytes of a compressed body that are opened at once
BLOCKS = 4  # of what it becomes; for more it goes into a thread


async def unpack(request: Request, *, limit: int, turn: asyncio.Semaphore) -> None:
    """Take the codings off a request's body and the words about them off its head.

    RequestError: 415 for a coding that we do not know, 413 for more than `limit` bytes, 400 for what is broken. A body
    that takes longer waits for its `turn`, and is opened in a thread, so that the others are served.
    """
    if not request.body:
        return
    values = [value for name, value in request.headers if name.lower() == b"content-encoding"]
    if codings := coding.codings_of(values):
        blocks, whole = coding.plain(request.body, codings, limit=limit), io.BytesIO()
        quick = len(request.body) <= SMALL and len(codings) == 1
        if not quick or more(blocks, whole, BLOCKS):
            async with turn:
                while await asyncio.to_thread(more, blocks, whole, 16 * BLOCKS):
                    pass
        request.body = whole.getvalue()
    request.headers[:] = [pair for pair in request.headers if pair[0].lower() not in CODED]
    for name in CODED:
        request.fields.pop(name, None)


def more(blocks: Iterator[bytes], whole: io.BytesIO, most: int) -> bool:
    """Add up to `most` blocks to the whole; whether there may be more."""
    count = 0
    for block in islice(blocks, most):
        whole.write(block)
        count += 1
    return count == most


def request_headers(request: Request, *, request_id: str, drop_keys: bool, engine_key: str) -> Headers:
    """The client's headers for the engine, in their order.

    `drop_keys`: the client's key is for us. `engine_key` replaces it where the engine has a key of its own.
    """
    dropped = ALWAYS_DROPPED | KEYS if drop_keys or engine_key else ALWAYS_DROPPED
    headers = [pair for pair in request.headers if pair[0].lower() not in dropped]
    headers.append((b"X-Request-Id", request_id.encode("ascii")))
    if engine_key:
        headers.append((b"Authorization", b"Bearer " + engine_key.encode()))
    return headers


def end_to_end(headers: Headers) -> Headers:
    """An answer's headers for an answer that we send whole ourselves: framing and CORS are ours."""
    return [
        pair for pair in headers if (name := pair[0].lower()) not in LENGTHS and not name.startswith(CORS_OF_ENGINE)
    ]
