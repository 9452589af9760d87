"""What a client sees of the server: order, framing, kept connections, refusals."""

from __future__ import annotations

import asyncio
import socket

import pytest

from bioproxy import aio
from bioproxy.config.schema import Limits
from bioproxy.errors import BioproxyError, ConfigError, NotFound
from bioproxy.wire.http1.message import Headers, Request, Responder
from bioproxy.wire.server import Server
from support.leaks import until
from support.wire_rig import Wire, client, get, post, serving


async def echo(request: Request, responder: Responder) -> None:
    """Answer with what came."""
    text = b"%b %b %b" % (request.method.encode(), request.target, request.body)
    responder.send(200, [(b"Content-Type", b"text/plain")], text)


async def test_requests_one_after_another_on_one_connection() -> None:
    """A connection is kept, and each request gets its own answer."""
    async with serving(echo) as server, client(server.port) as wire:
        for number in range(5):
            await wire.send(post(b"%d" % number))
            assert await wire.answer() == (200, b"POST / %d" % number)
        assert server.statistics().accepted == 1


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests sent at once are served one by one, whatever each takes."""
    running = 0

    async def slow_first(request: Request, responder: Responder) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.02 if request.path == "/0" else 0)
        running -= 1
        responder.send(200, [], request.path.encode())

    async with serving(slow_first) as server, client(server.port) as wire:
        await wire.send(b"".join(get(b"/%d" % number) for number in range(20)))
        assert [await wire.answer() for _ in range(20)] == [(200, b"/%d" % number) for number in range(20)]


async def test_a_long_next_request_right_after_an_answer() -> None:
    """A client may send its next long request while the handler of the last one is still tidying up."""
    tidy = asyncio.Event()

    async def tidies(request: Request, responder: Responder) -> None:
        responder.send(200, [], b"%d" % len(request.body))
        await tidy.wait()

    async with serving(tidies) as server, client(server.port) as wire:
        await wire.send(post(b"a"))
        assert await wire.answer() == (200, b"1")
        sending = aio.spawn(wire.send(post(b"b" * 3_000_000)), name="test")
        await until(lambda: any(len(connection.reader.kept) > 64 << 10 for connection in server.shared.connections))
        tidy.set()
        assert await wire.answer() == (200, b"3000000")
        await sending


async def test_more_than_64_kib_behind_a_running_request_cuts() -> None:
    """Pipelined bytes are bounded: more of them close the connection and end what runs."""
    ended = asyncio.Event()

    async def waits(request: Request, responder: Responder) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async with serving(waits) as server, client(server.port) as wire:
        await wire.send(get())
        await until(lambda: server.statistics().running)
        await wire.send(b"x" * 70_000)
        await wire.gone()
        await ended.wait()


async def test_expect_100_continue() -> None:
    """A client that asks first is told to go on, once, and answered after its body."""
    async with serving(echo) as server, client(server.port) as wire:
        whole = post(b"hello", b"Expect: 100-continue")
        await wire.send(whole[:-5])
        assert await wire.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await wire.send(whole[-5:])
        assert await wire.answer() == (200, b"POST / hello")


async def test_expect_100_with_the_body_right_behind() -> None:
    """Whose body is here already needs no permission."""
    async with serving(echo) as server, client(server.port) as wire:
        await wire.send(post(b"hello", b"Expect: 100-continue"))
        assert await wire.answer() == (200, b"POST / hello")


async def test_too_large_a_body_is_refused_before_it_is_sent() -> None:
    """A length over the limit is answered 413 instead of 100."""
    async with serving(echo, limits=Limits(body=10)) as server, client(server.port) as wire:
        await wire.send(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n")
        assert (await wire.answer())[0] == 413
        assert await wire.rest() == b""


async def test_refusal_reaches_a_client_that_is_still_sending() -> None:
    """The error of a body that is too large is readable, although the client goes on sending for a while."""
    async with serving(echo, limits=Limits(body=10)) as server, client(server.port) as wire:
        await wire.send(post(b"x" * 2_000_000))
        status, body = await wire.answer()
        assert status == 413
        assert b"limits.body" in body
        assert await wire.rest() == b""


async def test_head_has_a_length_and_no_body() -> None:
    """HEAD is answered like GET, without the bytes."""
    async with serving(echo) as server, client(server.port) as wire:
        await wire.send(b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"Content-Length: 8" in await wire.head()
        await wire.send(get(b"/b"))
        assert await wire.answer() == (200, b"GET /b ")


async def stream(request: Request, responder: Responder) -> None:
    """An answer in three pieces whose length nobody knows before."""
    responder.start(200, [], length=None)
    for piece in (b"one", b"", b"two"):
        responder.write(piece)
        await responder.drain()
    responder.finish()


async def test_stream_is_chunked() -> None:
    """An answer of unknown length comes in chunks, and an empty piece does not end it."""
    async with serving(stream) as server, client(server.port) as wire:
        await wire.send(get(), get())
        assert b"Transfer-Encoding: chunked" in await wire.head()
        assert [await wire.chunk() for _ in range(3)] == [b"one", b"two", b""]
        assert await wire.answer() == (200, b"onetwo")


async def test_http_10_stream_ends_with_the_connection() -> None:
    """HTTP/1.0 knows no chunks: the end of the connection is the end of the answer, even if it was to be kept."""
    async with serving(stream) as server, client(server.port) as wire:
        await wire.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        head = await wire.head()
        assert b"chunked" not in head
        assert b"Connection: close" in head
        assert await wire.rest() == b"onetwo"


async def test_http_10_keeps_the_connection_when_asked() -> None:
    """With a length an HTTP/1.0 connection can be kept, if the client says so, and is told so."""
    async with serving(echo) as server, client(server.port) as wire:
        await wire.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert b"Connection: keep-alive" in await wire.head()
        await wire.exactly(len(b"GET / "))
        await wire.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await wire.rest()).endswith(b"Connection: close\r\n\r\nGET / ")


async def test_connection_close_ends_after_the_answer() -> None:
    """What a client sends behind `Connection: close` is not answered."""
    async with serving(echo) as server, client(server.port) as wire:
        await wire.send(get(b"/a", b"Connection: close") + get(b"/b"))
        assert await wire.answer() == (200, b"GET /a ")
        assert await wire.rest() == b""
        assert server.statistics().requests == 1


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (post(b"a", b"Transfer-Encoding: chunked"), 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ],
)
async def test_refused_requests_are_answered_and_closed(raw: bytes, status: int) -> None:
    """A request that is none gets an error in JSON, the connection closes, and no handler hears of it."""
    async with serving(echo) as server, client(server.port) as wire:
        await wire.send(get(b"/before") + raw + get(b"/behind"))
        assert await wire.answer() == (200, b"GET /before ")
        head = await wire.head()
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"Connection: close" in head
        assert (b"Allow: GET" in head) is (status == 405)
        assert (await wire.rest()).startswith(b'{"error":')
        statistics = server.statistics()
        assert (statistics.requests, statistics.refused) == (1, 1)


async def test_bodies_of_errors_are_made_by_the_owner() -> None:
    """Who owns the server says how errors look on which path."""

    def body(error: BioproxyError, path: str) -> tuple[Headers, bytes]:
        return [(b"X", b"%d" % error.status)], path.encode()

    server = Server(echo, limits=Limits(), name="x", error_body=body)
    await server.listen("127.0.0.1", 0)
    async with client(server.port) as wire:
        await wire.send(b"GET /v1/messages?a HTTP/1.1\r\n\r\n")
        assert (await wire.rest()).endswith(b"X: 400\r\nContent-Length: 12\r\nConnection: close\r\n\r\n/v1/messages")
    await server.close(deadline=0)


async def test_exception_before_the_head_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that fails is logged and answered, and the connection goes on."""

    async def fails(request: Request, responder: Responder) -> None:
        if request.path == "/known":
            raise NotFound("no such thing")
        if request.path == "/silent":
            return
        raise KeyError("secret")

    async with serving(fails) as server, client(server.port) as wire:
        await wire.send(get(b"/a"))
        status, body = await wire.answer()
        assert (status, b"secret" in body) == (500, False)
        assert "secret" in caplog.text
        await wire.send(get(b"/silent"))
        assert (await wire.answer())[0] == 500
        assert "sent no answer" in caplog.text
        await wire.send(get(b"/known"))
        assert (await wire.answer())[0] == 404


@pytest.mark.parametrize("length", [None, 10])
@pytest.mark.parametrize("how", ["raise", "return", "abort", "finish"])
async def test_half_an_answer_is_cut(length: int | None, how: str) -> None:
    """An answer that was begun and not ended never looks whole; one with bytes owed is not ended by `finish`."""

    async def half(request: Request, responder: Responder) -> None:
        responder.start(200, [], length=length)
        responder.write(b"half")
        if how == "raise":
            raise KeyError
        if how == "abort":
            responder.abort()
        if how == "finish" and length:
            responder.finish()

    async with serving(half) as server, client(server.port) as wire:
        await wire.send(get())
        with pytest.raises(asyncio.IncompleteReadError):
            await wire.answer()


async def test_half_an_answer_until_close_is_reset() -> None:
    """Where only the end of the connection tells the end, a broken answer is a reset and no end."""

    async def half(request: Request, responder: Responder) -> None:
        responder.start(200, [], length=None)
        responder.write(b"half")
        await asyncio.sleep(0.02)
        responder.abort()

    async with serving(half) as server, client(server.port) as wire:
        await wire.send(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await wire.rest()


async def test_extra_headers_go_with_any_head() -> None:
    """What the front adds stands in every answer, also in that of an error."""

    async def extra(request: Request, responder: Responder) -> None:
        responder.extra = [(b"X-Request-Id", b"1")]
        if request.path == "/fail":
            raise KeyError
        responder.send(204, [(b"Content-Length", b"7"), (b"Connection", b"x")])

    async with serving(extra) as server, client(server.port) as wire:
        await wire.send(get())
        assert await wire.head() == b"HTTP/1.1 204 No Content\r\nX-Request-Id: 1\r\n\r\n"
        await wire.send(get(b"/fail"))
        assert b"X-Request-Id: 1" in await wire.head()


async def test_both_addresses_of_localhost_share_a_port() -> None:
    """`localhost` is every address of that name that the machine has, on one port."""
    server = Server(echo, limits=Limits(), name="x")
    await server.listen("localhost", 0)
    assert {port for _, port in server.addresses} == {server.port}
    assert "127.0.0.1" in {host for host, _ in server.addresses}
    await server.close(deadline=0)


async def test_a_client_of_ipv4_is_known_by_its_address_at_a_socket_for_both() -> None:
    """As systemd opens them: else `trusted_proxies`, log and fairness would know two clients."""
    try:
        both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    except (OSError, ValueError):
        pytest.skip("this machine has no such sockets")

    async def peer(request: Request, responder: Responder) -> None:
        responder.send(200, [], request.peer.encode())

    server = Server(peer, limits=Limits(), name="test")
    await server.listen("::", 0, sockets=[both])
    try:
        for host in ("127.0.0.1", "::1"):
            wire = Wire(*await asyncio.open_connection(host, server.port))
            await wire.send(get(b"/"))
            assert await wire.answer() == (200, host.encode())
            wire.writer.transport.abort()
    finally:
        await server.close(deadline=0)


async def test_taken_port_is_a_sentence() -> None:
    """A port that is taken is a configuration error that names it and says what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is taken"):
            await Server(echo, limits=Limits(), name="x").listen("127.0.0.1", port)


async def test_unknown_host_is_a_sentence() -> None:
    """So is a name that is nobody's, and an address that is not ours."""
    with pytest.raises(ConfigError, match="cannot be opened"):
        await Server(echo, limits=Limits(), name="x").listen("host.invalid", 0)
    with pytest.raises(ConfigError, match="cannot be opened"):
        await Server(echo, limits=Limits(), name="x").listen("192.0.2.1", 0)
