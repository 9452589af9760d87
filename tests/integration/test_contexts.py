"""Contexts on both ports of the real program with fake llama-servers: from what a request left to a file and back."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from bioproxy.kv import importing
from bioproxy.kv.budget import Budgets
from support.cache_rig import app_of, program, seen
from support.http import Answer, build, call
from support.swap_rig import Rig

Json = Any
AT = "/api/contexts"
IMPORTS = "/api/context-imports"
PAGE = {"X-Requested-With": "bioproxy"}
LONG = "what is a cache, and what is it for? " * 60
KEYS: Json = {"api_keys": [{"key": "k1", "name": "one"}, {"key": "k2", "name": "two"}], "admin_key": "root"}
EARLY = {"min_seconds": 0, "min_free": 0, "save_after": 3600}


def of(key: str) -> dict[str, str]:
    return {**PAGE, "Authorization": f"Bearer {key}"} if key else PAGE


@asynccontextmanager
async def serving(folder: Path, **keys: Json) -> AsyncIterator[Rig]:
    """Models `a` and `b`, no idle saves."""
    keys["kv"] = {"directory": str(folder / "slots"), **EARLY, **keys.get("kv", {})}
    async with program(folder, **{"prefixes": {}, **keys}) as rig:
        yield rig


async def chat(rig: Rig, *texts: str, named: str = "", key: str = "", model: str = "a", **more: Json) -> Json:
    """A conversation of user and assistant in turns, asked as the request `named`; its usage."""
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    raw = msgspec.json.encode({"model": model, "messages": messages, "max_tokens": 4, **more})
    headers = {**of(key), **({"X-Request-Id": named} if named else {})}
    answer = await call(rig.ports.proxy, "POST", "/v1/chat/completions", body=raw, headers=headers)
    assert answer.status == 200, answer.text
    return answer.json()


async def send(rig: Rig, method: str, target: str, body: Json = None, *, key: str = "", admin: bool = False) -> Answer:
    """To the proxy port with a key, or to the admin port."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body) if body is not None else b""
    headers = of("root" if admin and not key else key) if key or admin else PAGE
    return await call(rig.ports.admin if admin else rig.ports.proxy, method, target, body=raw, headers=headers)


async def keep(rig: Rig, name: str, request: str, **how: Any) -> Answer:
    return await send(rig, "POST", AT, {"name": name, "from": request}, **how)


async def names(rig: Rig, **how: Any) -> list[str]:
    answer = await send(rig, "GET", AT, **how)
    assert answer.status == 200, answer.text
    return [one["name"] for one in answer.json()["contexts"]]


async def cached(rig: Rig, *texts: str, **how: Any) -> int:
    return int((await chat(rig, *texts, **how))["usage"]["prompt_tokens_details"]["cached_tokens"])


async def restart(rig: Rig) -> None:
    await rig.program.stop()
    await rig.program.start()


async def test_what_a_request_left_is_kept_and_others_start_from_it(tmp_path: Path) -> None:
    """Also after another conversation took the slot, and after the model was stopped."""
    async with serving(tmp_path) as rig:
        await chat(rig, LONG, named="first")
        made = await keep(rig, "repo", "first")
        assert made.status == 201, made.text
        row = made.json()
        assert (row["name"], row["model"], row["unused"], row["key"]) == ("repo", "a", "", "")
        await chat(rig, "something else " * 300)
        assert await cached(rig, LONG, "Yes.", "And how large?") >= row["tokens"] - 10
        await chat(rig, LONG, "Yes.", "And how large?")
        await rig.post("/api/models/unload/a")
        assert await cached(rig, LONG, "No.", "Why?") >= row["tokens"] - 10
        [listed] = (await send(rig, "GET", AT)).json()["contexts"]
        assert (listed["name"], listed["snapshot"], listed["uses"] >= 1) == ("repo", row["snapshot"], True)


async def test_what_is_on_disk_already_is_not_saved_again(tmp_path: Path) -> None:
    """It gets a name, and a second one; without the last name it is deleted."""
    async with serving(tmp_path) as rig:
        await chat(rig, LONG, named="first")
        first = (await keep(rig, "one", "first")).json()
        second = (await keep(rig, "two", "first")).json()
        assert first["snapshot"] == second["snapshot"]
        assert (await send(rig, "DELETE", f"{AT}/one")).json() == {"name": "one", "deleted": False}
        assert (await send(rig, "DELETE", f"{AT}/two")).json() == {"name": "two", "deleted": True}
        assert await names(rig) == []
        assert not list((tmp_path / "slots").glob(f"*{first['snapshot']}*"))


async def test_a_request_whose_content_is_gone_is_told_what_became_of_it(tmp_path: Path) -> None:
    """Its conversation went on, another one took the slot, or the model was stopped."""
    async with serving(tmp_path, kv={"min_seconds": 1000}) as rig:
        await chat(rig, LONG, named="first")
        await chat(rig, LONG, "Yes.", "More?", named="second")
        gone = await keep(rig, "a", "first")
        assert (gone.status, "its conversation went on; name the last request of it" in gone.text) == (410, True)
        await chat(rig, "something else " * 300, named="third")
        gone = await keep(rig, "a", "second")
        assert (gone.status, "other requests took its slot" in gone.text) == (410, True)
        app = app_of(rig)
        app.fleet.stations["a"].keeper.gone("killed")
        gone = await keep(rig, "a", "third")
        assert (gone.status, "its model was stopped, and had not saved it" in gone.text) == (410, True)
        unknown = await keep(rig, "a", "nobody")
        assert (unknown.status, "no request 'nobody' is known" in unknown.text) == (404, True)
        assert await names(rig) == []


async def test_what_was_not_to_be_stored_is_not_kept(tmp_path: Path) -> None:
    """`Cache-Control: no-store` keeps it out of all."""
    async with serving(tmp_path) as rig:
        raw = msgspec.json.encode({"model": "a", "messages": [{"role": "user", "content": LONG}], "max_tokens": 2})
        headers = {**PAGE, "X-Request-Id": "first", "Cache-Control": "no-store"}
        await call(rig.ports.proxy, "POST", "/v1/chat/completions", body=raw, headers=headers)
        gone = await keep(rig, "a", "first")
        assert (gone.status, "it was not to be stored" in gone.text) == (410, True)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 65, "ä", "a\n"])
async def test_only_a_plain_word_is_a_name(name: str, tmp_path: Path) -> None:
    """It stands in paths, headers and file names."""
    async with serving(tmp_path) as rig:
        await chat(rig, LONG, named="first")
        answer = await keep(rig, name, "first")
        assert (answer.status, "cannot be the name of a context" in answer.text) == (400, True)


async def test_a_name_means_one_context(tmp_path: Path) -> None:
    """A second one is refused, and so is a new name that is taken."""
    async with serving(tmp_path) as rig:
        await chat(rig, LONG, named="first")
        await keep(rig, "repo", "first")
        await keep(rig, "docs", "first")
        for answer in (await keep(rig, "repo", "first"), await send(rig, "PATCH", f"{AT}/docs", {"name": "repo"})):
            assert (answer.status, "there is a context repo already" in answer.text) == (409, True)
        assert (await send(rig, "PATCH", f"{AT}/docs", {"name": "more"})).json() == {"name": "more"}
        assert await names(rig) == ["more", "repo"]
        for method, rest in (("PATCH", ""), ("DELETE", ""), ("GET", "/export")):
            answer = await send(rig, method, f"{AT}/docs{rest}", {"name": "x"} if method == "PATCH" else None)
            assert (answer.status, "there is no context 'docs'" in answer.text) == (404, True)


async def test_a_key_sees_and_manages_its_own_and_the_admin_all(tmp_path: Path) -> None:
    """Whatever another one asks for by name or id is not there."""
    async with serving(tmp_path, **KEYS) as rig:
        await chat(rig, LONG, named="first", key="k1")
        assert (await keep(rig, "repo", "first", key="k2")).status == 404
        made = await keep(rig, "repo", "first", key="k1")
        assert (made.status, made.json()["key"]) == (201, "one")
        assert (await names(rig, key="k1"), await names(rig, key="k2")) == (["repo"], [])
        for name in ("repo", made.json()["snapshot"]):
            for method, rest in (("PATCH", ""), ("DELETE", ""), ("GET", "/export")):
                body = {"name": "x"} if method == "PATCH" else None
                assert (await send(rig, method, f"{AT}/{name}{rest}", body, key="k2")).status == 404
        await send(rig, "POST", "/api/models/unload/a", admin=True)  # what the engine has in memory is everybody's
        assert await cached(rig, LONG, "Yes.", "Why?", key="k2") < 20
        assert (await send(rig, "GET", AT)).status == 401
        for how in ({"admin": True}, {"key": "root"}):
            found = (await send(rig, "GET", AT, **how)).json()
            assert ([row["key"] for row in found["contexts"]], found["room"]) == (["one"], None)
        assert (await send(rig, "PATCH", f"{AT}/repo", {"name": "docs"}, admin=True)).status == 200
        assert await names(rig, key="k1") == ["docs"]


async def test_a_name_of_two_keys_is_told_apart_by_its_snapshot(tmp_path: Path) -> None:
    """Only the admin sees both."""
    async with serving(tmp_path, **KEYS) as rig:
        rows = []
        for key in ("k1", "k2"):
            await chat(rig, LONG, named=key, key=key)
            rows.append((await keep(rig, "repo", key, key=key)).json())
        answer = await send(rig, "DELETE", f"{AT}/repo", admin=True)
        assert (answer.status, rows[1]["snapshot"] in answer.text) == (409, True)
        assert (await send(rig, "DELETE", f"{AT}/{rows[1]['snapshot']}", admin=True)).status == 200
        assert (await names(rig, key="k1"), await names(rig, key="k2")) == (["repo"], [])


async def test_more_than_a_key_may_keep_is_refused(tmp_path: Path) -> None:
    """With the numbers, and nothing is kept; the list says how much is left."""
    async with serving(tmp_path, **KEYS, kv={"key_budgets": {"one": 1000}}) as rig:
        await chat(rig, LONG, named="first", key="k1")
        answer = await keep(rig, "repo", "first", key="k1")
        assert answer.status == 400, answer.text
        assert "key one keeps" in answer.text
        assert "kv.key_budgets" in answer.text
        found = (await send(rig, "GET", AT, key="k1")).json()
        assert (found["contexts"], found["room"]) == ([], {"held": 0, "most": 1000, "left": 1000})


async def test_contexts_are_listed_after_a_restart_before_any_model_runs(tmp_path: Path) -> None:
    """And used when it does."""
    async with serving(tmp_path) as rig:
        await chat(rig, LONG, named="first", model="b")
        await keep(rig, "repo", "first")
        await chat(rig, LONG, named="second")
        await keep(rig, "docs", "second")
        await restart(rig)
        found = {row["name"]: row["unused"] for row in (await send(rig, "GET", AT)).json()["contexts"]}
        assert found == {"repo": "its model has not run since the start", "docs": found["repo"]}
        assert await cached(rig, LONG, "Yes.", "Why?") > 100


async def test_a_context_whose_model_is_gone_says_so(tmp_path: Path) -> None:
    """It is listed, and can be exported and deleted."""
    async with serving(tmp_path) as rig:
        await chat(rig, LONG, named="first", model="b")
        size = (await keep(rig, "repo", "first")).json()["bytes"]
        config = yaml.safe_load((tmp_path / "config.yaml").read_text())
        del config["models"]["b"]
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        rig.program.reload()
        await rig.until(lambda: rig.said("configuration reloaded"))

        async def unused() -> str | None:
            return (await send(rig, "GET", AT)).json()["contexts"][0]["unused"] or None

        assert await seen(unused) == "its model b is gone"
        assert len((await exported(rig, "repo"))["kv"]) == size
        assert (await send(rig, "DELETE", f"{AT}/repo")).json()["deleted"]
        assert await names(rig) == []


# files


async def exported(rig: Rig, name: str, **how: Any) -> dict[str, bytes]:
    """The members of an exported file, by their ends."""
    answer = await send(rig, "GET", f"{AT}/{name}/export", **how)
    assert answer.status == 200, answer.text
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}.tar"'
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as file:
        members = {member.name: file.extractfile(member) for member in file.getmembers()}
        return {key.rpartition(".")[2]: value.read() for key, value in members.items() if value is not None}


async def imported(rig: Rig, name: str, parts: Mapping[str, bytes], *, piece: int = 50_000, **how: Any) -> Answer:
    """Send it piece by piece; the last answer."""
    begin = {"name": name, "description": msgspec.Raw(parts["json"]), **how.pop("more", {})}
    answer = await send(rig, "POST", IMPORTS, begin, **how)
    if answer.status != 201:
        return answer
    identity, data = answer.json()["id"], parts["kv"]
    for offset in range(0, len(data), piece):
        target = f"{IMPORTS}/{identity}?offset={offset}"
        answer = await send(rig, "PUT", target, data[offset : offset + piece], **how)
        if answer.status != 200:
            break
    return answer


async def test_a_context_goes_out_as_a_file_and_comes_in_again(tmp_path: Path) -> None:
    """With nothing about keys in it; a request starts from it as from the first."""
    async with serving(tmp_path) as rig:
        await chat(rig, LONG, named="first")
        row = (await keep(rig, "repo", "first")).json()
        parts = await exported(rig, "repo")
        assert len(parts["kv"]) == row["bytes"]
        assert b'"pins":[]' in parts["json"]
        await send(rig, "DELETE", f"{AT}/repo")
        await chat(rig, "something else " * 300)
        done = await imported(rig, "again", parts)
        assert done.json()["done"], done.text
        [found] = (await send(rig, "GET", AT)).json()["contexts"]
        assert (found["name"], found["tokens"], found["unused"]) == ("again", row["tokens"], "")
        assert await cached(rig, LONG, "Yes.", "Why?") >= row["tokens"] - 10


async def test_what_is_not_what_was_exported_is_not_imported(tmp_path: Path) -> None:
    """A flipped byte, too many bytes, a piece out of order, another description: and nothing is left of it."""
    async with serving(tmp_path) as rig:
        await chat(rig, LONG, named="first")
        await keep(rig, "repo", "first")
        parts = await exported(rig, "repo")
        bad = bytearray(parts["kv"])
        bad[len(bad) // 2] ^= 1
        answer = await imported(rig, "a", {**parts, "kv": bytes(bad)})
        assert (answer.status, "not those that were exported" in answer.text) == (400, True)
        answer = await imported(rig, "b", {**parts, "kv": parts["kv"] + b"more"})
        assert (answer.status, "has more than" in answer.text) == (400, True)
        answer = await imported(rig, "c", {**parts, "json": parts["json"].replace(b'"tokens":', b'"tokens":1')})
        assert (answer.status, "this describes no context" in answer.text) == (400, True)
        begun = (await send(rig, "POST", IMPORTS, {"name": "d", "description": msgspec.Raw(parts["json"])})).json()
        answer = await send(rig, "PUT", f"{IMPORTS}/{begun['id']}?offset=7", b"x")
        assert (answer.status, "begins at byte 0, not 7" in answer.text) == (409, True)
        answer = await send(rig, "PUT", f"{IMPORTS}/{begun['id']}?offset={'9' * 5000}", b"x")
        assert (answer.status, "offset must say at which byte" in answer.text) == (400, True)
        answer = await send(rig, "POST", IMPORTS, {"name": "d", "description": msgspec.Raw(parts["json"])})
        assert answer.status == 409  # its name is spoken for
        assert await names(rig) == ["repo"]
        await restart(rig)
        assert await names(rig) == ["repo"]
        assert not list((tmp_path / "slots").glob("bp-tmp-*"))


async def test_a_full_disk_takes_no_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends it is told, and nothing of it is left."""
    async with serving(tmp_path) as rig:
        await chat(rig, LONG, named="first")
        await keep(rig, "repo", "first")
        parts = await exported(rig, "repo")

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(importing, "append", full)
        answer = await imported(rig, "again", parts)
        assert (answer.status, "No space left on device; is the disk full?" in answer.text) == (507, True)
        assert not list((tmp_path / "slots").glob("bp-tmp-*"))
        monkeypatch.undo()
        assert (await imported(rig, "again", parts)).json()["done"]


async def test_a_client_that_leaves_an_export_holds_nothing(tmp_path: Path) -> None:
    """What it was reading can be deleted."""
    async with serving(tmp_path) as rig:
        await chat(rig, LONG * 20, named="first")
        await keep(rig, "repo", "first")
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.ports.proxy, limit=1024)
        writer.write(build("GET", f"{AT}/repo/export"))
        await reader.readexactly(500)
        writer.transport.abort()
        [shelf] = app_of(rig).shelves.known.values()
        await rig.until(lambda: not shelf.reading)
        assert (await send(rig, "DELETE", f"{AT}/repo")).json()["deleted"]


async def test_one_of_several_keys_imports_nothing(tmp_path: Path) -> None:
    """The engine reads a slot file without distrust. The admin does, and says whose it shall be."""
    async with serving(tmp_path, **KEYS) as rig:
        await chat(rig, LONG, named="first", key="k1")
        row = (await keep(rig, "repo", "first", key="k1")).json()
        parts = await exported(rig, "repo", key="k1")
        refused = await imported(rig, "again", parts, key="k1")
        assert (refused.status, "only the admin imports" in refused.text) == (403, True)
        unknown = await imported(rig, "again", parts, admin=True)
        assert (unknown.status, "say whose" in unknown.text) == (404, True)
        done = await imported(rig, "again", parts, admin=True, more={"key": "two"})
        assert done.json()["done"]
        assert await names(rig, key="k2") == ["again"]
        assert await cached(rig, LONG, "Yes.", "Why?", key="k2") >= row["tokens"] - 10


async def test_an_import_must_fit_into_the_budgets(tmp_path: Path) -> None:
    """It is known before a byte is sent."""
    async with serving(tmp_path) as rig:
        await chat(rig, LONG, named="first")
        await keep(rig, "repo", "first")
        parts = await exported(rig, "repo")
        [shelf] = app_of(rig).shelves.known.values()
        shelf.budgets = lambda: Budgets(kept=len(parts["kv"]) + 10)
        answer = await imported(rig, "again", parts)
        assert (answer.status, "cannot be kept" in answer.text) == (400, True)


# who has what


async def test_what_models_and_keys_have_is_in_list_and_metrics(tmp_path: Path) -> None:
    """With budgets and what is kept; one of several keys without an admin sees models only."""
    keys = {"api_keys": KEYS["api_keys"]}
    kv = {"model_budgets": {"a": "2GiB"}, "key_budgets": {"*": "1GiB"}}
    async with serving(tmp_path, **keys, kv=kv) as rig:
        await chat(rig, LONG, named="first", key="k1")
        size = (await keep(rig, "repo", "first", key="k1")).json()["bytes"]
        [folder] = (await call(rig.ports.admin, "GET", "/api/snapshots")).json()["shares"]
        told = {(one["kind"], one["name"]): one for one in folder["shares"]}
        assert (told["model", "a"]["bytes"], told["model", "a"]["budget"]) == (size, 2 << 30)
        assert (told["key", "one"]["kept"], told["key", "one"]["budget"]) == (size, 1 << 30)
        [folder] = (await send(rig, "GET", "/api/snapshots", key="k2")).json()["shares"]
        assert {one["kind"] for one in folder["shares"]} == {"model"}
        metrics = (await call(rig.ports.admin, "GET", "/metrics")).text
        for series in ('bioproxy_model_snapshot_bytes{model="a"} ', 'bioproxy_key_kept_bytes{key="one"} '):
            assert float(metrics.partition(series)[2].partition("\n")[0]) == size
        assert 'bioproxy_key_snapshot_worth_seconds{key="one"}' in metrics
