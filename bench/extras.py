"""What is off until somebody switches it on: captures with one engine, and spans; each beside the same program without.

The spans are sent, to a collector that takes them and does nothing with them: the thread that sends them is part of the
cost.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from bench import peers
from bench.report import Row, verdict
from bioproxy.engines.launch import free_port

SMALL: dict[str, Any] = {"path": "/v1/chat/completions", "clients": 1, "each": 800}
STREAM: dict[str, Any] = {"path": "/v1/chat/completions", "clients": 4, "each": 4, "events": 500}
COLLECTOR = """\
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer()
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer()
    def answer(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("127.0.0.1", {port}), Collector).serve_forever()
"""


@contextlib.contextmanager
def traced(engine: int) -> Iterator[tuple[int, int]]:
    """A bioproxy that sends spans: (port, pid)."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        stack.enter_context(peers.running([sys.executable, "-c", COLLECTOR.format(port=port)]))
        peers.wait_for(port)
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{port}"
        stack.callback(os.environ.pop, "OTEL_EXPORTER_OTLP_ENDPOINT")
        yield stack.enter_context(peers.bioproxy(engine, tracing=True))


def measure() -> list[Row]:
    """Three rows."""
    with (
        peers.upstream(slots=16) as engine,
        peers.bioproxy(engine) as plain,
        peers.bioproxy(engine, ui={"captures": "5MB"}) as captured,
        traced(engine) as spans,
    ):
        small, kept = peers.paired(plain, captured, **SMALL)
        stream, more = peers.paired(plain, captured, **STREAM)
        without, sent = peers.paired(plain, spans, **SMALL)
    share = more / stream
    return [
        Row(
            "CPU that captures add to a small chat", f"{kept:.0f} µs", f"without: {small:.0f} µs", "≤ 30 µs", kept <= 30
        ),
        Row("… to a stream of 500 events", f"{share:.0%}", f"without: {stream:.0f} µs", "≤ 30 %", share <= 0.3),
        Row(
            "CPU that spans add to a small chat",
            f"{sent:.0f} µs",
            f"without: {without:.0f} µs",
            "≤ 300 µs",
            sent <= 300,
        ),
    ]


if __name__ == "__main__":
    print(verdict("Captures and spans", measure()))
