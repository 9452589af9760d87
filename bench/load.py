"""Clients that count: `python -m bench.load small|streams PORT …` prints one JSON line of what they saw.

A process of its own, so that its CPU never counts as the proxy's. Answers are parsed with httptools; every event of a
stream carries its number, and a number that is missing or out of order is counted.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import ssl
import sys
import time
from typing import Any

import httptools
import uvloop

NUMBER = re.compile(rb'"content":"(\d+)"')


def request(path: str, body: bytes, *, rate: float = 0.0) -> bytes:
    """A POST as a client sends it."""
    return (
        b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nx-rate: %f\r\n"
        b"User-Agent: bench\r\nAccept: */*\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), rate, len(body), body)
    )


class Client(asyncio.Protocol):
    """One connection that sends the same request `count` times, one after the other."""

    def __init__(self, payload: bytes, count: int, done: asyncio.Future[None]) -> None:
        self.payload, self.left, self.done = payload, count, done
        self.latencies: list[float] = []
        self.heard = 0.0
        self.gap = 0.0  # the longest time in which the answer did not go on
        self.events = self.lost = 0
        self.next = 0
        self.rest = b""

    def connection_made(self, transport: Any) -> None:
        """Send the first."""
        self.transport = transport
        self.send()

    def send(self) -> None:
        """Send one request with a new parser for its answer."""
        self.parser = httptools.HttpResponseParser(self)
        self.next, self.rest = 0, b""
        self.sent = time.perf_counter()
        self.transport.write(self.payload)

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Count events and see that their numbers rise by one."""
        if b'"content":"' not in body and not self.rest:
            return
        now = time.perf_counter()
        self.gap = max(self.gap, now - self.heard if self.next else 0.0)
        self.heard = now
        *whole, self.rest = (self.rest + body).split(b"\n\n")
        for event in whole:
            if found := NUMBER.search(event):
                self.lost += int(found[1]) != self.next
                self.next = int(found[1]) + 1
                self.events += 1

    def on_message_complete(self) -> None:
        """Note the time; send the next, or end."""
        self.latencies.append(time.perf_counter() - self.sent)
        if self.parser.get_status_code() != 200:
            self.lost += 1
        self.left -= 1
        if self.left:
            asyncio.get_running_loop().call_soon(self.send)
        elif not self.done.done():
            self.done.set_result(None)
            self.transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        """A connection that ends too early is a loss."""
        if not self.done.done():
            self.lost += 1
            self.done.set_result(None)


def unverified() -> ssl.SSLContext:
    """What believes in any certificate: ours was made a moment ago."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def same(protocol: Client) -> Client:
    """What create_connection calls for its protocol."""
    return protocol


async def run(port: int, payload: bytes, *, clients: int, each: int, tls: bool = False) -> dict[str, float]:
    """Run `clients` connections of `each` requests; counts and latencies of all."""
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    protocols = []
    for _ in range(clients):
        protocol = Client(payload, each, loop.create_future())
        context = unverified() if tls else None
        await loop.create_connection(functools.partial(same, protocol), "127.0.0.1", port, ssl=context)
        protocols.append(protocol)
    await asyncio.gather(*(protocol.done for protocol in protocols))
    latencies = sorted(latency for protocol in protocols for latency in protocol.latencies)
    return {
        "requests": len(latencies),
        "p50": latencies[len(latencies) // 2],
        "p99": latencies[len(latencies) * 99 // 100],
        "events": sum(protocol.events for protocol in protocols),
        "lost": sum(protocol.lost for protocol in protocols),
        "seconds": time.perf_counter() - started,
        "gap": max(protocol.gap for protocol in protocols),
    }


def main() -> None:
    """`PORT PATH CLIENTS EACH BODY_BYTES EVENTS RATE MODEL [tls]`; EVENTS 0 asks for a plain answer."""
    port, path, clients, each, size, events, rate, model, *tls = sys.argv[1:]
    fields = {"model": model, "stream": int(events) > 0, "max_tokens": int(events)}
    message = {"role": "user", "content": "x" * int(size)}
    body = json.dumps({**fields, "messages": [message]}, separators=(",", ":")).encode()
    payload = request(path, body, rate=float(rate))
    print(json.dumps(uvloop.run(run(int(port), payload, clients=int(clients), each=int(each), tls=bool(tls)))))


if __name__ == "__main__":
    main()
