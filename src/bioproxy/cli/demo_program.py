"""What both tables of the demo rest on: `bioproxy serve` as a process of its own, and chats with it over HTTP.

The program runs as its users run it, because it is to be killed. A chat is a request like any client's, on a connection
of its own, and measured from outside: from the request to the first token.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

import msgspec

from bioproxy.cli.client import Client
from bioproxy.cli.output import Output, count, duration
from bioproxy.engines.launch import free_port
from bioproxy.errors import BioproxyError

Json: TypeAlias = Any
PATIENCE = 120.0  # seconds for anything in the demo
TOKENS = 4  # of each answer: random words are read back as other tokens, which no real model's answer is
SOURCES = ("errors.py", "aio.py", "events.py", "logbook.py")  # of this package: what the demo's prompts are about
PART = 4000  # characters of each, which are about 1150 tokens
ENOUGH_TOKENS = 3000  # of a prompt whose cache is measured
RATIO = 10  # how many times sooner than cold the first token must come
CONTEXT = 8192  # of each engine
LOOK = 0.02  # seconds between two looks at what is waited for
GRACE = 10.0  # seconds for its orderly end
LAST_LINES = 5  # of its log, if it did not start

if sys.platform == "win32":  # a group stands for a session there, Ctrl-Break for SIGTERM; any other signal kills
    GROUP, STOP, KILL = subprocess.CREATE_NEW_PROCESS_GROUP, signal.CTRL_BREAK_EVENT, signal.SIGTERM
else:
    GROUP, STOP, KILL = 0, signal.SIGTERM, signal.SIGKILL


class Measured(msgspec.Struct, frozen=True):
    """One request: seconds to its first token, tokens from the cache, tokens evaluated."""

    state: str
    first: float
    cached: int
    evaluated: int


def until(done: Callable[[], bool], what: str) -> None:
    """Wait until `done()`, looking again and again. BioproxyError says `what` if it takes too long."""
    end = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > end:
            raise BioproxyError(f"{what} within {PATIENCE:.0f} s")
        time.sleep(LOOK)


def answers(port: int) -> bool:
    """Whether a program listens there."""
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Program:
    """The process, as a context manager that ends it. `port` is where clients connect, 0: the system chooses one.

    It has a session of its own, so Ctrl-C reaches the demo alone, which then ends it in order.
    """

    def __init__(self, folder: Path, config: Json, *, port: int = 0, admin_port: int = 0) -> None:
        folder.mkdir(exist_ok=True)
        self.port = port if port and not answers(port) else free_port()
        self.admin_port = admin_port if admin_port and not answers(admin_port) else free_port()
        self.client = Client(f"http://127.0.0.1:{self.admin_port}")
        self.log = folder / "log.txt"
        self.file = folder / "config.yaml"
        self.configure({**config, "admin_port": self.admin_port, "log": {"level": "warning"}})
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, config: Json) -> None:
        self.config = config
        self.file.write_bytes(msgspec.json.encode(config))  # JSON is YAML, too

    def reload(self, **changes: Json) -> None:
        """Have it take over other values of keys."""
        self.configure({**self.config, **changes})
        self.client.post("/reload")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; returns when it takes requests."""
        own = [] if getattr(sys, "frozen", False) else ["-m", "bioproxy"]
        words = [sys.executable, *own, "serve", "--config", str(self.file), "--listen", f"127.0.0.1:{self.port}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - ours
                words, stdout=log, stderr=log, start_new_session=True, creationflags=GROUP
            )
        until(self.listens, "bioproxy did not start")

    def listens(self) -> bool:
        """Whether both ports take connections; BioproxyError with its last words if it has ended."""
        assert self.process is not None
        if self.process.poll() is not None:
            lines = self.log.read_text("utf-8", "replace").splitlines()[-LAST_LINES:]
            raise BioproxyError("bioproxy has ended:\n" + "\n".join(lines))
        return answers(self.port) and answers(self.admin_port)

    def kill(self) -> None:
        """End it as an out-of-memory killer would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in order, or at once if that takes too long or is interrupted."""
        if self.process is None or self.process.poll() is not None:
            return
        with contextlib.suppress(SystemError):  # Windows': no console that both share, and it has ended the process
            self.process.send_signal(STOP)
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.kill()
        except KeyboardInterrupt:
            self.kill()
            raise

    def serve_on(self) -> None:
        """Wait until it ends, which it does not do by itself: BioproxyError with its last words if it does."""
        assert self.process is not None
        self.process.wait()
        self.listens()

    def errors(self) -> list[str]:
        """The errors in its log, but those of a process that was killed on purpose."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return [line for line in lines if "[ERROR]" in line and "SIGKILL" not in line]

    def model(self, number: int = 0) -> Json:
        """What it says of a model, or of its one engine."""
        return self.client.get("/api/models")["models"][number]

    def kill_engine(self) -> None:
        """Kill its one engine in the same way, and wait until there is another one."""
        before = self.model()["pid"]
        os.kill(before, KILL)
        until(lambda: self.is_ready(besides=before), "the engine did not come back")

    def is_ready(self, *, besides: int = 0) -> bool:
        """Whether its one engine takes requests, and is another one than the process `besides`."""
        now = self.model()
        return now["state"] == "ready" and now["pid"] not in (None, besides)


def excerpts() -> dict[str, str]:
    """The beginning of each source by its name, in whole lines: as long as it is today, whatever the files grow to."""
    package = Path(__file__).parents[1]
    texts = {name: (package / name).read_text("utf-8") for name in SOURCES}
    return {name: text[: text.rindex("\n", 0, PART) + 1] for name, text in texts.items()}


class Asked(msgspec.Struct, frozen=True):
    """One answer: seconds to its first token, prompt tokens from the cache and evaluated, its text.

    `parts` are the seconds in `Server-Timing`, by name.
    """

    first: float
    cached: int
    evaluated: int
    text: str
    parts: dict[str, float]


def ask(port: int, messages: Sequence[Json], *, model: str = "demo", tools: Sequence[Json] = ()) -> Asked:
    """Send `messages`, with `tools` if any, and read the answer's stream to its end. BioproxyError if it is refused."""
    body: Json = {
        "model": model,
        "messages": messages,
        "max_tokens": TOKENS,
        "temperature": 0,  # each run says the same
        "stream": True,
        "stream_options": {"include_usage": True},
        **({"tools": tools} if tools else {}),
    }
    connection = http.client.HTTPConnection("localhost", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        started = time.monotonic()
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", msgspec.json.encode(body), headers)
        response = connection.getresponse()
        if response.status != 200:
            raise BioproxyError(f"the demo's request was answered {response.status}: {response.read(500)!r}")
        first: float | None = None
        timings: dict[str, Json] = {}
        words: list[str] = []
        for line in response:
            if line.startswith(b"data: {"):
                first = first or time.monotonic() - started
                event = msgspec.json.decode(line[6:])
                timings = event.get("timings") or timings
                words += [choice["delta"].get("content") or "" for choice in event["choices"]]
    if first is None or not timings:
        raise BioproxyError("the demo's request got an answer without tokens or timings")
    parts = read_timing(response.getheader("Server-Timing") or "")
    return Asked(first, int(timings["cache_n"]), int(timings["prompt_n"]), "".join(words), parts)


def read_timing(header: str) -> dict[str, float]:
    """`queue;dur=1.5, swap;dur=300` as seconds by name."""
    found = {}
    for part in header.split(","):
        name, _, milliseconds = part.strip().partition(";dur=")
        with contextlib.suppress(ValueError):
            found[name] = float(milliseconds) / 1e3
    return found


def sooner(first: float, cold: float) -> str:
    """How many times sooner than cold a first token came."""
    return f"{cold / first:.0f}x sooner" if first > 0 else ""


def show_rows(
    output: Output, title: str, rows: Sequence[Measured], *, parts: Sequence[str] = (), apart: str = ""
) -> None:
    """Print a table; its last column says how many times sooner than cold, the first row.

    `parts` are further members of its rows, in seconds; the row `apart` is not compared.
    """
    cold = rows[0]
    cells = [
        (
            one.state,
            duration(one.first),
            count(one.cached),
            count(one.evaluated),
            *(duration(getattr(one, part)) for part in parts),
            "" if one is cold or one.state == apart else sooner(one.first, cold.first),
        )
        for one in rows
    ]
    output.line()
    columns = (title, "first token", "cached", "evaluated", *parts, "")
    output.table(columns, cells, right=tuple(range(1, len(columns) - 1)))
    output.line()
