"""`-tls-cert-file` and `-tls-key-file`: the proxy's port speaks TLS, with everything that it does."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from support.http import Answer, Certificate, build, call, certificate, events, needs_openssl, parse
from support.swap_api import CHAT, HELLO
from support.swap_models import fakes
from support.swap_rig import Rig, swap_rig

Json = Any
pytestmark = [needs_openssl, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for this machine."""
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(made: Certificate, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """The program behind TLS."""
    flags = ("-tls-cert-file", made.cert, "-tls-key-file", made.key)
    async with swap_rig(tmp_path_factory.mktemp("swap"), fakes("a"), flags=flags) as running:
        yield running


async def secure(rig: Rig, made: Certificate, method: str, target: str, *, data: Json = None) -> Answer:
    """One request to a server that proves to be the one of the certificate."""
    context = ssl.create_default_context(cafile=made.cert)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, ssl=context)
    try:
        body = b"" if data is None else json.dumps(data).encode()
        writer.write(build(method, target, body=body, headers={"Content-Type": "application/json"}))
        return parse(await asyncio.wait_for(reader.read(), 25), method)
    finally:
        writer.close()


async def test_a_chat(made: Certificate, rig: Rig) -> None:
    """Through TLS to an engine that speaks none."""
    answer = await secure(rig, made, "POST", CHAT, data={"model": "a", "messages": HELLO})
    assert answer.json()["served_by"] == "a"


async def test_a_stream(made: Certificate, rig: Rig) -> None:
    """Event by event."""
    answer = await secure(rig, made, "POST", CHAT, data={"model": "a", "messages": HELLO, "stream": True})
    assert len(events(answer)) == 5


async def test_the_management_too(made: Certificate, rig: Rig) -> None:
    """And redirects stay on it."""
    assert (await secure(rig, made, "GET", "/health")).text == "OK"
    assert "running" in (await secure(rig, made, "GET", "/running")).json()
    assert (await secure(rig, made, "GET", "/upstream/a")).headers["location"] == "/upstream/a/"


async def test_it_says_so(rig: Rig) -> None:
    """In the words that llama-swap's users know."""
    await rig.until(lambda: rig.said(f"listening with TLS on https://127.0.0.1:{rig.port}"))


async def test_who_speaks_no_tls_is_told_so(made: Certificate, rig: Rig) -> None:
    """And nothing else; the next one is served."""
    answer = await call(rig.port, "GET", "/health")
    assert (answer.status, "use https://" in answer.text) == (400, True)
    assert (await secure(rig, made, "GET", "/health")).text == "OK"


async def test_the_admin_port_stays_plain(rig: Rig) -> None:
    """It is for this machine."""
    assert (await call(rig.ports.admin, "GET", "/health")).status == 200
