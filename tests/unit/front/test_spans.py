"""Spans beside the SDK: where a request's parts lie, where spans go, and what is told of a collector that is down."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from bioproxy.activity import Record
from bioproxy.app import spans
from bioproxy.errors import ConfigError
from bioproxy.front.spans import Told, exporters, operation_of, parts


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
        return SpanExportResult.SUCCESS if self.up else SpanExportResult.FAILURE


def test_a_collector_that_is_down_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """And when it is up again, with how much was lost."""
    collector, batch = Collector(), [ReadableSpan("a"), ReadableSpan("b")]
    told = Told(collector)
    with caplog.at_level(logging.INFO, "bioproxy"):
        for up in (False, False, False, True, True, False):
            collector.up = up
            told.export(batch)
    assert [entry.levelname for entry in caplog.records] == ["WARNING", "INFO", "WARNING"]
    assert "6 were lost" in caplog.records[1].getMessage()
