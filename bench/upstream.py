"""An engine that computes nothing, so that only the proxy in front of it is measured.

`python -m bench.upstream PORT SLOTS`: answers what bioproxy asks at attach, a small JSON to a chat request and to
/tokenize, and with `"stream": true` as many events as `max_tokens` says at `x-rate` events a second (0: as fast as they
go), each with its number, so that a reader sees losses and reordering.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httptools
import uvloop

PROPS = {
    "total_slots": int(sys.argv[2]) if len(sys.argv) > 2 else 16,
    "model_path": "bench",
    "chat_template": "",
    "build_info": "bench",
    "default_generation_settings": {"n_ctx": 4096},
}
USAGE = {"usage": {"prompt_tokens": 8, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 7}}}
CHAT = json.dumps(
    {"id": "1", "object": "chat.completion", "choices": [{"index": 0, "message": {"content": "Hello."}}], **USAGE}
).encode()


def plain(status: int, body: bytes) -> bytes:
    """A whole answer."""
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status,
        len(body),
        body,
    )


class Upstream(asyncio.Protocol):
    """One connection; requests are answered in order."""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.stream: asyncio.TimerHandle | None = None
        self.on_message_begin()

    def connection_lost(self, _: Exception | None) -> None:
        """End a stream whose reader left."""
        if self.stream is not None:
            self.stream.cancel()

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Start a request."""
        self.url, self.body, self.rate = b"", b"", 0.0

    def on_url(self, url: bytes) -> None:
        """Collect the target."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note the wanted rate."""
        if name.lower() == b"x-rate":
            self.rate = float(value)

    def on_body(self, body: bytes) -> None:
        """Collect the body."""
        self.body += body

    def on_message_complete(self) -> None:
        """Answer."""
        if self.url == b"/health":
            self.transport.write(plain(200, b'{"status":"ok"}'))
        elif self.url == b"/props":
            self.transport.write(plain(200, json.dumps(PROPS).encode()))
        elif self.url.startswith((b"/v1/chat", b"/plain", b"/tokenize")):
            if b'"stream":true' in self.body:
                self.begin(int(json.loads(self.body)["max_tokens"]))
            else:
                self.transport.write(plain(200, CHAT))
        else:
            self.transport.write(plain(404, b"{}"))

    def begin(self, count: int) -> None:
        """Send the head, then events at the wanted rate."""
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self.next = 0
        self.count = count
        self.loop = asyncio.get_running_loop()
        self.due = self.loop.time()
        self.event()

    def event(self) -> None:
        """Send one event and set the next one's time; the last is followed by the end of the stream."""
        data = b'data: {"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%d"}}]}\n\n'
        if self.next == self.count:
            done = b"data: [DONE]\n\n"
            self.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(done), done))
            self.stream = None
            return
        piece = data % self.next
        self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.next += 1
        self.due += 1 / self.rate if self.rate else 0
        self.stream = self.loop.call_at(self.due, self.event)


async def main(port: int) -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
