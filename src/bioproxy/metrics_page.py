"""`/metrics`: the page that Prometheus reads; the only module that knows prometheus_client.

It is loaded at the first scrape. A page is what metrics.py counted, then what the stateful parts say now, then the
process itself. Dashboards that were made for llama-swap find the machine's series under its names.

Two names of the seed, `bioproxy_requests_count` and `bioproxy_warmup_duration_seconds_count`, are counters without the
`_total` that the library insists on. They are handed to it as untyped, and `render` writes the right word in.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, get_args

from msgspec import UNSET
from prometheus_client import ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from bioproxy import __version__
from bioproxy.activity import Work
from bioproxy.clients.counts import ClientsStatistics
from bioproxy.engines.attach import AttachmentStatistics
from bioproxy.front.allowance import KeyStatistics
from bioproxy.gate.gate import GateStatistics
from bioproxy.kv.budget import Share
from bioproxy.kv.statistics import KvStatistics
from bioproxy.metrics import Counter, Kept, Metrics, Times
from bioproxy.models.schedule import ScheduleStatistics
from bioproxy.models.state import State
from bioproxy.samples import MEGABYTE, GpuSample, Look, SystemSample
from bioproxy.templates.catalogue import TemplateStatistics
from bioproxy.wire.connection import ServerStatistics

SEED_COUNTERS = ("bioproxy_requests_count", "bioproxy_warmup_duration_seconds_count")
FIGURES = ("waited", "kept", "spared")
PROCESS = ProcessCollector(registry=None)
GPU_FIGURES: tuple[tuple[str, str, Callable[[GpuSample], float | None], int], ...] = (
    ("llamaswap_gpu_temperature_celsius", "Temperature of the GPU.", lambda gpu: gpu.temp_c, 1),
    ("llamaswap_gpu_vram_temperature_celsius", "Temperature of its memory.", lambda gpu: gpu.vram_temp_c, 1),
    ("llamaswap_gpu_util_percent", "Share of time in which the GPU computes.", lambda gpu: gpu.gpu_util_pct, 1),
    ("llamaswap_gpu_memory_util_percent", "Share of its memory in use.", lambda gpu: gpu.mem_util_pct, 1),
    ("llamaswap_gpu_memory_used_bytes", "Its memory in use.", lambda gpu: gpu.mem_used_mb, MEGABYTE),
    ("llamaswap_gpu_memory_total_bytes", "Its memory.", lambda gpu: gpu.mem_total_mb, MEGABYTE),
    ("llamaswap_gpu_fan_speed_percent", "Speed of its fan.", lambda gpu: gpu.fan_speed_pct, 1),
    ("llamaswap_gpu_power_draw_watts", "Power that it draws.", lambda gpu: gpu.power_draw_w, 1),
)


class Page(Collector):
    """All families of one page, in their order."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def collect(self) -> Iterator[Metric]:
        now = self.metrics
        yield from counted(now.requests)
        yield from counted(now.events)
        build = GaugeMetricFamily("bioproxy_build_info", "Always 1.", labels=["version", "python"])
        build.add_metric([__version__, platform.python_version()], 1)
        yield build
        yield gauge("bioproxy_uptime_seconds", "Time since this program started.", time.time() - now.started)
        yield gauge("bioproxy_paused", "1 while an operator has paused it.", now.paused())
        yield from of_seed(now)
        yield from of_tokens(now)
        if now.gates is not None:
            yield from of_gates(now.gates())
        if now.gate is not None:
            yield from of_gate(now.gate())
        if now.kv is not None:
            yield from of_kv(now.kv())
        if now.shares is not None:
            yield from of_shares(now.shares())
        if now.engine is not None:
            yield from of_engine(now.engine())
        if now.templates is not None:
            yield from of_templates(now.templates())
        if now.models is not None:
            yield from of_fleet(now.models())
        if now.host is not None and (look := now.host()) is not None:
            yield from of_host(look)
        if now.clients is not None:
            yield from of_clients(now.clients())
        if now.keys is not None:
            yield from of_keys(now.keys())
        if now.servers is not None:
            yield from of_servers({name: statistics() for name, statistics in now.servers.items()})
        yield from PROCESS.collect()
        if now.models is not None:
            yield from counted(now.of_models)


def render(metrics: Metrics) -> tuple[str, bytes]:
    """The content type and the text of all metrics: always the plain format, which every scraper takes."""
    page = generate_latest(Page(metrics))
    for name in SEED_COUNTERS:
        page = page.replace(f"# TYPE {name} untyped".encode(), f"# TYPE {name} counter".encode())
    return CONTENT_TYPE_PLAIN_0_0_4, page


def counted(declared: object) -> Iterator[Metric]:
    """The counters and histograms among an object's attributes, in the order in which it declares them."""
    for one in vars(declared).values():
        if isinstance(one, Counter):
            counter = CounterMetricFamily(one.name, one.text, labels=one.labels)
            for labels, value in one.values.items():
                counter.add_metric([str(label) for label in labels], value)
            yield counter
        elif isinstance(one, Times):
            yield histogram(one)


def histogram(times: Times) -> Metric:
    """A histogram; Prometheus wants each bucket to count what lies below it as well."""
    family = HistogramMetricFamily(times.name, times.text, labels=times.labels)
    names = [*map(floatToGoString, times.bounds), "+Inf"]
    for labels, spread in times.spreads.items():
        buckets = zip(names, accumulate(spread.counts), strict=True)
        family.add_metric([str(label) for label in labels], list(buckets), spread.sum)
    return family


def gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def gauges(name: str, text: str, label: str, values: Mapping[Any, float]) -> Metric:
    """One number for each value of `label`."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def sums(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """One counter for each value of `label`; `_total` is added to its name."""
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def of_seed(now: Metrics) -> Iterator[Metric]:
    """The seed's two counters: the same events as two of ours count, with fewer labels."""
    requests = UnknownMetricFamily("bioproxy_requests_count", "Requests answered, without labels.")
    requests.add_metric([], sum(now.requests.requests.values.values()))
    yield requests
    warmups = UnknownMetricFamily(
        "bioproxy_warmup_duration_seconds_count", "Warm-ups whose time was measured.", labels=["prefix"]
    )
    for labels, count in now.events.executions.values.items():
        warmups.add_metric([str(label) for label in labels], count)
    yield warmups


def of_tokens(now: Metrics) -> Iterator[Metric]:
    """What engines said about their tokens."""
    _, seen = now.requests.tokens(lambda _: 0.0)
    for name, text, value in (
        ("bioproxy_prompt_tokens_cached", "Prompt tokens that came from the KV cache.", seen.cached),
        ("bioproxy_prompt_tokens_evaluated", "Prompt tokens that the engine evaluated.", seen.evaluated),
        ("bioproxy_tokens_generated", "Tokens that the engine generated.", seen.generated),
    ):
        yield CounterMetricFamily(name, text, value=value)
    yield sums("bioproxy_kv_cache_requests", "Requests by what the KV cache gave.", "result", now.requests.caches)


def of_gates(now: Sequence[GateStatistics]) -> Iterator[Metric]:
    """The queue of the only engine; of many models all together."""
    waiting = {work: sum(gate.waiting[work] for gate in now) for work in get_args(Work)}
    running = {work: sum(gate.running[work] for gate in now) for work in get_args(Work)}
    oldest = max((gate.held_up for gate in now), default=0.0)
    yield gauges("bioproxy_queue_depth", "Requests that wait for an engine that is ready.", "class", waiting)
    yield gauges("bioproxy_requests_running", "Requests that an engine was granted to.", "class", running)
    yield gauge("bioproxy_queue_oldest_wait_seconds", "How long the oldest request of a client has waited.", oldest)


def of_gate(now: GateStatistics) -> Iterator[Metric]:
    yield gauge("bioproxy_gate_capacity", "Requests that may run at once.", now.capacity)
    yield gauge("bioproxy_gate_open", "1 while requests are granted.", now.open)
    yield gauge("bioproxy_gate_draining", "1 while the engine may be at a request that was left.", now.draining)


def of_kv(now: KvStatistics | Kept) -> Iterator[Metric]:
    yield gauge("bioproxy_snapshots", "Usable snapshots on disk.", now.snapshots)
    yield gauge("bioproxy_snapshot_bytes", "Disk space that snapshots take.", now.bytes)
    paused = {kind: float(count > 0) for kind, count in now.pauses.items()}
    yield gauges("bioproxy_saving_paused", "1 while the saving of any model is paused.", "kind", paused)


def of_shares(now: Sequence[Share]) -> Iterator[Metric]:
    for kind in ("model", "key"):
        theirs = [one for one in now if one.kind == kind]
        size, worth = {one.name: one.bytes for one in theirs}, {one.name: one.worth for one in theirs}
        text = f"Disk space that the snapshots of each {kind} take."
        yield gauges(f"bioproxy_{kind}_snapshot_bytes", text, kind, size)
        text = f"Prefill in the snapshots of each {kind}, halved for each week without use."
        yield gauges(f"bioproxy_{kind}_snapshot_worth_seconds", text, kind, worth)
    kept = {one.name: one.kept for one in now if one.kind == "key"}
    yield gauges("bioproxy_key_kept_bytes", "Of them, what each key keeps by name or for a time.", "key", kept)


def of_engine(now: AttachmentStatistics) -> Iterator[Metric]:
    yield gauge("bioproxy_engine_up", "1 while the engine is ready.", now.state == "ready")


def of_templates(now: Sequence[TemplateStatistics]) -> Iterator[Metric]:
    """By prefix: models may have others of the same one, and one that cannot be read is what somebody must hear of."""
    good, size = dict[str, float](), dict[str, float]()
    for template in now:
        good[template.prefix] = min(good.get(template.prefix, 1.0), float(template.state == "ok"))
        size[template.prefix] = max(size.get(template.prefix, 0.0), float(template.bytes))
    yield gauges("bioproxy_template_ok", "1 while the template and its includes can be read.", "prefix", good)
    yield gauges("bioproxy_template_bytes", "Length of the filled template.", "prefix", size)


def of_fleet(now: ScheduleStatistics) -> Iterator[Metric]:
    up = {one.model: float(one.state is State.READY) for one in now.models}
    yield gauge("bioproxy_models_waiting", "Requests that wait for a model to be loaded.", now.waiting)
    yield gauges("bioproxy_model_up", "1 while the model is ready.", "model", up)
    running = {one.model: one.running for one in now.models}
    yield gauges("bioproxy_model_requests_running", "Requests that hold the model in its place.", "model", running)
    waiting = {one.model: one.waiting for one in now.models}
    yield gauges("bioproxy_model_requests_waiting", "Requests that wait for the model.", "model", waiting)


def of_clients(now: ClientsStatistics) -> Iterator[Metric]:
    """What was done about side requests and about prompts that change, by rule."""
    done = CounterMetricFamily("bioproxy_side_requests", "Side requests.", labels=["rule", "done"])
    for rule, one in now.side.items():
        counts = {"refused": one.refused, "rerouted": one.rerouted}
        for word, count in {"waited": one.matched - sum(counts.values()), **counts}.items():
            done.add_metric([rule, word], count)
    yield done
    waited, kept, spared = ({rule: getattr(one, name) for rule, one in now.side.items()} for name in FIGURES)
    yield sums("bioproxy_side_wait_seconds", "Until side requests began.", "rule", waited)
    yield sums("bioproxy_side_kept_tokens", "Saved before a side request took their place.", "rule", kept)
    yield sums("bioproxy_side_spared_tokens", "Of refused side requests, about.", "rule", spared)
    found = CounterMetricFamily("bioproxy_stabilize_requests", "Prompts for a rule.", labels=["rule", "found"])
    for rule, mended in now.stabilize.items():
        for word in ("matched", "changed", "mended"):
            found.add_metric([rule, word], getattr(mended, word))
    yield found
    values = {rule: mended.spared for rule, mended in now.stabilize.items()}
    yield sums("bioproxy_stabilize_spared_tokens", "Not evaluated anew, if the rule is on; about.", "rule", values)


def of_keys(now: Sequence[KeyStatistics]) -> Iterator[Metric]:
    """What each of `api_keys` used, by its name."""
    tokens = CounterMetricFamily("bioproxy_key_tokens", "Tokens that a key used.", labels=["key", "kind"])
    for one in now:
        tokens.add_metric([one.key, "prompt"], one.total.prompt)
        tokens.add_metric([one.key, "generated"], one.total.generated)
    yield tokens
    refused = {one.key: one.total.refused for one in now}
    yield sums("bioproxy_key_refused", "Requests refused because of tokens_per_day.", "key", refused)
    left = {one.key: one.left for one in now if one.left is not None}
    yield gauges("bioproxy_key_tokens_left", "Tokens that a key with tokens_per_day may use today.", "key", left)


def of_servers(now: Mapping[str, ServerStatistics]) -> Iterator[Metric]:
    open_now = {name: server.connections for name, server in now.items()}
    accepted = {name: server.accepted for name, server in now.items()}
    refused = {name: server.refused for name, server in now.items()}
    yield gauges("bioproxy_connections", "Open client connections.", "port", open_now)
    yield sums("bioproxy_connections_accepted", "Client connections accepted.", "port", accepted)
    yield sums("bioproxy_requests_refused", "Requests that were no valid HTTP.", "port", refused)
    expires = {name: server.certificate_expires for name, server in now.items() if server.certificate_expires}
    due = {name: server.certificate_due for name, server in now.items() if server.certificate_due}
    yield gauges("bioproxy_certificate_expires_timestamp_seconds", "When the certificate expires.", "port", expires)
    yield gauges("bioproxy_certificate_due_timestamp_seconds", "When it should have been renewed.", "port", due)


def of_host(now: Look) -> Iterator[Metric]:
    """The machine and its GPUs, under llama-swap's names; what is not known has no series."""
    return (family for family in (*of_system(now.system), *of_gpus(now.gpus)) if family.samples)


def of_system(now: SystemSample) -> Iterable[Metric]:
    cores = () if now.cpu_util_per_core is UNSET else now.cpu_util_per_core
    share = {str(core): percent for core, percent in enumerate(cores)}
    yield gauges("llamaswap_cpu_util_percent", "Share of time in which a core computes.", "core", share)
    for name, text, megabytes in (
        ("llamaswap_memory_total_bytes", "Memory of the machine.", now.mem_total_mb),
        ("llamaswap_memory_used_bytes", "Memory in use.", now.mem_used_mb),
        ("llamaswap_memory_free_bytes", "Memory that programs can still have.", now.mem_free_mb),
        ("llamaswap_swap_total_bytes", "Swap space.", now.swap_total_mb),
        ("llamaswap_swap_used_bytes", "Swap space in use.", now.swap_used_mb),
    ):
        if megabytes is not UNSET:
            yield gauge(name, text, megabytes * MEGABYTE)
    loads = {"1m": now.load_avg_1, "5m": now.load_avg_5, "15m": now.load_avg_15}
    known = {interval: load for interval, load in loads.items() if load is not UNSET}
    yield gauges("llamaswap_load_average", "Load average.", "interval", known)
    network = CounterMetricFamily(
        "llamaswap_network_bytes_total", "Bytes that a network interface carried.", labels=["interface", "direction"]
    )
    for one in () if now.net_io is UNSET else now.net_io:
        network.add_metric([one.name, "recv"], one.bytes_recv)
        network.add_metric([one.name, "sent"], one.bytes_sent)
    yield network


def of_gpus(gpus: Sequence[GpuSample]) -> Iterable[Metric]:
    for name, text, read, scale in GPU_FIGURES:
        family = GaugeMetricFamily(name, text, labels=["id", "name", "uuid"])
        for gpu in gpus:
            if (value := read(gpu)) is not None:
                family.add_metric([str(gpu.id), gpu.name, gpu.uuid], value * scale)
        yield family
