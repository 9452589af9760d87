"""How clients reach the ports: TLS whose certificate is renewed meanwhile, and unix sockets."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import ssl
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from bioproxy.cli.client import Client, admin_url
from bioproxy.wire import tls
from bioproxy.wire.tls import digest
from support.clients import CURL, Line, curl, fake_line
from support.http import Certificate, call, certificate, needs_openssl
from support.leaks import until
from support.sockets import needs_unix, short_folder

Json = Any
pytestmark = pytest.mark.skipif(not CURL, reason="curl is not installed")
short = short_folder()
HELLO: Json = [{"role": "user", "content": "hello"}]


def openai_over_tls(port: int, made: Certificate) -> openai.AsyncOpenAI:
    """The official client, which believes in one certificate."""
    trusting = openai.DefaultAsyncHttpxClient(verify=ssl.create_default_context(cafile=made.cert))
    return openai.AsyncOpenAI(
        base_url=f"https://localhost:{port}/v1", api_key="none", http_client=trusting, max_retries=0
    )


@needs_openssl
async def test_a_certificate_is_renewed_under_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream comes to its end; clients that connect from then on meet the new pair on both ports."""
    monkeypatch.setattr(tls, "INTERVAL", 0.01)
    old, new = certificate(tmp_path, "old"), certificate(tmp_path, "new")
    paths = {"tls_cert_file": str(tmp_path / "tls.pem"), "tls_key_file": str(tmp_path / "tls.key")}

    def put(made: Certificate) -> None:
        shutil.copy(made.cert, paths["tls_cert_file"])
        shutil.copy(made.key, paths["tls_key_file"])

    put(old)
    async with fake_line(tmp_path, admin_tls=True, **paths) as line:
        port, admin = line.app.proxy_port, line.app.admin_port
        async with openai_over_tls(port, old) as client:
            await line.engine.faults(hold_end=True)
            stream = await client.chat.completions.create(model="m", messages=HELLO, max_tokens=6, stream=True)
            chunks = [await anext(stream)]
            put(new)
            await until(lambda: uses(line, new))
            for url in (f"https://localhost:{port}/health", f"https://localhost:{admin}/health"):
                assert (await curl("--cacert", new.cert, url))[0] == 0
                assert (await curl("--cacert", old.cert, url))[0] == 60  # not the certificate that is believed
            await line.engine.faults(hold_end=False)
            chunks += [chunk async for chunk in stream]
            assert chunks[-1].choices[0].finish_reason == "length"
        async with openai_over_tls(port, new) as client:
            assert (await client.models.list()).data


def uses(line: Line, made: Certificate) -> bool:
    """Whether the ports speak with this pair."""
    ports, wanted = line.app.ports, digest(made.cert, made.key)
    pairs = [server.tls for server in (ports.proxy, ports.admin) if server.tls is not None]
    return bool(pairs) and all(pair.digest == wanted for pair in pairs)


@needs_openssl
async def test_a_certificate_that_nobody_renews_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prometheus reads when it expires; `/status` says that it does soon, and why half a renewal is not used."""
    monkeypatch.setattr(tls, "INTERVAL", 0.01)
    made, other = certificate(tmp_path), certificate(tmp_path, "other")
    paths = {"tls_cert_file": made.cert, "tls_key_file": made.key}
    async with fake_line(tmp_path, **paths) as line:
        pair = line.app.ports.tls
        assert pair is not None
        page = (await call(line.app.admin_port, "GET", "/metrics")).text
        told = re.findall(
            r'^bioproxy_certificate_(?:expires|due)_timestamp_seconds\{port="(.*)"\} (.*)', page, re.MULTILINE
        )
        assert [(port, float(time)) for port, time in told] == [("proxy", pair.ends), ("proxy", pair.due)]
        assert (await call(line.app.admin_port, "GET", "/status")).json()["notes"] == []
        pair.begins -= 89 * 86400  # it lives for 91 days, and has two of them left
        shutil.copy(other.cert, made.cert)
        await until(lambda: pair.fault)
        fault, soon = (await call(line.app.admin_port, "GET", "/status")).json()["notes"]
        assert f"{made.key} does not belong to the certificate in {made.cert}; the old pair stays in use" in fault
        assert f"the certificate in {made.cert} expires on " in soon
        shutil.copy(other.key, made.key)
        await until(lambda: uses(line, other))
        assert (await call(line.app.admin_port, "GET", "/status")).json()["notes"] == []


@needs_unix
async def test_both_ports_at_unix_sockets(tmp_path: Path, short: Path) -> None:
    """curl, the official client and the command line; a page elsewhere reaches nothing by a name of its own."""
    proxy, admin = short / "proxy.sock", short / "admin.sock"
    async with fake_line(tmp_path, proxy_host=f"unix:{proxy}", admin_host=f"unix:{admin}") as line:
        code, out, _ = await curl("--unix-socket", str(proxy), "http://localhost/v1/models")
        assert (code, json.loads(out)["data"][0]["object"]) == (0, "model")
        trusting = openai.DefaultAsyncHttpxClient(transport=httpx2.AsyncHTTPTransport(uds=str(proxy)))
        async with openai.AsyncOpenAI(base_url="http://localhost/v1", api_key="none", http_client=trusting) as client:
            stream = await client.chat.completions.create(model="m", messages=HELLO, max_tokens=4, stream=True)
            assert [chunk async for chunk in stream][-1].choices[0].finish_reason == "length"
        found = Client(admin_url(line.app.config))
        record = line.app.records[-1]
        assert record.client == "unix"
        status = await asyncio.to_thread(found.get, "/status")
        assert status["engine"]["state"] == "ready"
        for socket in (proxy, admin):
            _, code_of_foreign, _ = await curl(
                "--unix-socket", str(socket), "-o", "/dev/null", "-w", "%{http_code}", "http://evil.example/v1/models"
            )
            assert code_of_foreign == "403"
    assert not proxy.exists()
    assert not admin.exists()
