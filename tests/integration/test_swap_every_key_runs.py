"""The config with every key of llama-swap's does not only load: a program runs with it, and serves."""

from __future__ import annotations

import shlex
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bioproxy.app import App
from bioproxy.config.load import Loaded, load
from support.http import Answer, call
from support.swap_models import ENGINE, EVERY_KEY, Ports

Json = Any
KEY = {"Authorization": "Bearer sk-two"}


SERVER = """\
#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = --port ] && port=$2; shift; done
exec {engine} --model any --events {events} --port "$port"
"""


def with_fakes(text: str, folder: Path, ports: Ports) -> str:
    """The config with a program that starts the fake engine in place of the real one, and its files in `folder`."""
    engine = shlex.join([sys.executable, "-I", "-S", str(ENGINE)])
    server = folder / "llama-server"
    server.write_text(SERVER.format(engine=engine, events=shlex.quote(str(folder / "events"))))
    server.chmod(0o755)
    for name in ("code.txt", "manual.txt"):
        (folder / name).write_text("Some text.\n<{message}>")
    return (
        text.replace("/usr/bin/llama-server", str(server))
        .replace("activity-of-this-test.db", str(folder / "activity.db"))
        .replace("cmdStop: /usr/bin/stop --pid ${PID} --port ${PORT}", "cmdStop: kill ${PID}")
        .replace("startPort: 10001", f"startPort: {ports.models}")
    )


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    """The program, on ports that are free."""
    ports = Ports()
    path = tmp_path / "config.yaml"
    path.write_text(with_fakes(EVERY_KEY.read_text(), tmp_path, ports))

    def read(ports: Mapping[str, int] | None = None) -> Loaded:
        environment = {"HOME": str(tmp_path), "SECOND_KEY": "sk-two"}
        flags = {"admin_port": "0", "proxy_port": "0", "proxy_host": "127.0.0.1"}
        return load(flags, path=str(path), environment=environment, ports=ports)

    app = App(read(), reload=read)
    await app.start()
    yield app
    await app.stop(2.0)
    await app.close_log()
    ports.close()


async def ask(app: App, method: str, target: str, body: Json = None) -> Answer:
    """One request with a key."""
    return await call(app.proxy_port, method, target, data=body, headers=KEY)


async def test_it_serves(app: App) -> None:
    """Its first model is started, asked by an alias, filtered and renamed as the config says."""
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "gpt-4o-mini", "temperature": 2, "messages": messages}
    answer = await ask(app, "POST", "/v1/chat/completions", body)
    assert answer.status == 200, answer.text
    listed = (await ask(app, "GET", "/v1/models")).json()["data"]
    assert {"qwen", "embed", "voice"} <= {one["id"] for one in listed}
    running = (await ask(app, "GET", "/running")).json()["running"]
    assert [(one["model"], one["state"]) for one in running] == [("llama", "ready")]


async def test_it_is_reloaded_without_a_change(app: App) -> None:
    """What it is compared with is what it was."""
    assert await app.reload() == ()
