"""What of a client's request the engine gets to see, and what of its answer the client does.

Hop-by-hop headers go (RFC 9110, 7.6.1; the pool takes those out), and three kinds besides: the client's key, because
it is ours and not the engine's; `X-Conversation-Id`, because llama-server stops noticing that a client left when it
sees one (facts, section 2); and the engine's own CORS headers, because front/cors.py decides who may read.
"""

from __future__ import annotations

from bioproxy.wire.message import Headers, Request

ALWAYS_DROPPED = frozenset({b"x-conversation-id", b"x-request-id"})
KEYS = frozenset({b"authorization", b"x-api-key", b"api-key"})
CORS_OF_ENGINE = (b"access-control-",)
LENGTHS = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive"})


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
