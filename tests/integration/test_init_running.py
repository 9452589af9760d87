"""`bioproxy init` beside servers that run already: which they are, and what it makes of them."""

from __future__ import annotations

import asyncio
import io
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bioproxy.cli import machine, running
from bioproxy.cli.main import main
from bioproxy.engines import library
from bioproxy.engines.listener import LINUX
from bioproxy.engines.placement import Machine
from fakes.fake_engine import FakeEngine
from support.apps import running_app
from support.command import serving
from support.gguf_files import QWEN, write
from support.http import call, free_port

Json = Any
LLAMA = Path(__file__).parents[1] / "fakes" / "llama_server.py"


async def other(owner: str, names: list[str]) -> asyncio.Server:
    """A server with the list of models that every one has, and nothing else."""
    listed = msgspec.json.encode({"object": "list", "data": [{"id": name, "owned_by": owner} for name in names]})

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        status, body = ("200 OK", listed) if head.startswith(b"GET /v1/models ") else ("404 Not Found", b"{}")
        writer.write(f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


def port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with nothing in it, on a machine without an engine."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(library, "EVERYBODYS", ())
    monkeypatch.setattr(running, "processes", list)
    monkeypatch.setattr(machine, "look", lambda _: machine.Here(machine=Machine(memory=64 << 30), program=("sh",)))
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "OLLAMA_MODELS", "BIOPROXY_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


async def written(home: Path, monkeypatch: pytest.MonkeyPatch, *ports: int) -> str:
    """The file that `init --yes` writes beside servers on these ports."""
    monkeypatch.setattr(running, "USUAL", ports)
    assert await asyncio.to_thread(main, ["init", "--yes"]) == 0
    return (home / ".config" / "bioproxy" / "config.yaml").read_text()


async def test_the_only_llama_server_becomes_the_backend(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what its flags lack, so that its cache would be kept."""
    async with FakeEngine() as engine:
        text = await written(home, monkeypatch, engine.port)
    assert text.startswith("# yaml-language-server: $schema=bioproxy.schema.json\n")
    assert f"backend_url: {engine.url}     # llama-server, with " in text
    assert "# its KV cache is lost when it stops: start it with --slot-save-path FOLDER\n" in text


async def test_other_servers_become_peers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without models that are started here under the same name."""
    write(home / "models" / "mine.gguf", QWEN)
    async with await other("library", ["qwen3:8b", "mine"]) as server:
        text = await written(home, monkeypatch, port_of(server))
        url = f"http://127.0.0.1:{port_of(server)}"
    assert text.endswith(f"""\
peers:
  "ollama-{url.rpartition(":")[2]}":
    proxy: "{url}"
    models:
      - "qwen3:8b"
""")
    assert '  "mine":\n' in text


async def test_a_llama_server_that_runs_is_no_peer_of_models_that_are_started(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named, because it has memory that they need."""
    write(home / "models" / "mine.gguf", QWEN)
    async with FakeEngine() as engine:
        text = await written(home, monkeypatch, engine.port)
    assert "peers" not in text
    printed = capsys.readouterr()
    assert f"running     llama-server at {engine.url}: " in printed.out
    assert "keeps its memory" in printed.err


async def test_each_kind_is_known_by_its_answers() -> None:
    """And what serves no models is left out."""
    async with (
        await other("vllm", ["a"]) as vllm,
        await other("x", []) as empty,
        await other("llama-swap", ["b"]) as swap,
    ):
        ports = [port_of(server) for server in (vllm, empty, swap)]
        kinds = [await asyncio.to_thread(running.engine_at, port) for port in ports]
    assert [one.kind if one else None for one in kinds] == ["vLLM", None, None]


async def test_a_port_where_nobody_listens_is_no_engine() -> None:
    """Or one that closes at once."""
    async with await other("x", ["a"]) as server:
        port = port_of(server)
    assert await asyncio.to_thread(running.engine_at, port) is None


async def test_bioproxy_itself_is_left_out(tmp_path: Path) -> None:
    """It passes its engine's answers on, and is none."""
    async with FakeEngine() as engine, running_app(tmp_path, backend_url=engine.url) as app:
        port = app.ports.proxy.port
        assert await asyncio.to_thread(running.engine_at, port) is None


@pytest.mark.skipif(not LINUX, reason="other systems show no process of another user's")
async def test_an_engine_that_a_bioproxy_started_is_left_out(tmp_path: Path) -> None:
    """It ends with it; the same program that somebody else started is found."""
    words = [sys.executable, str(LLAMA), "--port"]
    config = {"startPort": free_port(), "models": {"a": {"cmd": f"{shlex.join(words)} ${{PORT}}"}}}
    (tmp_path / "conf.yaml").write_text(json.dumps(config))
    async with serving(tmp_path, "-config", "conf.yaml", "-port", "0", "-admin-port", "0") as served:
        _, admin = await served.ports()
        loaded = await call(admin, "POST", "/api/models/load/a", data={})
        assert loaded.status == 200
        [row] = (await call(admin, "GET", "/api/models")).json()["models"]
        port = int(row["command"].split()[-1])
        assert (await call(port, "GET", "/v1/models")).status == 200
        assert await asyncio.to_thread(running.engine_at, port) is None
    free = free_port()
    process = await asyncio.create_subprocess_exec(*words, str(free), stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        found = await asyncio.to_thread(running.engine_at, free)
        assert found is not None
        assert found.kind == "llama-server"
    finally:
        process.kill()
        await process.communicate()


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        (["bioproxy", "serve"], True),
        (["/opt/b/.venv/bin/python3.12", "/opt/b/.venv/bin/bioproxy", "serve"], True),
        (["python", "-m", "bioproxy"], True),
        (["/usr/bin/python3", "-I", "-S", "/lib/python3/site-packages/bioproxy/engines/shim.py", "7"], True),
        (["C:\\b\\bioproxy.exe"], True),
        (["make", "-C", "/src/bioproxy", "test"], False),
        (["sh", "-c", "cd /src/bioproxy"], False),
        (["python", "-m", "vllm", "bioproxy"], False),
        ([], False),
    ],
)
def test_which_process_is_a_bioproxy(words: list[str], ours: bool) -> None:
    """By the program, not by a folder or an argument of the name."""
    assert running.is_bioproxy(words) == ours


def test_an_engines_own_port_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of llama-server's name say theirs."""
    asked: list[int] = []
    monkeypatch.setattr(running, "USUAL", (8081,))
    monkeypatch.setattr(running, "engine_at", asked.append)
    running.engines([["llama-server", "--port", "9999"], ["llama-server", "-m", "x"], ["sleep", "--port", "7"]])
    assert sorted(asked) == [8080, 8081, 9999]
