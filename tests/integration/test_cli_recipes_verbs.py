"""`bioproxy recipes` and `bioproxy import` as commands: their words reach what does the work, and the result loads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.command import Ended, run


async def check(folder: Path) -> Ended:
    """`bioproxy check` of c.yaml, where a llama-server is on PATH, and the model's file is there."""
    program = folder / "bin" / "llama-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (folder / "qwen.gguf").touch()
    return await run(folder, "check", "-config", "c.yaml", PATH=f"{program.parent}:{os.environ['PATH']}")


async def test_a_recipe_is_listed_shown_and_added(tmp_path: Path) -> None:
    """Into the file that is named; `check` finds the model there."""
    (tmp_path / "c.yaml").write_text("# mine\nmodels: {}\n")
    assert "llama-server" in (await run(tmp_path, "recipes", "list")).out
    assert "file" in (await run(tmp_path, "recipes", "show", "llama-server")).out
    words = [
        "recipes",
        "add",
        "llama-server",
        "c.yaml",
        "--set",
        f"file={tmp_path}/qwen.gguf",
        "--set=context=4096",
        "--as",
        "qwen",
    ]
    added = await run(tmp_path, *words)
    assert (added.code, added.out) == (0, "wrote models.qwen to c.yaml\n"), added.err
    assert "# mine" in (tmp_path / "c.yaml").read_text()
    assert "qwen   warm" in (await check(tmp_path)).out


async def test_a_recipe_goes_into_the_file_that_counts(tmp_path: Path) -> None:
    """Where none is named: that of -config, else the one at the default places; without either a sentence."""
    words = ["recipes", "add", "llama-server", "--set", "file=/m/qwen.gguf"]
    nowhere = await run(tmp_path, *words)
    assert (nowhere.code, nowhere.out) == (1, "")
    assert "name the file to write to" in nowhere.err
    (tmp_path / "c.yaml").write_text("models: {}\n")
    assert (await run(tmp_path, *words, "-config", "c.yaml", "--json")).json()["model"] == "qwen"


async def test_a_dash_is_standard_output(tmp_path: Path) -> None:
    """For an entry, and for a preset; no file of that name is made."""
    entry = await run(tmp_path, "recipes", "add", "llama-server", "-", "--set", "file=/m/qwen.gguf")
    assert (entry.code, entry.out.splitlines()[:2]) == (0, ["models:", "  qwen:"])
    (tmp_path / "m.ini").write_text("[qwen]\nmodel = qwen.gguf\n")
    preset = await run(tmp_path, "import", "m.ini", "-o", "-")
    assert preset.out == (await run(tmp_path, "import", "m.ini")).out != ""
    assert not (tmp_path / "-").exists()


@pytest.mark.parametrize("words", [["recipes"], ["recipes", "add"], ["recipes", "burn"], ["import"]])
async def test_a_wrong_command_line_is_2(words: list[str], tmp_path: Path) -> None:
    """As everywhere."""
    assert (await run(tmp_path, *words)).code == 2


async def test_a_preset_is_imported(tmp_path: Path) -> None:
    """To stdout, or into a new file that loads; never over another one."""
    (tmp_path / "m.ini").write_text(f"[qwen]\nmodel = {tmp_path}/qwen.gguf\nctx-size = 4096\n")
    shown = await run(tmp_path, "import", "m.ini")
    written = await run(tmp_path, "import", "m.ini", "-o", "c.yaml")
    assert (shown.code, written.code) == (0, 0), written.err
    assert "models:" in shown.out
    assert "qwen   warm" in (await check(tmp_path)).out
    again = await run(tmp_path, "import", "m.ini", "-o", "c.yaml")
    assert again.code == 1
    assert "there is such a file already" in again.err


async def test_completion_is_printed(tmp_path: Path) -> None:
    """For the shell that is named."""
    assert "complete -o default -F _bioproxy bioproxy" in (await run(tmp_path, "completion", "bash")).out
    assert "complete -c bioproxy" in (await run(tmp_path, "completion", "fish")).out
    assert (await run(tmp_path, "completion", "csh")).code == 2
