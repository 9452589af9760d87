"""When the configuration is read again: what counts as a change, and that no wish for a reload is lost."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from bioproxy import aio
from bioproxy.cli.reload import Reloader, has_changed, look, sources, watch
from bioproxy.config.load import load
from bioproxy.errors import ConfigError, Problem

MS = 0.001


def changed(path: Path, change: str) -> bool:
    """Whether something that is done to a file, or to a folder, is a change."""
    before = look((str(path),))
    file = path if path.is_file() else path / "a.yaml"
    match change:
        case "nothing":
            pass
        case "touch":
            os.utime(file, ns=(1, 1))
        case "same size and time":
            stat = file.stat()
            file.write_text("y")
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        case "remove":
            file.unlink()
        case "add":
            (path / "b.yml").write_text("")
        case "add another":
            (path / "b.txt").write_text("")
    return has_changed(before, look((str(path),)))


@pytest.mark.parametrize(
    ("change", "expected"), [("nothing", False), ("touch", False), ("same size and time", True), ("remove", False)]
)
def test_a_file(change: str, expected: bool, tmp_path: Path) -> None:
    """Its content counts; one that is missing is about to come back."""
    (tmp_path / "a.yaml").write_text("x")
    assert changed(tmp_path / "a.yaml", change) is expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("nothing", False),
        ("touch", False),
        ("same size and time", True),
        ("remove", True),
        ("add", True),
        ("add another", False),
    ],
)
def test_a_folder(change: str, expected: bool, tmp_path: Path) -> None:
    """Its YAML files together are one thing."""
    for name in ("a.yaml", "z.yaml"):
        (tmp_path / name).write_text("x")
    assert changed(tmp_path, change) is expected


def test_an_empty_folder_says_nothing(tmp_path: Path) -> None:
    """It is being filled, or it will be."""
    (tmp_path / "a.yaml").write_text("x")
    assert changed(tmp_path, "remove") is False


def test_a_file_that_is_back_is_a_change(tmp_path: Path) -> None:
    """Even if it is as it was; somebody replaced it."""
    file = tmp_path / "a.yaml"
    missing = look((str(file),))
    file.write_text("x")
    assert has_changed(missing, look((str(file),)))


def test_a_link_that_is_turned_is_a_change(tmp_path: Path) -> None:
    """Config maps are changed so; size and time may be those of before."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, ns=(1, 1))
    link = tmp_path / "link.yaml"
    link.symlink_to("one")
    before = look((str(link),))
    link.unlink()
    link.symlink_to("two")
    assert has_changed(before, look((str(link),)))


def test_what_is_watched(tmp_path: Path) -> None:
    """The file that is named, and the folder as a whole, so that new files in it are seen."""
    folder = tmp_path / "d"
    folder.mkdir()
    for path in (tmp_path / "c.yaml", folder / "a.yaml"):
        path.write_text("globalTTL: 1")
    environment = {"HOME": str(tmp_path)}
    found = load(path=str(tmp_path / "c.yaml"), directory=str(folder), environment=environment)
    assert sources(found) == (str(tmp_path / "c.yaml"), str(folder))
    assert sources(load(environment=environment)) == ()


def test_what_a_configuration_names_is_watched_too(tmp_path: Path) -> None:
    """Files of keys; a key that stands in the file itself needs none, and the certificate is watched in any case."""
    (tmp_path / "key").write_text("secret-key")
    (tmp_path / "key").chmod(0o600)
    for name in ("tls.pem", "tls.key"):
        (tmp_path / name).write_text("x")
    values = {"api_keys": [{"key_file": "key"}, "plain"], "tls_cert_file": "tls.pem", "tls_key_file": "tls.key"}
    path = tmp_path / "c.json"
    path.write_text(json.dumps(values))
    found = load(path=str(path), environment={"HOME": str(tmp_path)})
    assert sources(found) == tuple(str(tmp_path / name) for name in ("c.json", "key"))


async def test_a_file_that_a_reload_named_is_watched_from_then_on(tmp_path: Path) -> None:
    """It is a change itself, for nobody looked at it while it was read; and so is what comes later."""
    paths = [tmp_path / "a.yaml"]
    paths[0].write_text("x")
    seen = look((str(paths[0]),))
    asked: asyncio.Queue[None] = asyncio.Queue()
    work = watch(lambda: tuple(map(str, paths)), seen, lambda: asked.put_nowait(None), interval=5 * MS)
    task = aio.spawn(work, name="watch")
    for text in ("one", "two"):
        (tmp_path / "key").write_text(text)
        paths[1:] = [tmp_path / "key"]
        await asked.get()
    await aio.finish([task])


async def test_half_of_a_file_is_not_read(tmp_path: Path) -> None:
    """Whoever writes it slowly, or empties it first, is waited for: half of it would stop the other models."""
    file = tmp_path / "a.yaml"
    file.write_text("models: {one: 1, two: 2}")
    seen = look((str(file),))
    writer = iter(["", "models: {one: 1}", "models: {one: 1, two: 2, three: 3}"])

    def at_each_look() -> tuple[str, ...]:
        if (text := next(writer, None)) is not None:
            file.write_text(text)
        return (str(file),)

    asked: asyncio.Queue[str] = asyncio.Queue()
    work = watch(at_each_look, seen, lambda: asked.put_nowait(file.read_text()), interval=MS)
    task = aio.spawn(work, name="watch")
    assert await asked.get() == "models: {one: 1, two: 2, three: 3}"
    await aio.finish([task])
    assert asked.empty()


def test_a_pipe_in_place_of_a_file_says_nothing(tmp_path: Path) -> None:
    """Reading it would wait for somebody who writes."""
    os.mkfifo(tmp_path / "a.yaml")
    assert look((str(tmp_path / "a.yaml"),)) == {str(tmp_path / "a.yaml"): {}}


async def test_each_change_is_told_once(tmp_path: Path) -> None:
    """Those before the first look, too."""
    file = tmp_path / "a.yaml"
    file.write_text("x")
    seen = look((str(file),))
    asked: asyncio.Queue[None] = asyncio.Queue()
    file.write_text("changed while the program started")
    task = aio.spawn(watch(lambda: (str(file),), seen, lambda: asked.put_nowait(None), interval=5 * MS), name="watch")
    await asked.get()
    file.write_text("and once more, of another length")
    await asked.get()
    await aio.finish([task])
    assert asked.empty()


async def test_one_reload_at_a_time_and_none_is_lost() -> None:
    """What is asked for during one makes one more, however often it is asked."""
    running, gate, count = asyncio.Event(), asyncio.Event(), 0

    async def reload() -> None:
        nonlocal count
        count += 1
        running.set()
        await gate.wait()
        if count == 2:
            done.set()

    done = asyncio.Event()
    reloader = Reloader(reload)
    task = aio.spawn(reloader.run(), name="reload")
    reloader.ask()
    await running.wait()
    for _ in range(3):
        reloader.ask()
    gate.set()
    await done.wait()
    await aio.finish([task])
    assert count == 2


@pytest.mark.parametrize("error", [ConfigError([Problem("broken")]), RuntimeError("a fault of ours")])
async def test_a_reload_that_fails_does_not_end_it(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """The log says why, and the next one is done."""
    good = asyncio.Event()
    faults = [error]

    async def reload() -> None:
        if faults:
            reloader.ask()
            raise faults.pop()
        good.set()

    reloader = Reloader(reload)
    task = aio.spawn(reloader.run(), name="reload")
    reloader.ask()
    await good.wait()
    await aio.finish([task])
    assert "failed to reload config" in caplog.text
    assert str(error) in caplog.text
