"""A llama-server that computes nothing: `python tests/fakes/llama_server.py --port 0 --slot-save-path DIR`.

It prints `listening on PORT` and behaves as the real one was seen to, faults included (facts of its behaviour are
pinned by tests/integration/test_conformance.py, which asks the same of both). Standard library only, nothing of
bioproxy. Beyond llama-server's own routes:

    GET  /fake/requests   every request that came in, in order      DELETE forgets them
    GET  /fake/state      slots with their tokens, queues, totals, violations
    GET  /fake/faults     the faults that are on; POST switches them (see fake_faults.py)
    GET  /ws              a websocket that echoes
    any other path        echoes method, path, query, headers and body as JSON
"""

from __future__ import annotations

import sys

sys.modules["ssl"] = None  # type: ignore[assignment] # asyncio does without: 12 ms of each start

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import signal
import time
from collections import deque
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fakes.fake_core import Core, Settings
from fakes.fake_faults import Faults
from fakes.fake_files import writable
from fakes.fake_routes import PUBLIC, Routes
from fakes.plain_http import Call, Connection, Reply, serve

Json = Any


class FakeServer:
    """The program: faults first, then llama-server's routes, then the echo."""

    def __init__(self, options: argparse.Namespace, command: list[str]) -> None:
        self.options, self.command = options, command
        self.faults = Faults()
        self.faults.update(json.loads(options.faults))
        self.core = Core(settings_from(options), self.faults)
        self.routes = Routes(self.core, self.faults, options)
        self.requests: deque[Json] = deque(maxlen=options.keep_requests)
        self.open: set[Connection] = set()
        self.stopping = asyncio.Event()

    async def handle(self, call: Call, reply: Reply, connection: Connection) -> None:
        """One request."""
        if call.path.startswith("/fake/"):
            self.control(call, reply)
            return
        self.requests.append(self.record(call))
        self.open.add(connection)
        try:
            await self.answer(call, reply, connection)
        finally:
            self.open.discard(connection)

    async def answer(self, call: Call, reply: Reply, connection: Connection) -> None:
        """Faults, the key, loading, then the routes."""
        if how := self.faults.strikes(call.path):
            await self.misbehave(how, reply)
        elif self.options.api_key and call.path not in PUBLIC and not self.has_key(call):
            reply.error(401, "Invalid API Key", "authentication_error")
        elif self.faults.is_loading():
            reply.error(503, "Loading model", "unavailable_error")
        elif call.path == "/ws":
            echo_websocket(call, reply, connection)
        elif not await self.routes.answer(call, reply):
            reply.send(int(call.query.get("status", "200")), {**self.record(call), "echo": True})

    async def misbehave(self, how: str, reply: Reply) -> None:
        """The broken answer that a fault asks for."""
        if how == "hang":
            await reply.gone.wait()
        elif how == "status":
            reply.error(self.faults.status, self.faults.message, "server_error")
        else:
            reply.broken(how)

    def has_key(self, call: Call) -> bool:
        """Whether the request carries the API key."""
        return self.options.api_key in (call.header("authorization").removeprefix("Bearer "), call.header("x-api-key"))

    def record(self, call: Call) -> Json:
        """A request as /fake/requests and the echo show it; a long body only by its checksum."""
        return {
            "method": call.method,
            "target": call.target,
            "path": call.path,
            "query": call.query,
            "headers": call.headers,
            "body": call.body.decode("utf-8", "replace") if len(call.body) <= 1 << 20 else "",
            "bytes": len(call.body),
            "sha256": hashlib.sha256(call.body).hexdigest(),
            "at": time.time(),
        }

    def control(self, call: Call, reply: Reply) -> None:
        """The routes under /fake/."""
        name = call.path.removeprefix("/fake/")
        if name == "faults" and call.method == "POST":
            try:
                self.faults.update(call.json())
            except ValueError as error:
                reply.error(400, str(error), "invalid_request_error")
                return
            self.core.wake.set()
        if name == "requests" and call.method == "DELETE":
            self.requests.clear()
        views = {"faults": self.faults.view, "requests": lambda: list(self.requests), "state": self.routes.state}
        reply.send(200, views[name]()) if name in views else reply.error(404, name, "not_found_error")

    async def run(self) -> None:
        """Listen until SIGTERM; with open requests exit only when their clients have closed, as the real one."""
        options = self.options
        server = await serve(
            self.handle, options.host, options.port, requests=options.keep_alive, idle=options.keep_alive_timeout
        )
        loop = asyncio.get_running_loop()
        for number in () if sys.platform == "win32" else (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        thread = loop.create_task(self.core.run())
        name = server.sockets[0].getsockname()
        print(f"listening on {name if isinstance(name, str) else name[1]}", flush=True)
        await self.stopping.wait()
        thread.cancel()
        server.close()
        while self.open:
            await next(iter(self.open)).gone.wait()
            self.open = {each for each in self.open if not each.gone.is_set()}


def settings_from(options: argparse.Namespace) -> Settings:
    """How the inside is set up; llama-server's words become ours."""
    return Settings(
        slots=options.parallel,
        context=options.ctx_size,
        batch=options.batch_size,
        prompt_rate=options.tokens_per_second,
        decode_rate=options.decode_rate,
        folder=options.slot_save_path,
        ram=options.cache_ram != 0,
        weights=options.weights,
        shape=options.shape,
        bytes_per_token=options.bytes_per_token,
        predict=options.predict,
        poll=options.disconnect_poll,
    )


def echo_websocket(call: Call, reply: Reply, connection: Connection) -> None:
    """Upgrade, then send every frame's payload back in a frame of the same kind."""
    key = call.header("sec-websocket-key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    reply.raw(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
    )
    reply.ended = True
    buffer = bytearray()

    def frames(data: bytes) -> None:
        buffer.extend(data)
        while (frame := take_frame(buffer)) is not None:
            code, payload = frame
            head = bytes([0x80 | code]) + (
                bytes([len(payload)]) if len(payload) < 126 else bytes([126]) + len(payload).to_bytes(2, "big")
            )
            reply.raw(head + payload)
            if code == 8:
                reply.transport.close()

    connection.tunnel = frames
    frames(bytes(connection.buffer))


def take_frame(buffer: bytearray) -> tuple[int, bytes] | None:
    """One whole frame of at most 64 KiB off the front: its code and its unmasked payload."""
    if len(buffer) < 2:
        return None
    size, start = buffer[1] & 0x7F, 2
    if size == 126:
        size, start = int.from_bytes(buffer[2:4], "big"), 4
    masked = bool(buffer[1] & 0x80)
    end = start + 4 * masked + size
    if len(buffer) < end or (start == 4 and len(buffer) < 4):
        return None
    mask = buffer[start : start + 4] if masked else b"\0\0\0\0"
    payload = bytes(byte ^ mask[place % 4] for place, byte in enumerate(buffer[end - size : end]))
    code = buffer[0] & 0x0F
    del buffer[:end]
    return code, payload


def parser() -> argparse.ArgumentParser:
    """The flags: llama-server's where it has one, then the fake's own."""
    words = argparse.ArgumentParser(description="a llama-server that computes nothing", allow_abbrev=False)
    add = words.add_argument
    add("-m", "--model", default=str(Path(__file__).with_name("fake.gguf")))
    add("-a", "--alias", default="")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=0)
    add("-np", "--parallel", type=int, default=1)
    add("-c", "--ctx-size", type=int, default=32768)
    add("-b", "--batch-size", type=int, default=512)
    add("--slot-save-path", default="")
    add("--cache-ram", type=int, default=8192)
    add("--api-key", default="")
    add("--metrics", action="store_true")
    add("--no-slots", action="store_true")
    add("--no-ui", action="store_true")
    add("--mmproj", default="")
    add("--tokens-per-second", type=float, default=0.0, help="prompt tokens a second; 0: at once")
    add("--decode-rate", type=float, default=0.0, help="generated tokens (events) a second; 0: at once")
    add("--predict", type=int, default=16, help="tokens generated where the request does not say")
    add("--build", default="b11549-fake")
    add("--weights", default="weights", help="whose weights: decides the text that is generated")
    add("--shape", default="tiny", help="the model's shape: files of another shape are refused")
    add("--bytes-per-token", type=int, default=64)
    add("--fold-system", action="store_true", help="a chat template that folds the system message")
    add("--disconnect-poll", type=float, default=0.1, help="seconds; the real one's is 1")
    add("--keep-alive", type=int, default=100, help="requests per connection")
    add("--keep-alive-timeout", type=float, default=5.0)
    add("--keep-requests", type=int, default=5000)
    add("--no-tokenize", action="store_true", help="/tokenize and /apply-template are not there")
    add("--faults", default="{}", help="JSON, as POST /fake/faults takes it")
    return words


async def main(arguments: list[str]) -> int:
    """Start; 1 where the slot folder is no folder."""
    options = parser().parse_args(arguments)
    if options.slot_save_path and not writable(options.slot_save_path):
        print(f"error: not a directory: {options.slot_save_path}", file=sys.stderr)
        return 1
    await FakeServer(options, arguments).run()
    return 0


def run(arguments: list[str]) -> int:
    """Serve to the end; the exit code."""
    with contextlib.suppress(KeyboardInterrupt):
        return asyncio.run(main(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
