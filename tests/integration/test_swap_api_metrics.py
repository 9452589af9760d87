"""`/metrics` on the proxy's port: llama-swap's names for the machine, ours for models and swaps."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.http import Answer, call
from support.swap_api import program
from support.swap_models import fake
from support.swap_rig import Rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
PROMTOOL = shutil.which("promtool") or ""
MODELS = {"a": fake(), "org/b:q4": fake(), "bad": fake("--exit 3"), "one": fake(concurrencyLimit=1)}
rig = program(MODELS)
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
OLD = ("bioproxy_requests_count",)  # a name from before there were rules


async def samples(rig: Rig) -> Samples:
    """The page as Prometheus' own client reads it: by name and labels."""
    page = await rig.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(page.text)
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


async def grown(rig: Rig, before: Samples, name: str, **labels: str) -> float:
    """How much a series grew."""
    key = (name, tuple(sorted(labels.items())))
    return (await samples(rig)).get(key, 0.0) - before.get(key, 0.0)


async def test_the_machines_figures_have_llama_swaps_names(rig: Rig) -> None:
    """Its dashboards go on working."""
    found: set[str] = set()
    while "llamaswap_memory_total_bytes" not in found:  # the first look at the machine may be under way
        found = {name for name, _ in await samples(rig)}
    assert {"llamaswap_memory_total_bytes", "llamaswap_memory_used_bytes", "llamaswap_memory_free_bytes"} <= found
    assert {"llamaswap_swap_total_bytes", "llamaswap_load_average"} <= found


async def test_swaps_are_counted(rig: Rig) -> None:
    """By model, with what they took, and why the other one went."""
    await rig.get("/unload")
    before = await samples(rig)
    await rig.chat("a")
    await rig.chat("org/b:q4")
    assert await grown(rig, before, "bioproxy_swaps_total", model="a") == 1
    assert await grown(rig, before, "bioproxy_swaps_total", model="org/b:q4") == 1
    assert await grown(rig, before, "bioproxy_model_load_duration_seconds_count", model="a") == 1
    assert await grown(rig, before, "bioproxy_model_stops_total", model="a", reason="swap") == 1


def timing_of(answer: Answer) -> dict[str, float]:
    """`Server-Timing`, in milliseconds."""
    parts = (part.strip().partition(";dur=") for part in answer.headers["server-timing"].split(","))
    return {name: float(value) for name, _, value in parts}


async def test_the_parts_of_a_wait_add_up(rig: Rig) -> None:
    """In the answer's head to the whole wait and to the first byte, in the metrics to the histogram's sum."""
    await rig.get("/unload")
    await rig.chat("a")
    before = await samples(rig)
    told = timing_of(await rig.chat("org/b:q4"))
    swap = {name: told.pop(name) for name in ("swap", "stop", "save", "start", "swap_restore", "attach", "in_use")
            if name in told}  # fmt: skip
    whole = swap.pop("swap")
    assert {"stop", "start"} <= {name for name, value in swap.items() if value}
    assert sum(swap.values()) == pytest.approx(whole, abs=1)
    assert sum(told.values()) - told["first_byte"] + whole == pytest.approx(told["first_byte"], abs=1)
    now = await samples(rig)
    waited = now["bioproxy_model_wait_seconds_sum", (("model", "org/b:q4"),)]
    parts = {dict(labels)["part"]: value for (name, labels), value in now.items()
             if name == "bioproxy_model_wait_part_seconds_total" and dict(labels)["model"] == "org/b:q4"}  # fmt: skip
    assert sum(parts.values()) == pytest.approx(waited, abs=0.001)
    assert await grown(rig, before, "bioproxy_model_wait_part_seconds_total", model="org/b:q4", part="stop") > 0


async def test_what_runs_is_shown(rig: Rig) -> None:
    """Now."""
    await rig.chat("a")
    now = await samples(rig)
    assert now["bioproxy_model_up", (("model", "a"),)] == 1
    assert now["bioproxy_model_up", (("model", "org/b:q4"),)] == 0


async def test_the_engines_queues_are_counted_together(rig: Rig) -> None:
    """So an alert about a long wait is for many models, too."""
    held = await rig.ask_held("a")
    now = await samples(rig)
    await rig.release("a")
    assert (await held).status == 200
    assert now["bioproxy_requests_running", (("class", "user"),)] == 1
    assert now["bioproxy_queue_depth", (("class", "user"),)] == 0
    assert now["bioproxy_queue_oldest_wait_seconds", ()] == 0
    assert not [name for name, _ in now if name.startswith("bioproxy_gate_")]


async def test_who_is_refused_before_an_engines_queue_is_counted_with_the_others(rig: Rig) -> None:
    """`BioproxyRequestsRefused` looks at that histogram; in a pause nobody is to be warned."""
    held = await rig.ask_held("one")
    before = await samples(rig)
    assert (await rig.chat("one")).status == 429
    await rig.release("one")
    assert (await held).status == 200
    assert await grown(rig, before, "bioproxy_queue_wait_seconds_count", outcome="rejected", **{"class": "user"}) == 1
    assert (await rig.post("/api/pause", {})).status == 200
    before = await samples(rig)
    assert (await rig.chat("one")).status == 503
    assert await grown(rig, before, "bioproxy_queue_wait_seconds_count", outcome="timeout", **{"class": "user"}) == 0
    assert (await rig.post("/api/resume", {})).status == 200


async def test_requests_are_counted_by_model(rig: Rig) -> None:
    """Only those that there are: a client cannot make up names."""
    before = await samples(rig)
    await rig.chat("a")
    await rig.chat("a", status=418)
    await rig.chat("made up")
    assert await grown(rig, before, "bioproxy_model_requests_total", model="a", status="200") == 1
    assert await grown(rig, before, "bioproxy_model_requests_total", model="a", status="418") == 1
    assert "made up" not in (await rig.get("/metrics")).text


async def test_a_start_that_fails_is_counted(rig: Rig) -> None:
    """As an answer of its model."""
    before = await samples(rig)
    await rig.chat("bad")
    assert await grown(rig, before, "bioproxy_model_requests_total", model="bad", status="500") == 1


async def test_both_ports_show_the_same(rig: Rig) -> None:
    """The admin port, too."""

    async def measured() -> bool:
        return "llamaswap_memory_total_bytes" in (await call(rig.ports.admin, "GET", "/metrics")).text

    await rig.look(measured, "the machine was looked at")
    admin = await call(rig.ports.admin, "GET", "/metrics")
    assert admin.status == 200
    assert "bioproxy_swaps_total" in admin.text


@pytest.mark.skipif(not PROMTOOL, reason="promtool is not installed")
async def test_promtool_finds_nothing(rig: Rig) -> None:
    """But the old name."""
    await rig.chat("a")
    page = await rig.get("/metrics")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(PROMTOOL, "check", "metrics", stdin=pipe, stdout=pipe, stderr=pipe)
    out, err = await process.communicate(page.body)
    assert [line for line in (out + err).decode().splitlines() if not line.startswith(OLD)] == []
