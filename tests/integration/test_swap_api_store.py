"""What is kept of requests: rows in memory or in a file, captures up to their size, and across reload and restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.swap_models import fakes
from support.swap_rig import Rig, swap_rig

Json = Any


async def rows(rig: Rig) -> list[Json]:
    """The table, the oldest first."""
    data: list[Json] = (await rig.get("/api/metrics/activity?limit=999&order=asc")).json()["data"]
    return data


async def test_a_file_outlives_the_program(tmp_path: Path) -> None:
    """`store.path`: the rows are there after a restart, and ids go on; captures are gone, for they were in memory."""
    store = {"path": str(tmp_path / "activity.db")}
    async with swap_rig(tmp_path, fakes("a"), store=store) as rig:
        await rig.chat("a")
        await rig.chat("a", status=418)
    async with swap_rig(tmp_path, fakes("a"), store=store) as rig:
        await rig.chat("a")
        got = await rows(rig)
    assert [(row["id"], row["resp_status_code"]) for row in got] == [(1, 200), (2, 418), (3, 200)]
    assert [row["has_capture"] for row in got] == [False, False, True]


async def test_memory_keeps_the_newest(tmp_path: Path) -> None:
    """`metricsMaxInMemory`."""
    async with swap_rig(tmp_path, fakes("a"), metricsMaxInMemory=3) as rig:
        for _ in range(5):
            await rig.chat("a")
        assert [row["id"] for row in await rows(rig)] == [3, 4, 5]


async def test_a_reload_loses_nothing(tmp_path: Path) -> None:
    """Rows and captures; llama-swap loses the latter."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        await rig.chat("a")
        await rig.reload(fakes("a b"))
        (row,) = await rows(rig)
        assert row["has_capture"]
        assert (await rig.get(f"/api/captures/{row['id']}")).status == 200


async def test_no_captures(tmp_path: Path) -> None:
    """`captureBuffer: 0`, also by a reload; rows are kept all the same."""
    async with swap_rig(tmp_path, fakes("a"), captureBuffer=0) as rig:
        await rig.chat("a")
        await rig.reload(fakes("a"))
        await rig.chat("a")
        await rig.reload(fakes("a"), captureBuffer=0)
        await rig.chat("a")
        assert [row["has_capture"] for row in await rows(rig)] == [False, False, False]
        assert (await rig.get("/api/captures/2")).status == 404


async def test_the_oldest_captures_make_room(tmp_path: Path) -> None:
    """Up to `captureBuffer` MB; one that is larger than that is left out, and its request is served like any."""
    async with swap_rig(tmp_path, fakes("a"), captureBuffer=1) as rig:
        await rig.chat("a")
        await rig.chat("a", bytes=3 << 20)
        await rig.chat("a")
        got = await rows(rig)
    assert [row["resp_status_code"] for row in got] == [200, 200, 200]
    assert [row["has_capture"] for row in got] == [True, False, True]


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A start that fails, in llama-swap's words."""
    said = ""
    try:
        async with swap_rig(tmp_path, fakes("a"), store={"path": str(tmp_path)}, child=True):
            pass
    except RuntimeError as error:
        said = str(error)
    assert f"store.path: {tmp_path} is a directory, not a file" in said
