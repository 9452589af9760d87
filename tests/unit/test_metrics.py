"""What Prometheus gets to see: every name, its type, and that each event moves the right number."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bioproxy import events
from bioproxy.activity import Outcome, Record, Work
from bioproxy.events import Bus
from bioproxy.gate import Gate
from bioproxy.metrics import SEED_COUNTERS, Metrics

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


EVERYTHING: tuple[events.Event, ...] = (
    record(restore=0.2, tokens_cached=3000, tokens_evaluated=20, tokens_generated=7, cache="restored"),
    record(work="side", outcome="client_left", status=0),
    events.EngineChanged(url="http://localhost:8081", state="ready"),
    events.SnapshotSaved(prefix="@code", tokens=10, bytes=4096, seconds=0.1),
    events.SnapshotRestored(prefix="@code", status="ok", tokens=10, seconds=0.1),
    events.SnapshotDropped(prefix="", reason="budget", bytes=4096),
    events.SavingPaused(paused=True, kind="disk_full", reason="the disk is full"),
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


def make(*published: events.Event) -> Metrics:
    """Metrics that heard these events and watch everything."""
    bus = Bus()
    metrics = Metrics(bus)
    for event in published:
        bus.publish(event)
    return metrics


def watching(metrics: Metrics) -> Metrics:
    """The same with every gauge's source."""
    template = SimpleNamespace(prefix="@code", state="ok", bytes=100)
    metrics.watch(
        gate=Gate(capacity=2, limit=10, timeout=1.0).statistics,
        kv=lambda: SimpleNamespace(snapshots=3, bytes=4096),
        engine=lambda: SimpleNamespace(state="ready"),
        templates=lambda: (template,),
        servers={"proxy": lambda: SimpleNamespace(connections=5, accepted=9, refused=2)},
    )
    return metrics


def page(metrics: Metrics) -> str:
    return metrics.render()[1].decode()


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
        'bioproxy_kv_cache_restores_total{prefix="@code",status="ok"} 1.0',
        "bioproxy_kv_cache_saved_bytes_total 4096.0",
        'bioproxy_snapshots_dropped_total{reason="budget"} 1.0',
        'bioproxy_saving_paused{kind="disk_full"} 1.0',
        'bioproxy_template_changes_total{prefix="@code"} 1.0',
        'bioproxy_template_faults_total{prefix="@code"} 1.0',
        'bioproxy_engine_changes_total{state="ready"} 1.0',
        'bioproxy_config_reloads_total{result="error"} 1.0',
        'bioproxy_service_failures_total{service="kv"} 1.0',
        "bioproxy_snapshots 3.0",
        "bioproxy_snapshot_bytes 4096.0",
        "bioproxy_engine_up 1.0",
        'bioproxy_template_ok{prefix="@code"} 1.0',
        'bioproxy_connections{port="proxy"} 5.0',
        'bioproxy_connections_accepted_total{port="proxy"} 9.0',
        'bioproxy_requests_refused_total{port="proxy"} 2.0',
        "bioproxy_gate_capacity 2.0",
        'bioproxy_queue_depth{class="user"} 0.0',
    ],
)
def test_what_happened_is_counted(sample: str) -> None:
    """After one event of each kind, every metric stands at what it said."""
    assert sample in page(watching(make(*EVERYTHING))).splitlines()


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


def test_saving_that_resumed_is_not_paused() -> None:
    """The gauge goes back to 0 when saving resumes."""
    paused = events.SavingPaused(paused=True, kind="disk_full", reason="full")
    resumed = events.SavingPaused(paused=False, kind="disk_full", reason="")
    assert 'bioproxy_saving_paused{kind="disk_full"} 0.0' in page(make(paused, resumed))


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
    present = families(page(watching(make(*EVERYTHING))))
    assert documented == {name: kind for name, kind in present.items() if name.startswith("bioproxy_")}
    assert all(name in DOCS.read_text(encoding="utf-8") for name in present)


def test_promtool_finds_nothing_but_the_two_old_names() -> None:
    """Prometheus' own linter is content with the whole page otherwise."""
    if PROMTOOL is None:
        pytest.skip("promtool is not installed")
    text = watching(make(*EVERYTHING)).render()[1]
    checked = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, check=False)
    complaints = checked.stderr.decode().splitlines()
    assert {line.split()[0] for line in complaints} == set(SEED_COUNTERS)
