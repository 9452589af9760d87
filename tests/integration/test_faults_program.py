"""The program as a child process: broken configurations, taken ports, signals. A sentence and 1, never a trace."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from fakes.fake_engine import FakeEngine
from support.command import Ended, run, serving
from support.faults import CHAT, ask
from support.http import build, call

Json = Any
FREE: Json = {"proxy_port": 0, "admin_port": 0}


async def started(folder: Path, text: str, name: str = "conf.json") -> Ended:
    """`bioproxy serve` on a file with `text`, to its end."""
    (folder / name).write_text(text)
    return await run(folder, "serve", "-config", str(folder / name))


def refused(ended: Ended, *parts: str, code: int = 1) -> None:
    """It ended with `code` and sentences that hold all of `parts`, and nothing that only a programmer could read."""
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""
    for part in parts:
        assert part in ended.err


async def test_a_file_that_is_missing(tmp_path: Path) -> None:
    """The path that was asked for is named."""
    refused(await run(tmp_path, "serve", "-config", str(tmp_path / "none.json")), str(tmp_path / "none.json"))


@pytest.mark.parametrize("text", ["", "   \n"])
async def test_a_file_that_is_empty(text: str, tmp_path: Path) -> None:
    """An empty file is a mistake, not a set of defaults."""
    refused(await started(tmp_path, text), "conf.json", "empty")


@pytest.mark.parametrize("text", ["{", "[1]", '{"queue_limit": 1,}', '"text"', "\0"])
async def test_a_file_that_is_no_configuration(text: str, tmp_path: Path) -> None:
    """The file is named."""
    refused(await started(tmp_path, text), "conf.json")


async def test_all_problems_at_once(tmp_path: Path) -> None:
    """Wrong types, unknown keys with the nearest known one, wrong values: each with its line."""
    lines = [
        "proxy_prot: 1",
        "queue_limit: many",
        "kv: {policy: sometimes}",
        "warmup: 3",
        "prefixes: [1]",
        "admin_port: 99999",
    ]
    ended = await started(tmp_path, "\n".join(lines), "conf.yaml")
    refused(ended, "proxy_port", "queue_limit", "kv.policy", "warmup", "prefixes", "admin_port")
    assert all(f"conf.yaml:{number}" in ended.err for number in range(1, len(lines) + 1))


async def test_the_same_prefix_twice(tmp_path: Path) -> None:
    """Two templates behind one prefix: nobody could tell which is meant."""
    (tmp_path / "a.txt").write_text("<{message}>")
    refused(await started(tmp_path, '{"prefixes": {"@a": "a.txt", "@a": "a.txt"}}'), "@a")
    refused(await started(tmp_path, "prefixes:\n  '@a': a.txt\n  '@a': a.txt\n", "conf.yaml"), "@a")


async def test_templates_that_cannot_be_used(tmp_path: Path) -> None:
    """Missing, without a message, with a missing include, not UTF-8: all of them at once."""
    (tmp_path / "no-message.txt").write_text("nothing")
    (tmp_path / "no-include.txt").write_text("<{gone.txt}> <{message}>")
    (tmp_path / "bytes.txt").write_bytes(b"<{message}> \xff")
    names = {"@a": "missing.txt", "@b": "no-message.txt", "@c": "no-include.txt", "@d": "bytes.txt"}
    ended = await started(tmp_path, json.dumps({**FREE, "prefixes": names}))
    refused(ended, "missing.txt", "<{message}>", "gone.txt", "bytes.txt")


@pytest.mark.parametrize("which", ["proxy_port", "admin_port"])
async def test_a_port_that_is_taken(which: str, tmp_path: Path) -> None:
    """Either port: it is named, and nothing stays behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        hosts = {"proxy_host": "127.0.0.1", "admin_host": "127.0.0.1"}
        refused(await started(tmp_path, json.dumps({**FREE, **hosts, which: port})), f"port {port}", "taken")


async def test_two_ports_that_are_one(tmp_path: Path) -> None:
    """Proxy and admin cannot share a port."""
    refused(await started(tmp_path, '{"proxy_port": 28088, "admin_port": 28088}'), "admin_port")


async def test_a_public_admin_port_wants_a_key(tmp_path: Path) -> None:
    """Prompts would be readable by everybody."""
    refused(await started(tmp_path, json.dumps({**FREE, "admin_host": "0.0.0.0"})), "admin_key")


async def test_a_state_folder_that_cannot_be_had(tmp_path: Path) -> None:
    """A file stands in its place."""
    (tmp_path / "file").write_text("")
    refused(
        await started(tmp_path, json.dumps({**FREE, "state_directory": str(tmp_path / "file")})), str(tmp_path / "file")
    )


@pytest.mark.parametrize("model", ["missing.gguf", "text.gguf"])
async def test_a_model_that_is_none(model: str, tmp_path: Path) -> None:
    """The path is named."""
    (tmp_path / "text.gguf").write_text("no model")
    refused(await started(tmp_path, json.dumps({**FREE, "model": model})), model)


async def test_two_engines_at_once(tmp_path: Path) -> None:
    """`model` and `backend_url`: only one can be meant."""
    refused(await started(tmp_path, '{"model": "x.gguf", "backend_url": "http://localhost:1"}'), "backend_url", "model")


async def test_a_wrong_environment_variable_and_flag(tmp_path: Path) -> None:
    """The sentence names the variable, or the flag."""
    refused(await run(tmp_path, BIOPROXY_QUEUE_LIMIT="many"), "BIOPROXY_QUEUE_LIMIT")
    ended = await run(tmp_path, "-port", "many")
    refused(ended, "-port", code=2)


async def test_sigterm_in_a_stream_and_while_others_wait(tmp_path: Path) -> None:
    """The stream ends with [DONE], whoever waits hears 503 at once, nobody new is let in, and the exit code is 0."""
    async with FakeEngine(slot_folder=tmp_path / "slots") as fake:
        (tmp_path / "conf.json").write_text(json.dumps({**FREE, "proxy_host": "127.0.0.1", "backend_url": fake.url}))
        async with serving(tmp_path, "-config", str(tmp_path / "conf.json")) as program:
            port, admin = await program.ports()

            async def waits() -> bool | None:
                return (await call(admin, "GET", "/api/queue")).json()["waiting"] == 1 or None

            await program.line("is ready")
            await fake.faults(hold_end=True)
            stream, one = await asyncio.open_connection("127.0.0.1", port)
            one.write(build("POST", CHAT, body=json.dumps(ask(stream=True)).encode()))
            begun = await stream.readuntil(b"data: ")
            waiter, two = await asyncio.open_connection("127.0.0.1", port)
            two.write(build("POST", CHAT, body=json.dumps(ask("waits")).encode()))
            assert await aio.poll(waits, interval=0.01, deadline=30)
            program.send(signal.SIGTERM)
            assert b" 503 " in await waiter.read()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            await fake.faults(hold_end=False)
            assert (begun + await stream.read()).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
            assert await program.process.wait() == 0
            one.close()
            two.close()
        assert await fake.violations() == []
