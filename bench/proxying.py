"""The data plane beside nginx: CPU per request and per event, latency, long bodies, a thousand streams, memory, start.

Every figure is a median of interleaved rounds (ours, nginx, ours, …), so that a noisy neighbour disturbs both. CPU
is the process's own time from /proc, which a shared machine does not change much; seconds are shown for completeness
only.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator

from bench import peers
from bench.report import Row, verdict

ROUNDS = 5
SMALL = {"path": "/v1/chat/completions", "clients": 16, "each": 400}
EVENTS = {"path": "/v1/chat/completions", "clients": 50, "each": 4, "events": 200, "rate": 100.0}
LONG = {"path": "/v1/chat/completions", "clients": 4, "each": 60, "size": 200_000}
STREAMS = {"path": "/v1/chat/completions", "clients": 1000, "each": 1, "events": 200, "rate": 20.0}


@contextlib.contextmanager
def both() -> Iterator[tuple[int, dict[str, tuple[int, int]]]]:
    """The engine, and in front of it bioproxy and (where it is installed) nginx: name to (port, pid)."""
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(peers.upstream())
        proxies = {"bioproxy": stack.enter_context(peers.bioproxy(engine))}
        try:
            proxies["nginx"] = stack.enter_context(peers.nginx(engine))
        except FileNotFoundError as error:
            print(f"{error}: going on without a peer")
        yield engine, proxies


def per_unit(proxies: dict[str, tuple[int, int]], unit: str, **options: object) -> dict[str, float]:
    """Median CPU microseconds per request or event for each proxy."""
    spent: dict[str, list[float]] = {name: [] for name in proxies}
    for _ in range(ROUNDS):
        for name, (port, pid) in proxies.items():
            cpu, counted = peers.metered(pid, port, **options)
            if counted["lost"]:
                raise AssertionError(f"{name} lost {counted['lost']:.0f} of {counted[unit]:.0f} {unit}")
            spent[name].append(cpu / counted[unit] * 1e6)
    return {name: statistics.median(values) for name, values in spent.items()}


def small_requests(proxies: dict[str, tuple[int, int]]) -> Row:
    """CPU of a small chat request."""
    cpu = per_unit(proxies, "requests", **SMALL)
    bound = max(3 * cpu.get("nginx", 0), 200.0)
    return Row(
        "CPU per small request", f"{cpu['bioproxy']:.0f} µs", peer(cpu), f"≤ {bound:.0f} µs", cpu["bioproxy"] <= bound
    )


def events(proxies: dict[str, tuple[int, int]]) -> Row:
    """CPU of one relayed event."""
    cpu = per_unit(proxies, "events", **EVENTS)
    bound = 1.5 * cpu.get("nginx", 9.0)
    return Row(
        "CPU per SSE event", f"{cpu['bioproxy']:.1f} µs", peer(cpu, 1), f"≤ {bound:.1f} µs", cpu["bioproxy"] <= bound
    )


def long_bodies(proxies: dict[str, tuple[int, int]]) -> Row:
    """CPU that each further kB of a body costs."""
    little = per_unit(proxies, "requests", **{**LONG, "size": 1000})
    much = per_unit(proxies, "requests", **LONG)
    extra = {name: (much[name] - little[name]) / (LONG["size"] / 1000 - 1) for name in much}  # type: ignore[operator]
    return Row(
        "CPU per further kB of body", f"{extra['bioproxy']:.1f} µs", peer(extra, 1), "≤ 5 µs", extra["bioproxy"] <= 5
    )


def latency(engine: int, proxies: dict[str, tuple[int, int]]) -> Row:
    """Median latency that a proxy adds to a request that comes alone."""
    ports = {"direct": engine, **{name: port for name, (port, _) in proxies.items()}}
    seen: dict[str, list[float]] = {name: [] for name in ports}
    for _ in range(ROUNDS):
        for name, port in ports.items():
            seen[name].append(peers.load(port, path="/v1/chat/completions", clients=1, each=500)["p50"] * 1e3)
    p50 = {name: statistics.median(values) for name, values in seen.items()}
    added = {name: p50[name] - p50["direct"] for name in proxies}
    return Row(
        "added p50 latency", f"{added['bioproxy']:.2f} ms", peer(added, 2, "ms"), "≤ 0.30 ms", added["bioproxy"] <= 0.3
    )


def streams() -> list[Row]:
    """A thousand streams of twenty events a second on one core, on a fresh process: losses, CPU, memory."""
    with peers.upstream(slots=1024) as engine, peers.bioproxy(engine) as (port, pid):
        idle = peers.resident_bytes(pid) / 1e6
        cpu, counted, peak = peers.metered_peak(pid, port, **STREAMS)
    share = cpu / counted["seconds"]
    expected = 1000 * 200
    whole = counted["events"] == expected and not counted["lost"]
    seen = f"{counted['events']:.0f} of {expected} events"
    return [
        Row("1000 streams x 20 events/s", seen, "", "none lost or reordered", whole),
        Row("… share of one core", f"{share:.0%}", "", "≤ 100 %", share <= 1.0),
        Row("memory idle", f"{idle:.0f} MB", "", "≤ 60 MB", idle <= 60),
        Row("memory with 1000 streams", f"{peak / 1e6:.0f} MB", "", "≤ 160 MB", peak <= 160e6),
    ]


def start() -> Row:
    """Seconds from the start of the process to the first 200 of /readyz."""
    with peers.upstream() as engine:
        seen = [peers.start_seconds(engine) for _ in range(ROUNDS)]
    ready = statistics.median(seen)
    return Row("ready after start", f"{ready:.2f} s", "", "≤ 0.5 s", ready <= 0.5)


def peer(values: dict[str, float], digits: int = 0, unit: str = "µs") -> str:
    """How nginx's figure is shown."""
    return f"nginx {values['nginx']:.{digits}f} {unit}" if "nginx" in values else "no nginx here"


def measure() -> list[Row]:
    """Every row of the table."""
    with both() as (engine, proxies):
        rows = [small_requests(proxies), events(proxies), long_bodies(proxies), latency(engine, proxies)]
    return [*rows, *streams(), start()]


if __name__ == "__main__":
    print(verdict("The data plane", measure()))
