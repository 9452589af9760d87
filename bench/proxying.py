"""The data plane beside nginx: CPU per request and per event, latency, long bodies, a thousand streams, memory, start.

Every figure is a median of interleaved rounds (there and back), so that a noisy neighbour disturbs both. CPU is
the process's own time from /proc, which a shared machine does not change much; seconds are shown for completeness only.

The proxies stand in front of an engine that computes nothing and has 16 slots: nginx, bioproxy with one engine
(`backend_url`), and bioproxy with three models, both with their defaults: the access log is written, each chat of
the models is a row of the activity table and is captured. A client sends its next request after it has the answer to
the last one, on a kept connection; how many clients there are is said with each figure, for nginx takes many requests
of many clients at once, and a request alone costs it more.

`BEFORE=/another/python make bench` measures another build of bioproxy in the same run: it names the Python of the
environment in which that is installed.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator
from typing import Any, TypeAlias

from bench import extras, peers, tls
from bench.report import Row, verdict

Options: TypeAlias = dict[str, Any]

ROUNDS = 5
CHAT = "/v1/chat/completions"
ALONE: Options = {"path": CHAT, "clients": 1, "each": 1500}
MANY: Options = {"path": CHAT, "clients": 32, "each": 60}
LONG: Options = {"path": CHAT, "clients": 4, "each": 60, "size": 200_000}
EVENTS: Options = {"path": CHAT, "clients": 16, "each": 2, "events": 200, "rate": 100.0}
STREAMS: Options = {"path": CHAT, "clients": 1000, "each": 1, "events": 200, "rate": 20.0}
UNSEEN = "one engine without the doctor"
GREAT = 20_000_000  # bytes of a body that must not hold up the others
BEFORE = os.environ.get("BEFORE", "")
Proxies = dict[str, tuple[int, int]]


@contextlib.contextmanager
def all_three() -> Iterator[tuple[int, Proxies]]:
    """The engine, and in front of it nginx (if it is installed) and both kinds of bioproxy: name to (port, pid)."""
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(peers.upstream(slots=16))
        proxies = {}
        try:
            proxies["nginx"] = stack.enter_context(peers.nginx(engine))
        except FileNotFoundError as error:
            print(f"{error}: going on without a peer")
        proxies["one engine"] = stack.enter_context(peers.bioproxy(engine))
        proxies["models"] = stack.enter_context(peers.models("a", "b", "c"))
        proxies[UNSEEN] = stack.enter_context(peers.bioproxy(engine, doctor={"memory": 0}))
        if BEFORE:
            proxies["one engine before"] = stack.enter_context(peers.bioproxy(engine, python=BEFORE))
            proxies["models before"] = stack.enter_context(peers.models("a", "b", "c", python=BEFORE))
        yield engine, proxies


def per_unit(proxies: Proxies, unit: str, **options: object) -> dict[str, float]:
    """Median CPU microseconds per request or event for each proxy."""
    spent: dict[str, list[float]] = {name: [] for name in proxies}
    for number in range(ROUNDS):
        for name in list(proxies)[:: 1 if number % 2 else -1]:  # there and back: who is measured first pays for that
            port, pid = proxies[name]
            cpu, counted = peers.metered(pid, port, **options)
            if counted["lost"]:
                raise AssertionError(f"{name} lost {counted['lost']:.0f} of {counted[unit]:.0f} {unit}")
            spent[name].append(cpu / counted[unit] * 1e6)
    return {name: statistics.median(values) for name, values in spent.items()}


def beside(what: str, cpu: dict[str, float], *, models: float, one: float) -> list[Row]:
    """Two rows, for three models and for one engine: our figure as so many times nginx's, and the bound of that."""
    peer = cpu.get("nginx")
    rows = []
    for name, bound in (("models", models), ("one engine", one)):
        times = cpu[name] / peer if peer else 0.0
        shown = f"{microseconds(cpu[name])} = {times:.1f} x nginx" if peer else microseconds(cpu[name])
        before = f", before {microseconds(cpu[f'{name} before'])}" if BEFORE else ""
        nginx = f"nginx {microseconds(peer)}" if peer else "no nginx here"
        rows.append(Row(f"{what}, {name}", shown, nginx + before, f"≤ {bound:g} x", times <= bound))
    return rows


def doctor(proxies: Proxies) -> list[Row]:
    """What it adds that the doctor looks at each prompt: to a small chat of one client, and to 200 kB."""
    pair = proxies[UNSEEN], proxies["one engine"]
    small, added = peers.paired(*pair, **(ALONE | {"each": 800}))
    large, more = peers.paired(*pair, **LONG)
    return [
        Row(
            "the doctor's part in a small chat",
            microseconds(added),
            f"of {small + added:.0f} µs",
            "≤ 15 µs",
            added <= 15,
        ),
        Row("… in a body of 200 kB", f"{more / large:.0%}", f"of {large + more:.0f} µs", "≤ 10 %", more <= large / 10),
    ]


def microseconds(value: float) -> str:
    """A figure with as many digits as say something."""
    return f"{value:.1f} µs" if value < 100 else f"{value:.0f} µs"


def great_body(proxies: Proxies) -> Row:
    """The longest time in which a stream of one model does not go on, while another model gets a very long body."""
    gap = longest_gap(proxies["models"][0])
    before = f"before {longest_gap(proxies['models before'][0]):.0f} ms" if BEFORE else ""
    return Row("20 MB body: longest time in which no stream moves", f"{gap:.0f} ms", before, "≤ 25 ms", gap <= 25)


def longest_gap(port: int) -> float:
    """Milliseconds; a median."""
    gaps = []
    for _ in range(ROUNDS):
        stream = peers.loading(port, CHAT, 1, 1, 20, 400, 200.0, "b")
        time.sleep(0.5)
        peers.load(port, path=CHAT, clients=1, each=1, size=GREAT, model="a")
        gaps.append(stream()["gap"] - 1 / 200)
    return statistics.median(gaps) * 1e3


def latency(engine: int, proxies: Proxies) -> Row:
    """Median latency that a proxy adds to a request that comes alone."""
    ports = {"direct": engine} | {name: proxies[name][0] for name in ("nginx", "one engine") if name in proxies}
    seen: dict[str, list[float]] = {name: [] for name in ports}
    for _ in range(ROUNDS):
        for name, port in ports.items():
            seen[name].append(peers.load(port, path=CHAT, clients=1, each=500)["p50"] * 1e3)
    p50 = {name: statistics.median(values) for name, values in seen.items()}
    ours, peer = p50["one engine"] - p50["direct"], p50.get("nginx", p50["direct"]) - p50["direct"]
    return Row("added p50 latency, one engine", f"{ours:.2f} ms", f"nginx {peer:.2f} ms", "≤ 0.30 ms", ours <= 0.3)


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
        Row("memory idle, one engine", f"{idle:.0f} MB", "", "≤ 55 MB", idle <= 55),
        Row("memory with 1000 streams", f"{peak / 1e6:.0f} MB", "", "≤ 160 MB", peak <= 160e6),
    ]


def two_models() -> Row:
    """What a program needs whose two models are loaded and not asked."""
    with peers.models("a", "b") as (_, pid):
        idle = peers.resident_bytes(pid) / 1e6
    return Row("memory idle, two models", f"{idle:.0f} MB", "", "≤ 55 MB", idle <= 55)


def start() -> Row:
    """Seconds from the start of the process to the first 200 of /readyz."""
    with peers.upstream() as engine:
        seen = [peers.start_seconds(engine) for _ in range(ROUNDS)]
    ready = statistics.median(seen)
    return Row("ready after start", f"{ready:.2f} s", "", "≤ 0.16 s", ready <= 0.16)


def measure() -> list[Row]:
    """Every row of the table."""
    with all_three() as (engine, proxies):
        rows = beside("CPU of a small chat, 1 client", per_unit(proxies, "requests", **ALONE), models=4, one=3.5)
        rows += beside("… 32 clients", per_unit(proxies, "requests", **MANY), models=6, one=5)
        rows += beside("… a body of 200 kB, 4 clients", per_unit(proxies, "requests", **LONG), models=6, one=6)
        rows += doctor(proxies)
        rows += beside("CPU of an event, 16 streams", per_unit(proxies, "events", **EVENTS), models=1.2, one=1.2)
        rows += [great_body(proxies), latency(engine, proxies)]
    return [*rows, *tls.measure(), *extras.measure(), *streams(), two_models(), start()]


if __name__ == "__main__":
    print(verdict("The data plane", measure()))
