"""The command line that llama-swap's users have: flags, exit codes, where lines go, signals, two programs at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from support.command import Serving, run, serving
from support.config_files import yaml_text
from support.http import call, certificate, free_port, needs_openssl
from support.swap_client import Client, server
from support.swap_models import Ports, config_text, engine_words, fake, fakes

Json = Any
BROKEN = {"models": {"a": {"cmd": "x --port ${PORT}", "ttl": -5}, "b": {"cmd": "x"}}}


@pytest.fixture
async def ports() -> AsyncIterator[Ports]:
    """A block of ports of the test's own."""
    block = Ports()
    yield block
    block.close()


def write(folder: Path, models: Json, ports: Ports, *, name: str = "config.yaml", **config: Json) -> str:
    """Write a configuration; its path."""
    path = folder / name
    path.write_text(config_text(models, ports=ports, folder=folder, events=folder / "events.jsonl", **config))
    return str(path)


@contextlib.asynccontextmanager
async def started(folder: Path, *words: str, port: int) -> AsyncIterator[Serving]:
    """The program, once it says that it listens on `port`; it stops its models before the block is left."""
    async with serving(folder, *words) as program:
        await program.line(f"listening on http://127.0.0.1:{port}")
        try:
            yield program
        finally:
            if program.process.returncode is None:
                await asyncio.wait_for(program.end(), 25)


# what ends at once


async def test_version(tmp_path: Path) -> None:
    """One line that scripts read."""
    ended = await run(tmp_path, "-version")
    assert ended.code == 0
    assert ended.out.startswith("version: ")
    assert ", built at " in ended.out


@pytest.mark.parametrize("flag", ["-h", "-help", "--help"])
async def test_help(flag: str, tmp_path: Path) -> None:
    """All is well, and the flags of llama-swap are in it (here on standard output, there on the other)."""
    ended = await run(tmp_path, flag)
    assert ended.code == 0
    assert all(f"-{name}" in ended.out for name in ("config", "config-dir", "listen", "tls-cert-file", "watch-config"))


async def test_an_unknown_flag(tmp_path: Path) -> None:
    """2, as Go's."""
    ended = await run(tmp_path, "-nonsense")
    assert (ended.code, ended.out) == (2, "")
    assert "-nonsense" in ended.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-config", "none.yaml"), "none.yaml"),
        (("-config-dir", "empty"), "no configuration sources found"),
        (("-config", "broken.yaml"), "model a: invalid TTL value -5"),
        (("-config", "broken.yaml"), "model b: proxy uses ${PORT} but cmd does not"),
        (("--config=torn.yaml",), "torn.yaml"),
        (("-config", "good.yaml", "-tls-cert-file", "x"), "both -tls-cert-file and -tls-key-file must be provided"),
        (("-config", "good.yaml", "-config-dir", "."), "is also present in -config-dir"),
        (("-config", "group.yaml"), 'no model config for "zzz"'),
    ],
)
async def test_what_cannot_start(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """1, and the reason on standard error."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.yaml").write_text(yaml_text(BROKEN))
    (tmp_path / "torn.yaml").write_text("models: [")
    (tmp_path / "good.yaml").write_text(yaml_text({"models": {"a": {"cmd": "x --port ${PORT}"}}}))
    group = {"models": {"a": {"cmd": "x --port ${PORT}"}}, "groups": {"g": {"members": ["zzz"]}}}
    (tmp_path / "group.yaml").write_text(yaml_text(group))
    ended = await run(tmp_path, *words, "-listen", "127.0.0.1:0")
    assert (ended.code, ended.out) == (1, "")
    assert said in ended.err


async def test_a_port_that_is_taken(tmp_path: Path, ports: Ports) -> None:
    """1."""
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", ports.proxy)
    async with listener:
        ended = await run(
            tmp_path, "-config", write(tmp_path, fakes("a"), ports), "-listen", f"127.0.0.1:{ports.proxy}"
        )
    assert ended.code == 1
    assert str(ports.proxy) in ended.err + ended.out


# what stays


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_in_order(number: int, tmp_path: Path, ports: Ports) -> None:
    """0; its lines went to standard error, none to the other; its models are gone."""
    words = ("-config", write(tmp_path, fakes("a"), ports), "-listen", f"127.0.0.1:{ports.proxy}")
    async with started(tmp_path, *words, port=ports.proxy) as program:
        assert server(await Client(ports.proxy).chat("a")) == "a"
        assert await asyncio.wait_for(program.end(number), 25) == 0
    assert program.printed == []
    assert any("a is ready" in line for line in program.log)
    with pytest.raises(ConnectionRefusedError):
        await call(ports.models, "GET", "/health")


async def test_flags_in_gos_ways(tmp_path: Path, ports: Ports) -> None:
    """One dash or two, `=` or a blank; and the address says where, the file's own port or not."""
    path = write(tmp_path, fakes("a"), ports, proxy_port=free_port())
    words = (f"--config={path}", f"-listen=127.0.0.1:{ports.proxy}", "--watch-config=false")
    async with started(tmp_path, *words, port=ports.proxy):
        assert (await call(ports.proxy, "GET", "/health")).text == "OK"


async def test_without_listen_the_file_says_where(tmp_path: Path, ports: Ports) -> None:
    """llama-swap has :8080 then; a file that was copied is given the address with -listen anyway."""
    path = write(tmp_path, fakes("a"), ports, proxy_host="127.0.0.1", proxy_port=ports.proxy)
    async with started(tmp_path, "-config", path, port=ports.proxy):
        assert (await call(ports.proxy, "GET", "/health")).text == "OK"


async def test_a_folder_of_files(tmp_path: Path, ports: Ports) -> None:
    """`-config-dir`: each adds its models; other files are none of its business."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "b.yml").write_text(yaml_text({"models": {"b": {"cmd": "x --port ${PORT}"}}, "apiKeys": ["k"]}))
    (folder / "a.yaml").write_text(yaml_text({"models": {"c": {"cmd": "x --port ${PORT}"}}}))
    (folder / "notes.txt").write_text("nonsense: [")
    words = ("-config", write(tmp_path, fakes("a"), ports), "-config-dir", str(folder))
    async with started(tmp_path, *words, "-listen", f"127.0.0.1:{ports.proxy}", port=ports.proxy):
        answer = await call(ports.proxy, "GET", "/v1/models", headers={"x-api-key": "k"})
    assert [one["id"] for one in answer.json()["data"]] == ["a", "b", "c"]


async def test_a_watched_file(tmp_path: Path, ports: Ports) -> None:
    """`-watch-config`: a change is a reload, a broken one changes nothing; models that did not change run on."""
    words = ("-config", write(tmp_path, fakes("a"), ports), "-listen", f"127.0.0.1:{ports.proxy}", "-watch-config")
    async with started(tmp_path, *words, port=ports.proxy) as program:
        await program.line("watching configuration for changes")
        client = Client(ports.proxy)
        await client.chat("a")
        (tmp_path / "config.yaml").write_text("models: [")
        await program.line("failed to reload config")
        write(tmp_path, {"a": fake(), "b": fake(), "z": fake()}, ports)
        await program.line("configuration reloaded")
        assert [one["model"] for one in (await client.get("/running")).json()["running"]] == ["a"]
        assert server(await client.chat("b")) == "b"


async def test_two_programs_at_once(tmp_path: Path, ports: Ports) -> None:
    """Each from a file that names no admin port: one of them has none, and says so."""

    def words_of(name: str, port: int, first_model: int) -> tuple[str, ...]:
        folder = tmp_path / name
        folder.mkdir()
        config = {"models": {"a": {"cmd": engine_words(folder / "events.jsonl")}}, "startPort": first_model}
        (folder / "config.yaml").write_text(yaml_text(config))
        return ("-config", str(folder / "config.yaml"), "-listen", f"127.0.0.1:{port}")

    ours, theirs = ports.proxy, ports.admin
    words, others = words_of("one", ours, ports.models), words_of("two", theirs, ports.models + 9)
    async with (
        started(tmp_path / "one", *words, port=ours) as one,
        started(tmp_path / "two", *others, port=theirs) as two,
    ):
        assert server(await Client(ours).chat("a")) == server(await Client(theirs).chat("a")) == "a"
        assert await asyncio.wait_for(one.end(), 25) == 0
        assert server(await Client(theirs).chat("a")) == "a"
    assert any("there is no admin port: " in line for line in two.log)


async def test_an_admin_port_that_was_asked_for_must_be_had(tmp_path: Path, ports: Ports) -> None:
    """1, and which one."""
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", ports.admin)
    async with listener:
        path = write(tmp_path, fakes("a"), ports)  # which names it
        ended = await run(tmp_path, "-config", path, "-listen", f"127.0.0.1:{ports.proxy}")
    assert ended.code == 1
    assert str(ports.admin) in ended.err + ended.out


@needs_openssl
async def test_tls_on_its_own_says_so(tmp_path: Path, ports: Ports) -> None:
    """A certificate that cannot be read is a start that fails, with its name."""
    made = certificate(tmp_path)
    (tmp_path / "empty.pem").write_text("")
    words = ("-config", write(tmp_path, fakes("a"), ports), "-listen", f"127.0.0.1:{ports.proxy}")
    ended = await run(tmp_path, *words, "-tls-cert-file", str(tmp_path / "empty.pem"), "-tls-key-file", made.key)
    assert ended.code == 1
    assert "empty.pem" in ended.err + ended.out


async def test_an_address_for_all_is_told(tmp_path: Path, ports: Ports) -> None:
    """`:PORT` lets the whole network in, and the log says how to change that."""
    words = ("-config", write(tmp_path, fakes("a"), ports), "-listen", f":{ports.proxy}")
    async with serving(tmp_path, *words) as program:
        await program.line(f"listening on http://:{ports.proxy}")
        line = await program.line("reachable by all hosts on the network")
        assert f"-listen localhost:{ports.proxy}" in line
        assert await asyncio.wait_for(program.end(), 25) == 0


async def test_preload(tmp_path: Path, ports: Ports) -> None:
    """`hooks.on_startup.preload`: without any request; a name by its alias, and an unknown one is no fault."""
    models = {"a": fake(aliases=["al"]), "b": fake("--exit 3"), "c": fake()}
    groups = {"all": {"swap": False, "members": ["a", "b", "c"]}}
    hooks = {"on_startup": {"preload": ["al", " b ", "nobody"]}}
    words = ("-config", write(tmp_path, models, ports, groups=groups, hooks=hooks))
    async with started(tmp_path, *words, "-listen", f"127.0.0.1:{ports.proxy}", port=ports.proxy) as program:
        await program.line("failed to preload model b: ")

        async def loaded() -> bool | None:
            listed = (await Client(ports.proxy).get("/running")).json()["running"]
            return [(one["model"], one["state"]) for one in listed] == [("a", "ready")] or None

        assert await aio.poll(loaded, interval=0.01, deadline=30)
