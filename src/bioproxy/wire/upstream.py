"""Requests to one engine, over a pool of kept connections.

A connection is used by one request at a time and goes back when the answer is whole (engine_connection.py). Idle ones
are kept for less time than llama-server keeps them (five seconds; facts, section 3) and used newest first, so that the
others may expire. A look at the socket before each use finds an end that the loop has not reported yet: a request that
went to an engine that is gone cannot be told from the one that it died of. Even so an engine can close a connection in
the moment in which we use it again: if a *reused* connection ends before any byte of an answer, the request is sent
once more, on a fresh one. A fresh one that fails is the engine's own doing, and an error.

Cancelling a task that waits in `request` closes the connection, the only way to tell an engine to stop computing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Callable

import msgspec

from bioproxy.clocks import since_boot
from bioproxy.config import addresses
from bioproxy.errors import BioproxyError, ConfigError, EngineProtocolError, EngineUnavailable, OutOfFiles, Problem
from bioproxy.wire.engine_connection import EngineConnection, Response
from bioproxy.wire.http1.heads import Headers, request_head, upgrade_of

NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})
OUT_OF_FILES = "bioproxy has as many files open as the system allows; `ulimit -n` or LimitNOFILE= of systemd raises it"


class Origin(msgspec.Struct, frozen=True):
    """An engine's address. `base` stands before every target and has no slash at its end.

    At a unix socket the host is `localhost`, and the port is the socket's path.
    """

    host: str
    port: int | str
    base: str = ""
    tls: bool = False

    def __str__(self) -> str:
        if isinstance(self.port, str):
            return addresses.UNIX + self.port
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.base}"

    @property
    def authority(self) -> str:
        return self.host if isinstance(self.port, str) else addresses.authority(self.host, self.port)


def parse_origin(url: str) -> Origin:
    """An Origin from `http://host:port/base` or `unix:/path`; ConfigError for anything else."""
    try:
        scheme, host, port, path = addresses.engine_parts(url)
    except ValueError as error:
        raise ConfigError([Problem(str(error))]) from error
    tls = scheme == "https"
    return Origin(host, port or (443 if tls else 80), base=path.rstrip("/"), tls=tls)


class PoolStatistics(msgspec.Struct):
    """Connections now (`open`, of which `idle` and `active` in use), and what happened since the start."""

    open: int = 0
    idle: int = 0
    active: int = 0
    opened: int = 0
    requests: int = 0
    reused: int = 0
    retried: int = 0


class Pool:
    """Connections to one engine. Times are in seconds; a model or a peer may have others.

    `clock` says how long a connection lay idle; the time in which the machine slept counts.
    """

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.clock = since_boot
        self.connect_timeout = 5.0
        self.idle_timeout = 4.0
        self.head_timeout = 0.0  # from the request to the head of its answer; 0: as long as it takes
        self.host = origin.authority.encode("ascii", "surrogateescape")
        self.base = origin.base.encode("utf-8", "surrogateescape")
        self.idle: list[EngineConnection] = []  # the newest last
        self.open: set[EngineConnection] = set()  # all, until they are really gone
        self.gone = asyncio.Event()  # none is open
        self.on_lost: Callable[[], None] = lambda: None  # called when the engine closes what lies idle
        self.expiry: asyncio.TimerHandle | None = None
        self.closing = False
        self.counts = PoolStatistics()

    async def request(self, method: str, target: bytes, headers: Headers, body: bytes) -> Response:
        """Send a request; returns when the head of its answer is in.

        EngineUnavailable if nothing answers (`sent` tells whether any of the request went out), EngineProtocolError if
        what answers is not HTTP.
        """
        upgrade = upgrade_of(headers) if method == "GET" else None
        head = request_head(method, self.base + target, headers, host=self.host, length=len(body), upgrade=upgrade)
        head_only = method == "HEAD"
        self.counts.requests += 1
        connection = self.take()
        sent = False
        if connection is not None:
            self.counts.reused += 1
            response = await self.answer(connection.exchange(head, body, head_only=head_only))
            if response.error is None or response.fed:
                return self.judged(response, upgrade=upgrade is not None)
            self.counts.retried += 1
            sent = True
        try:
            connection = await self.connect()
        except EngineUnavailable as error:
            error.sent = sent
            raise
        response = await self.answer(connection.exchange(head, body, head_only=head_only))
        return self.judged(response, upgrade=upgrade is not None)

    async def answer(self, response: Response) -> Response:
        """Wait for an answer's head, or for the failure that the response then holds."""
        try:
            if self.head_timeout:
                async with asyncio.timeout(self.head_timeout):
                    await response.begun()
            else:
                await response.begun()
        except TimeoutError:
            response.abort()
            message = f"no answer within {self.head_timeout:g} s (responseHeader) from {self.origin}"
            raise lost(EngineUnavailable, message, status=504) from None
        except BaseException:
            response.abort()
            raise
        return response

    def judged(self, response: Response, *, upgrade: bool) -> Response:
        """The response if it is one; its error otherwise, with the engine's address in the message."""
        if response.error is None and response.status == 101 and not (upgrade and response.upgraded):
            response.abort()
            response.error = EngineProtocolError("the engine changed the protocol without being asked")
            response.pieces.clear()
        if response.error is not None and not response.pieces:
            raise lost(type(response.error), f"{response.error.message} ({self.origin})") from None
        return response

    async def connect(self) -> EngineConnection:
        """A fresh connection; EngineUnavailable if there is none to be had."""
        self.check_open()
        loop, origin = asyncio.get_running_loop(), self.origin
        try:
            async with asyncio.timeout(self.connect_timeout):
                if isinstance(origin.port, str):
                    _, connection = await loop.create_unix_connection(self.made, origin.port)
                else:
                    _, connection = await loop.create_connection(
                        self.made, origin.host, origin.port, ssl=origin.tls or None
                    )
        except TimeoutError:
            raise self.unavailable(f"no connection within {self.connect_timeout:g} s") from None
        except OSError as error:
            if error.errno in NO_FILES:
                raise OutOfFiles(OUT_OF_FILES, retry_after=1) from error
            number = error.errno or 0  # negative if a name is unknown; on Windows it stands for many errors
            told = number > 0 and sys.platform != "win32"
            raise self.unavailable(os.strerror(number) if told else error.strerror or str(error)) from error
        # Only here is it ours: uvloop never calls connection_lost on one whose opening was cancelled.
        self.counts.opened += 1
        if not connection.lost:
            self.open.add(connection)
        if self.closing:
            connection.abort()
        self.check_open()
        return connection

    def made(self) -> EngineConnection:
        return EngineConnection(idle=self.release, gone=self.closed)

    def check_open(self) -> None:
        """EngineUnavailable once `close` was called."""
        if self.closing:
            raise EngineUnavailable(f"the connections to {self.origin} are being closed")

    def unavailable(self, reason: str) -> BioproxyError:
        """The error for an engine that cannot be reached."""
        return EngineUnavailable(f"nothing answers at {self.origin} ({reason}); is the engine running there?")

    def take(self) -> EngineConnection | None:
        """The newest idle connection that is good to use, or None."""
        if not self.idle:
            return None
        now = self.clock()
        while self.idle:
            connection = self.idle.pop()
            fresh = now - connection.idle_since < self.idle_timeout
            if fresh and not connection.transport.is_closing() and connection.is_quiet():
                return connection
            connection.abort()
        return None

    # what connections tell

    def release(self, connection: EngineConnection) -> None:
        """Keep a connection whose answer is whole."""
        if self.closing:
            connection.abort()
            return
        connection.idle_since = self.clock()
        self.idle.append(connection)
        if self.expiry is None:
            self.expiry = asyncio.get_running_loop().call_later(self.idle_timeout, self.expire)

    def closed(self, connection: EngineConnection) -> None:
        """A connection is gone; what we closed ourselves was taken off the idle ones before."""
        self.open.discard(connection)
        if not self.open:
            self.gone.set()
        if connection in self.idle:
            self.idle.remove(connection)
            self.on_lost()

    def expire(self) -> None:
        """Close what was idle for too long; one timer for all, while there are any."""
        loop, now = asyncio.get_running_loop(), self.clock()
        kept = [connection for connection in self.idle if now - connection.idle_since < self.idle_timeout]
        for connection in self.idle[: len(self.idle) - len(kept)]:
            connection.abort()
        self.idle = kept
        self.expiry = None
        if kept:
            self.expiry = loop.call_later(max(0.0, kept[0].idle_since + self.idle_timeout - now), self.expire)

    # the end

    def drop_idle(self) -> None:
        """Close what lies idle: the machine slept, or the engine is another one now."""
        for connection in self.idle:
            connection.abort()
        self.idle.clear()

    async def close(self) -> None:
        """Close every connection, also those in use, and wait until they are gone."""
        self.closing = True
        self.idle.clear()
        for connection in list(self.open):
            connection.abort()
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None
        if self.open:
            self.gone.clear()
            await self.gone.wait()

    def reopen(self) -> None:
        """Take requests again after `close`: another process listens there now."""
        self.closing = False

    def statistics(self) -> PoolStatistics:
        active = sum(connection.response is not None for connection in self.open)
        return msgspec.structs.replace(self.counts, open=len(self.open), idle=len(self.idle), active=active)


def lost(kind: type[BioproxyError], message: str, *, status: int | None = None) -> BioproxyError:
    """Why a request that went out, at least in part, has no answer."""
    error = kind(message, status=status)
    if isinstance(error, EngineUnavailable):
        error.sent = True
    return error
