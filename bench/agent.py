"""An agent as they are: a long head with a line that changes at each turn, tools in another order, a title beside it.

Twelve turns on the real llama.cpp with a generated model, straight at the engine and through bioproxy with two rules
for the client's head and one for its titles; then three agents at once on one slot, and one whose engine is killed in
the middle. Counted is what the engine itself says that it evaluated, warm-ups and everything else included. Beside it
stands what is new: what the agent had not sent before.

The head has 8000 tokens, so that the run without bioproxy ends in half a minute; a longer one makes the ratio larger.
The model is small, too, so `kv.min_seconds` is as much smaller as a turn is read sooner.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from bench import peers
from bench.caching import Served, ready, text
from bench.report import Row
from bioproxy.cli.demo import cache_folder
from bioproxy.embedded.model import ensure_model
from bioproxy.engines.launch import free_port

Json = Any
TURNS, AGENTS = 12, 3
KILLED_AFTER = 6  # turns
RULES, HINTS, TOOL, NEWS = 1500, 12000, 600, 800  # characters
TOOLS = 12
TOOL_TIME = 0.7  # seconds that the agent's tools run between two turns
CONTEXT = 16384
MOST, LEAST, SLOWER = 1.1, 8, 1.3
LAST = 3  # turns at the end, whose median counts
AGENT = "bench-agent/1.0"
WHY = {"agents": ["bench-agent/*"], "why": "the bench's own client"}
CLIENTS = {
    "stabilize_mode": "on",
    "side": [{"name": "bench-title", "tools": "none", "first": ["Find a title*"], **WHY}],
    "stabilize": [
        {"name": "bench-turn", "line": "It is turn *", "do": "pin", **WHY},
        {"name": "bench-tools", "tools": "some", "do": "sort_tools", **WHY},
    ],
}


class Asked(msgspec.Struct, frozen=True):
    """One answer: seconds to its first token, tokens of its prompt, those that were evaluated."""

    first: float
    prompt: int
    evaluated: int


class Agent:
    """One session. `changes` False: its head and its tools stay as they are; `titled` False: it asks for no titles."""

    def __init__(self, port: int, number: int = 0) -> None:
        self.port = port
        self.number = number
        self.changes = self.titled = True
        self.said: list[Json] = []
        self.asked: list[Asked] = []
        self.titles: list[Asked] = []
        self.beside: list[threading.Thread] = []

    def turn(self) -> Asked:
        """The next turn; then a title, which nobody waits for."""
        turn = len(self.asked)
        varied = random.Random(f"{self.number} {turn}")
        clock = turn if self.changes else 0
        system = f"{text(1, RULES)}\nIt is turn {clock} of this session.\n{text(2, HINTS)}"
        tools = [tool(number) for number in range(TOOLS)]
        if self.changes:
            varied.shuffle(tools)
        news = f"Result {self.number}.{turn}: {text(varied.randrange(10**6), NEWS)}"
        self.said.append({"role": "user", "content": news})
        asked = ask(self.port, [{"role": "system", "content": system}, *self.said], tools=tools)
        self.asked.append(asked)
        self.said.append({"role": "assistant", "content": f"I look at {turn}."})
        if self.titled:
            self.beside.append(threading.Thread(target=self.title))
            self.beside[-1].start()
        return asked

    def title(self) -> None:
        question = f"Find a title: {text(self.number * 100 + len(self.asked), 200)}"
        self.titles.append(ask(self.port, [{"role": "user", "content": question}]))

    def work(self, turns: int) -> None:
        """So many turns, with tools that take their time."""
        for _ in range(turns):
            self.turn()
            time.sleep(TOOL_TIME)

    def rest(self) -> None:
        """Wait for the titles."""
        for thread in self.beside:
            thread.join()

    @property
    def last(self) -> float:
        """Seconds to the first token of the last turns, their median."""
        return statistics.median(asked.first for asked in self.asked[-LAST:])

    @property
    def new(self) -> int:
        """Tokens that it had not sent before: its first prompt, what each turn adds, and titles."""
        return self.asked[-1].prompt + sum(title.prompt for title in self.titles)


def tool(number: int) -> Json:
    function = {"name": f"tool_{number:02}", "description": text(50 + number, TOOL), "parameters": {"type": "object"}}
    return {"type": "function", "function": function}


def ask(port: int, messages: list[Json], **more: Json) -> Asked:
    """A streamed chat."""
    body = {"model": "any", "messages": messages, "stream": True, "max_tokens": 4, "temperature": 0, **more}
    body["stream_options"] = {"include_usage": True}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    with contextlib.closing(connection):
        headers = {"Content-Type": "application/json", "User-Agent": AGENT}
        started, first = time.perf_counter(), 0.0
        connection.request("POST", "/v1/chat/completions", json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        timings: Json = {}
        for line in answer:
            if line.startswith(b"data: {"):
                first = first or time.perf_counter() - started
                timings = json.loads(line[6:]).get("timings") or timings
    return Asked(first, timings["cache_n"] + timings["prompt_n"], timings["prompt_n"])


def evaluated(port: int) -> int:
    """Tokens that the engine on `port` says it has evaluated."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        found = re.search(r"^llamacpp:prompt_tokens_total (\d+)", answer.read().decode(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def model() -> Path:
    return ensure_model(cache_folder({}), shape="tiny")


def straight() -> tuple[float, float]:
    """The agent straight at the engine: how often it evaluates what is new, and the first token of a resident turn."""
    port = free_port()
    words = ["--model", str(model()), "--host", "127.0.0.1", "--port", str(port), "--ctx-size", str(CONTEXT)]
    words += ["--parallel", "1", "--batch-size", "512", "--metrics"]
    with peers.running([sys.executable, "-m", "bioproxy.embedded", *words]):
        peers.wait_for(port)
        agent = Agent(port)
        for _ in range(TURNS):
            agent.turn()
            agent.rest()
        ratio = evaluated(port) / agent.new
        agent.changes = agent.titled = False
        del agent.said[-2 * LAST - 2 :]  # so that what is resident is as long as in the last turns
        for _ in range(1 + LAST):
            agent.turn()
        return ratio, agent.last


@contextlib.contextmanager
def through() -> Iterator[Served]:
    """Bioproxy before the same engine, with rules for the agent."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        port, admin = free_port(), free_port()
        values = {
            "proxy_host": "127.0.0.1",
            "proxy_port": port,
            "admin_port": admin,
            "model": str(model()),
            "engine_arguments": ["--ctx-size", str(CONTEXT), "--metrics"],
            "state_directory": str(folder / "state"),
            "log": {"level": "warning"},
            "kv": {"directory": str(folder / "slots"), "min_free": 0, "save_after": "1s", "min_seconds": "10ms"},
            "clients": CLIENTS,
        }
        (folder / "slots").mkdir(mode=0o700)
        conf = folder / "conf.json"
        conf.write_text(json.dumps(values))
        stack.enter_context(peers.running([sys.executable, "-m", "bioproxy", "serve", "--config", str(conf)]))
        served = Served(port, admin)
        served.until("/status", ready)
        yield served


def engine_port(served: Served) -> int:
    return int(served.get("/status")["engine"]["url"].rpartition(":")[2].strip("/"))


def one() -> tuple[float, float]:
    """One agent through bioproxy: evaluated beside new, and the first token of its last turns."""
    with through() as served:
        agent = Agent(served.port)
        agent.work(TURNS)
        agent.rest()
        return evaluated(engine_port(served)) / agent.new, agent.last


def three() -> float:
    """Three agents at once on one slot: what they evaluate beside what is new; their head is new once."""
    with through() as served:
        agents = [Agent(served.port, number) for number in range(AGENTS)]
        with ThreadPoolExecutor(AGENTS) as pool:
            list(pool.map(lambda agent: agent.work(TURNS), agents))
        for agent in agents:
            agent.rest()
        turn = agents[0].asked[1].prompt - agents[0].asked[0].prompt
        head = agents[0].asked[0].prompt - turn
        return evaluated(engine_port(served)) / (sum(agent.new for agent in agents) - (AGENTS - 1) * head)


def killed() -> float:
    """One agent whose engine is killed (kill -9) in the middle, after a moment without a request."""
    with through() as served:
        agent = Agent(served.port)
        agent.work(KILLED_AFTER)
        agent.rest()
        time.sleep(TOOL_TIME)  # the conversation was saved when the last title took its slot
        before = evaluated(engine_port(served))
        served.kill_engine()
        agent.work(TURNS - KILLED_AFTER)
        agent.rest()
        return (before + evaluated(engine_port(served))) / agent.new


def measure() -> list[Row]:
    """Every row of the table."""
    without, resident = straight()
    ratio, last = one()
    good = ratio <= MOST and without >= LEAST
    beside, wanted = f"the engine alone: {without:.1f} x", f"≤ {MOST} x what is new; the engine alone ≥ {LEAST} x"
    rows = [Row("tokens that an agent's 12 turns evaluate", f"{ratio:.2f} x", beside, wanted, good)]
    good = last <= SLOWER * resident
    now, then = f"{last * 1e3:.0f} ms", f"resident: {resident * 1e3:.0f} ms"
    rows.append(Row("… first token of the last turns", now, then, f"≤ {SLOWER} x", good))
    for name, found in (("three agents at once, one slot", three()), ("the engine killed after 6 turns", killed())):
        rows.append(Row(f"… {name}", f"{found:.2f} x", "", f"≤ {MOST} x what is new", found <= MOST))
    return rows
