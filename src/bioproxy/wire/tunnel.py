"""After a 101 there is no HTTP any more: bytes go both ways until either side ends.

Only websockets get here (reader.judge_upgrade). Nothing is looked at; back-pressure holds in both directions: a client
that reads slowly stops the engine, an engine that reads slowly stops the client.
"""

from __future__ import annotations

from bioproxy.wire.heads import Headers, end_to_end
from bioproxy.wire.message import Responder
from bioproxy.wire.response import Response


class Raw:
    """The sink of a tunnel: bytes as they are."""

    __slots__ = ("responder",)

    def __init__(self, responder: Responder) -> None:
        self.responder = responder

    def forward(self, data: bytes) -> None:
        """Send bytes on."""
        self.responder.bytes_out += len(data)
        self.responder.carrier.write(data)

    def end(self) -> None:
        """The engine left; the tunnel's task wakes and closes the client's connection."""


async def tunnel(response: Response, responder: Responder) -> None:
    """Send the 101 on, then bytes both ways; returns when the engine ends it, and is cancelled when the client does."""
    carrier = responder.carrier
    try:
        carrier.write(opening(response, responder) + b"".join(response.pieces))
        response.pieces.clear()
        response.sink = Raw(responder)
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
