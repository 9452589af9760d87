"""Moving an answer from an engine to a client: the shortest way that bytes can take.

Within the engine's `data_received`, llhttp calls `on_body`, that `Flow.forward`, and that writes to the client's
transport: one event in, one write out, no queue, no task switch, no look at the content. A stream of a thousand tokens
wakes its task once, at the end. Back-pressure needs no buffer either: when the client's transport is full, the engine's
stops reading, and the engine waits.

Of the head only what speaks about a connection is taken out; order and case stay. The framing is made anew, because a
client of HTTP/1.0 knows no chunks, and because comments of ours may stand before the engine's first byte.
"""

from __future__ import annotations

import asyncio

from bioproxy.wire.heads import Headers, end_to_end
from bioproxy.wire.message import CHUNKED, Responder
from bioproxy.wire.response import Response
from bioproxy.wire.tunnel import tunnel

__all__ = ["Tail", "relay", "tunnel"]

KEPT = 16 << 10  # bytes that a Tail gives back
TRIMMED = 32 << 10  # bytes from which it forgets the older ones


class Tail:
    """The last bytes of a body (16 KiB at most), how many there were, and when the first one came (loop.time()).

    `opening` is the first piece as it came (16 KiB at most): an Anthropic stream says there what was cached. With
    `collect` everything is kept besides, up to a limit.
    """

    __slots__ = ("copy", "first", "forgotten", "held", "most", "opening", "pieces")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.held = 0
        self.forgotten = 0
        self.first: float | None = None
        self.opening = b""
        self.copy: list[bytes] | None = None
        self.most = 0

    def collect(self, most: int) -> None:
        """Keep the whole body, unless it has more than `most` bytes."""
        self.copy, self.most = [], most

    def whole(self) -> bytes | None:
        """The whole body, where it was collected and was not too large."""
        return None if self.copy is None else b"".join(self.copy)

    def add(self, data: bytes) -> None:
        """Take note of a piece; constant time per piece, for the older ones are dropped many at a time."""
        if self.first is None:
            if not data:
                return
            self.first = asyncio.get_running_loop().time()
            self.opening = data[:KEPT]
        self.pieces.append(data)
        if self.copy is not None:
            self.copy.append(data)
            if self.total + len(data) > self.most:
                self.copy = None
        self.held = held = self.held + len(data)
        if held > TRIMMED:
            self.trim()

    @property
    def total(self) -> int:
        """How many bytes the body had so far."""
        return self.forgotten + self.held

    def trim(self) -> None:
        """Forget all but the last 16 KiB."""
        if len(self.pieces) == 1 and self.held <= KEPT:
            return
        last = b"".join(self.pieces)[-KEPT:]
        self.pieces = [last]
        self.forgotten += self.held - len(last)
        self.held = len(last)

    def last(self) -> bytes:
        """The last bytes of the body, 16 KiB at most."""
        self.trim()
        return self.pieces[0]


class Flow:
    """One answer on its way: the sink of its response."""

    __slots__ = ("responder", "tail", "write")

    def __init__(self, responder: Responder, tail: Tail | None) -> None:
        self.responder = responder
        self.tail = tail
        self.write = responder.carrier.write

    def forward(self, data: bytes) -> None:
        """Send bytes on, framed for the client; chunks without a further call, for this runs once per event."""
        if self.tail is not None:
            self.tail.add(data)
        responder = self.responder
        if responder.finished:
            return
        if responder.framing == CHUNKED:
            responder.bytes_out += len(data)
            self.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self.write(responder.frame(data))

    def end(self) -> None:
        """The last byte is on its way: say so at once, before the relay's task wakes."""
        self.responder.finish()


async def relay(
    response: Response,
    responder: Responder,
    *,
    headers: Headers,
    tail: Tail | None,
    started: bool = False,
    drop: tuple[bytes, ...] = (),
) -> None:
    """Send an engine's answer to the client as it comes; returns after the last byte.

    `headers` are added to the engine's; those of its own whose lower-case names begin with one of `drop` are left out.
    `started`: a head is out already, only the body goes. EngineProtocolError where the engine's answer ends early: the
    responder is not finished then, and the caller decides whether to cut or to say so. Cancelled, it closes the
    engine's connection.
    """
    flow = Flow(responder, tail)
    try:
        head = b"" if started else opening(response, responder, headers, drop)
        data = b"".join(response.pieces)
        response.pieces.clear()
        response.resume()
        responder.carrier.take_from(response)
        first(flow, head, data, last=response.complete)
        if not response.complete:
            response.sink = flow
            while not response.complete and response.error is None:
                await response.wait()
        response.check()
    except BaseException:
        response.abort()
        raise
    finally:
        response.sink = None
        responder.carrier.take_from(None)
    if not responder.finished:
        responder.finish()


def first(flow: Flow, head: bytes, data: bytes, *, last: bool) -> None:
    """Write the head together with what is there of the body: a small answer is one packet."""
    responder = flow.responder
    if flow.tail is not None:
        flow.tail.add(data)
    framed = head + responder.frame(data, last=last)
    if framed and not responder.finished:
        responder.carrier.write(framed)
    if last:
        responder.finished = True


def opening(response: Response, responder: Responder, headers: Headers, drop: tuple[bytes, ...]) -> bytes:
    """The head that the client gets."""
    kept = end_to_end(response.headers)
    if drop:
        kept = [pair for pair in kept if not pair[0].lower().startswith(drop)]
    if headers:
        kept += headers
    return responder.relayed_head(response.status, kept, length=response.length, reason=response.reason)
