"""The cache on a real engine: first token after a restart beside cold, and what a warm-up costs a user who comes by.

Runs `bioproxy serve --model` on the demo's model. "Cold" is the same request on the same engine with nothing on disk
and nothing resident; "after a restart" is after the engine was killed with SIGKILL and started again by bioproxy.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import msgspec

from bench import peers
from bench.report import Row
from bioproxy.embedded.model import ensure_model
from bioproxy.engines.launch import free_port

ROUNDS = 3
WORDS = [word for word in Path(__file__).with_name("caching.py").read_text().split() if "<{" not in word]
LONG = 11_000  # characters: about 3000 tokens of the demo's vocabulary
USERS = 200


class Served(msgspec.Struct):
    """A running bioproxy with an engine of its own."""

    port: int
    admin: int

    def get(self, path: str) -> Any:
        """JSON of the admin port."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=10) as answer:
            return json.loads(answer.read())

    def until(self, path: str, good: Any, *, seconds: float = 120.0) -> Any:
        """Look at `path` until `good` is true of it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                value = self.get(path)
            except OSError:
                value = None
            if value is not None and good(value):
                return value
            time.sleep(0.02)
        raise TimeoutError(f"{path} did not become what it should within {seconds} s")

    def ask(self, messages: list[dict[str, str]]) -> tuple[float, int, int]:
        """(seconds to the first token, tokens cached, tokens evaluated) of a streamed chat."""
        body = {"messages": messages, "stream": True, "max_tokens": 4, "stream_options": {"include_usage": True}}
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        started, first = time.perf_counter(), 0.0
        timings: dict[str, int] = {}
        with urllib.request.urlopen(request, timeout=120) as answer:
            for line in answer:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    first = first or time.perf_counter() - started
                    timings = event.get("timings") or timings
        return first, timings.get("cache_n", 0), timings.get("prompt_n", 0)

    def kill_engine(self) -> None:
        """SIGKILL the engine and wait until another one is ready."""
        before = self.get("/status")["engine"]
        os.kill(before["facts"]["pid"], signal.SIGKILL)
        self.until("/status", lambda now: now["engine"]["generation"] > before["generation"] and ready(now))


def ready(status: Any) -> bool:
    """Whether the engine is ready."""
    return bool(status["engine"]["state"] == "ready")


def serve(stack: Any, folder: Path, **options: Any) -> Served:
    """Start bioproxy with an engine of its own in `folder`."""
    model = ensure_model(Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bioproxy")
    port, admin = free_port(), free_port()
    values = {
        "proxy_host": "127.0.0.1",
        "proxy_port": port,
        "admin_port": admin,
        "model": str(model),
        "state_directory": str(folder / "state"),
        "log": {"level": "warning"},
        **options,
    }
    values.setdefault("kv", {}).update({"directory": str(folder / "slots"), "min_free": 0, "save_after": "1s"})
    (folder / "slots").mkdir(mode=0o700, exist_ok=True)
    conf = folder / "conf.json"
    conf.write_text(json.dumps(values))
    stack.enter_context(peers.running([sys.executable, "-m", "bioproxy", "serve", "--config", str(conf)]))
    served = Served(port, admin)
    served.until("/status", ready)
    return served


def text(seed: int, length: int) -> str:
    """Words in an order that no other seed gives."""
    words = random.Random(seed)
    out: list[str] = []
    while sum(len(word) + 1 for word in out) < length:
        out += words.choices(WORDS, k=200)
    return " ".join(out)[:length]


def comparison(name: str, cold: list[float], warm: list[float], cached: int, evaluated: int) -> Row:
    """First token after a restart beside cold; at most a tenth."""
    before, after = statistics.median(cold), statistics.median(warm)
    shown = f"{after * 1e3:.0f} ms ({cached} tokens cached, {evaluated} evaluated)"
    return Row(name, shown, f"cold {before * 1e3:.0f} ms", f"≤ {before * 100:.0f} ms (1/10)", after <= before / 10)


def template_after_restart() -> Row:
    """A 3000-token template: cold with warm-up off, then warmed, engine killed, asked again."""
    cold, warm, counts = [], [], (0, 0)
    for round_ in range(ROUNDS):
        with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "code.txt").write_text(text(round_, LONG) + "\n<{message}>")
            served = serve(stack, folder, prefixes={"@code": "code.txt"}, warmup={"enabled": False, "settle": 0})
            cold.append(served.ask([{"role": "user", "content": "@code what is this?"}])[0])
        with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "code.txt").write_text(text(round_, LONG) + "\n<{message}>")
            served = serve(stack, folder, prefixes={"@code": "code.txt"}, warmup={"settle": 0})
            served.until("/status", lambda now: now["snapshots"])
            served.kill_engine()
            first, *seen = served.ask([{"role": "user", "content": "@code what is that?"}])
            warm.append(first)
            counts = (seen[0], seen[1])
    return comparison("first token, 3000-token template, engine restarted", cold, warm, *counts)


def conversation_after_restart() -> Row:
    """A 3000-token conversation whose last question is a new one, after the engine was killed."""
    cold, warm, counts = [], [], (0, 0)
    for round_ in range(ROUNDS):
        system = {"role": "system", "content": text(100 + round_, LONG)}
        with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as name:
            served = serve(stack, Path(name))
            cold.append(served.ask([system, {"role": "user", "content": "What is the first word?"}])[0])
            served.until("/status", lambda now: now["snapshots"])
            served.kill_engine()
            first, *seen = served.ask([system, {"role": "user", "content": "And the last one, please?"}])
            warm.append(first)
            counts = (seen[0], seen[1])
    return comparison("first token, 3000-token conversation, new last question, engine restarted", cold, warm, *counts)


def users_during_warmup() -> Row:
    """What a user waits in the queue because a warm-up of a long template is under way."""
    waits: list[float] = []
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "long.txt").write_text(text(7, 20_000) + "\n<{message}>")
        served = serve(stack, folder, prefixes={"@long": "long.txt"}, warmup={"settle": 0})
        asked = 0
        while asked < USERS:
            states = [target["state"] for target in served.get("/status")["warmup"]["targets"]]
            if states and all(state in {"saved", "warm"} for state in states):
                (folder / "long.txt").write_text(text(8 + asked, 20_000) + "\n<{message}>")
                warm = urllib.request.Request(f"http://127.0.0.1:{served.admin}/warmup/%40long", method="POST")
                urllib.request.urlopen(warm, timeout=30).close()
            served.ask([{"role": "user", "content": f"question {asked}"}])
            asked += 1
            time.sleep(random.uniform(0.05, 0.3))
        records = [record for record in served.get("/requests?limit=1000")["requests"] if record["work"] == "user"]
        waits = sorted(record["queue"] for record in records)
    p99 = waits[min(len(waits) - 1, len(waits) * 99 // 100)]
    held = sum(wait > 0.001 for wait in waits)
    shown = f"p99 {p99 * 1e3:.0f} ms, p50 {statistics.median(waits) * 1e3:.0f} ms ({held} of {len(waits)} waited)"
    return Row("a user's wait because of a warm-up", shown, "", "p99 ≤ 300 ms", p99 <= 0.3)


def measure() -> list[Row]:
    """Every row of the table."""
    return [users_during_warmup(), template_after_restart(), conversation_after_restart()]
