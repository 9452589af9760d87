"""Many models: what a swap costs on a real engine, how soon an engine is found ready, what routing adds to a request.

A conversation of 3700 tokens is asked while the other model runs, first cold, then after it was swapped out and came
back; each time its model has to be started, so cold and warm differ in nothing but the cache. Where the time went is
read from `Server-Timing`: `stop` of the other engine, `save` of what it held, `start` up to its health, `restore`; what
is left of the request's wait is ours. Inside `start`, and not in `ours`, are two things that are ours as well: the look
whether the port is free (a millisecond), and the time between health and our seeing it, which has a row of its own,
on an engine that writes down when it became healthy.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench import peers
from bench.caching import text
from bench.report import Row
from bioproxy.cli.demo_program import Asked, ask
from bioproxy.embedded.model import ensure_model
from bioproxy.engines.launch import free_port

ROUNDS = 5
SWAPS = 3  # there and back, of each conversation
LENGTH = 10_200  # characters: about 3700 tokens of the demo's vocabulary
STARTS = 20
FAKE = Path(__file__).parents[1] / "tests" / "fakes" / "swap_engine.py"
MODELS = 200
CHAT = "/v1/chat/completions"
PARTS = ("stop", "save", "start", "swap_restore")
LOADING = """
import sys, time
from bioproxy.config.load import load
before = time.perf_counter()
loaded = load(path=sys.argv[1], environment={})
print(time.perf_counter() - before, len(loaded.dialect.models))
"""


@contextlib.contextmanager
def serving(models: dict[str, Any], **options: Any) -> Iterator[tuple[int, int]]:
    """Run bioproxy on `models`: (port, pid)."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(folder) / "config.yaml"
        values = {
            "models": models,
            "admin_port": 0,
            "startPort": free_port(run=len(models)),
            "state_directory": folder,
            "swap": {"min_resident": 0},
            "log": {"level": "warning"},
            "queue_limit": 100_000,
            **options,
        }
        conf.write_text(json.dumps(values))  # JSON is YAML, too
        words = ["serve", "--config", str(conf), "--listen", f"127.0.0.1:{port}"]
        with peers.running([sys.executable, "-m", "bioproxy", *words]) as child:
            peers.wait_for(port)
            yield port, child.pid


# a conversation that outlives swaps


class Swap(msgspec.Struct, frozen=True):
    """One swap to the conversation's model: seconds to the first token, what of it was ours, and the save before."""

    asked: Asked
    save: float

    @property
    def start(self) -> float:
        """Seconds that the engine took to start."""
        return self.asked.parts["start"]

    @property
    def ours(self) -> float:
        """What is left of the wait when everything that has a name is taken away."""
        return self.asked.parts["swap"] - sum(self.asked.parts[name] for name in PARTS)


def swaps(seed: int) -> tuple[Swap, list[Swap]]:
    """A conversation: cold, and each time that its model came back."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bioproxy"
    program = f"{shlex.quote(sys.executable)} -m bioproxy.embedded --port ${{PORT}} -c 8192 -b 512"
    models = {
        name: {"cmd": f"{program} --model {shlex.quote(str(ensure_model(folder, seed=number)))}"}
        for number, name in enumerate(("first", "other"))
    }
    kv = {"min_free": 0, "save_after": "1h"}  # each conversation is saved at its first stop, as late as can be
    messages = [{"role": "system", "content": text(seed, LENGTH)}, {"role": "user", "content": "Why?"}]
    with serving(models, kv=kv) as (port, _):
        other = [{"role": "user", "content": "Who?"}]
        ask(port, other, model="other")
        cold = Swap(ask(port, messages, model="first"), 0.0)
        back = []
        for number in range(SWAPS):
            away = ask(port, other, model="other")
            again = [messages[0], {"role": "user", "content": f"And {number}?"}]
            back.append(Swap(ask(port, again, model="first"), away.parts["save"]))
    return cold, back


def conversation() -> list[Row]:
    """The rows on the real engine."""
    seen = [swaps(500 + number) for number in range(SWAPS)]
    cold = statistics.median(one.asked.first for one, _ in seen)
    back = [one for _, found in seen for one in found]
    first = statistics.median(one.asked.first for one in back)
    beyond = statistics.median(one.asked.first - one.start for one in back)
    start = statistics.median(one.start for one in back)
    ours = statistics.median(one.ours for one in back)
    save = max(one.save for one in back)
    tokens = f"{back[-1].asked.cached} tokens cached, {back[-1].asked.evaluated} evaluated"
    engine = statistics.median(one.asked.first - one.asked.parts["swap"] for one in back)
    return [
        Row(
            "first token, 3700-token conversation, its model swapped in again",
            f"{first * 1e3:.0f} ms ({tokens})",
            f"cold {cold * 1e3:.0f} ms",
            f"≤ {cold * 1e2:.0f} ms (1/10)",
            first <= cold / 10,
        ),
        Row(
            "… beyond its engine's start",
            f"{beyond * 1e3:.0f} ms, {engine * 1e3:.0f} of them the question on the engine",
            f"engine start {start * 1e3:.0f} ms",
            "≤ 300 ms",
            beyond <= 0.3,
        ),
        Row(
            "the swap itself: ours, without stop, save, start, restore",
            f"{ours * 1e3:.0f} ms (worst {max(one.ours for one in back) * 1e3:.0f} ms)",
            f"save {save * 1e3:.0f} ms; restore {median_of(back, 'swap_restore') * 1e3:.0f} ms, "
            f"stop {median_of(back, 'stop') * 1e3:.0f} ms",
            "≤ 50 ms, and ≤ 20 ms or 1/10 of the engine's start",
            ours <= 0.05 and ours <= max(0.02, start / 10),
        ),
    ]


def median_of(found: list[Swap], part: str) -> float:
    """The median of one named part."""
    return statistics.median(one.asked.parts[part] for one in found)


# ready


def ready() -> Row:
    """Starts of an engine that says when it became healthy: until we saw it, and until it had the request."""
    chance = random.Random(7)
    with tempfile.TemporaryDirectory() as name:
        events = Path(name) / "events.jsonl"
        program = shlex.join([sys.executable, "-I", "-S", str(FAKE), "--events", str(events)])
        models = {
            f"m{number}": {
                "cmd": f"{program} --port ${{PORT}} --model m{number} --start-delay {chance.uniform(0, 0.2):.3f} "
                f"--health-503-for {chance.uniform(0.02, 0.3):.3f}"
            }
            for number in range(STARTS)
        }
        with serving(models) as (port, _):
            for model in models:
                post(port, {"model": model, "messages": []})
        told = [json.loads(line) for line in events.read_text().splitlines()]
    at = {(one["model"], one["event"]): one["t"] for one in told}
    seen = [at[model, "probed"] - at[model, "healthy"] for model in models]
    served = [at[model, "begin"] - at[model, "healthy"] for model in models]
    return Row(
        "an engine is seen to be healthy after",
        f"{statistics.median(seen) * 1e3:.0f} ms (worst of {STARTS}: {max(seen) * 1e3:.0f} ms)",
        f"it has its request after {statistics.median(served) * 1e3:.0f} ms (worst {max(served) * 1e3:.0f} ms)",
        "worst ≤ 50 ms",
        max(seen) <= 0.05,
    )


def post(port: int, body: dict[str, Any]) -> None:
    """One request to its end."""
    command = ["curl", "-sf", "-o", os.devnull, "-d", json.dumps(body), f"http://127.0.0.1:{port}/v1/chat/completions"]
    subprocess.run(command, check=True, timeout=30)


# routing


def routing() -> list[Row]:
    """CPU of a small request among three models, beside the same request to the only engine.

    Twice: on a route of which nothing is kept, and as a chat, which here leaves a row in the activity table, a capture
    and a line in the access log besides.
    """
    model = {"cmd": f"{shlex.quote(sys.executable)} -m bench.upstream ${{PORT}} 64"}
    models = dict.fromkeys(("a", "second", "third"), model)
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(peers.bioproxy(stack.enter_context(peers.upstream())))
        many = stack.enter_context(serving(models))
        logged = stack.enter_context(serving(models, log={"level": "info"}))
        proxies = {"one": one, "many": many, "logged": logged}
        for port, _ in proxies.values():
            peers.load(port, path=CHAT, clients=1, each=100)  # starts the model
        plain = medians(proxies, "/tokenize")
        chat = medians(proxies, CHAT)
    rows = []
    for name, median, more in (
        ("routing among models adds to a small request", plain, ""),
        ("… and to a chat, with its activity row and capture", chat, f", {chat['logged']:.0f} µs with the access log"),
    ):
        added = median["many"] - median["one"]
        beside = f"one engine {median['one']:.0f} µs, three models {median['many']:.0f} µs{more}"
        rows.append(
            Row(f"CPU that {name}".replace("CPU that …", "…"), f"{added:.0f} µs", beside, "≤ 60 µs", added <= 60)
        )
    return rows


def medians(proxies: dict[str, tuple[int, int]], path: str) -> dict[str, float]:
    """CPU microseconds of a request to `path`, for each proxy."""
    spent: dict[str, list[float]] = {name: [] for name in proxies}
    for _ in range(ROUNDS):
        for name, (port, pid) in proxies.items():
            cpu, counted = peers.metered(pid, port, path=path, clients=16, each=400)
            if counted["lost"]:
                raise AssertionError(f"{name} lost {counted['lost']:.0f} of {counted['requests']:.0f} requests")
            spent[name].append(cpu / counted["requests"] * 1e6)
    return {name: statistics.median(values) for name, values in spent.items()}


# configuration


def many_models() -> Row:
    """A configuration of 200 models, with what people use in one: macros, aliases, environment, groups."""
    models = {
        f"model-{number}": {
            "cmd": "${server} -m /models/${MODEL_ID}.gguf -c ${context} --alias ${MODEL_ID}\n-ngl 99",
            "aliases": [f"alias-{number}", f"other-{number}"],
            "env": ["CUDA_VISIBLE_DEVICES=0"],
            "macros": {"context": 4096 + number},
            "ttl": 600,
            "filters": {"stripParams": "temperature, top_k", "setParams": {"top_p": 0.9}},
            "metadata": {"size": number, "port": "${PORT}"},
        }
        for number in range(MODELS)
    }
    groups = {
        f"group-{number}": {"swap": True, "members": [f"model-{member}" for member in range(number, MODELS, 10)]}
        for number in range(10)
    }
    whole = {"macros": {"server": "llama-server --port ${PORT}"}, "models": models, "groups": groups}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "config.yaml"
        path.write_text(yaml_of(whole))
        seen = []
        for _ in range(ROUNDS):
            words = [sys.executable, "-c", LOADING, str(path)]
            out = subprocess.run(words, capture_output=True, check=True, text=True, timeout=60).stdout.split()
            assert int(out[1]) == MODELS
            seen.append(float(out[0]))
        started = statistics.median(start_seconds(path) for _ in range(ROUNDS))
        size = path.stat().st_size / 1e3
    took = statistics.median(seen)
    return Row(
        f"a configuration of {MODELS} models ({size:.0f} kB) is loaded in",
        f"{took:.2f} s",
        f"the program answers {started:.2f} s after its start",
        "≤ 0.5 s",
        took <= 0.5,
    )


def yaml_of(value: Any) -> str:
    """YAML in the style that people write, not JSON's: blocks, not brackets."""
    import yaml  # needed here only

    return str(yaml.safe_dump(value, sort_keys=False))


def start_seconds(path: Path) -> float:
    """From exec to the first answer, with a configuration file."""
    port = free_port()
    started = time.perf_counter()
    environment = {**os.environ, "BIOPROXY_STATE_DIRECTORY": str(path.parent), "BIOPROXY_ADMIN_PORT": "0"}
    words = [sys.executable, "-m", "bioproxy", "serve", "--config", str(path), "--listen", f"127.0.0.1:{port}"]
    child = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        peers.wait_for(port)
        return time.perf_counter() - started
    finally:
        child.terminate()
        child.wait(20)


def measure() -> list[Row]:
    """Every row of the table."""
    return [*conversation(), ready(), *routing(), many_models()]
