"""Pins: what is kept, what goes first, and what a broken disk costs."""

from __future__ import annotations

import asyncio
import logging
import stat
from pathlib import Path

import msgspec
import pytest

from bioproxy import files
from bioproxy.aio import spawn
from bioproxy.templates import pins as module
from bioproxy.templates.pins import INDEX, TEXT, Pins
from support.templates import Clock, filled

ONE, TWO, THREE = filled("one <{message}>"), filled("two <{message}>"), filled("three <{message}>")


@pytest.fixture(autouse=True)
def log_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an earlier test set the program's own log up, which keeps its records to itself."""
    monkeypatch.setattr(logging.getLogger("bioproxy"), "propagate", True)


def save(pins: Pins) -> None:
    """Write what is pinned now."""
    pins.write(*pins.state())


async def reopened(folder: Path) -> Pins:
    """What another process finds."""
    pins = Pins(folder)
    await pins.load()
    return pins


def test_a_pin_is_found_by_its_key() -> None:
    """Another key is another conversation."""
    pins = Pins(None)
    pins.put(b"a", ONE)
    assert pins.get(b"a") == ONE
    assert pins.get(b"b") is None


def test_a_new_pin_takes_the_place_of_the_old_one() -> None:
    """An answer that was made again was made with the current text; the old text goes with its last pin."""
    pins = Pins(None)
    pins.put(b"a", ONE)
    pins.put(b"a", TWO)
    assert pins.get(b"a") == TWO
    assert pins.statistics().versions == 1


def test_a_versions_text_is_kept_once() -> None:
    """However many conversations need it."""
    pins = Pins(None)
    for number in range(10):
        pins.put(b"%d" % number, ONE)
    found = pins.statistics()
    assert (found.pins, found.versions, found.bytes) == (10, 1, len("one "))


def test_the_least_recently_used_goes_first() -> None:
    """Being asked for counts as use."""
    pins = Pins(None, limit=2)
    pins.put(b"a", ONE)
    pins.put(b"b", TWO)
    pins.get(b"a")
    pins.put(b"c", THREE)
    assert [pins.get(key) for key in (b"a", b"b", b"c")] == [ONE, None, THREE]


def test_texts_have_a_limit_of_their_own() -> None:
    """The pins that need the oldest text go with it; a text that alone is too long is not pinned."""
    pins = Pins(None, text_limit=8)
    pins.put(b"a", ONE)
    pins.put(b"b", TWO)
    pins.put(b"c", THREE)
    assert [pins.get(key) for key in (b"a", b"b", b"c")] == [None, None, THREE]
    pins.put(b"d", filled("much too long <{message}>"))
    assert pins.get(b"d") is None
    assert pins.get(b"c") == THREE


def test_what_was_not_used_for_long_is_forgotten() -> None:
    """Private text ages out."""
    clock = Clock()
    pins = Pins(None, clock=clock)
    pins.put(b"a", ONE)
    pins.put(b"b", TWO)
    clock.now += 50
    pins.get(b"b")
    clock.now += 60
    pins.forget(100)
    assert [pins.get(b"a"), pins.get(b"b")] == [None, TWO]


async def test_pins_survive_a_restart_in_their_order(tmp_path: Path) -> None:
    """What goes first is the same before and after."""
    pins = Pins(tmp_path / "pins")
    for key, text in ((b"a", ONE), (b"b", TWO), (b"c", ONE)):
        pins.put(key, text)
    pins.get(b"a")
    save(pins)
    again = await reopened(tmp_path / "pins")
    assert list(again.pins) == [b"b", b"c", b"a"]
    assert [again.get(key) for key in (b"a", b"b", b"c")] == [ONE, TWO, ONE]


def test_files_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    """Templates are private text; so is their folder."""
    pins = Pins(tmp_path / "pins")
    pins.put(b"a", ONE)
    save(pins)
    assert stat.S_IMODE((tmp_path / "pins").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "pins").iterdir()} == {0o600}


def test_texts_that_nobody_needs_leave_the_disk(tmp_path: Path) -> None:
    """With what a crash left unfinished."""
    pins = Pins(tmp_path)
    pins.put(b"a", ONE)
    save(pins)
    (tmp_path / ".new-left").write_text("half")
    pins.put(b"a", TWO)
    save(pins)
    assert {path.name for path in tmp_path.iterdir()} == {INDEX, f"{TEXT}{TWO.version}"}


async def test_a_version_that_comes_back_is_written_again(tmp_path: Path) -> None:
    """Its file was deleted in between."""
    pins = Pins(tmp_path)
    for text in (ONE, TWO, ONE):
        pins.put(b"a", text)
        save(pins)
    assert (await reopened(tmp_path)).get(b"a") == ONE


@pytest.mark.parametrize("broken", [b"", b"garbage", b"\x82\xa6layout\x63\xa4pins\x90", b"\xc1" * 100])
async def test_a_broken_index_is_as_good_as_none(tmp_path: Path, broken: bytes) -> None:
    """Never fatal, and the next save mends it; another layout is not guessed at."""
    pins = Pins(tmp_path)
    pins.put(b"a", ONE)
    save(pins)
    (tmp_path / INDEX).write_bytes(broken)
    again = await reopened(tmp_path)
    assert again.statistics().pins == 0
    again.put(b"b", TWO)
    save(again)
    assert (await reopened(tmp_path)).get(b"b") == TWO


@pytest.mark.parametrize("broken", [None, b"", b"\xff\xfe", msgspec.msgpack.encode(("another ", ""))])
async def test_a_broken_text_costs_its_own_pins_only(tmp_path: Path, broken: bytes | None) -> None:
    """Missing, garbage, or not what its name says; a later pin to that version writes it again."""
    pins = Pins(tmp_path)
    pins.put(b"a", ONE)
    pins.put(b"b", TWO)
    save(pins)
    path = tmp_path / f"{TEXT}{ONE.version}"
    path.unlink()
    if broken is not None:
        path.write_bytes(broken)
    again = await reopened(tmp_path)
    assert [again.get(b"a"), again.get(b"b")] == [None, TWO]
    again.put(b"a", ONE)
    save(again)
    assert (await reopened(tmp_path)).get(b"a") == ONE


async def test_nothing_saved_yet_is_no_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A first start says nothing."""
    assert (await reopened(tmp_path / "none")).statistics().pins == 0
    assert caplog.records == []


async def test_a_disk_that_refuses_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Requests go on; when it takes files again, all pins are saved."""
    (tmp_path / "file").write_text("in the way")
    pins = Pins(tmp_path / "file" / "pins")
    pins.put(b"a", ONE)
    save(pins)
    save(pins)
    assert len(caplog.records) == 1
    (tmp_path / "file").unlink()
    save(pins)
    assert (await reopened(tmp_path / "file" / "pins")).get(b"a") == ONE


async def test_an_older_state_never_replaces_a_newer_one(tmp_path: Path) -> None:
    """A write that was late, in its thread, is left out."""
    pins = Pins(tmp_path)
    pins.put(b"a", ONE)
    late = pins.state()
    pins.put(b"a", TWO)
    save(pins)
    pins.write(*late)
    assert (await reopened(tmp_path)).get(b"a") == TWO


async def test_a_write_that_dies_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any step: the index is renamed into place last."""
    pins = Pins(tmp_path)
    pins.put(b"a", ONE)
    save(pins)
    pins.put(b"a", TWO)
    real, calls = files.write_whole, []

    def dying(path: Path, data: bytes) -> None:
        calls.append(path.name)
        if path.name == INDEX:
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(files, "write_whole", dying)
    save(pins)
    assert calls == [f"{TEXT}{TWO.version}", INDEX]
    assert (await reopened(tmp_path)).get(b"a") == ONE


async def test_the_service_writes_what_was_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon after the pin, and without being asked; it ends when it is cancelled."""
    monkeypatch.setattr(module, "DELAY", 0.0)
    pins, wrote = Pins(tmp_path), asyncio.Event()
    loop, write = asyncio.get_running_loop(), pins.write

    def told(*state: object) -> None:
        write(*state)  # type: ignore[arg-type]
        loop.call_soon_threadsafe(wrote.set)

    monkeypatch.setattr(pins, "write", told)
    async with asyncio.timeout(30):
        service = spawn(pins.run(), name="pins")
        pins.put(b"a", ONE)
        await wrote.wait()
    service.cancel()
    with pytest.raises(asyncio.CancelledError):
        await service
    assert (await reopened(tmp_path)).get(b"a") == ONE


async def test_a_busy_day_is_written_in_few_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is written as a whole: once for all pins of half a minute, and not for what is pinned already."""
    pauses: list[float] = []
    pins, asleep = Pins(tmp_path), asyncio.Event()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        asleep.set()

    monkeypatch.setattr(asyncio, "sleep", sleep)
    service = spawn(pins.run(), name="pins")
    for text in (ONE, TWO, TWO):
        pins.put(b"a", text)
        if pins.changed.is_set():
            await asleep.wait()
            asleep.clear()
        async with asyncio.timeout(30):
            while pins.changed.is_set() or pins.written < pins.saves:
                await asyncio.wait([service], timeout=0.001)
    service.cancel()
    with pytest.raises(asyncio.CancelledError):
        await service
    first, second = pauses
    assert first == module.DELAY < second <= module.PAUSE
