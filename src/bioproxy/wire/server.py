"""The listeners of one port, the sweep over its connections, and their end.

One class serves the proxy and the admin port. Its `shared` Port (connection.py) holds every connection and every
request's task, so that a stop can wait for them and a test can count them. A task per request is all the concurrency
there is: no task per connection, no timer per request. Time-outs are numbers on the connections, and one sweep over all
of them per second finds those that are overdue; ten thousand silent connections cost a millisecond of it.

Each open connection is an open file, and of these the system allows a process only so many. Clients could use them all
up by saying nothing, and then we could not even ask the engine how it is. So a port has no more connections than leave
files for everything else, and at that bound the connection that has waited longest for a request makes way for the new
one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bioproxy import aio
from bioproxy.config.addresses import socket_path
from bioproxy.config.schema import Limits
from bioproxy.errors import BioproxyError
from bioproxy.wire.connection import ErrorBody, Handler, Port, ServerConnection, ServerStatistics
from bioproxy.wire.http1.heads import Headers
from bioproxy.wire.sockets import BACKLOG, address_of, bind, bind_unix, is_unix, remove_socket
from bioproxy.wire.tls import PairContext

log = logging.getLogger(__name__)

RESERVED_FILES = 192  # for engines (a pipe and two sockets each), listeners, snapshots, templates, logs, the admin port
FEWEST = 32  # connections, however few files there may be
OLLAMA_SHARE = 4  # Ollama's port takes one file of so many from the proxy port
ADMIN_SHARE = 16  # the admin port gets one file for so many of the proxy port
CLEAN_UP = 5.0  # seconds that cancelled handlers get for their `finally`
TLS_GOODBYE = 2.0  # seconds that a client gets to answer the end of TLS; most send nothing, and nothing is lost


def plain_error(error: BioproxyError, path: str) -> tuple[Headers, bytes]:  # noqa: ARG001 - the shape of an ErrorBody
    """An error as JSON in the common shape, unless the owner of the server gives another."""
    body = {"error": {"message": error.message, "type": error.code, "code": error.status}}
    return [(b"Content-Type", b"application/json")], msgspec.json.encode(body)


def open_files() -> int:
    if sys.platform == "win32":
        return 1 << 20
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def files_for_clients(files: int) -> int:
    """How many of `files` open files the proxy port may use: for connections, and one more for each running request."""
    return max(FEWEST, files - RESERVED_FILES)


class Server:
    """Serves `handler` on one port. `error_body` makes headers and body of an error on a path.

    `files`: what its connections may use of the open files, and one for each request, which may need an engine's.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        limits: Limits,
        name: str,
        error_body: ErrorBody | None = None,
        files: int = 1 << 20,
    ) -> None:
        self.shared = Port(handler, limits=limits, name=name, error_body=error_body or plain_error, files=files)
        self.limits = limits
        self.sockets: list[socket.socket] = []
        self.file: tuple[Path, int] | None = None  # of our unix socket: its path and inode
        self.listeners: list[asyncio.Server] = []
        self.tls: PairContext | None = None
        self.addresses: list[tuple[str, int]] = []
        self.sweeper: asyncio.TimerHandle | None = None
        self.tied: set[socket.socket] = set()  # those that Windows knows to be the loop's
        self.resting = False  # no client is taken, because there are too many
        self.resuming: asyncio.Task[None] | None = None
        times = (limits.head_timeout, limits.body_timeout, limits.idle_timeout, limits.write_timeout)
        self.interval = min(1.0, max(0.01, min(times) / 4))  # seconds between two sweeps

    @property
    def port(self) -> int:
        """The port that is listened on (the one asked for may have been 0); 0 at a unix socket."""
        return self.addresses[0][1]

    async def listen(
        self,
        host: str,
        port: int,
        tls: PairContext | None = None,
        *,
        mode: int = 0o600,
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        """Open `host` (a name, an address, "" for all, or `unix:/path`) on `port`; 0 takes any that is free.

        With `tls` (tls.py makes one) clients must speak TLS; their handshake has the time of a head. `mode` is a unix
        socket's. `sockets` that are open already are taken instead; whoever opened them keeps their files. ConfigError
        if the port cannot be had, with a message that says why.
        """
        self.loop = self.shared.loop = asyncio.get_running_loop()
        if sockets:
            self.sockets = [*sockets]
        elif path := socket_path(host):
            opened, self.file = await asyncio.to_thread(bind_unix, path, mode)
            self.sockets = [opened]
        else:
            self.sockets = await bind(self.loop, host, port)
        self.addresses = [address_of(listener) for listener in self.sockets]
        self.tls = tls
        self.listeners = await self.accepting(tls)
        if self.sweeper is None:
            self.sweeper = self.loop.call_later(self.interval, self.sweep)

    async def accepting(self, tls: PairContext | None) -> list[asyncio.Server]:
        """Listeners on our sockets, each on a copy of its own: one that is open cannot begin to speak TLS."""
        listeners: list[asyncio.Server] = []
        try:
            for ours in self.sockets:
                listener = await self.accepting_on(self.copied(ours), tls)
                listeners.append(listener)
        except BaseException:
            for one in listeners:
                one.close()
            raise
        return listeners

    def copied(self, ours: socket.socket) -> socket.socket:
        """Another descriptor of one of our sockets.

        Windows ties a socket to the loop's completion port once, however many descriptors it has: a second time is an
        error, after which the loop would accept nobody.
        """
        copy = ours.dup()
        if sys.platform == "win32" and isinstance(self.loop, asyncio.ProactorEventLoop):
            if ours in self.tied:
                self.loop._proactor._registered.add(copy)  # type: ignore[attr-defined]  # noqa: SLF001 - no other way
            self.tied.add(ours)
        return copy

    async def accepting_on(self, copy: socket.socket, tls: PairContext | None) -> asyncio.Server:
        """One listener; its socket is closed if it cannot be had. A unix socket's speaks no TLS."""
        tls = None if is_unix(copy) else tls
        try:
            return await self.loop.create_server(
                self.accept if tls else lambda: ServerConnection(self.shared),
                sock=copy,
                backlog=min(BACKLOG, self.shared.counts.most),  # so many at most are taken at once
                ssl=tls,
                ssl_handshake_timeout=self.limits.head_timeout if tls else None,
                ssl_shutdown_timeout=TLS_GOODBYE if tls else None,
            )
        except BaseException:
            copy.close()
            raise

    async def secure(self, tls: PairContext | None) -> None:
        """Let connections from now on speak TLS with `tls`, or plain HTTP (None), on the same sockets.

        Connections that are open go on with what they began with. If TLS was switched on or off they end as soon as
        they are idle.
        """
        before, self.listeners = self.listeners, await self.accepting(tls)
        self.resting = False
        for listener in before:
            listener.close()
        switched, self.tls = (tls is None) != (self.tls is None), tls
        if switched:
            self.end_idle()

    def sweep(self) -> None:
        """Find the connections whose deadline has passed."""
        self.sweeper = self.loop.call_later(self.interval, self.sweep)
        now = self.loop.time()
        shared = self.shared
        for connection in [connection for connection in shared.connections if connection.deadline <= now]:
            connection.overdue(now)
        overdue = now - self.limits.head_timeout - TLS_GOODBYE
        for one in [one for one, begun in shared.greeting.items() if begun < overdue]:
            del shared.greeting[one]
        if self.resting and not shared.crowded() and (self.resuming is None or self.resuming.done()):
            self.resuming = aio.spawn(self.resume(), name=f"{shared.name} accepts again")

    def accept(self) -> ServerConnection:
        """A client that is to speak TLS has connected.

        Until its handshake is over it cannot be closed, so at the bound no more are taken, and the system holds those
        that come.
        """
        if self.shared.crowded() and not self.shared.make_way():
            self.loop.call_soon(self.rest)
        connection = ServerConnection(self.shared)
        self.shared.greets(connection)
        return connection

    def rest(self) -> None:
        """Take no connections for now; the sockets stay, and the next sweep looks whether there is room again."""
        if not self.shared.closing and self.listeners:
            self.resting = True
            for listener in self.listeners:
                listener.close()
            self.listeners.clear()

    async def resume(self) -> None:
        listeners = await self.accepting(self.tls)
        if self.shared.closing or not self.resting:
            for listener in listeners:
                listener.close()
        else:
            self.resting, self.listeners = False, listeners

    # the end

    def stop_accepting(self) -> None:
        """Close the listeners; what is connected stays."""
        self.resting = False
        for listener in self.listeners:
            listener.close()
        for one in self.sockets:
            one.close()
        if self.file is not None:
            remove_socket(*self.file)
            self.file = None
        self.listeners.clear()
        self.sockets.clear()

    async def close(self, *, deadline: float) -> None:
        """End: idle connections at once, running requests within `deadline` seconds, then whatever is left is cut."""
        self.stop_accepting()
        shared = self.shared
        shared.closing = True
        self.end_idle()
        await self.emptied(deadline)
        for connection in list(shared.connections):
            connection.cut()
        await self.emptied(CLEAN_UP)
        await aio.finish({*shared.tasks, *([self.resuming] if self.resuming else [])}, deadline=CLEAN_UP)
        if self.sweeper is not None:
            self.sweeper.cancel()
            self.sweeper = None

    def end_idle(self) -> None:
        """Close the connections that wait for a request, and each of the others after its answer."""
        now = asyncio.get_running_loop().time()
        for connection in list(self.shared.connections):
            connection.end_if_idle(now)

    async def emptied(self, seconds: float) -> None:
        """Wait until no connection and no request is left, `seconds` at most."""
        shared = self.shared
        if (shared.connections or shared.tasks) and seconds > 0:
            shared.empty.clear()
            await aio.wait_first(shared.empty, timeout=seconds)

    def statistics(self) -> ServerStatistics:
        shared, tls = self.shared, self.tls
        times = (
            {} if tls is None or math.isinf(tls.ends) else {"certificate_expires": tls.ends, "certificate_due": tls.due}
        )
        return msgspec.structs.replace(
            shared.counts, connections=len(shared.connections), running=len(shared.tasks), **times
        )
