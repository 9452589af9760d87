"""What the web page's Templates and Cache ask for, on both ports of the real program with fake llama-servers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bioproxy.admin.snapshots_api import SnapshotList
from bioproxy.admin.templates_api import TemplateDetail
from bioproxy.kv import by_hand
from bioproxy.kv.snapshot import DAMAGED
from fakes.fake_engine import FakeEngine
from support.apps import running_app
from support.cache_rig import LIST, TEXT, app_of, listed, program, seen, snapshots
from support.http import Answer, call
from support.swap_rig import Rig

Json = Any
T = TypeVar("T")
PAGE = {"X-Requested-With": "bioproxy"}  # as the web page asks


@asynccontextmanager
async def warmed(folder: Path, **keys: Json) -> AsyncIterator[Rig]:
    """The program with model `a` loaded, its template warmed and saved."""
    async with program(folder, **keys) as rig:
        assert (await rig.post("/api/models/load/a")).status == 200
        await listed(rig, 1)
        yield rig


async def detail(rig: Rig, target: str = "/api/templates/@code") -> TemplateDetail:
    answer = await call(rig.ports.admin, "GET", target)
    assert answer.status == 200, answer.text
    return msgspec.json.decode(answer.body, type=TemplateDetail)


async def asked(rig: Rig, method: str, target: str) -> Answer:
    """On the proxy port, where the page of many models lives."""
    return await call(rig.ports.proxy, method, target, headers=PAGE)


# snapshots


async def test_the_list_says_whose_each_is_and_when_it_goes(tmp_path: Path) -> None:
    """On both ports. A model that was not loaded yet has no fingerprint."""
    async with warmed(tmp_path) as rig:
        found = await snapshots(rig)
        proxy = msgspec.json.decode((await asked(rig, "GET", LIST)).body, type=SnapshotList)
    [row], [folder] = found.snapshots, found.folders
    assert (row.models, row.prefix, row.turn, row.folder) == (("a",), "@code", 1, folder.directory)
    assert row.worth > 0
    assert (folder.snapshots, folder.bytes, folder.pinned) == (1, row.bytes, 0)
    assert [one.name for one in proxy.snapshots] == [row.name]


async def test_a_pin_takes_a_snapshot_out_of_the_order(tmp_path: Path) -> None:
    """And `DELETE` puts it back."""
    async with warmed(tmp_path) as rig:
        [row] = await listed(rig, 1)
        answer = await asked(rig, "PUT", f"{LIST}/{row.name}/pin")
        assert (answer.status, answer.json()) == (200, {"name": row.name, "pinned": True})
        found = await snapshots(rig)
        assert [(one.pinned, one.turn) for one in found.snapshots] == [(True, 0)]
        assert found.folders[0].pinned == row.bytes
        assert (await asked(rig, "DELETE", f"{LIST}/{row.id}/pin")).json()["pinned"] is False
        assert [(one.pinned, one.turn) for one in (await snapshots(rig)).snapshots] == [(False, 1)]


async def test_a_whole_file_and_a_damaged_one(tmp_path: Path) -> None:
    """The answer says what is wrong, and so does the list."""
    async with warmed(tmp_path) as rig:
        [row] = await listed(rig, 1)
        verify = f"{LIST}/{row.name}/verify"
        assert (await asked(rig, "POST", verify)).json() == {"name": row.name, "fault": ""}
        path = tmp_path / "slots" / row.name
        times, data = path.stat(), bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        answer = await asked(rig, "POST", verify)
        assert DAMAGED in answer.json()["fault"]
        assert [DAMAGED in one.unused for one in (await snapshots(rig)).snapshots] == [True]
        refused = await asked(rig, "PUT", f"{LIST}/{row.name}/pin")
        assert (refused.status, "never used again" in refused.text) == (409, True)


async def test_a_file_that_somebody_removed_leaves_the_list(tmp_path: Path) -> None:
    """Whoever verifies it is told, and the next one finds nothing."""
    async with warmed(tmp_path) as rig:
        [row] = await listed(rig, 1)
        (tmp_path / "slots" / row.name).unlink()
        assert "is not in" in (await asked(rig, "POST", f"{LIST}/{row.name}/verify")).json()["fault"]
        answer = await asked(rig, "POST", f"{LIST}/{row.name}/verify")
        assert (answer.status, row.name in answer.text) == (404, True)


async def test_a_deleted_conversation_stays_away_until_it_goes_on(tmp_path: Path) -> None:
    """It is in a slot still, but what a person deleted is not written again by itself."""
    async with warmed(tmp_path, kv={"min_seconds": 0, "min_free": 0, "save_after": 0.05}) as rig:
        assert (await rig.chat("a", messages=[{"role": "user", "content": "what is a cache? " * 40}])).status == 200
        rows = await listed(rig, 2)
        row = next(one for one in rows if not one.template)
        assert (await asked(rig, "DELETE", f"{LIST}/{row.name}")).json() == {"name": row.name}
        assert not app_of(rig).fleet.stations["a"].keeper.moments.growing()
        assert not (tmp_path / "slots" / row.name).exists()
        assert [one.template for one in (await snapshots(rig)).snapshots] == [True]


async def test_a_conversation_whose_file_stays_is_not_written_again_either(tmp_path: Path) -> None:
    """Its slot need not bring back what a person does not want."""
    async with warmed(tmp_path, kv={"min_seconds": 0, "min_free": 0, "save_after": 0.05}) as rig:
        assert (await rig.chat("a", messages=[{"role": "user", "content": "what is a cache? " * 40}])).status == 200
        row = next(one for one in await listed(rig, 2) if not one.template)
        path = tmp_path / "slots" / row.name
        path.unlink()
        path.mkdir()  # the system removes it as no file
        answer = await asked(rig, "DELETE", f"{LIST}/{row.name}")
        assert (answer.status, "cannot be removed" in answer.text) == (500, True)
        assert not app_of(rig).fleet.stations["a"].keeper.moments.growing()


async def test_one_of_several_keys_knows_no_conversation(tmp_path: Path) -> None:
    """Nor does it something with one; what all may use it sees."""
    kv = {"min_seconds": 0, "min_free": 0, "save_after": 0.05}
    keys: Json = {"api_keys": [{"key": "k1", "name": "one"}, {"key": "k2", "name": "two"}]}
    async with program(tmp_path, kv=kv, **keys) as rig:
        one, two = ({**PAGE, "Authorization": f"Bearer {key}"} for key in ("k1", "k2"))
        body: Json = {"model": "a", "messages": [{"role": "user", "content": "what is a cache? " * 40}]}
        raw = msgspec.json.encode(body)
        assert (await call(rig.ports.proxy, "POST", "/v1/chat/completions", body=raw, headers=one)).status == 200
        talk = next(row for row in await listed(rig, 2) if not row.template)
        found = await call(rig.ports.proxy, "GET", LIST, headers=two)
        rows = msgspec.json.decode(found.body, type=SnapshotList).snapshots
        for method, rest in (("POST", "/verify"), ("PUT", "/pin"), ("DELETE", "/pin"), ("DELETE", "")):
            answer = await call(rig.ports.proxy, method, f"{LIST}/{talk.name}{rest}", headers=two)
            assert answer.status == 404, answer.text
        assert [row.template for row in rows] == [True]
        await listed(rig, 2)


async def test_what_is_being_read_is_not_deleted(tmp_path: Path) -> None:
    """409, and it is still there."""
    async with warmed(tmp_path) as rig:
        [row] = await listed(rig, 1)
        [shelf] = app_of(rig).shelves.known.values()
        snapshot = by_hand.named(shelf, row.name)
        assert snapshot is not None
        with shelf.held(snapshot):
            answer = await asked(rig, "DELETE", f"{LIST}/{row.name}")
        assert (answer.status, "is being read" in answer.text) == (409, True)
        await listed(rig, 1)


async def test_only_names_of_the_list_are_found(tmp_path: Path) -> None:
    """Whatever a path says, the disk is not asked."""
    async with warmed(tmp_path) as rig:
        for name in ("bp-index.json", "bp-lock", "x", "..%2fcode.md"):
            for method, rest in (("DELETE", ""), ("POST", "/verify"), ("PUT", "/pin"), ("DELETE", "/pin")):
                assert (await asked(rig, method, f"{LIST}/{name}{rest}")).status in {400, 404}
        assert (tmp_path / "slots" / "bp-index.json").exists() or (tmp_path / "slots" / "bp-lock").exists()
        await listed(rig, 1)


async def test_who_may_not_manage_sees_and_does_nothing(tmp_path: Path) -> None:
    """With an admin key it wants that; one of several keys sees no groups."""
    keys: Json = {"api_keys": [{"key": "k1", "name": "one"}, {"key": "k2", "name": "two"}], "admin_key": "secret"}
    async with program(tmp_path, **keys) as rig:
        for method, target in (
            ("GET", LIST),
            ("DELETE", f"{LIST}/x"),
            ("PUT", f"{LIST}/x/pin"),
            ("GET", "/api/templates/@code"),
            ("POST", "/warmup/@code"),
        ):
            answer = await call(rig.ports.proxy, method, target, headers={**PAGE, "Authorization": "Bearer k1"})
            assert answer.status == 401, target
            answer = await call(rig.ports.proxy, method, target, headers={**PAGE, "Authorization": "Bearer secret"})
            assert answer.status in {200, 202, 404}, target


async def test_a_foreign_page_deletes_nothing(tmp_path: Path) -> None:
    """A page of another site in the operator's browser."""
    async with warmed(tmp_path) as rig:
        [row] = await listed(rig, 1)
        answer = await call(
            rig.ports.proxy, "DELETE", f"{LIST}/{row.name}", headers={**PAGE, "Origin": "https://evil.example"}
        )
        assert answer.status == 403
        await listed(rig, 1)


# templates


async def test_a_template_shows_its_text_and_where_it_is_from(tmp_path: Path) -> None:
    """Piece by piece, with the place of the message; it is warm on the model that runs."""
    async with warmed(tmp_path) as rig:
        found = await detail(rig)
    assert [(one.file, one.message) for one in found.text] == [
        ("code.md", False),
        ("more.txt", False),
        ("code.md", False),
        ("", True),
    ]
    assert "".join(one.text for one in found.text) == f"{TEXT}more\nAnswer: "
    assert [(one.model, one.ready, one.change) for one in found.models] == [("a", True, None), ("b", False, None)]
    [target] = found.models[0].targets
    assert (target.state, target.total > 0, target.warmed_at > 0) == ("saved", True, True)


async def test_a_change_shows_the_lines_and_what_it_cost(tmp_path: Path) -> None:
    """After the engine read the new text the difference to the one before stays."""
    async with warmed(tmp_path) as rig:
        (tmp_path / "more.txt").write_text("else\n")
        answer = await asked(rig, "POST", "/warmup/@code")
        assert answer.status == 202
        await listed(rig, 2)

        async def read() -> TemplateDetail | None:
            found = await detail(rig)
            return found if found.models[0].change is not None and found.models[0].change.until else None

        found = await seen(read)
    change = found.models[0].change
    assert change is not None
    assert change.since <= change.until
    difference = change.difference
    assert (difference.file, [line.text for line in difference.lines if line.kind in "-+"]) == (
        "more.txt",
        ["more", "else"],
    )
    assert difference.from_token is not None
    assert difference.tokens is not None
    assert difference.from_token < difference.tokens


async def test_a_prefix_that_nobody_has_is_not_found(tmp_path: Path) -> None:
    """The known ones are named."""
    async with program(tmp_path) as rig:
        answer = await asked(rig, "GET", "/api/templates/@nothing")
        assert (answer.status, answer.json()["error"]["message"]) == (404, "there is no prefix @nothing; known: @code")
        assert (await asked(rig, "GET", "/api/templates/@code?model=c")).status == 404
        assert (await asked(rig, "POST", "/warmup/@nothing")).status == 404


async def test_prefixes_with_slashes_are_found(tmp_path: Path) -> None:
    """One that begins with a slash is written without it; inside, it may be escaped."""
    prefixes = {"/code": str(tmp_path / "code.md"), "a/b": str(tmp_path / "code.md")}
    async with program(tmp_path, prefixes=prefixes) as rig:
        for path, prefix in (("code", "/code"), ("a/b", "a/b"), ("a%2Fb", "a/b")):
            assert (await detail(rig, f"/api/templates/{path}")).template.prefix == prefix
            assert (await call(rig.ports.admin, "POST", f"/warmup/{path}")).json()["prefix"] == prefix


async def test_a_models_own_template_is_asked_for_by_its_name(tmp_path: Path) -> None:
    """The same prefix may have two texts."""
    (tmp_path / "own.md").write_text("own <{message}>")
    async with program(tmp_path, own={"prefixes": {"@code": str(tmp_path / "own.md")}}) as rig:
        common, own = await detail(rig), await detail(rig, "/api/templates/@code?model=b")
    assert ([one.model for one in common.models], [one.model for one in own.models]) == (["a"], ["b"])
    assert own.text[0].text == "own "


async def test_one_engine_has_them_on_its_admin_port(tmp_path: Path) -> None:
    """The same routes; on the proxy port these paths are the engine's."""
    (tmp_path / "slots").mkdir()
    (tmp_path / "code.md").write_text(f"{TEXT}<{{message}}>")
    async with (
        FakeEngine(slot_folder=tmp_path / "slots") as engine,
        running_app(tmp_path, backend_url=engine.url, prefixes={"@code": str(tmp_path / "code.md")}) as app,
    ):
        answer = await call(app.admin_port, "GET", "/api/templates/@code")
        assert [one["model"] for one in answer.json()["models"]] == [""]
        assert (await call(app.admin_port, "GET", LIST)).status == 200
        assert (await call(app.admin_port, "DELETE", f"{LIST}/x", headers=PAGE)).status == 404
