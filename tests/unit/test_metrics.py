"""What Prometheus gets to see: every name, its type, and that each event moves the right number."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from bioproxy import events
from bioproxy.activity import Outcome, Record, Work
from bioproxy.clients.counts import ClientsStatistics, MendCounts, SideCounts
from bioproxy.config.schema import Kv
from bioproxy.events import Bus
from bioproxy.front.allowance import Used
from bioproxy.gate import Gate
from bioproxy.kv.budget import Share
from bioproxy.kv.saver import Pause, counted
from bioproxy.kv.shelves import Tenant
from bioproxy.metrics import Kept, Metrics
from bioproxy.metrics_page import SEED_COUNTERS, of_host, render
from bioproxy.models.state import State
from bioproxy.samples import GpuSample, Interface, Look, SystemSample
from support.config_files import settings

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
PROMTOOL = shutil.which("promtool")


def record(
    *,
    status: int = 200,
    outcome: Outcome = "ok",
    work: Work = "user",
    endpoint: str = "/v1/chat/completions",
    **more: Any,
) -> events.RequestEnded:
    """A request that went through the gate."""
    values: dict[str, Any] = {"gated": True, "queue": 0.5, "first_byte": 1.5, "total": 3.0, **more}
    ended = Record(
        id="r", started=1.0, method="POST", path=endpoint, endpoint=endpoint, status=status, outcome=outcome, work=work,
        **values,
    )  # fmt: skip
    return events.RequestEnded(record=ended)


def stand_in(**values: Any) -> Any:
    """Statistics, as far as the page reads them."""
    return SimpleNamespace(**values)


def restored(status: str) -> events.SnapshotRestored:
    return events.SnapshotRestored(prefix="@code", status=status, tokens=10, seconds=0.1)


EVERYTHING: tuple[events.Event, ...] = (
    record(restore=0.2, tokens_cached=3000, tokens_evaluated=20, tokens_generated=7, cache="restored"),
    record(work="side", outcome="client_left", status=0),
    events.EngineChanged(url="http://localhost:8081", state="ready"),
    events.SnapshotSaved(prefix="@code", tokens=10, bytes=4096, seconds=0.1),
    restored("ok"),
    events.SnapshotDropped(prefix="", reason="budget", bytes=4096),
    events.SavingPaused(paused=True, kind="disk", reason="the disk is full"),
    events.WarmupChecked(),
    events.WarmupStarted(prefix="@code", tokens=10, done=0),
    events.WarmupYielded(prefix="@code", tokens=10, done=5),
    events.WarmupEnded(prefix="@code", tokens=10, evaluated=10, seconds=2.5),
    events.WarmupFailed(prefix="@code", type="engine", reason="no"),
    events.TemplateChanged(prefix="@code", version="2"),
    events.TemplateFault(prefix="@code", reason="gone"),
    events.ConfigReloaded(error="line 3"),
    events.ServiceFailed(name="kv", error="no"),
)
OF_MODELS: tuple[events.Event, ...] = (
    record(model="qwen", swap=2.0),
    record(model="zzz", status=404),
    events.ModelChanged(model="qwen", old="starting", new="failed", reason="no memory"),
    events.ModelChanged(model="qwen", old="stopping", new="stopped"),
    events.SwapEnded(model="qwen", displaced=("phi",), stop=0.5, save=0.25, start=2.0, restore=0.25, ours=0.125),
    events.ModelStopped(model="phi", reason="swap"),
)


def make(*published: events.Event, models: bool = False) -> Metrics:
    """Metrics that heard these events, and watch two models if there are `models`."""
    bus = Bus()
    metrics = Metrics(bus)
    if models:
        watch_models(metrics)
    for event in published:
        bus.publish(event)
    return metrics


def watch_models(metrics: Metrics) -> None:
    """Two models, one of them ready, and a machine."""
    metrics.shares = lambda: (
        Share(kind="model", name="a", bytes=4096, kept=0, budget=0, worth=2.0),
        Share(kind="key", name="laptop", bytes=4096, kept=0, budget=0, worth=2.0),
    )
    states = {"qwen": State.READY, "phi": State.STARTING}
    models = [stand_in(model=name, state=state, running=1, waiting=2) for name, state in states.items()]
    system = SystemSample(timestamp=datetime.now(UTC), mem_total_mb=1, load_avg_1=0.5)
    metrics.watch_models(lambda: stand_in(waiting=3, models=models))
    metrics.host = lambda: Look(system, ())


def queue(oldest: float, **waiting: int) -> Any:
    """A model's queue, with one request of each class that runs."""
    classes = dict.fromkeys(get_args(Work), 0)
    return stand_in(waiting=classes | waiting, running=dict.fromkeys(classes, 1), held_up=oldest)


def watching(metrics: Metrics) -> Metrics:
    """The same with every gauge's source."""
    template = stand_in(prefix="@code", state="ok", bytes=100)
    metrics.gate = Gate(settings(), capacity=2).statistics
    metrics.gates = lambda: [queue(1.5, user=1), queue(0.0, side=2), queue(7.25, user=3)]
    metrics.kv = lambda: Kept(snapshots=3, bytes=4096, pauses=counted(["disk", "", "disk"]))
    metrics.engine = lambda: stand_in(state="ready")
    others = stand_in(prefix="@own", state="ok", bytes=7), stand_in(prefix="@own", state="fault", bytes=5)
    metrics.templates = lambda: (template, *others)
    side = {"titles": SideCounts(matched=5, refused=1, rerouted=2, waited=1.5, kept=1000, spared=30)}
    mended = {"date": MendCounts(matched=9, changed=3, mended=2, spared=400)}
    metrics.clients = lambda: ClientsStatistics(side=side, stabilize=mended)
    metrics.servers = {
        "proxy": lambda: stand_in(
            connections=5, accepted=9, refused=2, certificate_expires=1.8e9, certificate_due=1.7e9
        )
    }
    used = Used(prompt=70, generated=30, requests=2, refused=1)
    metrics.keys = lambda: (stand_in(key="laptop", left=900, total=used),)
    return metrics


def page(metrics: Metrics) -> str:
    return render(metrics)[1].decode()


def families(text: str) -> dict[str, str]:
    """Name to type of every metric on a page."""
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


@pytest.mark.parametrize(
    "sample",
    [
        'bioproxy_requests_total{endpoint="/v1/chat/completions",status="200"} 1.0',
        'bioproxy_requests_total{endpoint="/v1/chat/completions",status="499"} 1.0',
        "bioproxy_requests_count 2.0",
        'bioproxy_queue_wait_seconds_sum{class="user",outcome="ok"} 0.5',
        'bioproxy_queue_wait_seconds_count{class="side",outcome="client_left"} 1.0',
        'bioproxy_first_byte_seconds_sum{class="user",outcome="ok"} 1.5',
        'bioproxy_request_duration_seconds_sum{class="user",outcome="ok"} 3.0',
        'bioproxy_restore_duration_seconds_sum{class="user",outcome="ok"} 0.2',
        "bioproxy_prompt_tokens_cached_total 3000.0",
        "bioproxy_prompt_tokens_evaluated_total 20.0",
        "bioproxy_tokens_generated_total 7.0",
        'bioproxy_kv_cache_requests_total{result="restored"} 1.0',
        "bioproxy_warmup_checks_total 1.0",
        'bioproxy_warmup_executions_total{prefix="@code"} 1.0',
        'bioproxy_warmup_errors_total{prefix="@code",type="engine"} 1.0',
        'bioproxy_warmup_duration_seconds_total{prefix="@code"} 2.5',
        'bioproxy_warmup_duration_seconds_count{prefix="@code"} 1.0',
        'bioproxy_warmup_cancellations_total{prefix="@code"} 1.0',
        'bioproxy_kv_cache_saves_total{prefix="@code"} 1.0',
        'bioproxy_kv_cache_restores_total{prefix="@code",status="success"} 1.0',
        "bioproxy_kv_cache_saved_bytes_total 4096.0",
        'bioproxy_snapshots_dropped_total{reason="budget"} 1.0',
        'bioproxy_saving_paused{kind="disk"} 1.0',
        'bioproxy_saving_paused{kind="min_free"} 0.0',
        'bioproxy_template_changes_total{prefix="@code"} 1.0',
        'bioproxy_template_faults_total{prefix="@code"} 1.0',
        'bioproxy_engine_changes_total{state="ready"} 1.0',
        'bioproxy_config_reloads_total{result="error"} 1.0',
        'bioproxy_service_failures_total{service="kv"} 1.0',
        "bioproxy_snapshots 3.0",
        "bioproxy_snapshot_bytes 4096.0",
        "bioproxy_engine_up 1.0",
        'bioproxy_template_ok{prefix="@code"} 1.0',
        'bioproxy_template_ok{prefix="@own"} 0.0',
        'bioproxy_template_bytes{prefix="@own"} 7.0',
        'bioproxy_connections{port="proxy"} 5.0',
        'bioproxy_connections_accepted_total{port="proxy"} 9.0',
        'bioproxy_requests_refused_total{port="proxy"} 2.0',
        'bioproxy_certificate_expires_timestamp_seconds{port="proxy"} 1.8e+09',
        'bioproxy_certificate_due_timestamp_seconds{port="proxy"} 1.7e+09',
        'bioproxy_side_requests_total{done="waited",rule="titles"} 2.0',
        'bioproxy_side_requests_total{done="rerouted",rule="titles"} 2.0',
        'bioproxy_side_wait_seconds_total{rule="titles"} 1.5',
        'bioproxy_side_kept_tokens_total{rule="titles"} 1000.0',
        'bioproxy_side_spared_tokens_total{rule="titles"} 30.0',
        'bioproxy_stabilize_requests_total{found="changed",rule="date"} 3.0',
        'bioproxy_stabilize_spared_tokens_total{rule="date"} 400.0',
        "bioproxy_gate_capacity 2.0",
        'bioproxy_queue_depth{class="user"} 4.0',
        'bioproxy_queue_depth{class="background"} 0.0',
        'bioproxy_requests_running{class="side"} 3.0',
        "bioproxy_queue_oldest_wait_seconds 7.25",
    ],
)
def test_what_happened_is_counted(sample: str) -> None:
    """After one event of each kind, every metric stands at what it said."""
    assert sample in page(watching(make(*EVERYTHING))).splitlines()


@pytest.mark.parametrize(
    "sample",
    [
        'bioproxy_model_up{model="qwen"} 1.0',
        'bioproxy_model_up{model="phi"} 0.0',
        "bioproxy_models_waiting 3.0",
        'bioproxy_model_requests_running{model="qwen"} 1.0',
        'bioproxy_model_requests_waiting{model="phi"} 2.0',
        'bioproxy_model_requests_total{model="qwen",status="200"} 1.0',
        'bioproxy_model_wait_seconds_sum{model="qwen"} 2.0',
        'bioproxy_swaps_total{model="qwen"} 1.0',
        'bioproxy_swap_duration_seconds_sum{model="qwen"} 3.125',
        'bioproxy_model_load_duration_seconds_sum{model="qwen"} 2.0',
        "bioproxy_swap_own_seconds_total 0.125",
        'bioproxy_model_stops_total{model="phi",reason="swap"} 1.0',
        'bioproxy_model_failures_total{model="qwen"} 1.0',
        "llamaswap_memory_total_bytes 1.048576e+06",
        'llamaswap_load_average{interval="1m"} 0.5',
    ],
)
def test_what_happened_to_models_is_counted(sample: str) -> None:
    """A name that nobody knows is no model, or anybody could fill the memory with series."""
    text = page(make(*OF_MODELS, models=True))
    assert sample in text.splitlines()
    assert "zzz" not in text


def test_one_engine_has_no_series_of_models() -> None:
    """Nor any of the machine."""
    assert not [name for name in families(page(watching(make(*OF_MODELS)))) if "model" in name or "llamaswap" in name]


def test_the_two_old_names_are_counters() -> None:
    """The library would call them untyped; a scraper and its dashboards are told counter."""
    types = families(page(make(*EVERYTHING)))
    assert [types[name] for name in SEED_COUNTERS] == ["counter", "counter"]


def test_a_probe_is_counted_and_not_timed() -> None:
    """Health probes once a second must not make the queue look empty."""
    text = page(make(record(endpoint="/health", gated=False)))
    assert 'bioproxy_requests_total{endpoint="/health",status="200"} 1.0' in text
    assert "bioproxy_queue_wait_seconds_count" not in text


def test_a_mended_template_is_no_fault() -> None:
    """The event that says a template can be read again does not count as one more fault."""
    text = page(make(events.TemplateFault(prefix="@code", reason="")))
    assert 'bioproxy_template_faults_total{prefix="@code"} 0.0' in text


def test_saving_is_paused_while_that_of_any_model_is() -> None:
    """The gauge falls when the last model of several saves again, and for another reason it moves to its kind."""
    pauses = [Pause(Tenant(config=Kv(), bus=Bus()), float, model=name) for name in ("qwen", "phi")]
    metrics = make()
    metrics.kv = lambda: Kept(snapshots=0, bytes=0, pauses=counted(one.kind for one in pauses))

    def paused() -> set[str]:
        return set(re.findall(r'^bioproxy_saving_paused{kind="(\w+)"} 1.0$', page(metrics), re.MULTILINE))

    for one in pauses:
        one.enter("disk", "full")
    pauses[0].leave(proved=True)
    assert paused() == {"disk"}
    pauses[1].enter("timeout", "too slow")
    assert paused() == {"timeout"}
    pauses[1].leave(proved=True)
    assert paused() == set()


def test_two_programs_in_one_process_do_not_share_numbers() -> None:
    """Each has a registry of its own, so tests and embedders do not hear each other."""
    assert "bioproxy_requests_count 1.0" in page(make(record()))
    assert "bioproxy_requests_count 0.0" in page(make())


def test_the_process_itself_is_measured() -> None:
    """Memory and open files stand on the page where the system tells them."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("the process metrics come from /proc, which this system has not")
    assert {"process_resident_memory_bytes", "process_open_fds"} <= set(families(page(make())))


def test_every_metric_stands_in_the_docs_with_its_type() -> None:
    """docs/metrics.md has a row for each metric and no row for anything else."""
    documented = dict(re.findall(r"^\| `(bioproxy_\w+)` \| (\w+) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    present = families(page(watching(make(*EVERYTHING, *OF_MODELS, models=True))))
    assert documented == {name: kind for name, kind in present.items() if name.startswith("bioproxy_")}
    assert all(name in DOCS.read_text(encoding="utf-8") for name in present)


def test_every_figure_of_the_machine_stands_in_the_docs() -> None:
    """Also those that no machine of ours tells, under llama-swap's names and with their labels."""
    rows = re.findall(r"^\| `(llamaswap_\w+)` \| (\w+) \|([^|]*)\|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    documented = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    now = datetime.now(UTC)
    known: dict[str, Any] = dict.fromkeys(("mem_total_mb", "mem_used_mb", "mem_free_mb"), 1)
    known |= dict.fromkeys(("swap_total_mb", "swap_used_mb", "load_avg_1", "load_avg_5", "load_avg_15"), 1)
    network = (Interface(name="eth0", bytes_recv=1, bytes_sent=1),)
    system = SystemSample(timestamp=now, cpu_util_per_core=(1.0,), net_io=network, **known)
    figures = [field for field in GpuSample.__struct_fields__ if field not in {"timestamp", "id", "name", "uuid"}]
    told: dict[str, Any] = dict.fromkeys(figures, 1)
    card = GpuSample(timestamp=now, id=0, name="card", **told)
    shown = {
        one.name + "_total" * (one.type == "counter"): (one.type, tuple(one.samples[0].labels))
        for one in of_host(Look(system, (card,)))
    }
    assert documented == shown


def test_promtool_finds_nothing_but_the_two_old_names() -> None:
    """Prometheus' own linter is content with the whole page otherwise."""
    if PROMTOOL is None:
        pytest.skip("promtool is not installed")
    text = render(watching(make(*EVERYTHING)))[1]
    checked = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, check=False)
    complaints = checked.stderr.decode().splitlines()
    assert {line.split()[0] for line in complaints} == set(SEED_COUNTERS)


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (restored("ok"), "success"),
        (events.SnapshotMissing(prefix="@code"), "not_found"),
        (restored("failed"), "error"),
        (restored("worthless"), "worthless"),
        (restored("displaced"), "worthless"),
    ],
)
def test_restores_have_the_first_bioproxys_statuses(event: events.Event, status: str) -> None:
    """A dashboard of the Go program goes on; what was read in vain is no success."""
    assert f'bioproxy_kv_cache_restores_total{{prefix="@code",status="{status}"}} 1.0' in page(make(event))


def test_tokens_are_told_for_today_and_since_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what each model's engine needs for a token, the cache spared seconds; restores are taken off."""
    bus, day = Bus(), 86400.0
    metrics = Metrics(bus)
    for started, model, cached, restore in ((1.0, "a", 1000, 0.5), (day + 1, "a", 2000, 0.0), (day + 2, "b", 10, 9.0)):
        one = Record(
            id="r", started=started, method="POST", path="/", endpoint="/", gated=True, model=model,
            tokens_cached=cached, tokens_evaluated=7, tokens_generated=3, restore=restore,
        )  # fmt: skip
        bus.publish(events.RequestEnded(record=one))
    monkeypatch.setattr("bioproxy.metrics.time", SimpleNamespace(time=lambda: day + 5))
    today, total = metrics.requests.tokens({"a": 0.001, "b": 0.1}.__getitem__)
    assert (today.cached, today.evaluated, today.generated, today.spared) == (2010, 14, 6, 2.0)
    assert (total.cached, total.evaluated, total.generated, total.spared) == (3010, 21, 9, 2.5)
    monkeypatch.setattr("bioproxy.metrics.time", SimpleNamespace(time=lambda: 2 * day))
    today, total = metrics.requests.tokens({"a": 0.001, "b": 0.1}.__getitem__)
    assert (today.cached, total.cached) == (0, 3010)
