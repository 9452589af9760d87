"""The same server behind TLS: requests, large bodies, streams, errors, renewal, leaving and stopping."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bioproxy.config.schema import Limits
from bioproxy.wire.http1.message import Request, Responder
from bioproxy.wire.server import Server
from bioproxy.wire.tls import PairContext, tls_context
from support.http import Certificate, certificate, needs_openssl
from support.leaks import until
from support.wire_rig import Handler, Wire, client, get, post

pytestmark = needs_openssl


@pytest.fixture
def made(tmp_path: Path) -> Certificate:
    return certificate(tmp_path)


async def echo(request: Request, responder: Responder) -> None:
    """Answer with what came."""
    responder.send(200, [], request.body or b"nothing")


@contextlib.asynccontextmanager
async def serving(handler: Handler, context: PairContext) -> AsyncIterator[Server]:
    """A server behind TLS on a free port; at the end nothing of it is left."""
    server = Server(handler, limits=Limits(), name="test")
    await server.listen("127.0.0.1", 0, context)
    try:
        yield server
    finally:
        await server.close(deadline=0)
        assert (server.statistics().connections, server.statistics().running) == (0, 0)


@contextlib.asynccontextmanager
async def secure(port: int, trusted: Certificate, **options: object) -> AsyncIterator[Wire]:
    """A client's connection that believes in one certificate."""
    context = ssl.create_default_context(cafile=trusted.cert)
    context.set_alpn_protocols(["h2", "http/1.1"])
    for name, value in options.items():
        setattr(context, name, value)
    wire = Wire(*await asyncio.open_connection("127.0.0.1", port, ssl=context))
    try:
        yield wire
    finally:
        wire.writer.transport.abort()


async def test_requests_on_a_kept_connection(made: Certificate) -> None:
    """As on plain TCP; HTTP/1.1 is what both agree on."""
    async with serving(echo, tls_context(made.cert, made.key)) as server, secure(server.port, made) as wire:
        secured = wire.writer.get_extra_info("ssl_object")
        assert secured.selected_alpn_protocol() == "http/1.1"
        for number in range(3):
            await wire.send(post(b"%d" % number))
            assert await wire.answer() == (200, b"%d" % number)
        assert server.statistics().accepted == 1


async def test_a_large_body_comes_back_whole(made: Certificate) -> None:
    """Many records both ways, with back-pressure between."""
    body = bytes(range(256)) * (1 << 14)
    async with serving(echo, tls_context(made.cert, made.key)) as server, secure(server.port, made) as wire:
        await wire.send(post(body))
        assert await wire.answer() == (200, body)


async def test_an_error_is_answered_before_the_end(made: Certificate) -> None:
    """There is no half-close in TLS; the answer arrives all the same."""
    async with serving(echo, tls_context(made.cert, made.key)) as server, secure(server.port, made) as wire:
        await wire.send(b"GET / HTTP/1.1\r\n\r\n")
        status, _ = await wire.answer()
        assert status == 400
        await wire.gone()


async def test_a_client_that_leaves_cancels_its_request(made: Certificate) -> None:
    """Its engine's work must end."""
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(request: Request, responder: Responder) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with serving(hang, tls_context(made.cert, made.key)) as server:
        async with secure(server.port, made) as wire:
            await wire.send(get(b"/"))
            await started.wait()
        await cancelled.wait()


async def test_a_renewed_certificate_is_for_new_connections(made: Certificate, tmp_path: Path) -> None:
    """Those that are there go on."""
    fresh = certificate(tmp_path, "fresh")
    async with serving(echo, tls_context(made.cert, made.key)) as server, secure(server.port, made) as old:
        await server.secure(tls_context(fresh.cert, fresh.key))
        async with secure(server.port, fresh) as wire:
            await wire.send(get(b"/"))
            assert await wire.answer() == (200, b"nothing")
        with pytest.raises(ssl.SSLCertVerificationError):
            async with secure(server.port, made):
                pass
        await old.send(get(b"/"))
        assert await old.answer() == (200, b"nothing")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
async def test_old_versions_are_refused(made: Certificate) -> None:
    """TLS 1.1 is nobody's any more."""
    async with serving(echo, tls_context(made.cert, made.key)) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with secure(server.port, made, minimum_version=ssl.TLSVersion.TLSv1_1,
                              maximum_version=ssl.TLSVersion.TLSv1_1) as wire:  # fmt: skip
                await wire.rest()


async def test_plain_http_on_the_port_does_no_harm(made: Certificate) -> None:
    """It is told what to do, however much it says, and the next client is served."""
    async with serving(echo, tls_context(made.cert, made.key)) as server:
        async with client(server.port) as wire:
            await wire.send(get(b"/"))
            status, body = await wire.answer()
            assert (status, b"use https://" in body) == (400, True)
            await wire.send(get(b"/") * 1000)
            await wire.gone()
        assert (server.statistics().requests, server.statistics().refused) == (0, 1)
        async with client(server.port) as wire:
            await wire.send(b"\x00garbage" + get(b"/"))
            await wire.gone()
        async with secure(server.port, made) as wire:
            await wire.send(get(b"/"))
            assert await wire.answer() == (200, b"nothing")


async def test_a_stop_ends_idle_connections(made: Certificate) -> None:
    """A kept connection does not hold the program up."""
    async with serving(echo, tls_context(made.cert, made.key)) as server, secure(server.port, made) as wire:
        await wire.send(get(b"/"))
        await wire.answer()
        await until(lambda: server.statistics().running == 0)
        await server.close(deadline=10)
        await wire.gone()
        assert server.statistics().connections == 0
