"""`bioproxy contexts` beside the real program with fake llama-servers."""

from __future__ import annotations

import asyncio
import os
import shlex
import stat
import sys
import tarfile
from asyncio.subprocess import PIPE
from pathlib import Path

import msgspec

from support.cache_rig import program
from support.command import COMMAND, environment
from support.swap_api import found_by, verb
from support.swap_rig import Rig

LONG = "what is a cache, and what is it for? " * 60
KV = {"min_seconds": 0, "min_free": 0, "save_after": 3600}


async def asked(rig: Rig) -> str:
    """The id of a request, as the command shows it."""
    assert (await rig.chat("a", messages=[{"role": "user", "content": LONG}])).status == 200
    return str((await verb(rig, "requests", "--json")).json()[0]["id"])


async def test_a_context_is_kept_listed_renamed_and_deleted(tmp_path: Path) -> None:
    """Each verb says what it did; the list says what is left to keep, and why one is not used."""
    async with program(tmp_path, kv=KV, prefixes={}) as rig:
        assert "no contexts" in (await verb(rig, "contexts", "list")).out
        kept = await verb(rig, "contexts", "keep", "repo", await asked(rig))
        assert "repo is kept: " in kept.out
        renamed = await verb(rig, "contexts", "rename", "repo", "docs")
        assert renamed.out.strip() == "repo is called docs now"
        listed = (await verb(rig, "contexts", "list")).out.splitlines()
        assert (listed[1].split()[0], "1 in all" in listed[-1]) == ("docs", True)
        refused = await verb(rig, "contexts", "keep", "docs", "nobody")
        assert (refused.code, "no request 'nobody' is known" in refused.err) == (1, True)
        assert (await verb(rig, "contexts", "delete", "docs")).out.strip() == "docs is deleted"
        assert (await verb(rig, "contexts", "list", "--json")).json()["contexts"] == []


async def test_a_context_goes_into_a_file_and_comes_back(tmp_path: Path) -> None:
    """A private file, never over another one; from a cut one nothing is imported."""
    async with program(tmp_path, kv=KV, prefixes={}) as rig:
        await verb(rig, "contexts", "keep", "repo", await asked(rig))
        path = tmp_path / "out.tar"
        assert f"repo is in {path}" in (await verb(rig, "contexts", "export", "repo", str(path))).out
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with tarfile.open(path) as file:
            assert file.getnames() == ["repo.json", "repo.kv"]
        again = await verb(rig, "contexts", "export", "repo", str(path))
        assert (again.code, "is there already" in again.err) == (1, True)
        taken = await verb(rig, "contexts", "import", str(path))
        assert (taken.code, "there is a context repo already" in taken.err) == (1, True)
        assert "docs is there" in (await verb(rig, "contexts", "import", str(path), "docs")).out
        rows = (await verb(rig, "contexts", "list", "--json")).json()["contexts"]
        assert {(row["name"], row["unused"]) for row in rows} == {("docs", ""), ("repo", "")}
        path.write_bytes(path.read_bytes()[:30_000])
        cut = await verb(rig, "contexts", "import", str(path), "cut")
        assert (cut.code, len((await verb(rig, "contexts", "list", "--json")).json()["contexts"])) == (1, 2)
        path.write_bytes(msgspec.json.encode({"a": 1}) * 1000)
        none = await verb(rig, "contexts", "import", str(path), "none")
        assert (none.code, "cannot read" in none.err or "no exported context" in none.err) == (1, True)
        assert not list(tmp_path.glob("*.part"))


async def test_a_context_goes_through_a_pipe(tmp_path: Path) -> None:
    """`-` is standard output, and standard input; nothing else stands there."""
    async with program(tmp_path, kv=KV, prefixes={}) as rig:
        await verb(rig, "contexts", "keep", "repo", await asked(rig))
        out, back = (
            shlex.join((*COMMAND, "contexts", *words, *found_by(rig)))
            for words in (("export", "repo", "-"), ("import", "-", "docs"))
        )
        given = environment(tmp_path, PYTHONPATH=os.pathsep.join(sys.path))
        piped = await asyncio.create_subprocess_shell(
            f"{out} | {back}", cwd=tmp_path, env=given, stdout=PIPE, stderr=PIPE
        )
        printed, errors = await piped.communicate()
        assert (piped.returncode, b"docs is there" in printed) == (0, True), errors
        assert not (tmp_path / "-").exists()
        rows = (await verb(rig, "contexts", "list", "--json")).json()["contexts"]
        assert {(row["name"], row["unused"]) for row in rows} == {("docs", ""), ("repo", "")}
