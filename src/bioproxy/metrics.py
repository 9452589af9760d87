"""Every metric, declared once, with a registry of its own; the only module that knows prometheus_client.

Counters and histograms are fed by the event bus: `Metrics(bus)` subscribes, and no other part of the program knows that
it is measured. Gauges are not kept at all: `watch` is given the `statistics` methods of the stateful parts, and reading
`/metrics` reads them. So a gauge cannot drift from what `/status` says.

A request costs one dictionary look-up and some increments: the children of labels are looked up once and kept. Labels
are few and bounded (classes, outcomes, known routes, prefixes of the config); a client's name is none of them.

Two names of the seed, `bioproxy_requests_count` and `bioproxy_warmup_duration_seconds_count`, are counters without the
`_total` that the library insists on. A collector hands them out as untyped and `render` writes the right word in.
"""

from __future__ import annotations

import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import prometheus_client.metrics as client_metrics
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric, UnknownMetricFamily

from bioproxy import __version__, events
from bioproxy.activity import Record
from bioproxy.events import Bus
from bioproxy.metrics_host import Family
from bioproxy.metrics_views import EngineView, FleetView, GateView, KvView, ServerView, TemplateView

client_metrics.disable_created_metrics()  # type: ignore[no-untyped-call] # a second series per counter that says when this program started

SEED_COUNTERS = ("bioproxy_requests_count", "bioproxy_warmup_duration_seconds_count")
# What came of a restore, in the first bioproxy's words; `worthless` is ours, for a file that was read and did not help.
RESTORES = {"ok": "success", "failed": "error", "displaced": "worthless"}
WAITS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
LOADS = (0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300)  # seconds: small models and very large ones
QUICK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
CLIENT_LEFT = "499"  # as nginx counts a client that did not wait for any answer


def counter(registry: CollectorRegistry, name: str, text: str, *labels: str) -> Counter:
    """Declare a counter."""
    return Counter(name, text, labels, registry=registry)


def histogram(registry: CollectorRegistry, name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
    """Declare a histogram of seconds."""
    return Histogram(name, text, labels, buckets=tuple(buckets), registry=registry)


class OfRequests:
    """What the records of requests feed."""

    def __init__(self, registry: CollectorRegistry) -> None:
        count, times, how = partial(counter, registry), partial(histogram, registry), ("class", "outcome")
        self.requests = count("bioproxy_requests_total", "Requests answered.", "endpoint", "status")
        self.queue = times(
            "bioproxy_queue_wait_seconds", "Time in the queue before the engine was granted.", WAITS, *how
        )
        self.first_byte = times("bioproxy_first_byte_seconds", "From arrival to the engine's first byte.", WAITS, *how)
        self.duration = times("bioproxy_request_duration_seconds", "From arrival to the last byte.", WAITS, *how)
        self.restore = times("bioproxy_restore_duration_seconds", "Restoring a snapshot for a request.", QUICK, *how)


class OfEvents:
    """What everything else that happens feeds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        count, times = partial(counter, registry), partial(histogram, registry)
        self.checks = count("bioproxy_warmup_checks_total", "Looks whether a template needs a warm-up.")
        self.executions = count("bioproxy_warmup_executions_total", "Warm-ups that came to their end.", "prefix")
        self.errors = count("bioproxy_warmup_errors_total", "Warm-ups that failed.", "prefix", "type")
        self.warmed = count("bioproxy_warmup_duration_seconds_total", "Time spent in warm-ups.", "prefix")
        self.yields = count("bioproxy_warmup_cancellations_total", "Times a warm-up gave way to a user.", "prefix")
        self.warm_tokens = count("bioproxy_warmup_tokens_evaluated_total", "Tokens that warm-ups evaluated.", "prefix")
        self.saves = count("bioproxy_kv_cache_saves_total", "Snapshots saved and verified.", "prefix")
        self.saved_bytes = count("bioproxy_kv_cache_saved_bytes_total", "Bytes written as snapshots.")
        self.save = times("bioproxy_save_duration_seconds", "Time that the engine took to write a snapshot.", QUICK)
        self.restores = count("bioproxy_kv_cache_restores_total", "Restores tried.", "prefix", "status")
        self.dropped = count("bioproxy_snapshots_dropped_total", "Snapshots that left the index.", "reason")
        self.changes = count("bioproxy_template_changes_total", "Changed templates taken over.", "prefix")
        self.faults = count("bioproxy_template_faults_total", "Times a template could not be read.", "prefix")
        self.engine = count("bioproxy_engine_changes_total", "Changes of the engine's state.", "state")
        self.reloads = count("bioproxy_config_reloads_total", "Configuration reloads.", "result")
        self.failures = count("bioproxy_service_failures_total", "Faults of a service; it started again.", "service")


class OfModels:
    """What is counted of many models."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def count(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def times(name: str, text: str) -> Histogram:
            return Histogram(name, text, ["model"], buckets=LOADS, registry=registry)

        self.swaps = count("bioproxy_swaps_total", "Times a model became ready for somebody who waited.", "model")
        self.swap = times("bioproxy_swap_duration_seconds", "From the decision to swap to the model being ready.")
        self.load = times("bioproxy_model_load_duration_seconds", "From a model's process to its health.")
        self.ours = count("bioproxy_swap_own_seconds_total", "Part of swaps that was neither engine, save nor restore.")
        self.evictions = count("bioproxy_model_stops_total", "Models stopped, by reason.", "model", "reason")
        self.failures = count("bioproxy_model_failures_total", "Starts that failed and crashes.", "model")
        self.requests = count("bioproxy_model_requests_total", "Requests by model.", "model", "status")
        self.waited = times("bioproxy_model_wait_seconds", "How long requests waited for their model.")
        self.parts = count(
            "bioproxy_model_wait_part_seconds_total", "What requests waited for their model for.", "model", "part"
        )
        self.counted: dict[tuple[str, int], Callable[[], None]] = {}

    def changed(self, event: events.ModelChanged) -> None:
        """A process changed its state."""
        if event.reason and event.new in {"failed", "stopped"} and event.old != "stopping":
            self.failures.labels(event.model).inc()

    def swapped(self, event: events.SwapEnded) -> None:
        """A model became ready."""
        self.swaps.labels(event.model).inc()
        self.swap.labels(event.model).observe(event.stop + event.save + event.start + event.restore + event.ours)
        self.load.labels(event.model).observe(event.start)
        self.ours.inc(event.ours)

    def ended(self, record: Record) -> None:
        """A request to a model has ended."""
        increment = self.counted.get((record.model, record.status))
        if increment is None:
            status = str(record.status) if record.status else CLIENT_LEFT
            increment = self.counted[record.model, record.status] = self.requests.labels(record.model, status).inc
        increment()
        if record.swap:
            self.waited.labels(record.model).observe(record.swap)
            for part, seconds in (record.waits or {}).items():
                self.parts.labels(record.model, part).inc(seconds)


class Timed:
    """The four histograms of one class and outcome, looked up once."""

    __slots__ = ("duration", "first_byte", "queue", "restore")

    def __init__(self, declared: OfRequests, labels: tuple[str, str]) -> None:
        self.queue = declared.queue.labels(*labels).observe
        self.first_byte = declared.first_byte.labels(*labels).observe
        self.duration = declared.duration.labels(*labels).observe
        self.restore = declared.restore.labels(*labels).observe


class Metrics:
    """Counts what the bus tells, reads what it was given to watch, and renders both. `started` is unix time."""

    def __init__(self, bus: Bus, *, started: float | None = None) -> None:
        self.started = time.time() if started is None else started
        self.bus = bus
        self.registry = CollectorRegistry()
        self.counted = OfRequests(self.registry)
        self.happened = OfEvents(self.registry)
        self.models: OfModels | None = None
        build = Gauge("bioproxy_build_info", "Always 1.", ["version", "python"], registry=self.registry)
        build.labels(__version__, platform.python_version()).set(1)
        self.total = self.cached = self.evaluated = self.generated = 0
        self.caches: dict[str, int] = defaultdict(int)
        self.warmups: dict[str, int] = defaultdict(int)
        self.answered: dict[tuple[str, int], Callable[[], None]] = {}
        self.timed: dict[tuple[str, str], Timed] = {}
        self.sources: dict[str, Callable[[], Any]] = {}
        self.servers: Mapping[str, Callable[[], ServerView]] = {}
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        subscribe(bus, self)

    def watch(
        self,
        *,
        gate: Callable[[], GateView] | None = None,
        kv: Callable[[], KvView] | None = None,
        engine: Callable[[], EngineView] | None = None,
        templates: Callable[[], Iterable[TemplateView]] | None = None,
        servers: Mapping[str, Callable[[], ServerView]] | None = None,
        models: Callable[[], FleetView] | None = None,
        host: Callable[[], Iterable[Family]] | None = None,
    ) -> None:
        """Read these `statistics` methods whenever the metrics are asked for; `servers` by name."""
        given = {"gate": gate, "kv": kv, "engine": engine, "templates": templates, "models": models, "host": host}
        self.sources.update({name: source for name, source in given.items() if source is not None})
        if models is not None and self.models is None:
            self.models = of_models = OfModels(self.registry)
            self.bus.subscribe(events.ModelChanged, of_models.changed)
            self.bus.subscribe(events.SwapEnded, of_models.swapped)
            self.bus.subscribe(
                events.ModelStopped, lambda event: of_models.evictions.labels(event.model, event.reason).inc()
            )
        if servers is not None:
            self.servers = servers

    def render(self) -> tuple[str, bytes]:
        """The content type and the text of all metrics: always the plain format, which every scraper takes."""
        page = generate_latest(self.registry)
        for name in SEED_COUNTERS:
            page = page.replace(f"# TYPE {name} untyped".encode(), f"# TYPE {name} counter".encode())
        return CONTENT_TYPE_PLAIN_0_0_4, page

    def collect(self) -> Iterable[Metric]:
        """What is read rather than counted; prometheus_client asks for it."""
        yield gauge("bioproxy_uptime_seconds", "Time since this program started.", time.time() - self.started)
        requests = UnknownMetricFamily("bioproxy_requests_count", "Requests answered, without labels.")
        requests.add_metric([], self.total)
        yield requests
        warmups = UnknownMetricFamily(
            "bioproxy_warmup_duration_seconds_count", "Warm-ups whose time was measured.", labels=["prefix"]
        )
        for prefix, count in self.warmups.items():
            warmups.add_metric([prefix], count)
        yield warmups
        yield from of_tokens(self)
        for name, families in (
            ("gate", of_gate),
            ("kv", of_kv),
            ("engine", of_engine),
            ("templates", of_templates),
            ("models", of_fleet),
            ("host", of_host),
        ):
            if name in self.sources:
                yield from families(self.sources[name]())
        if self.servers:
            yield from of_servers({name: source() for name, source in self.servers.items()})

    def request_ended(self, event: events.RequestEnded) -> None:
        """Count one request; on the way of each, so nothing is looked up twice."""
        record = event.record
        self.total += 1
        answered = self.answered.get((record.endpoint, record.status))
        if answered is None:
            answered = self.endpoint_counter(record)
        answered()
        if record.gated:
            self.measure(record)
        if record.model and self.models is not None and record.status != 404:
            self.models.ended(record)

    def endpoint_counter(self, record: Record) -> Callable[[], None]:
        """The counter of an endpoint and status that was not seen before."""
        status = str(record.status) if record.status else CLIENT_LEFT
        increment = self.counted.requests.labels(record.endpoint, status).inc
        self.answered[record.endpoint, record.status] = increment
        return increment

    def measure(self, record: Record) -> None:
        """Times and tokens of a request that went through the gate; others would drown them in zeros."""
        labels = (record.work, record.outcome)
        timed = self.timed.get(labels)
        if timed is None:
            timed = self.timed[labels] = Timed(self.counted, labels)
        timed.queue(record.queue)
        timed.duration(record.total)
        if record.first_byte is not None:
            timed.first_byte(record.first_byte)
        if record.restore:
            timed.restore(record.restore)
        if record.cache:
            self.caches[record.cache] += 1
        self.cached += record.tokens_cached or 0
        self.evaluated += record.tokens_evaluated or 0
        self.generated += record.tokens_generated or 0

    def warmup_ended(self, event: events.WarmupEnded) -> None:
        """Count a warm-up, its time and what it evaluated."""
        self.warmups[event.prefix] += 1
        self.happened.executions.labels(event.prefix).inc()
        self.happened.warmed.labels(event.prefix).inc(event.seconds)
        self.happened.warm_tokens.labels(event.prefix).inc(event.evaluated)

    def snapshot_saved(self, event: events.SnapshotSaved) -> None:
        """Count a snapshot, its bytes and its time."""
        self.happened.saves.labels(event.prefix).inc()
        self.happened.saved_bytes.inc(event.bytes)
        self.happened.save.observe(event.seconds)

    def snapshot_restored(self, event: events.SnapshotRestored) -> None:
        """A restore, by the first bioproxy's names for what came of it."""
        self.happened.restores.labels(event.prefix, RESTORES.get(event.status, event.status)).inc()


def subscribe(bus: Bus, metrics: Metrics) -> None:
    """Which event feeds which metric."""
    to = metrics.happened
    bus.subscribe(events.RequestEnded, metrics.request_ended)
    bus.subscribe(events.WarmupEnded, metrics.warmup_ended)
    bus.subscribe(events.SnapshotSaved, metrics.snapshot_saved)
    bus.subscribe(events.WarmupChecked, lambda _: to.checks.inc())
    bus.subscribe(events.WarmupYielded, lambda event: to.yields.labels(event.prefix).inc())
    bus.subscribe(events.WarmupFailed, lambda event: to.errors.labels(event.prefix, event.type).inc())
    bus.subscribe(events.SnapshotRestored, metrics.snapshot_restored)
    bus.subscribe(events.SnapshotMissing, lambda event: to.restores.labels(event.prefix, "not_found").inc())
    bus.subscribe(events.SnapshotDropped, lambda event: to.dropped.labels(event.reason).inc())
    bus.subscribe(events.TemplateChanged, lambda event: to.changes.labels(event.prefix).inc())
    bus.subscribe(events.TemplateFault, lambda event: to.faults.labels(event.prefix).inc(bool(event.reason)))
    bus.subscribe(events.EngineChanged, lambda event: to.engine.labels(event.state).inc())
    bus.subscribe(events.ConfigReloaded, lambda event: to.reloads.labels("error" if event.error else "ok").inc())
    bus.subscribe(events.ServiceFailed, lambda event: to.failures.labels(event.name).inc())


def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    """One number."""
    return GaugeMetricFamily(name, text, value=value)


def gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    """One number for each value of `label`."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def of_tokens(now: Metrics) -> Iterable[Metric]:
    """What the engine told about its tokens; plain numbers, for they change with every request."""
    cached, evaluated, generated = now.cached, now.evaluated, now.generated
    yield sum_of("bioproxy_prompt_tokens_cached", "Prompt tokens that came from the KV cache.", cached)
    yield sum_of("bioproxy_prompt_tokens_evaluated", "Prompt tokens that the engine evaluated.", evaluated)
    yield sum_of("bioproxy_tokens_generated", "Tokens that the engine generated.", generated)
    yield sums("bioproxy_kv_cache_requests", "Requests by what the KV cache gave.", "result", now.caches)


def sum_of(name: str, text: str, value: float) -> CounterMetricFamily:
    """One counter; `_total` is added to its name."""
    return CounterMetricFamily(name, text, value=value)


def sums(name: str, text: str, label: str, values: Mapping[str, float]) -> CounterMetricFamily:
    """One counter for each value of `label`."""
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def of_gate(now: GateView) -> Iterable[Metric]:
    """The queue."""
    yield gauges("bioproxy_queue_depth", "Requests that wait for the engine.", "class", now.waiting)
    yield gauges("bioproxy_requests_running", "Requests that the engine was granted to.", "class", now.running)
    yield gauge("bioproxy_queue_oldest_wait_seconds", "How long the oldest request waits.", now.oldest_wait)
    yield gauge("bioproxy_gate_capacity", "Requests that may run at once.", now.capacity)
    yield gauge("bioproxy_gate_open", "1 while requests are granted.", now.open)
    yield gauge("bioproxy_gate_draining", "1 while the engine may be at a request that was left.", now.draining)


def of_servers(now: Mapping[str, ServerView]) -> Iterable[Metric]:
    """The listeners, by name."""
    open_now = {name: server.connections for name, server in now.items()}
    accepted = {name: server.accepted for name, server in now.items()}
    refused = {name: server.refused for name, server in now.items()}
    yield gauges("bioproxy_connections", "Open client connections.", "port", open_now)
    yield sums("bioproxy_connections_accepted", "Client connections accepted.", "port", accepted)
    yield sums("bioproxy_requests_refused", "Requests that were no valid HTTP.", "port", refused)


def of_kv(now: KvView) -> Iterable[Metric]:
    """The snapshots on disk."""
    yield gauge("bioproxy_snapshots", "Usable snapshots on disk.", now.snapshots)
    yield gauge("bioproxy_snapshot_bytes", "Disk space that snapshots take.", now.bytes)
    paused = {kind: float(count > 0) for kind, count in now.pauses.items()}
    yield gauges("bioproxy_saving_paused", "1 while the saving of any model is paused.", "kind", paused)


def of_fleet(now: FleetView) -> Iterable[Metric]:
    """Many models."""
    models = tuple(now.models)
    up = {one.model: float(one.state.value == "ready") for one in models}
    yield gauge("bioproxy_models_waiting", "Requests that wait for a model to be loaded.", now.waiting)
    yield gauges("bioproxy_model_up", "1 while the model is ready.", "model", up)
    running = {one.model: float(one.running) for one in models}
    yield gauges("bioproxy_model_requests_running", "Requests that hold the model in its place.", "model", running)
    waiting = {one.model: float(one.waiting) for one in models}
    yield gauges("bioproxy_model_requests_waiting", "Requests that wait for the model.", "model", waiting)


def of_host(now: Iterable[Family]) -> Iterable[Metric]:
    """The machine and its GPUs, by llama-swap's names."""
    for family in now:
        kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
        metric = kind(family.name, family.text, labels=family.labels)
        for line in family.series:
            metric.add_metric(line.labels, line.value)
        yield metric


def of_engine(now: EngineView) -> Iterable[Metric]:
    """The engine."""
    yield gauge("bioproxy_engine_up", "1 while the engine is ready.", now.state == "ready")


def of_templates(now: Iterable[TemplateView]) -> Iterable[Metric]:
    """Each template."""
    templates = tuple(now)
    good = {template.prefix: float(template.state == "ok") for template in templates}
    size = {template.prefix: float(template.bytes) for template in templates}
    yield gauges("bioproxy_template_ok", "1 while the template and its includes can be read.", "prefix", good)
    yield gauges("bioproxy_template_bytes", "Length of the filled template.", "prefix", size)
