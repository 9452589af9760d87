"""`tracing`: what an OTLP collector gets over HTTP, what the engine gets, and what happens if no collector is there."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.proto")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bioproxy.front import spans
from fakes.fake_engine import FakeEngine
from support.apps import engine_ready, running_app
from support.http import call, free_port
from support.leaks import until

FAKE = Path(__file__).parents[1] / "fakes" / "llama_server.py"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1", "X-Request-Id": "the-request"}
CHAT = {
    "model": "a",
    "stream": True,
    "max_tokens": 4,
    "prompt": "hello",
    "messages": [{"role": "user", "content": "hello"}],
}


class Collector:
    """An OTLP/HTTP receiver: it decodes what the official SDK sends."""

    def __init__(self) -> None:
        self.spans: dict[str, Any] = {}  # by name
        self.resource: dict[str, str] = {}
        self.came = asyncio.Event()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        found = ExportTraceServiceRequest.FromString(await reader.readexactly(size))
        for each in found.resource_spans:
            self.resource = {one.key: one.value.string_value for one in each.resource.attributes}
            self.spans |= {span.name: span for scope in each.scope_spans for span in scope.spans}
        assert head.startswith(b"post /v1/traces ")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()
        self.came.set()


@asynccontextmanager
async def collecting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """A collector to which the standard variables lead."""
    collector = Collector()
    async with await asyncio.start_server(collector.take, "127.0.0.1", 0) as server:
        lead_to(monkeypatch, server.sockets[0].getsockname()[1])
        yield collector


def lead_to(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")


def values(span: Any) -> dict[str, Any]:
    """A span's attributes."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


async def test_one_of_many_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request's span goes on in the client's trace, and below it is where the time went."""
    models = {"a": {"cmd": f"{sys.executable} {FAKE} --port ${{PORT}}"}}
    async with collecting(monkeypatch) as collector:
        async with running_app(tmp_path, models=models, tracing=True) as app:
            answer = await call(
                app.proxy_port, "POST", "/v1/chat/completions", body=json.dumps(CHAT).encode(), headers=TRACED
            )
            assert answer.status == 200
        await collector.came.wait()
    whole = collector.spans["chat a"]
    assert (whole.trace_id.hex(), whole.parent_span_id.hex(), whole.trace_state) == (TRACE, PARENT, "vendor=1")
    said = values(whole)
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.request.model"] == "a"
    assert said["gen_ai.usage.output_tokens"] == 4
    assert (said["http.response.status_code"], said["bioproxy.request_id"]) == (200, "the-request")
    assert (collector.resource["service.name"], collector.resource["deployment.environment.name"]) == (
        "bioproxy",
        "test",
    )
    below = {name: span for name, span in collector.spans.items() if span.parent_span_id == whole.span_id}
    assert {"swap", "queue", "prefill", "decode"} >= below.keys() >= {"swap", "prefill", "decode"}
    for span in below.values():
        assert span.trace_id.hex() == TRACE
        assert whole.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= whole.end_time_unix_nano


async def test_one_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine gets our span as its parent; looks leave no span; the request's record names its trace."""
    async with (
        collecting(monkeypatch) as collector,
        FakeEngine() as engine,
        running_app(tmp_path, backend_url=engine.url, tracing=True) as app,
    ):
        await engine_ready(app)
        assert (await call(app.proxy_port, "GET", "/props", headers=TRACED)).status == 200
        body = json.dumps(CHAT).encode()
        assert (await call(app.proxy_port, "POST", "/completion", body=body)).status == 200
        await call(app.proxy_port, "POST", "/v1/chat/completions", body=body, headers=TRACED)
        await until(lambda: "chat" in " ".join(collector.spans))
        (asked,) = await engine.requests("/v1/chat/completions")
        (other,) = await engine.requests("/completion")
        (record,) = [one for one in app.records if one.id == "the-request" and one.method == "POST"]
    (whole,) = [span for name, span in collector.spans.items() if name.startswith("chat")]
    assert asked.header("traceparent") == f"00-{TRACE}-{whole.span_id.hex()}-01"
    assert asked.header("tracestate") == "vendor=1"
    assert record.trace_id == TRACE
    (alone,) = [span for name, span in collector.spans.items() if name.startswith("text_completion")]
    assert not alone.parent_span_id
    assert (other.header("traceparent") or "").startswith(f"00-{alone.trace_id.hex()}-{alone.span_id.hex()}-")
    assert not [name for name in collector.spans if "props" in name]


async def test_a_collector_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests are served, the log says it once, and the program ends without it."""
    lead_to(monkeypatch, free_port())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.01")
    monkeypatch.setattr(spans, "LAST_SPANS", 0.1)
    caplog.set_level(logging.INFO, "bioproxy")
    async with FakeEngine() as engine, running_app(tmp_path, backend_url=engine.url, tracing=True) as app:
        await engine_ready(app)
        for _ in range(3):
            answer = await call(app.proxy_port, "POST", "/completion", body=json.dumps(CHAT).encode())
            assert answer.status == 200
            await until(lambda: "cannot be sent" in caplog.text)
    assert caplog.text.count("cannot be sent") == 1
    assert "lost until they can: -log-level" not in caplog.text
    await words_are_over()


async def test_a_collector_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes spans and says nothing: the program does not wait for it, not even at its end."""
    taken: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        taken.put_nowait(writer)

    monkeypatch.setattr(spans, "LAST_SPANS", 0.1)
    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        lead_to(monkeypatch, server.sockets[0].getsockname()[1])
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
        async with FakeEngine() as engine, running_app(tmp_path, backend_url=engine.url, tracing=True) as app:
            await engine_ready(app)
            answer = await call(app.proxy_port, "POST", "/completion", body=json.dumps(CHAT).encode())
            assert answer.status == 200
            held = await taken.get()
        server.close()  # so that it is not tried again
        held.close()
        await held.wait_closed()
        await words_are_over()
    assert "given up" not in caplog.text


async def words_are_over() -> None:
    """What the SDK says is its own again, as before, once the try that was under way at the end is over."""
    for thread in threading.enumerate():
        if thread.name == "last spans":
            await asyncio.to_thread(thread.join)
    assert logging.getLogger("opentelemetry").propagate
    assert not logging.getLogger("opentelemetry").handlers


async def test_without_tracing_an_invalid_parent_is_not_passed_on(tmp_path: Path) -> None:
    """So the engine begins the trace; the valid one is passed on (test_front_one_model.py)."""
    async with FakeEngine() as engine, running_app(tmp_path, backend_url=engine.url) as app:
        await engine_ready(app)
        headers = TRACED | {"traceparent": "00-nonsense"}
        await call(app.proxy_port, "POST", "/completion", body=json.dumps(CHAT).encode(), headers=headers)
        (asked,) = await engine.requests("/completion")
    assert (asked.header("traceparent"), asked.header("tracestate")) == (None, None)
