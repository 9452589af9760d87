"""llama-swap's Prometheus families, from samples."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from prometheus_client.metrics_core import Metric

from bioproxy.metrics_page import GPU_FIGURES, of_host
from bioproxy.samples import MEGABYTE, GpuSample, Interface, Look, SystemSample

NOW = datetime(2026, 11, 24, 6, 20, tzinfo=UTC)
WHOLE = SystemSample(
    timestamp=NOW,
    cpu_util_per_core=(12.5, 100.0),
    mem_total_mb=1000,
    mem_used_mb=600,
    mem_free_mb=400,
    swap_total_mb=50,
    swap_used_mb=5,
    load_avg_1=0.5,
    load_avg_5=0.25,
    load_avg_15=0.0,
    net_io=(Interface(name="eth0", bytes_recv=10, bytes_sent=20),),
)
CARD = GpuSample(
    timestamp=NOW,
    id=1,
    name="A card",
    uuid="GPU-1",
    temp_c=70,
    vram_temp_c=84,
    gpu_util_pct=91,
    mem_util_pct=95.5,
    mem_used_mb=100,
    mem_total_mb=200,
    fan_speed_pct=55.0,
    power_draw_w=300.5,
)


NOTHING = SystemSample(timestamp=NOW)


def families(system: SystemSample, gpus: Sequence[GpuSample]) -> list[Metric]:
    return list(of_host(Look(system, tuple(gpus))))


def by_name(found: list[Metric]) -> dict[str, dict[tuple[str, ...], float]]:
    return {one.samples[0].name: {tuple(line.labels.values()): line.value for line in one.samples} for one in found}


def test_the_machine_has_llama_swaps_series() -> None:
    """Names, labels and units are those that its dashboards use."""
    found = by_name(families(WHOLE, []))
    assert found == {
        "llamaswap_cpu_util_percent": {("0",): 12.5, ("1",): 100.0},
        "llamaswap_memory_total_bytes": {(): 1000 * MEGABYTE},
        "llamaswap_memory_used_bytes": {(): 600 * MEGABYTE},
        "llamaswap_memory_free_bytes": {(): 400 * MEGABYTE},
        "llamaswap_swap_total_bytes": {(): 50 * MEGABYTE},
        "llamaswap_swap_used_bytes": {(): 5 * MEGABYTE},
        "llamaswap_load_average": {("1m",): 0.5, ("5m",): 0.25, ("15m",): 0.0},
        "llamaswap_network_bytes_total": {("eth0", "recv"): 10, ("eth0", "sent"): 20},
    }


def test_a_gpu_has_llama_swaps_series() -> None:
    """Each figure under its name, with the labels id, name and uuid."""
    found = families(NOTHING, [CARD])
    assert {tuple(line.labels) for family in found for line in family.samples} == {("id", "name", "uuid")}
    labels = ("1", "A card", "GPU-1")
    assert by_name(found) == {
        "llamaswap_gpu_temperature_celsius": {labels: 70},
        "llamaswap_gpu_vram_temperature_celsius": {labels: 84},
        "llamaswap_gpu_util_percent": {labels: 91},
        "llamaswap_gpu_memory_util_percent": {labels: 95.5},
        "llamaswap_gpu_memory_used_bytes": {labels: 100 * MEGABYTE},
        "llamaswap_gpu_memory_total_bytes": {labels: 200 * MEGABYTE},
        "llamaswap_gpu_fan_speed_percent": {labels: 55.0},
        "llamaswap_gpu_power_draw_watts": {labels: 300.5},
    }


def test_what_is_not_known_has_no_series() -> None:
    """A zero that nobody measured would be a lie on a dashboard."""
    assert families(SystemSample(timestamp=NOW), [GpuSample(timestamp=NOW, id=0, name="dumb")]) == []


def test_several_gpus_share_a_family() -> None:
    """One family has a line for each card that knows the figure."""
    other = GpuSample(timestamp=NOW, id=2, name="another", temp_c=30)
    [heat] = [one for one in families(NOTHING, [CARD, other]) if one.name == GPU_FIGURES[0][0]]
    assert [line.value for line in heat.samples] == [70, 30]


def test_only_the_network_counts_up() -> None:
    """It is a counter; everything else goes up and down."""
    kinds = {one.samples[0].name for one in families(WHOLE, [CARD]) if one.type == "counter"}
    assert kinds == {"llamaswap_network_bytes_total"}
