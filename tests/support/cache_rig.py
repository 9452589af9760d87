"""The real program with fake llama-servers, templates and snapshots: what the pages Templates and Cache are about."""

from __future__ import annotations

import shlex
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bioproxy import aio
from bioproxy.admin.snapshots_api import SnapshotList, SnapshotRow
from bioproxy.app import App
from support.http import call
from support.swap_rig import Inside, Rig, swap_rig

Json = Any
T = TypeVar("T")
LLAMA = Path(__file__).parents[1] / "fakes" / "llama_server.py"
TEXT = "".join(f"line {number} of what is always said\n" for number in range(100))
LIST = "/api/snapshots"


@asynccontextmanager
async def program(folder: Path, *, own: Json = None, files: Json = None, **keys: Json) -> AsyncIterator[Rig]:
    """Two models of the fake llama-server with a template, and one folder for their snapshots; `own`: keys of `b`."""
    (folder / "slots").mkdir()
    for name, text in (files or {}).items():
        (folder / name).write_text(text)
    (folder / "code.md").write_text(f"{TEXT}<{{more.txt}}>Answer: <{{message}}>")
    (folder / "more.txt").write_text("more\n")
    flags = ("--slot-save-path", str(folder / "slots"), "--tokens-per-second", "900", "--bytes-per-token", "2000")
    entry = {"cmd": f"{shlex.join([sys.executable, str(LLAMA), *flags])} --port ${{PORT}}"}
    usual = {
        "prefixes": {"@code": str(folder / "code.md")},
        "kv": {"min_seconds": 0, "min_free": 0},
        "warmup": {"settle": 0},
    }
    async with swap_rig(folder, {"a": entry, "b": {**entry, **(own or {})}}, **{**usual, **keys}) as rig:
        yield rig


def app_of(rig: Rig) -> App:
    assert isinstance(rig.program, Inside)
    assert rig.program.app is not None
    return rig.program.app


async def seen(look: Callable[[], Awaitable[T | None]]) -> T:
    """What a look finds at last."""
    found = await aio.poll(look, interval=0.01, deadline=30.0)
    assert found is not None
    return found


async def listed(rig: Rig, count: int) -> list[SnapshotRow]:
    """The snapshots, once there are so many."""

    async def found() -> list[SnapshotRow] | None:
        rows = (await snapshots(rig)).snapshots
        return list(rows) if len(rows) == count else None

    return await seen(found)


async def snapshots(rig: Rig) -> SnapshotList:
    return msgspec.json.decode((await call(rig.ports.admin, "GET", LIST)).body, type=SnapshotList)
