"""The listeners of one port, and all connections that came through them.

One class serves the proxy and the admin port. It owns every connection and every request's task, so that a stop can
wait for them and a test can count them. A task per request is all the concurrency there is: no task per connection, no
timer per request. Time-outs are numbers on the connections, and one sweep over all of them per second finds those that
are overdue; ten thousand silent connections cost a millisecond of it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import msgspec

from bioproxy import aio
from bioproxy.config.schema import Limits
from bioproxy.errors import BioproxyError, ConfigError, Problem
from bioproxy.wire.connection import ServerConnection
from bioproxy.wire.heads import Headers
from bioproxy.wire.message import Request, Responder

log = logging.getLogger(__name__)

Handler = Callable[[Request, Responder], Awaitable[None]]
ErrorBody = Callable[[BioproxyError, str], tuple[Headers, bytes]]
BACKLOG = 4096  # connections that the system may hold for us; its own limit applies too
CLEAN_UP = 5.0  # seconds that cancelled handlers get for their `finally`
TLS_GOODBYE = 2.0  # seconds that a client gets to answer the end of TLS; most send nothing, and nothing is lost


class ServerStatistics(msgspec.Struct, frozen=True):
    """What a server has and had: `connections` open and `running` requests now; the others since the start."""

    connections: int
    running: int
    accepted: int
    turned_away: int  # connections over `limits.connections`
    requests: int
    refused: int  # requests answered by wire itself: not valid, too large, too slow


def plain_error(error: BioproxyError, path: str) -> tuple[Headers, bytes]:  # noqa: ARG001 - the shape of an ErrorBody
    """An error as JSON in the common shape, where the owner of the server gives no other."""
    body = {"error": {"message": error.message, "type": error.code, "code": error.status}}
    return [(b"Content-Type", b"application/json")], msgspec.json.encode(body)


class Server:
    """Serves `handler` on one port. `error_body` makes headers and body of an error on a path."""

    def __init__(self, handler: Handler, *, limits: Limits, name: str, error_body: ErrorBody | None = None) -> None:
        self.handler = cast("Callable[[Request, Responder], Coroutine[Any, Any, None]]", handler)
        self.limits = limits
        self.name = name
        self.error_body = error_body or plain_error
        self.connections: set[ServerConnection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.sockets: list[socket.socket] = []
        self.listeners: list[asyncio.Server] = []
        self.tls: ssl.SSLContext | None = None
        self.addresses: list[tuple[str, int]] = []
        self.sweeper: asyncio.TimerHandle | None = None
        self.empty = asyncio.Event()
        self.closing = False
        self.accepted = self.turned_away = self.requests = self.refused = 0
        times = (limits.head_timeout, limits.body_timeout, limits.idle_timeout, limits.write_timeout)
        self.interval = min(1.0, max(0.01, min(times) / 4))  # seconds between two sweeps

    @property
    def port(self) -> int:
        """The port that is listened on (the one asked for may have been 0)."""
        return self.addresses[0][1]

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Open `host` (a name, an address, or "" for all) on `port`; 0 takes any that is free.

        With `tls` (tls.py makes one) clients must speak TLS; their handshake has the time of a head. ConfigError
        where the port cannot be had, with a sentence that says why.
        """
        self.loop = asyncio.get_running_loop()
        self.time = self.loop.time
        self.sockets = await bind(self.loop, host, port)
        self.addresses = [listener.getsockname()[:2] for listener in self.sockets]
        self.tls = tls
        self.listeners = await self.accepting(tls)
        if self.sweeper is None:
            self.sweeper = self.loop.call_later(self.interval, self.sweep)

    async def accepting(self, tls: ssl.SSLContext | None) -> list[asyncio.Server]:
        """Listeners on our sockets, each on a copy of its own: one that is open cannot begin to speak TLS."""
        return [
            await self.loop.create_server(
                lambda: ServerConnection(self),
                sock=listener.dup(),
                backlog=BACKLOG,
                ssl=tls,
                ssl_handshake_timeout=self.limits.head_timeout if tls else None,
                ssl_shutdown_timeout=TLS_GOODBYE if tls else None,
            )
            for listener in self.sockets
        ]

    async def secure(self, tls: ssl.SSLContext | None) -> None:
        """Let connections from now on speak TLS with `tls`, or plain HTTP (None), on the same sockets.

        Connections that are open go on with what they began with. If TLS was switched on or off they end as soon as
        they are idle.
        """
        before, self.listeners = self.listeners, await self.accepting(tls)
        for listener in before:
            listener.close()
        switched, self.tls = (tls is None) != (self.tls is None), tls
        if switched:
            self.end_idle()

    def sweep(self) -> None:
        """Find the connections whose deadline has passed."""
        self.sweeper = self.loop.call_later(self.interval, self.sweep)
        now = self.time()
        for connection in [connection for connection in self.connections if connection.deadline <= now]:
            connection.overdue(now)

    # what connections tell

    def opened(self, connection: ServerConnection) -> None:
        """A client connected; it is turned away where there are too many, or where we are about to stop."""
        self.accepted += 1
        self.connections.add(connection)
        if len(self.connections) > self.limits.connections or self.closing:
            self.turned_away += 1
            connection.cut()

    def closed(self, connection: ServerConnection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if not self.tasks and not self.connections:
            self.empty.set()

    def start(self, request: Request, responder: Responder) -> asyncio.Task[None]:
        """Run the handler for one request."""
        self.requests += 1
        task = aio.spawn(self.handler(request, responder), name="request")
        self.tasks.add(task)
        return task

    def ended(self, task: asyncio.Task[None]) -> None:
        """A request's task has ended."""
        self.tasks.discard(task)
        if not self.tasks and not self.connections:
            self.empty.set()

    # the end

    def stop_accepting(self) -> None:
        """Close the listeners; what is connected stays."""
        for listener in self.listeners:
            listener.close()
        for one in self.sockets:
            one.close()
        self.listeners.clear()
        self.sockets.clear()

    async def close(self, *, deadline: float) -> None:
        """End: idle connections at once, running requests within `deadline` seconds, then whatever is left is cut."""
        self.stop_accepting()
        self.closing = True
        self.end_idle()
        await self.emptied(deadline)
        for connection in list(self.connections):
            connection.cut()
        await self.emptied(CLEAN_UP)
        await aio.finish(self.tasks, deadline=CLEAN_UP)
        if self.sweeper is not None:
            self.sweeper.cancel()
            self.sweeper = None

    def end_idle(self) -> None:
        """Close the connections that wait for a request, and each of the others after its answer."""
        now = asyncio.get_running_loop().time()
        for connection in list(self.connections):
            connection.keep = False
            if connection.task is None and connection.reader.idle:
                connection.stop_idle(now)

    async def emptied(self, seconds: float) -> None:
        """Wait until no connection and no request is left, `seconds` at most."""
        if (self.connections or self.tasks) and seconds > 0:
            self.empty.clear()
            await aio.wait_first(self.empty, timeout=seconds)

    def statistics(self) -> ServerStatistics:
        """The counts of now and since the start."""
        return ServerStatistics(
            connections=len(self.connections),
            running=len(self.tasks),
            accepted=self.accepted,
            turned_away=self.turned_away,
            requests=self.requests,
            refused=self.refused,
        )


async def bind(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[socket.socket]:
    """Sockets bound to every address of `host`, all on one port; ConfigError where not even one could be had.

    `localhost` is two addresses on most machines and one in many containers: what the system does not have is left out.
    """
    try:
        name = None if host in {"", "*"} else host.strip("[]")
        found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise cannot_listen(host, port, error) from error
    bound: list[socket.socket] = []
    last: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        wanted = bound[0].getsockname()[1] if bound and not port else port
        try:
            bound.append(bind_one(family, kind, protocol, (address[0], wanted, *address[2:])))
        except OSError as error:
            last = error
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                break
    else:
        if bound:
            return bound
    for one in bound:
        one.close()
    raise cannot_listen(host, port, last or OSError("the name has no address"))


def bind_one(family: int, kind: int, protocol: int, address: tuple[Any, ...]) -> socket.socket:
    """One bound socket; IPv6 ones take no IPv4, which has a socket of its own."""
    one = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
    except OSError:
        one.close()
        raise
    return one


def cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    """The sentence for an address that cannot be had."""
    place = f"port {port} on {host or 'all addresses'}"
    if error.errno == errno.EADDRINUSE:
        return ConfigError([Problem(f"{place} is taken by another program; stop that one, or choose another port")])
    if error.errno == errno.EACCES:
        return ConfigError([Problem(f"{place} is not ours to open; choose a port of 1024 or above")])
    return ConfigError([Problem(f"{place} cannot be opened: {error.strerror or error}")])
