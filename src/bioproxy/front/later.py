"""Work that a client asked for and does not wait for (`Prefer: respond-async`, RFC 7240): it has a 202, and goes on.

The request is served once more, from its beginning, as one that came without that header and whose answer nobody reads.
So it waits in the same queue, counts for the same key, has a record of its own and can be cancelled like any other. The
202 was given only after the request had been judged: what is wrong with it, its client hears.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from bioproxy import aio
from bioproxy.wire.http1.message import Request, Responder, Source

Serve = Callable[[Request, Responder], Awaitable[None]]
APART = frozenset({b"prefer", b"x-request-id"})  # of a request that is served once more
PREFERENCE = b"respond-async"
MOST = 64  # at once, each with its body in memory; from then on the clients wait, as if they had not asked


class Nowhere:
    """The carrier of an answer that nobody reads."""

    keep = False

    def write(self, data: bytes) -> None:
        """It goes nowhere."""

    async def drain(self) -> None:
        """Nobody reads slowly."""

    def cut(self, *, reset: bool = False) -> None:
        """There is nothing to cut."""

    def take_from(self, source: Source | None) -> None:
        """It is never told to wait."""

    def tunnel_to(self, receive: Callable[[bytes], None]) -> None:
        """Nobody sends anything."""

    def pause(self) -> None:
        """The same."""

    def resume(self) -> None:
        """The same."""


class Later:
    """The requests that go on without their clients. `serve` is the way of every request."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.tasks: set[asyncio.Task[None]] = set()

    def go_on(self, request: Request) -> bool:
        """Serve a request once more, for nobody; False if there are too many of these."""
        if len(self.tasks) >= MOST:
            return False
        headers = [pair for pair in request.headers if pair[0].lower() not in APART]
        kept = {name: value for name, value in request.fields.items() if name not in APART}
        again = replace(request, headers=headers, fields=kept, arrived=time.monotonic())
        task = aio.spawn(self.run(again), name=f"{request.method} {request.path}, which nobody waits for")
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return True

    async def run(self, request: Request) -> None:
        await self.serve(request, Responder(Nowhere(), request))

    async def close(self) -> None:
        """End them all."""
        await aio.finish(tuple(self.tasks))


def wanted(request: Request, stream: bool) -> bool:
    """Whether the client would rather not wait; who asked for a stream reads it."""
    return not stream and PREFERENCE in request.fields.get(b"prefer", b"").lower().replace(b",", b" ").split()
