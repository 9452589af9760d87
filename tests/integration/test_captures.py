"""Captures on disk through the program: across a restart, on the page's routes, in an export; never of some keys."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

from support.http import Answer, call
from support.leaks import until
from support.swap_api import verb
from support.swap_models import fakes
from support.swap_rig import Rig, swap_rig

Json = Any
KEYS: Json = [{"key": "secret-of-ann", "name": "ann"}, {"key": "secret-of-bob", "name": "bob", "captures": False}]
BOUNDS: Json = {"captures": {"disk": "8MiB"}, "captureBuffer": 0, "api_keys": KEYS, "admin_key": "root"}
BOSS = {"Authorization": "Bearer root"}


async def chat(rig: Rig, key: str, words: str) -> None:
    messages = [{"role": "user", "content": words}]
    headers = {"Authorization": f"Bearer secret-of-{key}"}
    assert (await rig.chat("a", messages=messages, headers=headers)).status == 200


async def get(rig: Rig, target: str, **headers: str) -> Answer:
    return await call(rig.port, "GET", target, headers=headers or BOSS)


async def rows(rig: Rig) -> list[Json]:
    """The table, the oldest first."""
    data: list[Json] = (await get(rig, "/api/metrics/activity?order=asc&record=1")).json()["data"]
    return data


async def exported(rig: Rig, query: str = "") -> list[Json]:
    answer = await get(rig, f"/api/captures{query}")
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_they_are_there_after_a_restart(tmp_path: Path) -> None:
    """With their rows, though the table is in memory; numbers go on; a key with `captures: off` leaves none."""
    async with swap_rig(tmp_path, fakes("a"), **BOUNDS) as rig:
        await chat(rig, "ann", "first")
        await chat(rig, "bob", "private")
        await chat(rig, "ann", "secret-of-ann is my key")
        assert [(row["id"], row["has_capture"]) for row in await rows(rig)] == [(1, True), (2, False), (3, True)]
    async with swap_rig(tmp_path, fakes("a"), **BOUNDS) as rig:
        await chat(rig, "ann", "later")
        found = await rows(rig)
        assert [(row["id"], row["has_capture"]) for row in found] == [(1, True), (3, True), (4, True)]
        assert [row["request"]["client"] for row in found] == ["ann", "ann", "ann"]
        capture = (await get(rig, "/api/captures/1")).json()
        assert b"first" in base64.b64decode(capture["req_body"])
        detail = (await get(rig, "/api/requests/1")).json()
        assert detail["request"]["activity"] == 1
        lines = await exported(rig)
        assert [(line["id"], line["client"], line["model"]) for line in lines] == [
            (1, "ann", "a"), (3, "ann", "a"), (4, "ann", "a"),
        ]  # fmt: skip
        assert lines[0]["request"]["messages"][0]["content"] == "first"
        assert lines[1]["request"]["messages"][0]["content"] == "[REDACTED] is my key"
        assert await exported(rig, "?client=bob") == []
        assert await exported(rig, "?end=2020-01-01T00:00:00Z") == []
        assert (await get(rig, "/api/captures", Authorization="Bearer secret-of-ann")).status == 401
        await until(lambda: len(list((tmp_path).rglob("*.capture"))) == 3)
        assert not [path for path in tmp_path.rglob("*.capture") if b"secret-of-ann" in path.read_bytes()]
        await by_command(rig, tmp_path / "out.jsonl")
        await rig.reload(fakes("a"), **BOUNDS | {"captures": {"disk": 0}})
        await until(lambda: not list(tmp_path.rglob("*.capture")))  # what is bounded to nothing is nothing


async def by_command(rig: Rig, path: Path) -> None:
    """The verb writes the same into a private file, never over another one, or to stdout."""
    ended = await verb(rig, "captures", "export", str(path), "--since", "1d", "--client", "ann", "--model", "a")
    assert (ended.code, f"3 captures are in {path}" in ended.out) == (0, True), ended.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [1, 3, 4]
    assert (await verb(rig, "captures", "export")).out == path.read_text()
    dash = await verb(rig, "captures", "export", "-")
    assert (dash.out, (rig.folder / "-").exists()) == (path.read_text(), False)
    again = await verb(rig, "captures", "export", str(path))
    assert (again.code, "is there already" in again.err) == (1, True)
    wrong = await verb(rig, "captures", "export", "--since", "soon")
    assert (wrong.code, "--since" in wrong.err) == (2, True)
