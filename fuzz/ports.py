"""Bytes at both ports of the running program, with one engine and with many models.

An answer must be HTTP, and must come: what our reader calls a request is answered, what it refuses is answered with an
error or a closed connection, and of what it calls unfinished nothing is expected. Whatever came, the log tells of no
fault of ours, the next plain request is served, and at the end nothing is held.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from random import Random

import h11

from bioproxy.app import App
from bioproxy.config.schema import Limits
from bioproxy.errors import RequestError
from bioproxy.wire.http1.message import Request
from bioproxy.wire.http1.reader import RequestReader
from fakes.fake_engine import FakeEngine
from fuzz.files import JSON_WORDS
from fuzz.requests import WORDS as HTTP_WORDS
from support.apps import engine_ready, running_app
from support.http import call
from support.leaks import assert_nothing_held, until

HEAD = 120.0  # seconds that an answer may take to begin: other inputs stop its model again and again
REST = 0.2  # and to end; an event stream does not
FAKE = Path(__file__).parents[1] / "tests" / "fakes" / "swap_engine.py"  # it starts in no time
WORDS = (
    *HTTP_WORDS, *JSON_WORDS, b"@code ", b'"model":"a"', b'"model":"b"', b'"model":"\xff"', b"/upstream/a/",
    b"/slots/0", b"?action=save", b"Authorization: Bearer k\r\n", b"Origin: http://evil.example\r\n",
    b"Content-Encoding: gzip\r\n", b"Content-Encoding: zstd\r\n", b"Prefer: respond-async\r\n", b"X-Request-Id: x\r\n",
    b"traceparent: 00-x\r\n", b"Cookie: a=b\r\n", b"Range: bytes=0-1\r\n", b"If-None-Match: *\r\n",
    b"Accept: text/event-stream\r\n",
)  # fmt: skip


class Faults(logging.Handler):
    """What the log calls an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def listen(self) -> None:
        """Hear our log, which forgets its handlers at a reload, and the event loop's."""
        for name in ("bioproxy", "asyncio"):
            if self not in (handlers := logging.getLogger(name).handlers):
                handlers.append(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(logging.Formatter().format(record))


class Ports:
    """The program, and the ports by which inputs take turns."""

    def __init__(self, apps: list[App], faults: Faults) -> None:
        self.apps = apps
        self.faults = faults
        self.ports = [port for app in apps for port in (app.proxy_port, app.admin_port)]

    async def check(self, data: bytes, random: Random) -> str:
        """One input on a connection of its own."""
        data = fitting(data) if random.random() < 0.7 else data
        request, expected = read(data)
        self.faults.listen()
        reader, writer = await asyncio.open_connection("127.0.0.1", random.choice(self.ports))
        try:
            writer.write(data)
            if expected == "incomplete":
                return expected
            found = await answer(reader, request)
            assert found or expected == "refused", "no answer"
            return "refused" if expected == "refused" else found
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
            assert not self.faults.seen, self.faults.seen.pop()

    async def alive(self) -> None:
        """A plain request is served on each port."""
        for app in self.apps:
            assert (await call(app.proxy_port, "GET", "/health")).status == 200
            assert (await call(app.admin_port, "GET", "/livez")).status == 200


def fitting(data: bytes) -> bytes:
    """`data` with the Content-Length that it needs, if it has a body and says one: else hardly any is whole."""
    head, end, body = data.partition(b"\r\n\r\n")
    before, name, after = head.partition(b"Content-Length: ")
    if not name:
        return data
    _, line, rest = after.partition(b"\r\n")
    return before + name + str(len(body)).encode() + line + rest + end + body


def read(data: bytes) -> tuple[Request | None, str]:
    """The first request, and `read`, `refused` or `incomplete`."""
    try:
        request = RequestReader(Limits()).feed(data, 1.0)
    except RequestError:
        return None, "refused"
    return request, "read" if request is not None else "incomplete"


async def answer(reader: asyncio.StreamReader, request: Request | None) -> str:
    """The status of the answer; "left" if it is a stream without an end, "" if there is none."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    method = request.method if request is not None else "GET"
    upgrade = [("Connection", "upgrade"), ("Upgrade", "websocket")] if request is not None and request.upgrade else []
    client.send(h11.Request(method=method, target="/", headers=[("Host", "h"), *upgrade]))
    client.send(h11.EndOfMessage())
    status = ""
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            try:
                async with asyncio.timeout(REST if status else HEAD):
                    data = await reader.read(1 << 16)
            except TimeoutError:
                return "left" if status else ""
            except ConnectionResetError:
                return status
            if not data and (not status or request is None):
                return status
            client.receive_data(data)
        elif isinstance(event, h11.Response):
            status = str(event.status_code)
            if request is None:
                return status
        elif isinstance(event, h11.InformationalResponse):
            if event.status_code == 101:
                return "101"
        elif not isinstance(event, h11.Data):
            return status


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Ports]:
    """The program twice: with one engine, and with two models of which one has a template."""
    faults = Faults()
    async with AsyncExitStack() as stack:
        for name in ("one", "many", "slots"):
            (folder / name).mkdir()
        (folder / "code.txt").write_text("T <{message}>")
        prefixes = {"@code": str(folder / "code.txt")}
        engine = await stack.enter_async_context(FakeEngine(slot_folder=folder / "slots"))
        one = running_app(folder / "one", backend_url=engine.url, prefixes=prefixes, log={"level": "error"})
        words = f"{sys.executable} -I -S {FAKE} --port ${{PORT}} --model ${{MODEL_ID}}"
        models = {"a": {"cmd": words, "aliases": ["alias"]}, "b": {"cmd": words}}
        many = running_app(
            folder / "many", models=models, prefixes=prefixes, log={"level": "error"}, logToStdout="none"
        )
        apps = [await stack.enter_async_context(one), await stack.enter_async_context(many)]
        await engine_ready(apps[0])
        stack.callback(logging.getLogger("asyncio").removeHandler, faults)
        yield Ports(apps, faults)
        await assert_nothing_held(apps[0])
        await until(lambda: not apps[1].management.inflight.exchanges)
