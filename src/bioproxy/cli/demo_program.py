"""`bioproxy serve` as the demo runs it: a process of its own, as its users run it, because it is to be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeAlias

import msgspec

from bioproxy.cli.client import Client
from bioproxy.cli.demo_ask import PATIENCE
from bioproxy.engines.launch import free_port
from bioproxy.errors import BioproxyError

Json: TypeAlias = Any
LOOK = 0.02  # seconds between two looks at what is waited for
GRACE = 10.0  # seconds for its orderly end
LAST_LINES = 5  # of its log, if it did not start


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
            self.process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)  # noqa: S603 - ours
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
        self.process.terminate()
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
        return [line for line in lines if " ERROR " in line and "SIGKILL" not in line]

    def model(self, number: int = 0) -> Json:
        """What it says of a model, or of its one engine."""
        return self.client.get("/api/models")["models"][number]

    def kill_engine(self) -> None:
        """Kill its one engine in the same way, and wait until there is another one."""
        before = self.model()["pid"]
        os.kill(before, signal.SIGKILL)
        until(lambda: self.is_ready(besides=before), "the engine did not come back")

    def is_ready(self, *, besides: int = 0) -> bool:
        """Whether its one engine takes requests, and is another one than the process `besides`."""
        now = self.model()
        return now["state"] == "ready" and now["pid"] not in (None, besides)
