"""The event stream over a real socket: it begins, it tells, and it ends from either side."""

from __future__ import annotations

import asyncio
import socket

from bioproxy.admin import events as stream
from bioproxy.events import ConfigReloaded, RequestEnded, WarmupChecked
from support.admin import AdminPort, admin_port, record, system_changed
from support.http import build


class Client:
    """One listener's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def listen(cls, port: AdminPort) -> Client:
        """Connect, and return when the stream has begun."""
        client = cls(*await asyncio.open_connection("127.0.0.1", port.server.port))
        client.writer.write(build("GET", "/events"))
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"text/event-stream" in head
        assert b"no-store" in head
        await client.until(b"retry: ")
        return client

    async def until(self, text: bytes) -> None:
        """Read lines until one begins with `text`."""
        while not (line := await self.reader.readline()).startswith(text):
            assert line, f"the stream ended before {text!r}"

    def leave(self) -> None:
        """Close without a word."""
        self.writer.close()


async def test_what_happens_is_streamed() -> None:
    """Each event with its name, to every listener."""
    async with admin_port() as port:
        clients = [await Client.listen(port), await Client.listen(port)]
        port.bus.publish(ConfigReloaded(changed=("prefixes",)))
        port.bus.publish(RequestEnded(record=record(1, finding=system_changed("private"))))
        for client in clients:
            await client.until(b"event: ConfigReloaded")
            await client.until(b'data: {"event":"ConfigReloaded"')
            await client.until(b"event: RequestEnded")
            client.leave()
        await port.hub.count(0)


async def test_a_client_that_leaves_ends_its_subscription() -> None:
    """Nothing is kept for it, though no event ever came."""
    async with admin_port() as port:
        client = await Client.listen(port)
        assert port.listening
        client.leave()
        await port.hub.count(0)
        assert not port.listening


async def test_the_shutdown_ends_the_stream_properly() -> None:
    """The last chunk comes, so that a client knows an end from a fault."""
    async with admin_port() as port:
        client = await Client.listen(port)
        port.admin.close()
        rest = await client.reader.read()
        client.leave()
    assert rest.endswith(b"0\r\n\r\n")


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    """A publisher is never held up: what a sleeping client cannot take ends its connection, not our memory."""
    async with admin_port() as port:
        sleeper = socket.create_connection(("127.0.0.1", port.server.port))
        sleeper.setblocking(False)
        client = await Client.listen(port)
        await asyncio.get_running_loop().sock_sendall(sleeper, build("GET", "/events"))
        await port.hub.count(2)
        big = ConfigReloaded(error="x" * 20_000)
        async with asyncio.timeout(30):
            while len(port.hub.listeners) == 2:
                port.bus.publish(big)
                await client.until(b"event: ConfigReloaded")
        port.bus.publish(WarmupChecked())
        await client.until(b"event: WarmupChecked")
        sleeper.close()
        client.leave()


async def test_silence_is_broken_by_comments() -> None:
    """A proxy in between does not take a quiet stream for a dead one."""
    before = stream.SILENCE
    stream.SILENCE = 0.02
    try:
        async with admin_port() as port:
            client = await Client.listen(port)
            await client.until(b": alive")
            client.leave()
    finally:
        stream.SILENCE = before
