"""Moving an answer from an engine to a client: the shortest way that bytes can take.

Within the engine's `data_received`, llhttp calls `on_body`, that `Flow.forward`, and that writes to the client's
transport: one event in, one write out, no queue, no task switch, no look at the content. A stream of a thousand tokens
wakes its task once, at the end. Back-pressure needs no buffer either: when the client's transport is full, the engine's
stops reading, and the engine waits.

Of the head only what speaks about a connection is taken out; order and case stay. The framing is made anew, because a
client of HTTP/1.0 knows no chunks, and because comments of ours may stand before the engine's first byte.

**The framing is not the only end.** A stream's own last event (`data: [DONE]`) comes before the last chunk, and many
clients leave at it. So the caller says how to tell (`ended`), and it is asked only when the client leaves or the engine
breaks off: if the answer had ended, the client was served. The engine then gets `ENDING` seconds to send the
last chunk, for then its connection can be used again.

After a 101 there is no HTTP any more (`tunnel`): bytes go both ways until either side ends. Only websockets get there
(http1.judge). Nothing is looked at; back-pressure holds in both directions: a client that reads slowly stops the
engine, an engine that reads slowly stops the client.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from bioproxy.wire import sse
from bioproxy.wire.engine_connection import BODY, Response
from bioproxy.wire.http1.heads import Headers, end_to_end
from bioproxy.wire.http1.message import CHUNKED, Responder, never

EVENTS = b"text/event-stream"
UNBUFFERED = (b"X-Accel-Buffering", b"no")  # nginx and its like pass each byte on
KEPT = 16 << 10  # bytes that a Tail gives back
BEGINNING = 256  # bytes that it keeps of an event which began before them
ENDING = 1.0  # seconds, see above


class Tail:
    """The last bytes of a body (16 KiB at most), how many there were, and when the first one came (time.monotonic()).

    `opening` is the first piece as it came (16 KiB at most): an Anthropic stream says there what was cached. With
    `collect` everything is kept besides, up to a limit.

    `kept` may be set to more than 16 KiB, and `unpack` to what takes a content coding off: everything but the collected
    copy is plain then. If `events` is set, `begun` is the beginning of the event that reaches into the last bytes from
    before them: the last event of a Responses stream repeats the whole answer, and its name comes first.
    """

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.held = 0  # bytes in them
        self.bound = 0  # more than so many are looked at (`settle`); at first that is one
        self.forgotten = 0
        self.first: float | None = None
        self.opening = b""
        self.kept = KEPT
        self.unpack: Callable[[bytes], bytes] | None = None
        self.events = False
        self.begun = b""
        self.copy: list[bytes] | None = None
        self.most = 0  # bytes of the copy
        self.coded = 0  # bytes that `unpack` was given

    def collect(self, most: int) -> None:
        """Keep the whole body, unless it has more than `most` bytes."""
        self.copy, self.most = [], most

    def whole(self) -> bytes | None:
        """The whole body, if it was collected and was not too large."""
        return None if self.copy is None or self.size > self.most else b"".join(self.copy)

    def add(self, data: bytes) -> None:
        """Take note of a piece; constant time per piece, for the older ones are dropped many at a time."""
        if self.copy is not None:
            self.copy.append(data)
        if self.unpack is not None:
            data = self.unpacked(data)
        self.pieces.append(data)
        self.held = held = self.held + len(data)
        if held > self.bound:
            self.settle(data)

    def unpacked(self, data: bytes) -> bytes:
        """The same in plain; what was collected is bounded here, for it may be much longer than what comes of it."""
        assert self.unpack is not None
        self.coded += len(data)
        if self.coded > self.most:
            self.copy = None
        return self.unpack(data)

    def settle(self, data: bytes) -> None:
        """`data` passed the bound: note the first byte, forget what is too much, set the next bound."""
        if self.first is None:
            self.first = time.monotonic()
            self.opening = data[:KEPT]
        if self.copy is not None and self.size > self.most:
            self.copy = None
        if self.held > 2 * self.kept:
            self.trim()
        self.bound = 2 * self.kept if self.copy is None else min(2 * self.kept, self.most - self.forgotten)

    @property
    def size(self) -> int:
        """How many bytes came, as they came."""
        return self.total if self.unpack is None else self.coded

    @property
    def total(self) -> int:
        """How many bytes the body had so far."""
        return self.forgotten + self.held

    def trim(self) -> None:
        """Forget all but the last bytes."""
        if len(self.pieces) == 1 and self.held <= self.kept:
            return
        joined = b"".join(self.pieces)
        last = joined[-self.kept :]
        cut = len(joined) - len(last)
        if cut and self.events:
            start = sse.last_start(joined, cut + 3)  # the empty line may lie on both sides of the cut
            if start or not self.forgotten:
                self.begun = joined[start : start + BEGINNING]
        self.pieces = [last]
        self.forgotten += cut
        self.held = len(last)

    def last(self) -> bytes:
        """The last bytes of the body, 16 KiB at most unless `kept` says more."""
        self.trim()
        return self.pieces[0]


class Flow:
    """One answer on its way: the sink of its response. `ended` tells whether it has ended by its own last event."""

    def __init__(self, response: Response, responder: Responder, *, tail: Tail, ended: Callable[[], bool]) -> None:
        self.response = response
        self.responder = responder
        self.tail = tail
        self.ended = ended
        self.timer: asyncio.TimerHandle | None = None
        self.write = responder.carrier.write
        self.end = responder.finish  # the last byte is on its way: say so at once, before the relay's task wakes

    def forward(self, data: bytes) -> None:
        """Send bytes on, framed for the client; this runs once per event."""
        self.tail.add(data)
        responder = self.responder
        if responder.finished:
            return
        if responder.framing is CHUNKED:
            responder.bytes_out += len(data)
            self.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self.write(responder.frame(data))

    def let_go(self) -> bool:
        """The client leaves: whether it had the whole answer. Then the engine gets a moment to end it as well."""
        if not self.ended():
            return False
        self.response.resume()  # the client may have been slow
        self.timer = asyncio.get_running_loop().call_later(ENDING, self.response.abort)
        return True

    def check(self) -> None:
        """The answer broke off: raise why, unless it had ended by its own last event."""
        if self.ended():
            return
        if self.timer is not None:  # it went on after what looked like its end: the client left in the middle after all
            raise asyncio.CancelledError("the client left")
        self.response.check()

    def close(self) -> None:
        """Nothing is relayed any more."""
        self.responder.let_go = never
        self.response.sink = None
        if self.timer is not None:
            self.timer.cancel()


class Rewritten(Flow):
    """One answer on its way to a client that gets another one made of it (Responder.rewriter)."""

    def forward(self, data: bytes) -> None:
        self.tail.add(data)
        self.responder.write(data)


async def relay(
    response: Response,
    responder: Responder,
    *,
    headers: Headers,
    tail: Tail,
    started: bool = False,
    drop: tuple[bytes, ...] = (),
    ended: Callable[[], bool] = never,
) -> None:
    """Send an engine's answer to the client as it comes; returns after the last byte.

    `headers` are added to the engine's; those of its own whose lower-case names begin with one of `drop` are left out.
    `started`: a head is out already, only the body goes. EngineProtocolError if the engine's answer ends early: the
    responder is not finished then, and the caller decides whether to cut or to say so. Cancelled, it closes the
    engine's connection.

    `ended` tells whether what went through so far is a whole answer, however it is framed. If the engine did not end it
    as well, this returns with `response.complete` False, and its connection is closed.
    """
    head = b"" if started else opening(response, responder, headers, drop)
    data = b"".join(response.pieces)
    response.pieces.clear()
    tail.add(data)
    if not responder.finished:
        responder.put(head, responder.frame(data, last=response.complete))  # a small answer is one packet
    if response.complete:
        responder.finished = True
        return
    kind = Flow if responder.rewriter is None else Rewritten
    flow = kind(response, responder, tail=tail, ended=ended)
    response.sink = flow
    responder.let_go = flow.let_go
    responder.carrier.take_from(response)
    try:
        response.resume()
        while response.stage is BODY:
            await response.wait()
        if response.error is not None:
            flow.check()
    except BaseException:
        response.abort()
        raise
    finally:
        flow.close()
        responder.carrier.take_from(None)
    responder.finish()


def opening(response: Response, responder: Responder, headers: Headers, drop: tuple[bytes, ...]) -> bytes:
    """The head that the client gets. What is between us and it must not collect the events of a stream."""
    if response.fields.get(b"content-type", b"").lower().startswith(EVENTS):
        drop, headers = (*drop, UNBUFFERED[0].lower()), [*headers, UNBUFFERED]
    kept = end_to_end(response.headers, beginning=drop)
    kept += headers
    return responder.relayed_head(response.status, kept, length=response.length, reason=response.reason)


class Raw:
    """The sink of a tunnel: bytes as they are."""

    def __init__(self, responder: Responder) -> None:
        self.responder = responder

    def forward(self, data: bytes) -> None:
        self.responder.bytes_out += len(data)
        self.responder.carrier.write(data)

    def end(self) -> None:
        """The engine left; the tunnel's task wakes and closes the client's connection."""


async def tunnel(response: Response, responder: Responder) -> None:
    """Send the 101 on, then bytes both ways; returns when the engine ends it, and is cancelled when the client does."""
    carrier = responder.carrier
    try:
        carrier.write(switching(response, responder) + b"".join(response.pieces))
        response.pieces.clear()
        response.sink = Raw(responder)
        response.connection.client = carrier
        carrier.take_from(response)
        carrier.tunnel_to(response.connection.send)
        while not response.complete:
            await response.wait()
    finally:
        response.sink = response.connection.client = None
        carrier.take_from(None)
        response.abort()
        responder.finished = True


def switching(response: Response, responder: Responder) -> bytes:
    """The head of the 101, with the two headers of the connection that make it one."""
    kept: Headers = end_to_end(response.headers)
    kept += [(b"Connection", b"Upgrade"), (b"Upgrade", response.fields.get(b"upgrade", b"websocket"))]
    return responder.relayed_head(response.status, kept, length=None, reason=response.reason)
