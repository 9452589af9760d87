"""How long still, as clients are told it, beside how long it was: on a real engine, with what clients really send.

Requests come in bursts, with prompts of 40 to 2,200 tokens and answers of 8 to 120, half of them in conversations that
go on: first all for one model with one slot, then for two that cannot run at once. Twice a second `GET /api/queue` is
asked; each `left` that it says is kept beside the moment at which that request's first token came. Clients are told
whole seconds, at least one, so less than a second counts as one. Other work on the machine, if it comes and goes, makes
each of these figures worse: that an engine became half as fast is known a few answers later.
"""

from __future__ import annotations

import http.client
import os
import random
import shlex
import statistics
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from bench.caching import text
from bench.report import Row
from bench.swapping import serving
from bioproxy.embedded.model import ensure_model

Json: TypeAlias = Any

FACTOR = 2.0  # by which an estimate may be wrong
SHARE = 0.8  # of those that are not
LEAST = 1.0  # seconds
EVERY = 0.5  # seconds between two looks
REQUESTS = 28
BURST = 7  # requests that come within two seconds
PAUSE = 14.0  # seconds between two bursts
LEARNING = 4  # requests before, from which the engine is known
PATIENCE = 300.0


class Sample(msgspec.Struct, frozen=True):
    """What was said of one request at one moment."""

    request: str
    stage: str
    at: float
    left: float


class Asked(msgspec.Struct, frozen=True):
    """One request of the plan."""

    name: str
    model: str
    at: float
    messages: list[Json]
    most: int


def plan(models: tuple[str, ...], seed: int) -> list[Asked]:
    """What comes when."""
    chance, found, talks = random.Random(seed), [], list[list[Json]]()
    for number in range(REQUESTS):
        if talks and chance.random() < 0.5:
            talk = chance.choice(talks)
            talk += [{"role": "assistant", "content": "I see."}, {"role": "user", "content": text(number, 300)}]
        else:
            talk = [{"role": "user", "content": text(seed + number, chance.choice([100, 900, 2500, 6000]))}]
            talks.append(talk)
        at = number // BURST * PAUSE + chance.random() * 2
        name, most = f"e{seed}-{number}", chance.choice([8, 40, 120])
        found.append(Asked(name, chance.choice(models), at, list(talk), most))
    return sorted(found, key=lambda one: one.at)


def ask(port: int, asked: Asked) -> float:
    """Send one, and read it to its end; when its first token came."""
    body = {"model": asked.model, "messages": asked.messages, "max_tokens": asked.most, "stream": True}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {"Content-Type": "application/json", "X-Request-Id": asked.name}
    connection.request("POST", "/v1/chat/completions", msgspec.json.encode(body), headers)
    first = 0.0
    for line in connection.getresponse():
        if not first and line.startswith(b"data: {"):
            first = time.monotonic()
    connection.close()
    return first


def play(port: int, requests: list[Asked]) -> tuple[list[Sample], dict[str, float]]:
    """Send all, each at its time, and look meanwhile: what was said, and when the first tokens came."""
    firsts: dict[str, float] = {}
    samples: list[Sample] = []
    began = time.monotonic()

    def one(asked: Asked) -> None:
        time.sleep(max(0.0, began + asked.at - time.monotonic()))
        firsts[asked.name] = ask(port, asked)

    threads = [threading.Thread(target=one, args=(asked,)) for asked in requests]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/queue", timeout=PATIENCE) as answer:
            found = msgspec.json.decode(answer.read())["requests"]
        now = time.monotonic()
        for each in found:
            standing = each["standing"]
            if standing["left"] is not None:
                samples.append(Sample(each["id"], standing["stage"], now, standing["left"]))
        time.sleep(EVERY)
    for thread in threads:
        thread.join()
    return samples, firsts


def ratios(samples: list[Sample], firsts: dict[str, float], stages: set[str]) -> list[float]:
    """What was said in a stage, by what it was: 2 is twice too much."""
    found = []
    for sample in samples:
        real = firsts.get(sample.request, 0.0) - sample.at
        if sample.stage in stages and real > 0:
            found.append(max(sample.left, LEAST) / max(real, LEAST))
    return found


def row(name: str, found: list[float]) -> Row:
    """How many were right within the factor."""
    right = sum(1 / FACTOR <= ratio <= FACTOR for ratio in found) / max(1, len(found))
    middle = statistics.median(found) if found else 0.0
    shown = f"{right:.0%} of {len(found)} within a factor of {FACTOR:g}"
    return Row(name, shown, f"median {middle:.2f} x what it was", f"≥ {SHARE:.0%}", right >= SHARE and bool(found))


def measure() -> list[Row]:
    """The rows."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bioproxy"
    program = f"{shlex.quote(sys.executable)} -m bioproxy.embedded --port ${{PORT}} -c 8192 -b 512"
    models = {
        name: {"cmd": f"{program} --model {shlex.quote(str(ensure_model(folder, seed=number)))}"}
        for number, name in enumerate(("first", "other"))
    }
    rows = []
    for several in (False, True):
        names = ("first", "other") if several else ("first",)
        with serving(models, swap={"max_wait": 10}) as (port, _):
            for number in range(LEARNING):
                talk = [{"role": "user", "content": text(900 + number, 2000)}]
                ask(port, Asked(f"l{number}", names[number % len(names)], 0.0, talk, 60))
            samples, firsts = play(port, plan(names, 70))
        if several:
            rows.append(row("two models in turns: while it waits for its model", ratios(samples, firsts, {"model"})))
            rows.append(row("… for a slot, or its prompt is read", ratios(samples, firsts, {"queue", "prompt"})))
        else:
            rows.append(row("one slot: how long still, while it waits", ratios(samples, firsts, {"queue"})))
            rows.append(row("… while its prompt is read", ratios(samples, firsts, {"prompt"})))
    return rows


if __name__ == "__main__":
    for each in measure():
        print(each)
