"""Start the fake llama-server in a test: `async with FakeEngine(slot_folder=tmp_path) as engine: ...`.

The program runs as a child process of its own, because the faults that matter are a process's: it dies, it stands
still (SIGSTOP), it comes back as another one on the same port. Readiness is the line it prints, never a sleep. The
calls here use a connection each and know no more HTTP than the fake speaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

Json = Any
PROGRAM = Path(__file__).with_name("llama_server.py")


@dataclass
class Answer:
    """What an engine answered: status, headers in lower case, body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Json:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Recorded:
    """One request as the fake received it."""

    method: str
    target: str
    path: str
    query: dict[str, str]
    headers: list[list[str]]
    body: str
    bytes: int
    sha256: str
    at: float

    def json(self) -> Json:
        """The body as JSON."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The first value of `name`, which is given in lower case."""
        return next((value for key, value in self.headers if key.lower() == name), None)


async def call(port: int, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    """One request on a connection of its own, read to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        lines = {"Host": "fake", "Connection": "close", "Content-Length": str(len(body)), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)
        raw = await reader.read(-1)
    finally:
        writer.close()
    return parse_answer(raw)


def parse_answer(raw: bytes) -> Answer:
    """Split a whole answer; chunks are put together. ConnectionError where there is none."""
    if not raw:
        raise ConnectionError("the fake engine closed the connection without an answer")
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        whole = b""
        while body:
            size, _, body = body.partition(b"\r\n")
            whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]
        body = whole
    return Answer(int(first.split()[1]), headers, body)


class FakeEngine:
    """The fake as a child process; keyword arguments are its flags (`tokens_per_second=500`, `metrics=True`).

    `faults` is a dict of faults from the start on. After `kill` or `stop`, `restart` brings it back on the same port.
    """

    def __init__(
        self, *, slot_folder: Path | str | None = None, faults: Json = None, port: int = 0, **flags: Json
    ) -> None:
        self.flags: dict[str, Json] = {**flags, "port": port, "faults": json.dumps(faults or {})}
        if slot_folder is not None:
            Path(slot_folder).mkdir(parents=True, exist_ok=True)
            self.flags["slot_save_path"] = str(slot_folder)
        self.process: asyncio.subprocess.Process | None = None
        self.lines: list[str] = []
        self.reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start and wait until it listens."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it for good."""
        await self.kill()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.flags["port"])

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.returncode is None

    def command(self) -> list[str]:
        """The command line."""
        words = [sys.executable, str(PROGRAM)]
        for name, value in self.flags.items():
            if value is True:
                words.append(f"--{name.replace('_', '-')}")
            elif value is not False:
                words += [f"--{name.replace('_', '-')}", str(value)]
        return words

    async def start(self) -> None:
        """Start the program; it is ready when this returns."""
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            *self.command(), stdout=pipe, stderr=asyncio.subprocess.STDOUT
        )
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.reading = asyncio.get_running_loop().create_task(self.read(listening))
        self.flags["port"] = await listening

    async def read(self, listening: asyncio.Future[int]) -> None:
        """Keep what the program prints; its first line tells the port."""
        assert self.process is not None
        assert self.process.stdout is not None
        async for raw in self.process.stdout:
            line = raw.decode(errors="replace").rstrip()
            self.lines.append(line)
            if line.startswith("listening on ") and not listening.done():
                listening.set_result(int(line.split()[-1]))
        if not listening.done():
            listening.set_exception(RuntimeError(f"the fake engine did not start: {self.lines}"))

    async def wait(self) -> int:
        """Wait until the process has ended; its return code."""
        assert self.process is not None
        code = await self.process.wait()
        if self.reading is not None:
            await self.reading
        return code

    def signal(self, number: int) -> None:
        """Send a signal, if it still lives: SIGSTOP makes it hang, SIGCONT lets it go on."""
        if self.running:
            # not Process.send_signal: it polls, and may reap the child before asyncio's own watcher does
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def kill(self) -> int:
        """End it at once, as a crash does; its return code."""
        self.signal(signal.SIGKILL)
        return await self.wait()

    async def stop(self) -> int:
        """End it politely; its return code. Waits for clients that still hold a request, as the real one does."""
        self.signal(signal.SIGTERM)
        return await self.wait()

    async def restart(self, **flags: Json) -> None:
        """End it if it lives and start it again on the same port, with `flags` changed."""
        if self.running:
            await self.kill()
        self.flags.update(flags)
        await self.start()

    async def request(self, method: str, target: str, body: Json = None, **headers: str) -> Answer:
        """One request to the fake itself; `body` is bytes, or a value sent as JSON."""
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return await call(self.port, method, target, raw, {k.replace("_", "-"): v for k, v in headers.items()})

    async def get(self, target: str) -> Answer:
        """GET."""
        return await self.request("GET", target)

    async def post(self, target: str, body: Json = None) -> Answer:
        """POST."""
        return await self.request("POST", target, body)

    async def slot(self, action: str, filename: str = "", *, slot: int = 0) -> Answer:
        """A slot action."""
        return await self.post(f"/slots/{slot}?{urlencode({'action': action})}", {"filename": filename})

    async def faults(self, **change: Json) -> None:
        """Switch faults; they stay until they are switched again."""
        if change.get("die") == "now":
            self.signal(change.get("die_signal", signal.SIGKILL))
            return
        answer = await self.post("/fake/faults", change)
        assert answer.status == 200, answer.body

    async def requests(self, path: str = "") -> list[Recorded]:
        """Every request that came in (to `path`, if given), oldest first; those of `state` and `faults` not."""
        found = (Recorded(**each) for each in (await self.get("/fake/requests")).json())
        return [each for each in found if path in ("", each.path)]

    async def forget(self) -> None:
        """Forget the requests that came in so far."""
        await self.request("DELETE", "/fake/requests")

    async def state(self) -> Json:
        """Slots with tokens, queue, deferred, cache, totals, violations, polls."""
        return (await self.get("/fake/state")).json()

    async def violations(self) -> list[str]:
        """What was done to the engine that one must not do to the real one."""
        found: list[str] = (await self.state())["violations"]
        return found
