"""An engine as a child process of a test: start, signals, end, restart on the same port, and plain requests to it.

It runs as a process of its own, because the faults that matter are a process's: it dies, it stands still (SIGSTOP), it
comes back as another one. Readiness is a line that it prints, never a sleep. The calls here use a connection each and
know no more HTTP than an engine speaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlencode

from fakes.fake_faults import KILL
from fakes.forked import Forked

Json = Any


@dataclass
class Answer:
    """What an engine answered: status, headers in lower case, body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Json:
        """The body as JSON."""
        return json.loads(self.body)

    def events(self) -> list[Json]:
        """The values of a stream's `data:` lines, without [DONE]."""
        lines = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]


async def call(port: int, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    """One request on a connection of its own, read to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        lines = {"Host": "engine", "Connection": "close", "Content-Length": str(len(body)), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)
        raw = await reader.read(-1)
    finally:
        writer.close()
    return parse_answer(raw)


def parse_answer(raw: bytes) -> Answer:
    """Split a whole answer; chunks are put together. ConnectionError if there is none."""
    if not raw:
        raise ConnectionError("the engine closed the connection without an answer")
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


class EngineProcess:
    """A child process that serves on `port`. What it is, `command` and `ready` of a subclass say."""

    port: int = 0

    def __init__(self) -> None:
        self.process: asyncio.subprocess.Process | Forked | None = None
        self.lines: list[str] = []
        self.reading: asyncio.Task[None] | None = None

    def command(self) -> list[str]:
        """The command line of the next start."""
        raise NotImplementedError

    def ready(self, line: str) -> int:
        """The port, where `line` of the output tells that it serves, else 0."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        """Start and wait until it serves."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it for good."""
        await self.kill()

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

    async def start(self) -> None:
        """Start the program; it serves when this returns. RuntimeError with its output where it ends instead."""
        self.process = await self.begin(self.command())
        serving: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.reading = asyncio.get_running_loop().create_task(self.read(serving))
        self.port = await serving

    async def begin(self, command: list[str]) -> asyncio.subprocess.Process | Forked:
        """Have a process run the command."""
        out, err = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
        return await asyncio.create_subprocess_exec(*command, stdout=out, stderr=err)

    async def read(self, serving: asyncio.Future[int]) -> None:
        """Keep what the program prints, and hear when it serves."""
        assert self.process is not None
        assert self.process.stdout is not None
        async for raw in self.process.stdout:
            line = raw.decode(errors="replace").rstrip()
            self.lines.append(line)
            if not serving.done() and (port := self.ready(line)):
                serving.set_result(port)
        if not serving.done():
            serving.set_exception(RuntimeError(f"the engine did not start: {self.lines}"))

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
        self.signal(KILL)
        return await self.wait()

    async def stop(self) -> int:
        """End it politely; its return code. Waits for clients that still hold a request, as llama-server does."""
        self.signal(signal.SIGTERM)
        return await self.wait()

    async def restart(self) -> None:
        """End it if it lives and start it again on the same port."""
        if self.running:
            await self.kill()
        await self.start()

    async def request(self, method: str, target: str, body: Json = None, **headers: str) -> Answer:
        """One request to the engine itself; `body` is bytes, or a value sent as JSON."""
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


def flags_of(flags: dict[str, Json]) -> list[str]:
    """Keyword arguments as flags: `cache_ram=0` is `--cache-ram 0`, True is the flag alone, False leaves it out."""
    words = []
    for name, value in flags.items():
        if value is True:
            words.append(f"--{name.replace('_', '-')}")
        elif value is not False:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words
