"""`bioproxy serve` as a process before a fake engine: signals, ports, reload, and the verbs that ask it."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from fakes.fake_engine import FakeEngine
from support.command import Serving, run, serving
from support.http import build, call, certificate, needs_openssl, parse
from support.kv_rig import text


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[FakeEngine]:
    async with FakeEngine(slot_folder=tmp_path / "slots", decode_rate=200) as running:
        yield running


def configure(folder: Path, engine: FakeEngine, **config: Any) -> Path:
    """A configuration for free ports, with the template @code."""
    (folder / "code.txt").write_text(text(600, "code") + "<{message}>")
    values = {
        "proxy_port": 0,
        "admin_port": 0,
        "backend_url": engine.url,
        "prefixes": {"@code": "code.txt"},
        "state_directory": str(folder / "state"),
        "shutdown_timeout": 5,
        "kv": {"min_free": 0, "min_seconds": 0, "directory": str(folder / "slots")},
        "warmup": {"settle": 0},
    }
    path = folder / "conf.json"
    path.write_text(json.dumps(values | config))
    return path


async def ready(served: Serving) -> None:
    """Wait until the template is warm."""
    await served.line("@code is saved")


async def listed(admin: int, *, key: str) -> None:
    """Wait until a snapshot is listed: it is whole a moment after the template is warm."""

    async def look() -> bool | None:
        answer = await call(admin, "GET", "/status", headers={"Authorization": f"Bearer {key}"})
        return True if answer.json()["snapshots"] else None

    assert await aio.poll(look, interval=0.01, deadline=30)


async def asked(engine: FakeEngine) -> None:
    """Wait until a chat request has reached the engine."""

    async def look() -> bool | None:
        return True if await engine.requests("/v1/chat/completions") else None

    assert await aio.poll(look, interval=0.01, deadline=30)


async def test_it_serves_and_ends_with_0(tmp_path: Path, engine: FakeEngine) -> None:
    """The banner names both ports and the configuration; SIGTERM ends it in order."""
    path = configure(tmp_path, engine)
    async with serving(tmp_path, "-config", str(path)) as served:
        proxy, admin = await served.ports()
        await served.line("is ready")
        assert (await call(proxy, "GET", "/health")).status == 200
        assert (await call(admin, "GET", "/livez")).status == 200
        await served.line(str(path))
        assert await served.end() == 0
        assert "stopped" in served.log[-1]


async def test_a_stream_is_finished_before_the_end(tmp_path: Path, engine: FakeEngine) -> None:
    """SIGTERM lets an answer under way come to its end."""
    async with serving(tmp_path, "-config", str(configure(tmp_path, engine))) as served:
        proxy, _ = await served.ports()
        await ready(served)
        body = {"messages": [{"role": "user", "content": "@code go on"}], "max_tokens": 60, "stream": True}
        answer = aio.spawn(call(proxy, "POST", "/v1/chat/completions", data=body), name="client")
        await asked(engine)
        served.send(signal.SIGTERM)
        assert (await answer).text.rstrip().endswith("data: [DONE]")
        assert await served.process.wait() == 0


async def test_the_second_signal_ends_at_once(tmp_path: Path, engine: FakeEngine) -> None:
    """Who presses Ctrl-C twice does not wait for a stream: 130, and 143 for SIGTERM."""
    async with serving(tmp_path, "-config", str(configure(tmp_path, engine))) as served:
        proxy, _ = await served.ports()
        await ready(served)
        await engine.faults(stuck=True)
        body = {"messages": [{"role": "user", "content": "hello"}]}
        hanging = aio.spawn(call(proxy, "POST", "/v1/chat/completions", data=body), name="client")
        await asked(engine)
        served.send(signal.SIGINT)
        await served.line("stopping")
        assert await served.end(signal.SIGINT) == 130
        await asyncio.wait([hanging])
        assert hanging.exception() is not None


async def test_a_port_that_is_taken_is_1(tmp_path: Path, engine: FakeEngine) -> None:
    """The sentence names the port."""
    path = configure(tmp_path, engine)
    ended = await run(tmp_path, "serve", "-config", str(path), "-host", "127.0.0.1", "-port", str(engine.port))
    assert ended.code == 1
    assert str(engine.port) in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err


async def test_a_broken_configuration_is_1(tmp_path: Path, engine: FakeEngine) -> None:
    """Nothing is started."""
    ended = await run(tmp_path, "-config", str(configure(tmp_path, engine, queue_limit=0)))
    assert ended.code == 1
    assert "queue_limit" in ended.err


async def test_what_is_odd_about_the_configuration_is_logged_as_a_warning(tmp_path: Path, engine: FakeEngine) -> None:
    """So it stands in the log with `log.level: warning`, too."""
    path = configure(tmp_path, engine, log={"level": "warning", "format": "json"})
    async with serving(tmp_path, "-config", str(path), BIOPROXY_PROXY_PROT="1") as served:
        assert json.loads(await served.line("BIOPROXY_PROXY_PROT"))["level"] == "warning"


async def test_hangup_reloads(tmp_path: Path, engine: FakeEngine) -> None:
    """SIGHUP takes over a good file, and says of a bad one that nothing was changed."""
    path = configure(tmp_path, engine)
    async with serving(tmp_path, "-config", str(path)) as served:
        await ready(served)
        path.write_text("{broken")
        served.send(signal.SIGHUP)
        await served.line("nothing was changed")
        (tmp_path / "manual.txt").write_text(text(400, "manual") + "<{message}>")
        prefixes = {"@code": "code.txt", "@manual": "manual.txt"}
        configure(tmp_path, engine, prefixes=prefixes)
        served.send(signal.SIGHUP)
        await served.line("@manual is saved")


async def test_a_changed_file_is_a_reload(tmp_path: Path, engine: FakeEngine) -> None:
    """With -watch-config, and with nobody's signal; a file that is broken changes nothing."""
    path = configure(tmp_path, engine)
    async with serving(tmp_path, "-config", str(path), "-watch-config") as served:
        await served.line("watching configuration for changes (poll-based, 2s interval)")
        await ready(served)
        path.write_text("{broken")
        await served.line("nothing was changed")
        configure(tmp_path, engine, queue_limit=7)
        await served.line("configuration reloaded; changed: queue_limit")


async def test_the_log_tells_where_it_listens(tmp_path: Path, engine: FakeEngine) -> None:
    """In llama-swap's words, and warns where other machines may connect."""
    words = ("-config", str(configure(tmp_path, engine)), "-listen", ":0", "-watch-config=false")
    async with serving(tmp_path, *words) as served:
        port, _ = await served.ports()
        await served.line(f"listening on http://:{port}")
        await served.line(f"reachable by all hosts on the network, use -listen localhost:{port}")
        assert (await call(port, "GET", "/health")).status == 200


@needs_openssl
async def test_the_proxy_port_speaks_tls(tmp_path: Path, engine: FakeEngine) -> None:
    """With the two files; the admin port stays as it is."""
    made = certificate(tmp_path)
    words = ("-config", str(configure(tmp_path, engine)), "-tls-cert-file", made.cert, "-tls-key-file", made.key)
    async with serving(tmp_path, *words) as served:
        line = await served.line("listening with TLS on https://localhost:")
        context = ssl.create_default_context(cafile=made.cert)
        reader, writer = await asyncio.open_connection("localhost", int(line.rpartition(":")[2]), ssl=context)
        writer.write(build("GET", "/health"))
        assert parse(await reader.read(), "GET").status == 200
        writer.close()
        assert await served.end() == 0


async def test_status_warm_and_snapshots(tmp_path: Path, engine: FakeEngine) -> None:
    """The verbs ask the program that the same configuration describes."""
    path = configure(tmp_path, engine, admin_key="secret")
    async with serving(tmp_path, "-config", str(path)) as served:
        _, admin = await served.ports()
        await ready(served)
        words = ("-config", str(path), "-admin-port", str(admin))
        status = await run(tmp_path, "status", *words)
        assert status.code == 0, status.err
        assert "ready" in status.out
        assert "saved" in status.out
        assert (await run(tmp_path, "status", "--json", *words)).json()["warmup"]["targets"][0]["prefix"] == "@code"
        warm = await run(tmp_path, "warm", "@code", *words)
        assert warm.code == 0, warm.err
        assert warm.out.startswith("@code (bare): saved")
        assert "there is no prefix @x" in (await run(tmp_path, "warm", "@x", *words)).err
        await listed(admin, key="secret")
        assert "template @code" in (await run(tmp_path, "snapshots", "list", *words)).out
        assert (await run(tmp_path, "snapshots", "list", "--json", *words)).json()[0]["template"] is True
        assert (await run(tmp_path, "snapshots", "verify", *words)).code == 0
        [row] = (await run(tmp_path, "snapshots", "list", "--json", *words)).json()
        assert (await run(tmp_path, "snapshots", "pin", row["id"], *words)).code == 0
        assert "pinned" in (await run(tmp_path, "snapshots", "list", *words)).out.splitlines()[1]
        assert (await run(tmp_path, "snapshots", "unpin", row["name"], *words)).code == 0
        assert (await run(tmp_path, "snapshots", "delete", row["id"], *words)).code == 0
        assert "there is no snapshot" in (await run(tmp_path, "snapshots", "delete", row["id"], *words)).err
        assert "takes the name or id of one" in (await run(tmp_path, "snapshots", "pin", *words)).err
        refused = await run(tmp_path, "status", "-config", str(path), "-admin-port", str(admin), "-admin-key", "wrong")
        assert refused.code == 1


async def test_a_damaged_snapshot_is_found(tmp_path: Path, engine: FakeEngine) -> None:
    """`snapshots verify` reads the files, also when nothing runs, and ends with 1 for a cut one."""
    path = configure(tmp_path, engine)
    async with serving(tmp_path, "-config", str(path)) as served:
        await ready(served)
        await served.end()
    file = max((tmp_path / "slots").glob("bp-*.kv"), key=lambda one: one.stat().st_size)
    told = await run(tmp_path, "snapshots", "list", "-config", str(path), "-admin-port", "1")
    assert "template @code" in told.out
    file.write_bytes(file.read_bytes()[:-1])
    ended = await run(tmp_path, "snapshots", "verify", "-config", str(path), "-admin-port", "1")
    assert ended.code == 1
    assert "bytes" in ended.out


async def test_status_is_1_without_an_engine(tmp_path: Path) -> None:
    """The program runs and serves nobody: a script can tell."""
    path = tmp_path / "conf.json"
    path.write_text(json.dumps({"proxy_port": 0, "admin_port": 0, "backend_url": "http://127.0.0.1:1"}))
    async with serving(tmp_path, "-config", str(path)) as served:
        _, admin = await served.ports()
        ended = await run(tmp_path, "status", "-config", str(path), "-admin-port", str(admin))
        assert ended.code == 1
        assert "absent" in ended.out
        assert "nothing is known while there is no engine" in ended.out
