"""What is counted, and which parts are asked for the rest when `/metrics` is read.

Counters and histograms are fed by the event bus: `Metrics(bus)` subscribes, and no other part of the program knows that
it is measured. They are plain numbers in dictionaries, so a request costs a few additions: the counters of Prometheus'
library take a lock each, which one event loop does not need. metrics_page.py makes the page of them when it is read.

Gauges are not kept at all: the page calls the `statistics` methods of the stateful parts. So a gauge cannot drift from
what `/status` says.

Labels are few and bounded (classes, outcomes, known routes, prefixes, models and keys of the config); a client is
none of them.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias
from urllib.parse import unquote

import msgspec

from bioproxy import events
from bioproxy.activity import Record
from bioproxy.clients.counts import ClientsStatistics
from bioproxy.engines.attach import AttachmentStatistics
from bioproxy.events import Bus
from bioproxy.front.allowance import KeyStatistics
from bioproxy.gate.gate import GateStatistics
from bioproxy.kv.budget import Share
from bioproxy.kv.statistics import KvStatistics
from bioproxy.models.schedule import ScheduleStatistics
from bioproxy.samples import Look
from bioproxy.templates.catalogue import TemplateStatistics
from bioproxy.wire.connection import ServerStatistics

Labels: TypeAlias = tuple[str | int, ...]

# What came of a restore, in the first bioproxy's words; `worthless` is ours, for a file that was read and did not help.
RESTORES = {"ok": "success", "failed": "error", "displaced": "worthless"}
WAITS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
LOADS = (0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300)  # seconds: small models and very large ones
QUICK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
DAY = 86400.0  # seconds
CLIENT_LEFT = 499  # as nginx counts a client that did not wait for any answer


class Kept(msgspec.Struct, frozen=True):
    """The snapshots of all engines together: how many, their bytes, and how many engines' saving is paused, by kind."""

    snapshots: int
    bytes: int
    pauses: Mapping[str, int]


class TokenStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of requests: from the cache, read by the engine, written by it.

    `spared` are the seconds of reading that the cache saved, less those that restores took, at the speeds that are
    known by now.
    """

    cached: int
    evaluated: int
    generated: int
    spared: float


class Tokens(msgspec.Struct):
    """The tokens of one model's requests, and the seconds that restores took for them."""

    cached: int = 0
    evaluated: int = 0
    generated: int = 0
    restore: float = 0.0

    def add(self, other: Tokens) -> None:
        self.cached += other.cached
        self.evaluated += other.evaluated
        self.generated += other.generated
        self.restore += other.restore


class Counter:
    """A number for each combination of label values; without labels there is one, from the beginning."""

    def __init__(self, name: str, text: str, *labels: str) -> None:
        self.name, self.text, self.labels = name, text, labels
        self.values: defaultdict[Labels, float] = defaultdict(float)
        if not labels:
            self.values[()] = 0.0

    def add(self, *labels: str, by: float = 1.0) -> None:
        self.values[labels] += by


class Spread:
    """How many observed values fell between two bounds (the last place: above all of them), and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Times:
    """A histogram of seconds: a spread for each combination of label values; without labels there is one."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], *labels: str) -> None:
        self.name, self.text, self.bounds, self.labels = name, text, bounds, labels
        self.spreads: dict[Labels, Spread] = {}
        if not labels:
            self.of()

    def of(self, *labels: str) -> Spread:
        """The spread of these label values; asking makes its series known."""
        found = self.spreads.get(labels)
        if found is None:
            found = self.spreads[labels] = Spread(self.bounds)
        return found


def summed(found: Sequence[tuple[float, Tokens]]) -> TokenStatistics:
    """The tokens of several models, each with its engine's seconds for one."""
    return TokenStatistics(
        cached=sum(tokens.cached for _, tokens in found),
        evaluated=sum(tokens.evaluated for _, tokens in found),
        generated=sum(tokens.generated for _, tokens in found),
        spared=sum(max(0.0, tokens.cached * prefill - tokens.restore) for prefill, tokens in found),
    )


class OfRequests:
    """What the records of requests feed."""

    def __init__(self) -> None:
        how = ("class", "outcome")
        self.requests = Counter("bioproxy_requests_total", "Requests answered.", "endpoint", "status")
        self.queue = Times(
            "bioproxy_queue_wait_seconds", "Time in the queue before the engine was granted.", WAITS, *how
        )
        self.first_byte = Times("bioproxy_first_byte_seconds", "From arrival to the engine's first byte.", WAITS, *how)
        self.duration = Times("bioproxy_request_duration_seconds", "From arrival to the last byte.", WAITS, *how)
        self.restore = Times("bioproxy_restore_duration_seconds", "Restoring a snapshot for a request.", QUICK, *how)
        self.day = 0.0  # of `today`: the unix time at which it began (UTC)
        self.today: defaultdict[str, Tokens] = defaultdict(Tokens)  # by model
        self.before: defaultdict[str, Tokens] = defaultdict(Tokens)
        self.caches: dict[str, int] = defaultdict(int)  # requests by what the KV cache gave
        self.templated = Counter(
            "bioproxy_template_requests_total",
            "Requests with a template, by what the KV cache gave.",
            "prefix",
            "cache",
        )
        self.timed: dict[tuple[str, str], tuple[Spread, Spread, Spread, Spread]] = {}

    def ended(self, event: events.RequestEnded) -> None:
        """Count one request; every one comes this way."""
        record = event.record
        self.requests.values[record.endpoint, record.status or CLIENT_LEFT] += 1
        if not record.gated:  # its zeros would drown the times of the others
            return
        queue, duration, first_byte, restore = self.timed.get((record.work, record.outcome)) or self.spreads(record)
        queue.observe(record.queue)
        duration.observe(record.total)
        if record.first_byte is not None:
            first_byte.observe(record.first_byte)
        if record.restore:
            restore.observe(record.restore)
        if record.cache:
            self.caches[record.cache] += 1
            if record.prefix:
                self.templated.values[record.prefix, record.cache] += 1
        if record.started >= self.day + DAY:
            self.begin_day(record.started)
        if record.tokens_cached is None and record.tokens_generated is None:
            return  # an unknown name is no model, and tells no tokens
        tokens = self.today[record.model]
        tokens.cached += record.tokens_cached or 0
        tokens.evaluated += record.tokens_evaluated or 0
        tokens.generated += record.tokens_generated or 0
        tokens.restore += record.restore

    def by_template(self) -> dict[str, dict[str, int]]:
        """How many requests had each prefix, by what the KV cache gave."""
        found: dict[str, dict[str, int]] = defaultdict(dict)
        for (prefix, cache), count in self.templated.values.items():
            found[str(prefix)][str(cache)] = int(count)
        return found

    def begin_day(self, now: float) -> None:
        """What was counted belongs to the days before."""
        self.day = now - now % DAY
        for model, tokens in self.today.items():
            self.before[model].add(tokens)
        self.today.clear()

    def tokens(self, prefill: Callable[[str], float]) -> tuple[TokenStatistics, TokenStatistics]:
        """Those of today and those of all days; `prefill`: seconds in which a model's engine reads a token."""
        now = time.time()
        if now >= self.day + DAY:
            self.begin_day(now)
        today = [(prefill(model), tokens) for model, tokens in self.today.items()]
        before = [(prefill(model), tokens) for model, tokens in self.before.items()]
        return summed(today), summed(today + before)

    def spreads(self, record: Record) -> tuple[Spread, Spread, Spread, Spread]:
        """The four spreads of a class and outcome that was not seen before."""
        key = (record.work, record.outcome)
        found = self.queue.of(*key), self.duration.of(*key), self.first_byte.of(*key), self.restore.of(*key)
        self.timed[key] = found
        return found


class OfEvents:
    """What everything else that happens feeds."""

    def __init__(self) -> None:
        self.checks = Counter("bioproxy_warmup_checks_total", "Looks whether a template needs a warm-up.")
        self.executions = Counter("bioproxy_warmup_executions_total", "Warm-ups that came to their end.", "prefix")
        self.errors = Counter("bioproxy_warmup_errors_total", "Warm-ups that failed.", "prefix", "type")
        self.warmed = Counter("bioproxy_warmup_duration_seconds_total", "Time spent in warm-ups.", "prefix")
        self.yields = Counter("bioproxy_warmup_cancellations_total", "Times a warm-up gave way to a user.", "prefix")
        self.tokens = Counter("bioproxy_warmup_tokens_evaluated_total", "Tokens that warm-ups evaluated.", "prefix")
        self.saves = Counter("bioproxy_kv_cache_saves_total", "Snapshots saved and verified.", "prefix")
        self.saved_bytes = Counter("bioproxy_kv_cache_saved_bytes_total", "Bytes written as snapshots.")
        self.save = Times("bioproxy_save_duration_seconds", "Time that the engine took to write a snapshot.", QUICK)
        self.restores = Counter("bioproxy_kv_cache_restores_total", "Restores tried.", "prefix", "status")
        self.dropped = Counter("bioproxy_snapshots_dropped_total", "Snapshots that left the index.", "reason")
        self.misses = Counter(
            "bioproxy_prompt_misses_total", "Prompts that were evaluated anew, by why (docs/doctor.md).", "cause"
        )
        self.missed = Counter(
            "bioproxy_prompt_miss_seconds_total", "Time spent on evaluating again what was evaluated before.", "cause"
        )
        self.changes = Counter("bioproxy_template_changes_total", "Changed templates taken over.", "prefix")
        self.faults = Counter("bioproxy_template_faults_total", "Times a template could not be read.", "prefix")
        self.engine = Counter("bioproxy_engine_changes_total", "Changes of the engine's state.", "state")
        self.reloads = Counter("bioproxy_config_reloads_total", "Configuration reloads.", "result")
        self.failures = Counter("bioproxy_service_failures_total", "Faults of a service; it started again.", "service")

    def listen(self, bus: Bus) -> None:
        bus.subscribe(events.WarmupChecked, lambda _: self.checks.add())
        bus.subscribe(events.WarmupEnded, self.warmup_ended)
        bus.subscribe(events.WarmupYielded, lambda event: self.yields.add(event.prefix))
        bus.subscribe(events.WarmupFailed, lambda event: self.errors.add(event.prefix, event.type))
        bus.subscribe(events.SnapshotSaved, self.snapshot_saved)
        bus.subscribe(
            events.SnapshotRestored,
            lambda event: self.restores.add(event.prefix, RESTORES.get(event.status, event.status)),
        )
        bus.subscribe(events.SnapshotMissing, lambda event: self.restores.add(event.prefix, "not_found"))
        bus.subscribe(events.SnapshotDropped, lambda event: self.dropped.add(event.reason))
        bus.subscribe(events.PromptMissed, self.prompt_missed)
        bus.subscribe(events.TemplateChanged, lambda event: self.changes.add(event.prefix))
        bus.subscribe(events.TemplateFault, lambda event: self.faults.add(event.prefix, by=bool(event.reason)))
        bus.subscribe(events.EngineChanged, lambda event: self.engine.add(event.state))
        bus.subscribe(events.ConfigReloaded, lambda event: self.reloads.add("error" if event.error else "ok"))
        bus.subscribe(events.ServiceFailed, lambda event: self.failures.add(event.name))

    def prompt_missed(self, event: events.PromptMissed) -> None:
        self.misses.add(event.cause)
        self.missed.add(event.cause, by=event.seconds)

    def warmup_ended(self, event: events.WarmupEnded) -> None:
        self.executions.add(event.prefix)
        self.warmed.add(event.prefix, by=event.seconds)
        self.tokens.add(event.prefix, by=event.evaluated)

    def snapshot_saved(self, event: events.SnapshotSaved) -> None:
        self.saves.add(event.prefix)
        self.saved_bytes.add(by=event.bytes)
        self.save.of().observe(event.seconds)


class OfModels:
    """What is counted of many models."""

    def __init__(self) -> None:
        self.swaps = Counter("bioproxy_swaps_total", "Times a model was loaded.", "model")
        self.swap = Times(
            "bioproxy_swap_duration_seconds", "From the decision to swap to the model being ready.", LOADS, "model"
        )
        self.load = Times(
            "bioproxy_model_load_duration_seconds", "From a model's process to its health.", LOADS, "model"
        )
        self.ours = Counter(
            "bioproxy_swap_own_seconds_total", "Part of swaps that was neither engine, save nor restore."
        )
        self.evictions = Counter("bioproxy_model_stops_total", "Models stopped, by reason.", "model", "reason")
        self.failures = Counter("bioproxy_model_failures_total", "Starts that failed and crashes.", "model")
        self.requests = Counter("bioproxy_model_requests_total", "Requests by model.", "model", "status")
        self.fallbacks = Counter("bioproxy_fallbacks_total", "Requests that went to another model.", "model", "reason")
        self.waited = Times("bioproxy_model_wait_seconds", "How long requests waited for their model.", LOADS, "model")
        self.parts = Counter(
            "bioproxy_model_wait_part_seconds_total", "What requests waited for their model for.", "model", "part"
        )

    def listen(self, bus: Bus) -> None:
        bus.subscribe(events.RequestEnded, self.ended)
        bus.subscribe(events.ModelChanged, self.changed)
        bus.subscribe(events.SwapEnded, self.swapped)
        bus.subscribe(events.ModelStopped, lambda event: self.evictions.add(event.model, event.reason))

    def changed(self, event: events.ModelChanged) -> None:
        if event.reason and event.new in {"failed", "stopped"} and event.old != "stopping":
            self.failures.add(event.model)

    def swapped(self, event: events.SwapEnded) -> None:
        self.swaps.add(event.model)
        self.swap.of(event.model).observe(event.stop + event.save + event.start + event.restore + event.ours)
        self.load.of(event.model).observe(event.start)
        self.ours.add(by=event.ours)

    def ended(self, event: events.RequestEnded) -> None:
        record = event.record
        if not record.model or record.status == 404:
            return  # an unknown name is no model: else any client could fill the memory with series
        self.requests.values[record.model, record.status or CLIENT_LEFT] += 1
        if "fallback" in record.metadata:
            for told in record.metadata["fallback"].split(", "):
                model, _, reason = told.partition(";reason=")
                self.fallbacks.add(unquote(model), reason)
        if record.swap:
            self.waited.of(record.model).observe(record.swap)
            for part, seconds in (record.waits or {}).items():
                self.parts.add(record.model, part, by=seconds)


class Metrics:
    """Counts what happens, and knows which parts to ask for the rest.

    `gates` (of all models), `gate` (of the only engine), `kv`, `engine`, `templates`, `servers` (by name), `host` and,
    by `watch_models`, `models` are the methods that the page calls. A part that was not set is not on the page.
    """

    paused: Callable[[], bool] = bool
    gates: Callable[[], Sequence[GateStatistics]] | None = None
    gate: Callable[[], GateStatistics] | None = None
    kv: Callable[[], KvStatistics | Kept] | None = None
    shares: Callable[[], Sequence[Share]] | None = None
    engine: Callable[[], AttachmentStatistics] | None = None
    templates: Callable[[], Sequence[TemplateStatistics]] | None = None
    servers: Mapping[str, Callable[[], ServerStatistics]] | None = None
    models: Callable[[], ScheduleStatistics] | None = None
    host: Callable[[], Look | None] | None = None
    clients: Callable[[], ClientsStatistics] | None = None
    keys: Callable[[], Sequence[KeyStatistics]] | None = None

    def __init__(self, bus: Bus) -> None:
        self.started = time.time()
        self.bus = bus
        self.requests, self.events, self.of_models = OfRequests(), OfEvents(), OfModels()
        bus.subscribe(events.RequestEnded, self.requests.ended)
        self.events.listen(bus)

    def watch_models(self, statistics: Callable[[], ScheduleStatistics]) -> None:
        """Count what happens to models, and show `statistics`."""
        self.models = statistics
        self.of_models.listen(self.bus)
