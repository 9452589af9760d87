"""What relaying a child's log costs: 20 MB/s through pipe, tail, model's log, upstream log, and what comes after.

The child is a program that writes lines at that pace, in blocks as stdio does or a line at a time as llama-server does.
Counted is all CPU of this process, in which the relay runs on the loop that `bioproxy serve` uses; not the child's.
`python -m bench.relay_logs` prints the table.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

from bench.report import Row, verdict
from bioproxy import aio
from bioproxy.admin.logs import Logs
from bioproxy.admin.routes import Question
from bioproxy.cli.serve import run
from bioproxy.config.schema import Limits
from bioproxy.engines.process import Process
from bioproxy.logbook import Console, Destination, Logbook
from bioproxy.wire.http1.message import Request, Responder
from bioproxy.wire.server import Server

RATE = 20_000_000  # bytes per second
LINE = 200
SECONDS = 4.0
BOUND = 0.20
WRITES = {"blocks of 8 KiB": 8192 // LINE, "single lines": 1}  # lines per write
PROGRAM = """
import os, sys, time
lines, size, rate = map(int, sys.argv[1:])
block = (b"x" * (size - 1) + b"\\n") * lines
begun, sent = time.perf_counter(), 0
while True:
    for _ in range(max(1, rate // 1000 // len(block))):
        sent += os.write(1, block)
    ahead = sent / rate - (time.perf_counter() - begun)
    if ahead > 0:
        time.sleep(ahead)
"""


class Relay(msgspec.Struct, frozen=True):
    """The share of a core that the relay took, the bytes per second that came, and how many a client lost."""

    cpu: float
    rate: float
    dropped: int


async def share(lines: int, *, to_stdout: Destination = "proxy", follow: bool = False) -> Relay:
    """Run the child for a while and look."""
    with nothing() as nowhere:
        book = Logbook(to_stdout=to_stdout, console=Console(nowhere))
        command = [sys.executable, "-I", "-S", "-c", PROGRAM, str(lines), str(LINE), str(RATE)]
        process = Process(command, name="writer", output=book.model("writer"))
        async with followed(book, follow=follow):
            await process.start()
            await asyncio.sleep(0.5)
            before = time.perf_counter(), time.process_time(), book.upstream.bytes_in
            await asyncio.sleep(SECONDS)
            after = time.perf_counter(), time.process_time(), book.upstream.bytes_in
            log = book.models["writer"].statistics()
            await process.stop(grace=1.0)
        book.close()
    if log.subscribers != follow:
        raise RuntimeError(f"{log.subscribers} clients follow the log")
    wall, cpu, got = (late - early for late, early in zip(after, before, strict=True))
    return Relay(cpu=cpu / wall, rate=got / wall, dropped=log.dropped)


@contextmanager
def nothing() -> Iterator[int]:
    """A descriptor that takes everything."""
    with Path(os.devnull).open("wb") as file:
        yield file.fileno()


@asynccontextmanager
async def followed(book: Logbook, *, follow: bool) -> AsyncIterator[None]:
    """A client on this machine that follows the log, in a process of its own; or nobody."""
    if not follow:
        yield
        return
    logs = Logs(book, resolve=lambda _name: None)

    async def handle(request: Request, responder: Responder) -> None:
        await logs.stream(Question(request, responder, {"id": "writer"}))

    server = Server(handle, limits=Limits(), name="logs")
    await server.listen("127.0.0.1", 0)
    reading = f"""
import socket
connection = socket.create_connection(("127.0.0.1", {server.port}))
connection.sendall(b"GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
while connection.recv(1 << 18): pass
"""
    client = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", reading)
    try:
        yield
    finally:
        client.kill()
        await client.wait()
        logs.close()
        await aio.shielded(server.close(deadline=1.0))


def row(name: str, lines: int, *, to_stdout: Destination = "proxy", follow: bool = False) -> Row:
    """One figure; it holds only where the child's pace was kept and a client that reads got everything."""
    seen: list[Relay] = []

    async def one() -> int:
        seen.append(await share(lines, to_stdout=to_stdout, follow=follow))
        return 0

    run(one)
    found = seen[0]
    holds = found.cpu <= BOUND and found.rate > 0.95 * RATE and not found.dropped
    ours = f"{found.cpu:.1%} at {found.rate / 1e6:.1f} MB/s, {found.dropped} bytes dropped"
    return Row(f"core for a log, {name}", ours, "", f"≤ {BOUND:.0%} at 20 MB/s", holds)


def measure() -> list[Row]:
    """Every row of the table."""
    rows = [row(f"{name}, nobody follows", lines) for name, lines in WRITES.items()]
    return [
        *rows,
        row("single lines, shown on standard error", 1, to_stdout="both"),
        row("single lines, a client follows", 1, follow=True),
    ]


if __name__ == "__main__":
    print(verdict("Logs", measure()))
