"""`log.format: json`: everything on standard error is an object with named fields, of one engine and of many models."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from bioproxy.app import App
from fakes.fake_engine import FakeEngine
from support.apps import engine_ready, running_app
from support.http import call
from support.leaks import until

CHAT = {"model": "a", "max_tokens": 2, "messages": [{"role": "user", "content": "hello"}]}
# an engine that writes a line for each request, and answers it once it is told to go on
ENGINE = """
import http.server, sys, threading
go = threading.Event()
class Engine(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        print("slot launch_slot_: id  0 | task 7 | processing task", file=sys.stderr, flush=True)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        go.wait()
        self.wfile.write(b"{}")
    def do_GET(self):
        if self.path == "/go":
            go.set()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Engine).serve_forever()
"""


@asynccontextmanager
async def logging_app(folder: Path, **values: Any) -> AsyncIterator[tuple[App, list[dict[str, Any]]]]:
    """A program that logs as JSON; what it wrote to standard error stands in the list once it has ended."""
    reader, writer = os.pipe()
    entries: list[dict[str, Any]] = []

    def into_pipe(app: App) -> None:
        app.console.descriptor = writer
        app.set_up_log(app.loaded)

    async with running_app(folder, adjust=into_pipe, log={"format": "json"}, **values) as app:
        yield app, entries
        logging.getLogger("bioproxy.test").warning("a line of ours\nin two")
        try:
            int("a fault")
        except ValueError:
            logging.getLogger("bioproxy.test").exception("it failed")
    await app.close_log()
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        entries += [json.loads(line) for line in await asyncio.to_thread(pipe.read().splitlines)]


def of(entries: list[dict[str, Any]], logger: str) -> list[dict[str, Any]]:
    return [entry for entry in entries if entry["logger"] == logger]


async def chat(app: App, identity: str) -> None:
    """One chat with an id that its client chose."""
    headers = {"X-Request-Id": identity, "User-Agent": "test", "Content-Type": "application/json"}
    answer = await call(app.proxy_port, "POST", "/v1/chat/completions", body=json.dumps(CHAT).encode(), headers=headers)
    assert answer.status == 200


async def test_many_models(tmp_path: Path) -> None:
    """Our lines, the access log and the engine's lines: each once, and all of one request by its id."""
    models = {"a": {"cmd": f"{sys.executable} {tmp_path / 'engine.py'} ${{PORT}}", "checkEndpoint": "/health"}}
    (tmp_path / "engine.py").write_text(ENGINE)
    async with logging_app(tmp_path, models=models, logToStdout="both") as (app, entries):
        asked = aio.spawn(chat(app, "the-request"), name="chat")
        with app.logbook.upstream.subscribe() as output:
            assert b"task 7" in await anext(output)
        works = app.engine_lines.works  # the thread that reads the output may not have come to it
        await until(lambda: any(7 in work.tasks for work in works.get("a", {}).values()))
        await call(app.proxy_port, "GET", "/upstream/a/go")
        await asked
    (access,) = [entry for entry in of(entries, "bioproxy.access") if entry["request_id"] == "the-request"]
    assert (access["method"], access["path"], access["status"]) == ("POST", "/v1/chat/completions", 200)
    assert (access["model"], access["agent"], access["address"]) == ("a", "test", "127.0.0.1")
    assert access["total"] >= access["swap"] > 0
    (launched,) = [entry for entry in of(entries, "engine") if "task 7" in entry["message"]]
    assert (launched["request_id"], launched["model"]) == ("the-request", "a")
    assert [entry["message"] for entry in of(entries, "bioproxy.test")] == ["a line of ours\nin two", "it failed"]
    (failed,) = [entry for entry in entries if "exception" in entry]
    assert failed["exception"].splitlines()[-1].startswith("ValueError: ")
    assert all(datetime.fromisoformat(entry["time"]).tzinfo for entry in entries)


@pytest.mark.parametrize("to", ["proxy", "none"])
async def test_what_goes_where(tmp_path: Path, to: str) -> None:
    """`logToStdout` counts as it does for plain lines; the logs to be followed stay as llama-swap writes them."""
    async with logging_app(tmp_path, models={"a": {"cmd": "true ${PORT}"}}, logToStdout=to) as (app, entries):
        await call(app.proxy_port, "GET", "/v1/models")
    assert bool(of(entries, "bioproxy.access")) == bool(of(entries, "bioproxy.test")) == (to == "proxy")
    assert b'[INFO] Request 127.0.0.1 "GET /v1/models HTTP/1.1" 200' in app.logbook.proxy.history()


async def test_one_engine(tmp_path: Path) -> None:
    """It has an access log, too, as JSON."""
    async with FakeEngine() as engine, logging_app(tmp_path, backend_url=engine.url) as (app, entries):
        await engine_ready(app)
        await chat(app, "the-request")
    (access,) = of(entries, "bioproxy.access")
    assert (access["request_id"], access["status"], access["tokens_generated"]) == ("the-request", 200, 2)
