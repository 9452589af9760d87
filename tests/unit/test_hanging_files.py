"""Every file that a configuration names may be none that can be read: it is told in a sentence, and nobody waits."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bioproxy.cli import import_preset
from bioproxy.cli.checks import examine
from bioproxy.config.load import load
from bioproxy.errors import BioproxyError
from bioproxy.prompt import Head
from bioproxy.recipes import insert
from bioproxy.templates.parse import Filled
from support.apps import running_app, station
from support.faults import hung
from support.leaks import until
from support.templates import Site, write

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it has no FIFOs")

# what the file at `net/it` is named as, in a configuration's keys
NAMED: dict[str, Any] = {
    "template": {"prefixes": {"@code": "net/it"}},
    "include": {"prefixes": {"@code": "include.md"}},
    "pattern": {"prefixes": {"@code": "pattern.md"}},
    "key file": {"api_keys": [{"key_file": "net/it", "name": "me"}]},
    "certificate": {"tls_cert_file": "net/it", "tls_key_file": "net/it"},
    "model": {"model": "net/it"},
}
TEXTS: Any = {"include.md": "<{net/it}><{message}>", "pattern.md": "<{net/*}><{message}>", "fine.md": "x <{message}>"}


def examined(folder: Path, keys: Any) -> list[str]:
    """What `bioproxy check` says about a configuration with these keys."""
    (folder / "conf.json").write_text(json.dumps({"state_directory": str(folder / "state"), **keys}))
    environment = {"HOME": str(folder)}
    found = examine(lambda: load(path=str(folder / "conf.json"), environment=environment))
    return [str(problem) for problem in found.problems]


@pytest.mark.parametrize("named", [name for name in NAMED if name != "pattern"])
def test_check_names_a_fifo(named: str, tmp_path: Path) -> None:
    """With its path, and without waiting for a writer."""
    (tmp_path / "net").mkdir()
    os.mkfifo(tmp_path / "net" / "it")
    write(tmp_path, TEXTS)
    (problem,) = examined(tmp_path, NAMED[named])
    assert "net/it" in problem
    assert "no regular file" in problem or "is no file" in problem


@pytest.mark.parametrize("named", NAMED)
def test_check_names_a_file_that_does_not_answer(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network folder whose server is gone: one sentence after the bound."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "it").write_text("something")
    write(tmp_path, TEXTS)
    with hung(tmp_path / "net", monkeypatch):
        (problem,) = examined(tmp_path, NAMED[named])
    assert f"{tmp_path}/net" in problem
    assert "does not answer" in problem


def test_check_of_a_configuration_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file itself, or the folder that it lies in."""
    with hung(tmp_path / "conf.json", monkeypatch):
        found = examine(lambda: load(path=str(tmp_path / "conf.json"), environment={"HOME": str(tmp_path)}))
        (problem,) = found.problems
    assert str(problem).startswith(f"{tmp_path}/conf.json does not answer")


@pytest.mark.parametrize("read", [insert.read, lambda path: import_preset.read(str(path))])
def test_verbs_that_read_a_file_name_one_that_does_not_answer(
    read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`recipes add` and `import`."""
    with hung(tmp_path, monkeypatch), pytest.raises(BioproxyError, match="does not answer"):
        read(tmp_path / "file")


async def test_one_template_that_hangs_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last good text stays in use and `/status` says why; a change of another one is seen meanwhile."""
    write(tmp_path, {"net/a.md": "A <{message}>", "b.md": "B <{message}>", "c.md": "<{net/a.md}> C <{message}>"})
    made = Site(tmp_path, {"@a": "net/a.md", "@b": "b.md", "@c": "c.md"})
    made.catalogue.load()
    with hung(tmp_path / "net", monkeypatch) as folder:
        write(tmp_path, {"b.md": "another B <{message}>"})
        for changed in (("@b",), (), ()):
            assert await made.catalogue.check() == changed
        a, b, c = made.catalogue.statistics()
        assert [one.state for one in (a, b, c)] == ["fault", "ok", "fault"]
        assert "net/a.md does not answer" in a.last_error
        assert "net/a.md does not answer" in c.last_error
        assert len(folder.threads) == 1
    write(tmp_path, {"net/a.md": "another A <{message}>"})
    assert await made.catalogue.check() == ("@a", "@c")


@pytest.mark.parametrize("name", [".gitignore", "src/.gitignore", "src/fifo", "src/link"])
def test_what_is_no_regular_file_in_a_tree(name: str, tmp_path: Path) -> None:
    """A pattern takes texts only, and such a `.gitignore` names nothing, as one that may not be read."""
    write(tmp_path, {"t.md": "<{src/*}><{message}>", "src/a.py": "a"})
    if name == "src/link":
        (tmp_path / name).symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / name)
    made = Site(tmp_path, {"@t": "t.md"})
    made.catalogue.load()
    assert made.catalogue.current("@t").fill("") == "==> src/a.py <==\na\n"


async def test_the_program_ends_although_its_folders_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates, state and slot files are where nothing answers any more: the end takes note and goes on."""
    write(tmp_path, {"net/a.md": "A <{message}>"})
    keys: Any = {"prefixes": {"@a": "net/a.md"}, "state_directory": str(tmp_path / "net" / "state")}
    filled = Filled(prefix="@a", version="1", parts=("A ", ""))
    with ExitStack() as late:
        async with running_app(tmp_path, backend_url="http://127.0.0.1:9", **keys) as app:
            app.pins.put(b"conversation", filled)
            for conversation in (b"1", b"2"):
                station(app).heads.note("@a", Head(), conversation)
            late.enter_context(hung(tmp_path / "net", monkeypatch))
            app.look_now.set()
            await until(lambda: app.catalogue.statistics()[0].state == "fault")
