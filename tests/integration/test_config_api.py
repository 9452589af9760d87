"""The configuration on the web page: what is shown to whom, what a text would change, and how one is saved."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from bioproxy.admin.config_api import ConfigApi, ConfigTrial, digest, line_of
from bioproxy.admin.routes import Question
from bioproxy.config.files import SIZE_LIMIT
from bioproxy.config.load import load
from bioproxy.wire.http1.message import Request, Responder
from support.admin import Backstage, Deaf
from support.http import Answer, call
from support.swap_models import fake, fakes
from support.swap_rig import Rig, swap_rig

LIMIT = '"queue_limit": 7'
EDIT: dict[str, Any] = {"ui": {"edit_config": True}}


async def ask(rig: Rig, method: str, path: str, body: object = None, *, port: int = 0, **headers: str) -> Answer:
    """A request to the admin port, or another one, as the page sends it."""
    fields = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    data = b"" if body is None else json.dumps(body).encode()
    return await call(port or rig.ports.admin, method, path, body=data, headers=fields)


async def opened(rig: Rig) -> Any:
    """The file as the page opens it."""
    page = (await ask(rig, "GET", "/api/config")).json()
    assert page["edit"], page["why"]
    return page["files"][0]


def edited(file: Any, before: str, after: str) -> Any:
    """The same file with another text."""
    assert before in file["text"]
    return {"path": file["path"], "digest": file["digest"], "text": file["text"].replace(before, after)}


async def test_without_ui_edit_config_values_are_shown_and_no_file(tmp_path: Path) -> None:
    """With their places, and no secret."""
    async with swap_rig(tmp_path, {"a": fake(env=["API_TOKEN=sesame"])}, queue_limit=7) as rig:
        answer = await ask(rig, "GET", "/api/config")
        saved = await ask(rig, "PUT", "/api/config", {"path": "x", "text": "{}"})
    page = answer.json()
    assert not page["edit"]
    assert "ui.edit_config" in page["why"]
    assert page["files"][0]["text"] is None
    row = next(row for row in page["values"] if row["key"] == "queue_limit")
    assert row["text"] == "7"
    assert row["origin"].startswith(f"{tmp_path}/config.yaml:")
    assert row["live"]
    assert "sesame" not in answer.text
    assert (saved.status, saved.json()["error"]["message"]) == (403, page["why"])


async def test_without_an_admin_key_the_proxy_port_changes_nothing(tmp_path: Path) -> None:
    """Who changes a configuration can run any command, and others may reach that port."""
    async with swap_rig(tmp_path, fakes("a"), **EDIT) as rig:
        page = (await ask(rig, "GET", "/api/config", port=rig.port)).json()
        answer = await ask(rig, "PUT", "/api/config", {"path": "x", "text": "{}"}, port=rig.port)
    assert (page["edit"], page["files"][0]["text"]) == (False, None)
    assert "admin_key" in page["why"]
    assert answer.status == 403


async def test_with_an_admin_key_its_owner_alone_may(tmp_path: Path) -> None:
    """On both ports."""
    async with swap_rig(tmp_path, fakes("a"), admin_key="open", api_keys=["client"], **EDIT) as rig:
        for port in (rig.port, rig.ports.admin):
            assert (await ask(rig, "GET", "/api/config", port=port, x_api_key="client")).status == 401
            page = (await ask(rig, "GET", "/api/config", port=port, x_api_key="open")).json()
            assert page["edit"]
            assert page["files"][0]["text"] == (tmp_path / "config.yaml").read_text()


async def test_a_check_says_what_a_text_would_change(tmp_path: Path) -> None:
    """And changes nothing."""
    async with swap_rig(tmp_path, {"a": fake(), "b": fake()}, queue_limit=7, **EDIT) as rig:
        await rig.chat("a")
        file = await opened(rig)
        other = edited(file, LIMIT, '"queue_limit": 8\n"limits": {"body": 1048576}')
        other["text"] = other["text"].replace('  "a":', '  "a":\n    env: [COLOUR=red]').replace('  "b":', '  "c":')
        trial = (await ask(rig, "POST", "/api/config/check", other)).json()
        assert await rig.running() == {"a": "ready"}
    assert trial["problems"] == []
    assert "queue_limit" in trial["changed"]
    assert trial["late"] == ["limits.body"]
    assert [(one["model"], one["effect"], one["runs"]) for one in trial["models"]] == [
        ("a", "restarts", True),
        ("b", "is removed", False),
        ("c", "is new", False),
    ]
    assert (tmp_path / "config.yaml").read_text() == file["text"]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ('"queue_limit": seven', "queue_limit"),
        ('"queue_limit": 7\n"kv": {"policy": never}', "kv.policy"),
        ('"queue_limit": [', ""),
        ('"queue_limit": 7\n"prefixes": {"@x": nowhere.txt}', "nowhere.txt"),
    ],
)
async def test_a_broken_text_has_its_problems_at_their_lines_and_is_not_saved(
    after: str, said: str, tmp_path: Path
) -> None:
    """All it would break is told before, and 422 to who saves it all the same; the file stays."""
    async with swap_rig(tmp_path, fakes("a"), queue_limit=7, **EDIT) as rig:
        file = await opened(rig)
        other = edited(file, LIMIT, after)
        problems = (await ask(rig, "POST", "/api/config/check", other)).json()["problems"]
        saved = await ask(rig, "PUT", "/api/config", other)
    last = other["text"].partition(after)[0].count("\n") + 1 + after.count("\n")
    assert any(said in f"{one['key']} {one['message']}" for one in problems)
    assert any(one["line"] >= last or "nowhere.txt" in one["message"] for one in problems)
    assert saved.status == 422
    assert [one["message"] for one in saved.json()["error"]["problems"]] == [one["message"] for one in problems]
    assert (tmp_path / "config.yaml").read_text() == file["text"]


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("/home/x/conf.yaml:12", 12),
        ("conf.yaml:12", 12),
        ("./conf.yaml:12", 12),
        ("~/conf.yaml:12", 12),
        ("/etc/conf.yaml:12", 0),
        ("more/conf.yaml:12", 0),
        ("conf.yaml", 0),
        ("flag -port", 0),
        ("", 0),
    ],
)
def test_a_problem_stands_at_a_line_of_its_own_file(where: str, line: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However that was named; another file may have the same name in another folder."""
    monkeypatch.setattr(os, "getcwd", lambda: "/home/x")
    monkeypatch.setenv("HOME", "/home/x")
    assert line_of(where, "/home/x/conf.yaml") == line


async def test_a_save_keeps_the_old_text_and_reloads_by_difference(tmp_path: Path) -> None:
    """A model that did not change runs on; mode and link stay as they were."""
    async with swap_rig(tmp_path, fakes("a"), queue_limit=7, **EDIT) as rig:
        await rig.chat("a")
        path = tmp_path / "config.yaml"
        real = path.rename(tmp_path / "real.yaml")
        real.chmod(0o640)
        path.symlink_to(real)
        file = await opened(rig)
        other = edited(file, LIMIT, '"queue_limit": 8')
        saved = await ask(rig, "PUT", "/api/config", other)
        assert saved.json() == {"changed": ["queue_limit"], "backup": str(real) + ".bak"}
        assert await rig.running() == {"a": "ready"}
        values = (await ask(rig, "GET", "/api/config")).json()["values"]
    assert next(row["text"] for row in values if row["key"] == "queue_limit") == "8"
    assert path.is_symlink()
    assert (real.read_text(), real.stat().st_mode & 0o777) == (other["text"], 0o640)
    assert (tmp_path / "real.yaml.bak").read_text() == file["text"]
    assert rig.log.starts() == ["a"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
async def test_a_save_leaves_the_file_to_its_owner(tmp_path: Path) -> None:
    """Who wrote it can change it again, and read what it was before."""
    async with swap_rig(tmp_path, fakes("a"), queue_limit=7, **EDIT) as rig:
        path = tmp_path / "config.yaml"
        os.chown(path, 4711, 4712)
        file = await opened(rig)
        assert (await ask(rig, "PUT", "/api/config", edited(file, LIMIT, '"queue_limit": 8'))).status == 200
    owners = [(one.stat().st_uid, one.stat().st_gid) for one in (path, tmp_path / "config.yaml.bak")]
    assert owners == [(4711, 4712)] * 2


async def test_a_file_that_somebody_else_changed_is_not_overwritten(tmp_path: Path) -> None:
    """412; the person opens it again."""
    async with swap_rig(tmp_path, fakes("a"), queue_limit=7, **EDIT) as rig:
        file = await opened(rig)
        (tmp_path / "config.yaml").write_text(file["text"] + "# by hand\n")
        answer = await ask(rig, "PUT", "/api/config", edited(file, LIMIT, '"queue_limit": 8'))
    assert answer.status == 412
    assert "changed by somebody else" in answer.json()["error"]["message"]
    assert (tmp_path / "config.yaml").read_text().endswith("# by hand\n")


async def test_the_bytes_that_were_not_edited_stay(tmp_path: Path) -> None:
    """A byte order mark and the ends of lines; the old file is kept as it was."""
    async with swap_rig(tmp_path, fakes("a"), queue_limit=7, **EDIT) as rig:
        path = tmp_path / "config.yaml"
        before = b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n")
        path.write_bytes(before)
        saved = await ask(rig, "PUT", "/api/config", edited(await opened(rig), LIMIT, '"queue_limit": 8'))
    assert saved.status == 200
    assert path.read_bytes() == before.replace(LIMIT.encode(), b'"queue_limit": 8')
    assert (tmp_path / "config.yaml.bak").read_bytes() == before


async def test_a_text_that_no_start_would_read_is_not_saved(tmp_path: Path) -> None:
    """A configuration has 4 MiB at most."""
    async with swap_rig(tmp_path, fakes("a"), queue_limit=7, **EDIT) as rig:
        file = await opened(rig)
        other = edited(file, LIMIT, LIMIT + "\n" + "#".ljust(SIZE_LIMIT))
        problems = (await ask(rig, "POST", "/api/config/check", other)).json()["problems"]
        saved = await ask(rig, "PUT", "/api/config", other)
    assert "larger than 4 MiB" in problems[0]["message"]
    assert saved.status == 422
    assert (tmp_path / "config.yaml").read_text() == file["text"]


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs")
async def test_what_is_only_worth_correcting_is_told_with_its_line(tmp_path: Path) -> None:
    """Before a save, which it does not stop."""
    async with swap_rig(tmp_path, fakes("a"), queue_limit=7, **EDIT) as rig:
        other = edited(await opened(rig), LIMIT, f'{LIMIT}\n"queue_limmit": 8')
        checked = await ask(rig, "POST", "/api/config/check", other)
        saved = await ask(rig, "PUT", "/api/config", other)
    trial = checked.json()
    line = other["text"].splitlines().index('"queue_limmit": 8') + 1
    assert [(one["key"], one["line"]) for one in trial["warnings"]] == [("queue_limmit", line)]
    assert (trial["problems"], saved.status) == ([], 200)


async def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    """A program may write the configuration into a FIFO."""
    async with swap_rig(tmp_path, fakes("a"), queue_limit=7, **EDIT) as rig:
        other = edited(await opened(rig), LIMIT, '"queue_limit": 8')
        path = tmp_path / "config.yaml"
        path.unlink()
        os.mkfifo(path)
        saved = await ask(rig, "PUT", "/api/config", other | {"digest": (await opened(rig))["digest"]})
    assert saved.status == 409
    assert "no regular file" in saved.json()["error"]["message"]
    assert path.is_fifo()


async def test_a_save_goes_on_if_its_client_leaves(tmp_path: Path) -> None:
    """A file that was written and not taken over would be a surprise at the next start."""
    path = tmp_path / "config.yaml"
    path.write_text("ui: {edit_config: true}")
    file = {"path": str(path), "digest": digest(path.read_text()), "text": "ui: {edit_config: yes}"}
    request = Request(
        method="PUT", target=b"/api/config", path="/api/config", headers=[], fields={}, body=json.dumps(file).encode()
    )
    backstage, begun, go_on = Backstage(), asyncio.Event(), asyncio.Event()

    async def trial(_: object) -> ConfigTrial:
        begun.set()
        await go_on.wait()
        return ConfigTrial()

    found = load(path=str(path), environment={"HOME": str(tmp_path)})
    api = ConfigApi(lambda: found, trial=trial, reload=backstage.reload)
    saving = aio.spawn(api.save(Question(request, Responder(Deaf(), request), {})), name="save")
    await begun.wait()
    saving.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await saving
    assert path.read_text() == file["text"]
    assert backstage.reloads == 1


@pytest.mark.parametrize("path", ["/etc/passwd", "", "../config.yaml"])
async def test_only_files_of_the_configuration_are_written(path: str, tmp_path: Path) -> None:
    """Whatever a client names."""
    async with swap_rig(tmp_path, fakes("a"), **EDIT) as rig:
        answer = await ask(rig, "PUT", "/api/config", {"path": path, "text": "{}", "digest": ""})
    assert answer.status == 404


async def test_a_form_changes_nothing(tmp_path: Path) -> None:
    """What a foreign page can send without asking has neither the type nor the header."""
    async with swap_rig(tmp_path, fakes("a"), **EDIT) as rig:
        answer = await ask(rig, "PUT", "/api/config", {"path": "x"}, Content_Type="text/plain")
    assert answer.status == 415


async def test_the_schemas_are_there_for_an_editor(tmp_path: Path) -> None:
    """One for each dialect."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        found = (await ask(rig, "GET", "/api/config/schema")).json()
    assert {"bioproxy", "llama-swap"} == set(found)
    assert all("prefixes" in json.dumps(schema) for schema in found.values())
