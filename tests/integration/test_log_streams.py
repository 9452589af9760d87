"""`/logs` and `/logs/stream` over a real socket: history, what comes after it, and the end from either side."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from bioproxy.admin.logs import UNKNOWN, Logs
from bioproxy.admin.routes import Question
from bioproxy.config.schema import Limits
from bioproxy.errors import RequestError
from bioproxy.logbook import Logbook, Ring, Subscription
from bioproxy.wire.http1.message import Request, Responder
from bioproxy.wire.http1.router import Router
from bioproxy.wire.server import Server
from support.http import Answer, build, call
from support.wire_rig import Wire

ALIASES = {"short": "org/qwen"}


class Port:
    """A server with nothing but logs on it: those of one model, `org/qwen`, and the common ones."""

    def __init__(self) -> None:
        self.book = Logbook(to_stdout="both")
        self.model = self.book.model("org/qwen")
        self.logs = Logs(self.book, resolve=ALIASES.get)
        self.server = Server(self.handle, limits=Limits(), name="logs")
        self.moved = asyncio.Event()
        self.clients: list[Wire] = []
        self.router: Router[str] = Router()
        self.router.add("GET", "/logs", "history")
        self.router.add("GET", "/logs/stream", "stream")
        self.router.add("GET", "/logs/stream/{id...}", "stream")

    async def handle(self, request: Request, responder: Responder) -> None:
        """Serve one request, as a port does."""
        found = self.router.find(request.method, request.path)
        assert found is not None
        try:
            serve = self.logs.history if found[0] == "history" else self.logs.stream
            await serve(Question(request, responder, found[1]))
        except RequestError as error:
            responder.send(error.status, [], error.message.encode())
        finally:
            self.moved.set()

    async def ask(self, method: str, target: str, **headers: str) -> Answer:
        """A request whose answer ends."""
        return await call(self.server.port, method, target, headers=headers)

    async def follow(self, target: str) -> Wire:
        """A client that has the head of its stream."""
        wire = await self.send(build("GET", target))
        assert b"200 OK" in await wire.head()
        return wire

    async def send(self, request: bytes) -> Wire:
        """A client that has sent a request."""
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.server.port))
        self.clients.append(wire)
        await wire.send(request)
        return wire

    async def left(self, ring: Ring) -> None:
        """Wait until nobody follows `ring`."""
        while ring.subscriptions:
            self.moved.clear()
            await self.moved.wait()


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    """The running server."""
    opened = Port()
    await opened.server.listen("127.0.0.1", 0)
    yield opened
    for client in opened.clients:
        client.writer.close()
    opened.logs.close()
    await opened.server.close(deadline=1.0)


async def test_the_history_is_plain_text(port: Port) -> None:
    """The combined log, which nobody may take for a page or keep."""
    port.book.proxy_line("[INFO] ours")
    port.model(b"\x1b[31mtheirs\xff\n")
    answer = await port.ask("GET", "/logs")
    assert answer.body == b"[INFO] ours\n\x1b[31mtheirs\xff\n"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


async def test_a_browser_is_sent_to_the_page(port: Port) -> None:
    """Its Accept says that it wants a page."""
    answer = await port.ask("GET", "/logs", Accept="text/html,*/*;q=0.8")
    assert (answer.status, answer.headers["location"]) == (302, "ui/#/logs")


async def test_a_stream_is_history_and_what_comes(port: Port) -> None:
    """In one unbroken order, byte for byte."""
    port.model(b"before\n")
    client = await port.follow("/logs/stream/org/qwen")
    assert await client.until(b"before\n\r\n") == b"7\r\nbefore\n\r\n"
    port.model(b"\x1b[0m\xff\x00")
    assert await client.until(b"\x00\r\n") == b"6\r\n\x1b[0m\xff\x00\r\n"


async def test_the_head_comes_at_once(port: Port) -> None:
    """Also where nothing was logged yet, and no proxy in between may hold the stream back."""
    client = await port.send(build("GET", "/logs/stream/org/qwen"))
    head = await client.head()
    assert b"X-Accel-Buffering: no\r\n" in head
    assert b"Transfer-Encoding: chunked\r\n" in head
    assert b"text/plain" in head


@pytest.mark.parametrize("query", ["?no-history", "?no-history=0", "?a=b&no-history="])
async def test_the_history_can_be_left_out(port: Port, query: str) -> None:
    """Whatever the value is."""
    port.model(b"before\n")
    client = await port.follow(f"/logs/stream/org/qwen{query}")
    port.model(b"after\n")
    assert await client.until(b"after\n\r\n") == b"6\r\nafter\n\r\n"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/logs/stream", b"[INFO] ours\ntheirs\n"),
        ("/logs/stream/proxy", b"[INFO] ours\n"),
        ("/logs/stream/upstream", b"theirs\n"),
        ("/logs/stream/org/qwen", b"theirs\n"),
        ("/logs/stream/short", b"theirs\n"),
    ],
)
async def test_every_log_has_its_stream(port: Port, path: str, told: bytes) -> None:
    """IDs may have slashes, and aliases do; `no-follow` ends behind the history."""
    port.book.proxy_line("[INFO] ours")
    port.model(b"theirs\n")
    answer = await port.ask("GET", f"{path}?no-follow")
    assert answer.body == told


@pytest.mark.parametrize("name", ["other", "org", "org/qwen/", "PROXY"])
async def test_an_unknown_log_is_refused(port: Port, name: str) -> None:
    """With the sentence that scripts may know."""
    answer = await port.ask("GET", f"/logs/stream/{name}")
    assert (answer.status, answer.text) == (400, UNKNOWN)


async def test_head_asks_for_the_head_only(port: Port) -> None:
    """No subscription is left behind it, and an unknown log is unknown to it too."""
    answer = await port.ask("HEAD", "/logs/stream/proxy")
    assert (answer.status, answer.body) == (200, b"")
    assert not port.book.proxy.subscriptions
    assert (await port.ask("HEAD", "/logs/stream/other")).status == 400


async def test_a_client_of_http_1_0_gets_the_bytes_alone(port: Port) -> None:
    """Without chunks; the end of the connection is the stream's."""
    port.model(b"line\n")
    client = await port.send(b"GET /logs/stream/org/qwen HTTP/1.0\r\n\r\n")
    await client.head()
    assert await client.until(b"line\n") == b"line\n"
    port.logs.close()
    assert await client.rest() == b""


async def test_a_client_that_leaves_frees_its_subscription(port: Port) -> None:
    """Though no line ever came."""
    client = await port.follow("/logs/stream/proxy")
    assert port.book.proxy.subscriptions
    client.writer.close()
    await port.left(port.book.proxy)
    assert not port.logs.streams


async def test_the_shutdown_ends_streams_properly(port: Port) -> None:
    """With what is still to be told and the last chunk; one that comes later gets the history and the end."""
    client = await port.follow("/logs/stream/proxy")
    port.book.proxy_line("stopping")
    port.logs.close()
    assert await client.rest() == b"9\r\nstopping\n\r\n0\r\n\r\n"
    assert (await port.ask("GET", "/logs/stream/proxy")).body == b"stopping\n"


async def test_a_model_that_is_configured_no_more_ends_its_streams(port: Port) -> None:
    """A reload takes it away; other streams go on."""
    gone, stays = await port.follow("/logs/stream/short"), await port.follow("/logs/stream/upstream")
    port.model(b"line\n")
    port.book.forget("org/qwen")
    assert (await gone.rest()).endswith(b"line\n\r\n0\r\n\r\n")
    port.book.model("other")(b"new\n")
    await stays.until(b"new\n\r\n")


async def test_a_client_that_does_not_read_loses_lines_and_holds_up_nobody(port: Port) -> None:
    """Memory for it is bounded, others get everything, and once it reads it finds the gap marked."""
    sleeper = socket.create_connection(("127.0.0.1", port.server.port))
    sleeper.setblocking(False)
    await asyncio.get_running_loop().sock_sendall(sleeper, build("GET", "/logs/stream/org/qwen"))
    quick = await port.follow("/logs/stream/upstream")
    ring, line = port.book.models["org/qwen"], b"x" * 32_767 + b"\n"
    while not ring.dropped:
        port.model(line)
        await quick.until(b"x\n\r\n")
    (reader,) = ring.subscriptions
    assert len(reader.backlog.waiting) == reader.backlog.limit
    late = Wire(*await asyncio.open_connection(sock=sleeper))
    missing = await until_the_gap(late, reader)
    assert missing == ring.dropped
    port.model(b"on again\n")
    await late.until(b"on again\n")
    late.writer.close()
    quick.writer.close()
    await port.left(ring)


async def until_the_gap(wire: Wire, reader: Subscription) -> int:
    """Read to the line that says what is missing; the number in it."""
    while b"dropped" not in (line := await wire.reader.readline()):
        assert line, f"the stream ended without a mark: {reader.backlog.missing}"
    return int(line.split()[1])
