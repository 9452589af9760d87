"""OpenTelemetry spans: one for each request to a model, and below it where its time went.

    chat qwen                      the request, from its first byte to its last; names of the GenAI conventions
      ├─ swap                      it waited for its model
      ├─ queue                     for a place in its engine
      ├─ restore                   its prompt prefix came from disk
      ├─ prefill                   the engine read its prompt
      └─ decode                    the answer was generated

The request's span is made before it waits, because its id goes to the engine as the parent of what the engine traces.
All others are made from the record's times when the request is over: how long a part took is exact, and where it lies
is reckoned, waits one after another from the beginning, prefill and decode from the first byte of the answer.

Spans are sent by the SDK's own thread from a queue that holds 2048 (`OTEL_BSP_MAX_QUEUE_SIZE`); what does not fit is
lost. A collector that is down costs its thread some tries, and the log one line. Where spans go, how many of them, and
under which name stands in the standard variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, …).

No prompt and no answer is in a span. The one module that knows opentelemetry (extra `[otel]`).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import entry_points

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from bioproxy import __version__
from bioproxy.activity import Record
from bioproxy.config.masking import masked_command
from bioproxy.errors import ConfigError, Problem
from bioproxy.front.exchange import Exchange
from bioproxy.front.traceparent import replace

log = logging.getLogger(__name__)

LAST_SPANS = 3.0  # seconds that spans may take to be sent at the end
MOST_SAID = 500  # characters of a reason
ENTRIES = "opentelemetry_traces_exporter"  # under which packages name their exporters
PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
BAGGAGE = "baggage"  # passes as it came
FAILED = frozenset({"engine_error", "timeout", "error"})
OPERATIONS = {  # by the end of the route's path; the GenAI conventions' words
    "messages": "chat", "responses": "chat", "chat": "chat",
    "completions": "text_completion", "completion": "text_completion", "infill": "text_completion",
    "generate": "text_completion", "embeddings": "embeddings", "embedding": "embeddings", "embed": "embeddings",
}  # fmt: skip


class Spans:
    """Makes spans of requests and has them sent. ConfigError if a variable asks for what there is not."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self.words = Words()
        named = "OTEL_SERVICE_NAME" in environment or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
        own = {"service.version": __version__} | ({} if named else {"service.name": "bioproxy"})
        self.provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
        self.exporters = [Told(one, self.words) for one in exporters(environment)]
        for one in self.exporters:
            self.provider.add_span_processor(BatchSpanProcessor(one))
        self.tracer = self.provider.get_tracer("bioproxy", __version__)
        self.words.level = logging.DEBUG

    def begin(self, exchange: Exchange) -> None:
        """Make the span of a request that is about to ask an engine: what is sent on for it has it as its parent."""
        request = exchange.request
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.fields.items()}
        parent = propagate.extract(carrier, Context())
        started = time.time_ns() - round(exchange.since_arrival() * 1e9)
        span = self.tracer.start_span(request.method, parent, SpanKind.SERVER, start_time=started)
        names = propagate.get_global_textmap().fields - {BAGGAGE}
        sent: dict[str, str] = {}
        propagate.inject(sent, trace.set_span_in_context(span, parent))
        lines = [(name.encode(), value.encode("latin-1")) for name, value in sent.items() if name in names]
        replace(request, frozenset(name.encode() for name in names), lines)
        exchange.record.trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        exchange.traced = partial(self.end, span)

    def end(self, span: Span, record: Record) -> None:
        """The request is over. One that was for no model leaves no span."""
        if not isinstance(span, ReadableSpan) or not span.is_recording() or not record.for_model:
            return
        operation = operation_of(record.endpoint)
        span.update_name(f"{operation} {record.model}".strip() if operation else f"{record.method} {record.endpoint}")
        span.set_attributes({name: value for name, value in attributes(record, operation) if value not in (None, "")})
        if record.outcome in FAILED:
            span.set_status(Status(StatusCode.ERROR, record.error))
        started = span.start_time or 0
        context = trace.set_span_in_context(span, Context())
        for name, begun, ended in parts(record):
            child = self.tracer.start_span(name, context, start_time=started + round(begun * 1e9))
            if name == "swap" and record.waits:
                child.set_attributes({f"bioproxy.swap.{part}": seconds for part, seconds in record.waits.items()})
            child.end(started + round(ended * 1e9))
        span.end(started + round(record.total * 1e9))

    def close(self) -> None:
        """Send what waits, for LAST_SPANS seconds. Blocks; the SDK would wait for a collector that hangs."""
        sending = threading.Thread(target=self.send_last, name="last spans", daemon=True)
        sending.start()
        sending.join(LAST_SPANS)
        if sending.is_alive():
            for one in self.exporters:
                one.exporter.shutdown()  # the try that is under way is the last one

    def send_last(self) -> None:
        self.provider.shutdown()
        self.words.close()


def exporters(environment: Mapping[str, str]) -> Iterator[SpanExporter]:
    """What the variables say where spans go; ConfigError for what is not installed."""
    said = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    general = environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", general)
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return
    for word in said.split(","):
        if (name := word.strip()) == "none":
            continue
        if name == "otlp":
            if protocol not in PROTOCOLS:
                raise wrong(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; it must be {' or '.join(PROTOCOLS)}")
            name = PROTOCOLS[protocol]
        found = [*entry_points(group=ENTRIES, name=name)]
        if not found:
            package = f"opentelemetry-exporter-{name.replace('_', '-')}"
            raise wrong(f"spans shall go to {name!r}, which is not installed (perhaps `pip install {package}`)")
        yield found[0].load()()


def wrong(sentence: str) -> ConfigError:
    return ConfigError([Problem(sentence, key="tracing")])


class Told(SpanExporter):
    """An exporter whose failures are told once, with the first of its `words`, and that it works again."""

    def __init__(self, exporter: SpanExporter, words: Words) -> None:
        self.exporter, self.words = exporter, words
        self.lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; called by the SDK's thread."""
        result = self.exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            if not self.lost:
                why = masked_command(self.words.first)[:MOST_SAID] or "-log-level debug has why"
                log.warning("OpenTelemetry spans cannot be sent, and are lost until they can: %s", why)
            self.lost += len(spans)
        elif self.lost:
            log.info("OpenTelemetry spans are sent again; %d were lost", self.lost)
            self.lost = 0
        self.words.first = ""
        return result

    def shutdown(self) -> None:
        self.exporter.shutdown()


class Words(logging.Handler):
    """What the SDK has to say goes into our log: in full at the start, later as details of what `Told` tells once."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ""  # about the batch that is being sent
        self.sdk = logging.getLogger("opentelemetry")
        self.sdk.addHandler(self)
        self.sdk.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.first = self.first or record.getMessage()
        log.log(min(record.levelno, self.level or record.levelno), "%s", record.getMessage())

    def close(self) -> None:
        self.sdk.removeHandler(self)
        self.sdk.propagate = not any(isinstance(one, Words) for one in self.sdk.handlers)
        super().close()


def operation_of(endpoint: str) -> str:
    """The conventions' word for a route; "" if they have none."""
    if endpoint.endswith("/chat/completions"):
        return "chat"
    return OPERATIONS.get(endpoint.rpartition("/")[2], "")


def attributes(record: Record, operation: str) -> Iterator[tuple[str, AttributeValue | None]]:
    """What there is to say about a request."""
    yield "http.request.method", record.method
    yield "http.route", record.endpoint
    yield "url.path", record.path
    yield "http.response.status_code", record.status
    yield "error.type", "" if record.outcome == "ok" else record.outcome
    if operation:
        yield "gen_ai.operation.name", operation
        yield "gen_ai.provider.name", "bioproxy"
        yield "gen_ai.request.stream", record.stream
        yield "gen_ai.response.time_to_first_chunk", record.first_byte if record.stream else None
        yield "gen_ai.prompt.name", record.prefix
        yield "gen_ai.conversation.id", record.session
        yield "gen_ai.usage.output_tokens", record.tokens_generated
        yield "gen_ai.usage.cache_read.input_tokens", record.tokens_cached
        if record.tokens_cached is not None or record.tokens_evaluated is not None:
            yield "gen_ai.usage.input_tokens", (record.tokens_cached or 0) + (record.tokens_evaluated or 0)
    yield "gen_ai.request.model", record.model
    yield "bioproxy.request_id", record.id
    yield "bioproxy.client", record.client
    yield "bioproxy.work", record.work
    yield "bioproxy.cache", record.cache


def parts(record: Record) -> Iterator[tuple[str, float, float]]:
    """Where the time went: name, beginning and end in seconds since the request's arrival."""
    at = 0.0
    for name, seconds in (("swap", record.swap), ("queue", record.queue), ("restore", record.restore)):
        if seconds:
            yield name, at, min(at + seconds, record.total)
            at += seconds
    decode, prefill = record.decode or 0.0, record.prefill or 0.0
    first = record.first_byte if record.first_byte is not None else record.total
    begun = first if record.stream else max(0.0, first - decode)  # an answer that is no stream comes when it is whole
    if prefill:
        yield "prefill", max(0.0, begun - prefill), begun
    if decode:
        yield "decode", begun, min(begun + decode, record.total)
