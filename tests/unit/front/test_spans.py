"""Spans beside the SDK: where a request's parts lie, where spans go, and what is told of a collector that is down."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bioproxy.activity import Outcome, Record
from bioproxy.app import spans
from bioproxy.errors import ConfigError
from bioproxy.front.exchange import Exchange
from bioproxy.front.later import Nowhere
from bioproxy.front.routes import Route
from bioproxy.front.spans import Spans, Told, Words, exporters, operation_of, parts
from bioproxy.wire.http1.message import Request, Responder


def record(**values: object) -> Record:
    known = {"id": "r", "started": 0.0, "method": "POST", "path": "/", "endpoint": "/v1/chat/completions"}
    return Record(**(known | values))  # type: ignore[arg-type]


def test_waits_lie_at_the_beginning_and_work_around_the_first_byte() -> None:
    """In a stream, prefill ends where decode begins: with the first byte."""
    found = record(
        stream=True, swap=1.0, queue=2.0, restore=0.5, prefill=1.5, first_byte=6.0, decode=3.0, total=9.0, save=0.5
    )
    assert [*parts(found)] == [
        ("swap", 0.0, 1.0),
        ("queue", 1.0, 3.0),
        ("restore", 3.0, 3.5),
        ("prefill", 4.5, 6.0),
        ("decode", 6.0, 9.0),
    ]


def test_an_answer_in_one_piece_comes_after_its_decode() -> None:
    """Its first byte is the end of the work."""
    found = record(queue=1.0, prefill=1.0, first_byte=4.0, decode=2.0, total=4.0)
    assert [*parts(found)] == [("queue", 0.0, 1.0), ("prefill", 1.0, 2.0), ("decode", 2.0, 4.0)]


def test_nothing_lies_outside_the_request() -> None:
    """An engine's clock may say more than ours."""
    found = record(stream=True, prefill=5.0, first_byte=1.0, decode=5.0, total=2.0, queue=3.0)
    assert all(0 <= begun <= ended <= found.total for _, begun, ended in parts(found))


@pytest.mark.parametrize(
    ("endpoint", "operation"),
    [
        ("/v1/chat/completions", "chat"), ("/v1/messages", "chat"), ("/v1/responses", "chat"), ("/api/chat", "chat"),
        ("/v1/completions", "text_completion"), ("/infill", "text_completion"), ("/v1/embeddings", "embeddings"),
        ("/v1/rerank", ""), ("other", ""),
    ],
)  # fmt: skip
def test_operations(endpoint: str, operation: str) -> None:
    """They are called as the GenAI conventions call them."""
    assert operation_of(endpoint) == operation


def test_the_variables_say_where_spans_go() -> None:
    """OTLP over HTTP unless they say something else."""
    assert [type(one).__module__ for one in exporters({})] == ["opentelemetry.exporter.otlp.proto.http.trace_exporter"]
    assert [type(one).__name__ for one in exporters({"OTEL_TRACES_EXPORTER": "console,none"})] == [
        "ConsoleSpanExporter"
    ]
    assert [*exporters({"OTEL_SDK_DISABLED": "true"})] == []


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "must be http/protobuf or grpc"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "pip install opentelemetry-exporter-zipkin"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "pip install opentelemetry-exporter-otlp-proto-grpc"),
    ],
)
def test_what_is_not_there_is_named(variables: dict[str, str], sentence: str) -> None:
    """With what to install."""
    with pytest.raises(ConfigError, match=sentence):
        list(exporters(variables))


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tracing` says what to install."""
    monkeypatch.setitem(sys.modules, "bioproxy.front.spans", None)
    with pytest.raises(ConfigError, match=r"pip install 'bioproxy\[otel\]'"):
        spans()


class Collector(SpanExporter):
    """It takes spans or not."""

    up = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if not self.up:
            logging.getLogger("opentelemetry").error("no way to %s", "http://user:secret@collector")
        return SpanExportResult.SUCCESS if self.up else SpanExportResult.FAILURE


def test_a_collector_that_is_down_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """With why, and when it is up again, with how much was lost."""
    earlier = Words()
    collector, batch, words = Collector(), [ReadableSpan("a"), ReadableSpan("b")], Words()
    earlier.close()  # what the SDK says is still ours to tell
    told = Told(collector, words)
    with caplog.at_level(logging.INFO, "bioproxy"):
        for up in (False, False, False, True, True, False):
            collector.up = up
            words.level = logging.DEBUG
            told.export(batch)
    assert [entry.levelname for entry in caplog.records] == ["WARNING", "INFO", "WARNING"]
    assert "6 were lost" in caplog.records[1].getMessage()
    assert caplog.messages[0].endswith("until they can: no way to http://user:********@collector")
    words.close()


def exchange_of(**headers: str) -> Exchange:
    fields = {name.encode(): value.encode() for name, value in headers.items()}
    request = Request("POST", b"/v1/messages", path="/v1/messages", headers=[*fields.items()], fields=fields)
    return Exchange(request, Responder(Nowhere(), request), Route("/v1/messages"))


@pytest.fixture
def kept() -> Iterator[tuple[Spans, InMemorySpanExporter]]:
    """Spans that stay in memory."""
    made, memory = Spans({"OTEL_TRACES_EXPORTER": "none"}), InMemorySpanExporter()
    made.provider.add_span_processor(SimpleSpanProcessor(memory))
    yield made, memory
    made.close()


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [("ok", 200, "UNSET"), ("client_error", 400, "UNSET"), ("engine_error", 502, "ERROR"), ("timeout", 503, "ERROR")],
)
async def test_a_fault_is_not_the_clients(
    kept: tuple[Spans, InMemorySpanExporter], outcome: Outcome, status: int, code: str
) -> None:
    """Only what is a fault here makes a span an error; each outcome but a good one is named."""
    made, memory = kept
    made.begin(exchange := exchange_of())
    exchange.record.model, exchange.record.outcome, exchange.record.status = "m", outcome, status
    exchange.close()
    (span,) = memory.get_finished_spans()
    assert (span.name, span.status.status_code.name) == ("chat m", code)
    assert (span.attributes or {}).get("error.type") == (None if outcome == "ok" else outcome)


async def test_what_is_not_sampled_is_passed_on_as_that(kept: tuple[Spans, InMemorySpanExporter]) -> None:
    """Its parent decided; the engine is told, and nothing is kept here."""
    made, memory = kept
    made.begin(exchange := exchange_of(traceparent=f"00-{'4b' * 16}-{'f0' * 8}-00"))
    exchange.record.model = "m"
    exchange.close()
    parent = exchange.request.fields[b"traceparent"]
    assert parent.startswith(b"00-" + b"4b" * 16)
    assert parent.endswith(b"-00")
    assert memory.get_finished_spans() == ()
