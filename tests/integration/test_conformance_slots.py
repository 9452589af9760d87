"""Slot files on the fake and on the real engine: what is taken, what is refused, what kills (facts, section 1)."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.engine_process import EngineProcess
from fakes.side_by_side import KINDS, complete, error_of, make

WORDS = "the quick brown fox jumps over the lazy dog and runs away from it "

kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(params=KINDS)
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EngineProcess]:
    """One of the two, with slot files under `tmp_path/slots`."""
    async with make(request.param, tmp_path / "slots") as process:
        yield process


async def test_save_and_restore(engine: EngineProcess, tmp_path: Path) -> None:
    """A file is as long as n_written says, and brings the prompt back after a restart."""
    ids = list(range(100, 600))
    await complete(engine, ids, n_predict=0)
    saved = (await engine.slot("save", "a b@1.bin")).json()
    assert (saved["id_slot"], saved["filename"], saved["n_saved"]) == (0, "a b@1.bin", 500)
    assert (tmp_path / "slots" / "a b@1.bin").stat().st_size == saved["n_written"]
    await engine.restart()
    restored = (await engine.slot("restore", "a b@1.bin")).json()
    assert (restored["n_restored"], restored["n_read"]) == (500, saved["n_written"])
    done = await complete(engine, [*ids, 700, 701])
    assert (done["timings"]["cache_n"], done["timings"]["prompt_n"]) == (500, 2)


async def test_erase(engine: EngineProcess) -> None:
    """Erase tells how much it took away; it needs no body."""
    await complete(engine, list(range(100, 200)), n_predict=0)
    assert (await engine.post("/slots/0?action=erase")).json() == {"id_slot": 0, "n_erased": 100}
    assert (await complete(engine, list(range(100, 200)), n_predict=0))["timings"]["cache_n"] == 0


UNABLE = "Unable to restore slot: No available space in KV cache or invalid slot save file"


async def test_bad_file_empties_the_slot(engine: EngineProcess, tmp_path: Path) -> None:
    """A missing, empty or foreign file is 400, always the same sentence, and the slot's content is gone."""
    ids = list(range(100, 200))
    (tmp_path / "slots" / "empty").write_bytes(b"")
    (tmp_path / "slots" / "garbage").write_bytes(b"garbage")
    (tmp_path / "slots" / "foreign").write_bytes(b"x" * 5000)
    for name in ("missing", "empty", "garbage", "foreign"):
        await complete(engine, ids, n_predict=0)
        assert error_of(await engine.slot("restore", name)) == (400, UNABLE, "invalid_request_error"), name
        assert (await complete(engine, ids, n_predict=0))["timings"]["cache_n"] == 0


async def test_wrong_magic(engine: EngineProcess, tmp_path: Path) -> None:
    """A file whose first bytes are wrong is 400."""
    await complete(engine, WORDS)
    await engine.slot("save", "a")
    path = tmp_path / "slots" / "a"
    path.write_bytes(b"\0\0\0\0" + path.read_bytes()[4:])
    assert error_of(await engine.slot("restore", "a"))[:2] == (400, UNABLE)


async def test_cut_in_the_tokens(engine: EngineProcess, tmp_path: Path) -> None:
    """A file that ends within its tokens is 400."""
    await complete(engine, list(range(100, 600)), n_predict=0)
    await engine.slot("save", "a")
    os.truncate(tmp_path / "slots" / "a", 400)
    assert error_of(await engine.slot("restore", "a"))[:2] == (400, UNABLE)


async def test_cut_in_the_cells_kills(engine: EngineProcess, tmp_path: Path) -> None:
    """A file that lacks one byte at its end makes the process abort: why sizes are checked before each restore."""
    await complete(engine, list(range(100, 600)), n_predict=0)
    written = (await engine.slot("save", "a")).json()["n_written"]
    os.truncate(tmp_path / "slots" / "a", written - 1)
    with pytest.raises(ConnectionError):
        await engine.slot("restore", "a")
    assert await engine.wait() == -signal.SIGABRT


async def test_longer_file(engine: EngineProcess, tmp_path: Path) -> None:
    """Bytes behind the end of a file do no harm, and are not counted as read."""
    await complete(engine, list(range(100, 600)), n_predict=0)
    written = (await engine.slot("save", "a")).json()["n_written"]
    with (tmp_path / "slots" / "a").open("ab") as file:
        file.write(b"more")
    assert (await engine.slot("restore", "a")).json()["n_restored"] == 500
    assert written < (tmp_path / "slots" / "a").stat().st_size


async def test_directory_instead_of_a_file(engine: EngineProcess, tmp_path: Path) -> None:
    """A folder of that name cannot be restored, nor saved over."""
    (tmp_path / "slots" / "d").mkdir()
    await complete(engine, WORDS)
    assert error_of(await engine.slot("save", "d")) == (500, "Unable to save slot", "server_error")
    assert error_of(await engine.slot("restore", "d"))[:2] == (400, UNABLE)


async def test_folder_gone(engine: EngineProcess, tmp_path: Path) -> None:
    """Without its folder a save is 500."""
    await complete(engine, WORDS)
    (tmp_path / "slots").rmdir()
    assert error_of(await engine.slot("save", "a")) == (500, "Unable to save slot", "server_error")


async def test_file_names(engine: EngineProcess) -> None:
    """Which file names the engine takes and which it refuses; no folders, nothing that a file system would mind."""
    await complete(engine, "a word")
    for name in ("", "../x", "a/b", "a:b", "a*", ".", " a", "a ", "a.", "a\x01", "x" * 256, "a\u2215b"):
        assert error_of(await engine.slot("save", name))[0] == 400, name
    for name in (".hidden", "a b", "bp-0123abcd.bin", "@code#1%+=,;!~", "\u00fcml\u00e4ut", "x" * 255):
        assert (await engine.slot("save", name)).status == 200, name


async def test_bad_slot_bodies(engine: EngineProcess) -> None:
    """A slot action without a usable file name is 400."""
    for body in (b"", b"{}", b'{"filename":5}', b"nojson"):
        answer = await engine.post("/slots/0?action=save", body)
        assert error_of(answer)[0::2] == (400, "invalid_request_error"), body


async def test_bad_slot_targets(engine: EngineProcess) -> None:
    """Bad actions and slot numbers are 400; a number out of range wraps around, and is repeated as it was."""
    body = {"filename": "a"}
    assert error_of(await engine.post("/slots/0?action=none", body))[1] == "Invalid action"
    assert error_of(await engine.post("/slots/0", body))[1] == "Invalid action"
    assert error_of(await engine.post("/slots/x?action=save", body))[1] == "Invalid slot ID"
    await complete(engine, list(range(100, 200)), n_predict=0)
    wrapped = (await engine.slot("save", "a", slot=7)).json()
    assert (wrapped["id_slot"], wrapped["n_saved"]) == (7, 100)
    assert (await engine.slot("erase", slot=-1)).json() == {"id_slot": -1, "n_erased": 100}


@kinds
async def test_context_too_small(kind: str, tmp_path: Path) -> None:
    """A file that does not fit into a smaller context is 400; one that fits is taken."""
    async with make(kind, tmp_path) as engine:
        await complete(engine, list(range(100, 1100)), n_predict=0)
        await engine.slot("save", "long")
        await complete(engine, list(range(2000, 2100)), n_predict=0)
        await engine.slot("save", "short")
    async with make(kind, tmp_path, ctx_size=512) as engine:
        assert error_of(await engine.slot("restore", "long"))[:2] == (400, UNABLE)
        assert (await engine.slot("restore", "short")).json()["n_restored"] == 100


@kinds
async def test_other_weights_are_taken(kind: str, tmp_path: Path) -> None:
    """A file of another model of the same shape is restored without a word: why snapshots have a fingerprint."""
    ids = list(range(100, 200))
    async with make(kind, tmp_path) as engine:
        await complete(engine, ids, n_predict=0)
        await engine.slot("save", "a")
    other = {"weights": "other"} if kind == "fake" else {"seed": 1}
    async with make(kind, tmp_path, **other) as engine:
        right = await complete(engine, [*ids, 300], n_predict=8, temperature=0)
        assert (await engine.slot("restore", "a")).status == 200
        wrong = await complete(engine, [*ids, 300], n_predict=8, temperature=0)
        assert wrong["timings"]["cache_n"] == 100
        assert wrong["content"] != right["content"]
