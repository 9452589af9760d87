"""After a 101 there is no HTTP any more: bytes go both ways until either side ends.

Only websockets get here (reader.judge_upgrade). Nothing is looked at; back-pressure holds in both directions: a client
that reads slowly stops the engine, an engine that reads slowly stops the client.
"""

from __future__ import annotations

from bioproxy.wire.heads import Headers, end_to_end
from bioproxy.wire.message import Responder
from bioproxy.wire.response import Response


async def tunnel(response: Response, responder: Responder) -> None:
    """Send the 101 on, then bytes both ways; returns when the engine ends it, and is cancelled when the client does."""
    carrier = responder.carrier

    def forward(data: bytes, last: bool) -> None:  # noqa: ARG001 - the shape of a response's sink
        responder.bytes_out += len(data)
        carrier.write(data)

    try:
        carrier.write(opening(response, responder) + b"".join(response.pieces))
        response.pieces.clear()
        response.sink = forward
        response.connection.client = carrier
        carrier.take_from(response)
        carrier.tunnel_to(response.send)
        while not response.complete:
            await response.wait()
    finally:
        response.sink = response.connection.client = None
        carrier.take_from(None)
        response.abort()
        responder.finished = True


def opening(response: Response, responder: Responder) -> bytes:
    """The head of the 101, with the two headers of the connection that make it one."""
    kept: Headers = end_to_end(response.headers)
    kept += [(b"Connection", b"Upgrade"), (b"Upgrade", response.fields.get(b"upgrade", b"websocket"))]
    return responder.relayed_head(response.status, kept, length=None, reason=response.reason)
