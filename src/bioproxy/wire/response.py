"""An engine's answer, while it comes.

Where its bytes go is decided here: nobody asked yet (they are kept, and beyond 256 KiB the engine has to wait), `read`
collects them, or a relay has put its `sink` there and gets the bytes at once, within the loop's callback: no queue, no
task switch per event. Leaving an answer early closes its connection, for that is how an engine learns that nobody wants
its work any more (facts, section 3).

What receives and parses lives in engine_connection.py.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from bioproxy.errors import BioproxyError, EngineProtocolError
from bioproxy.wire.heads import Headers
from bioproxy.wire.message import Source

MIB = 1 << 20
UNREAD = 256 << 10  # bytes kept for a reader that has not come yet


class Sink(Protocol):
    """Where the bytes of a body go as they come."""

    def forward(self, data: bytes) -> None:
        """Send bytes on."""

    def end(self) -> None:
        """The answer is whole."""


class Channel(Protocol):
    """What a Response needs of the connection that it comes over."""

    client: Source | None

    def send(self, data: bytes) -> None:
        """Send bytes to the engine."""

    def pause(self) -> None:
        """Read nothing from the engine."""

    def resume(self) -> None:
        """Read again."""

    def abort(self) -> None:
        """Close at once."""


class Response:
    """An engine's answer. `headers` are in its order and case; `reused`: the connection had served before."""

    __slots__ = (
        "complete",
        "connection",
        "error",
        "fields",
        "headers",
        "headless",
        "pieces",
        "reason",
        "reused",
        "seen",
        "sink",
        "status",
        "upgraded",
        "waiter",
    )

    def __init__(self, connection: Channel, *, head_only: bool, reused: bool) -> None:
        self.connection = connection
        self.status = 0
        self.reason = b""
        self.headers: Headers = []
        self.fields: dict[bytes, bytes] = {}
        self.reused = reused
        self.headless = head_only  # the answer to a HEAD: lengths are told, bytes do not follow
        self.seen = False  # the head is in
        self.complete = False
        self.upgraded = False
        self.error: BioproxyError | None = None
        self.pieces: list[bytes] = []
        self.sink: Sink | None = None
        self.waiter: asyncio.Future[None] | None = None

    def header(self, name: bytes) -> bytes | None:
        """The first value of the header `name` (lower case)."""
        return self.fields.get(name)

    @property
    def length(self) -> int | None:
        """The body's length, where the head says it."""
        value = self.fields.get(b"content-length")
        return int(value) if value is not None and value.isdigit() else None

    @property
    def ends_with_connection(self) -> bool:
        """Whether only the end of the connection can tell the end of this answer."""
        return self.seen and self.length is None and b"transfer-encoding" not in self.fields

    async def read(self, *, limit: int = 64 * MIB) -> bytes:
        """The whole body; EngineProtocolError if it ends early or is longer than `limit` bytes."""
        whole: list[bytes] = []
        size = 0
        try:
            while True:
                whole += self.pieces
                size += sum(map(len, self.pieces))
                self.pieces.clear()
                if size > limit and self.error is None:
                    self.error = EngineProtocolError(f"the engine's answer is longer than {limit} bytes")
                self.check()
                if self.complete:
                    break
                self.connection.resume()
                await self.wait()
        except BaseException:
            self.abort()
            raise
        return whole[0] if len(whole) == 1 else b"".join(whole)

    def check(self) -> None:
        """Raise what broke this answer, if anything did."""
        if self.error is not None:
            raise self.error

    async def wait(self) -> None:
        """Return when something happened: the head, bytes that nobody relays, the end, or a fault."""
        self.waiter = asyncio.get_running_loop().create_future()
        try:
            await self.waiter
        finally:
            self.waiter = None

    def wake(self) -> None:
        """Something happened."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def pause(self) -> None:
        """Let the engine wait: whoever reads this answer is behind."""
        if not self.complete:  # else the connection may be another request's already
            self.connection.pause()

    def resume(self) -> None:
        """Let it go on."""
        if not self.complete:
            self.connection.resume()

    def abort(self) -> None:
        """Close the connection now, which cancels the engine's work; does nothing after the answer's end."""
        if not self.complete:
            self.connection.abort()

    def send(self, data: bytes) -> None:
        """Send bytes to the engine; for tunnels only."""
        self.connection.send(data)

    # what the connection tells

    def flush(self, sink: Sink) -> None:
        """Hand on what one read brought, as one piece: a stream that is behind costs less per event."""
        if self.pieces:
            data = b"".join(self.pieces)
            self.pieces.clear()
            sink.forward(data)

    def advance(self) -> None:
        """Hand on what there is, and tell whoever waits of a head, of bytes that nobody relays, the end, a fault."""
        if self.sink is not None:
            self.flush(self.sink)
            if self.complete:
                self.sink.end()
            if self.complete or self.error is not None:
                self.wake()
        elif self.seen or self.error is not None:
            if self.waiter is not None:
                self.wake()
            elif sum(map(len, self.pieces)) > UNREAD:
                self.pause()

    def fail(self, error: BioproxyError) -> None:
        """The answer ends here, before its end."""
        if not self.complete and self.error is None:
            self.error = error
            self.advance()
