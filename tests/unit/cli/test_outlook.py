"""What `check` says of a model's command without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioproxy.cli.outlook import Outlook, examine
from bioproxy.config.load import Loaded, load
from support.config_files import yaml_text

THERE = {
    "llama-server", "vllm", "docker", "podman", "ssh", "env", "sh", "nice", "/opt/llama-server", "wrapper", "python3",
}  # fmt: skip


def loaded(folder: Path, cmd: str, **keys: object) -> Loaded:
    """A configuration with one model, in a home with a model file `m.gguf` and a folder `slots`."""
    (folder / "m.gguf").touch()
    (folder / "slots").mkdir(exist_ok=True)
    path = folder / "c.yaml"
    path.write_text(
        yaml_text({"models": {"qwen": {"cmd": cmd.replace("HOME", str(folder)), "proxy": "http://h:1", **keys}}})
    )
    return load(path=str(path), environment={"HOME": str(folder)})


def problems(folder: Path, cmd: str, **keys: object) -> list[str]:
    """What keeps it from running."""
    _, found = examine(loaded(folder, cmd, **keys), which=lambda program, _path: program if program in THERE else None)
    return [str(one) for one in found]


def outlook(folder: Path, cmd: str, **keys: object) -> Outlook:
    """Its outlook."""
    (found,), _ = examine(loaded(folder, cmd, **keys))
    return found


@pytest.mark.parametrize(
    ("cmd", "said"),
    [
        ("llama-servr -m HOME/m.gguf", "there is no program 'llama-servr' on PATH"),
        ("/opt/gone/llama-server -m HOME/m.gguf", "there is no program '/opt/gone/llama-server'"),
        ("HOME/m.gguf --port 1", "m.gguf' may not be executed: chmod +x it"),
        ("env A=1 llama-servr --port 1", "there is no program 'llama-servr' on PATH"),
        ("nice -n 5 vlm serve", "there is no program 'vlm' on PATH"),
        ("llama-server -m /models/gone.gguf", "the file that --model names, /models/gone.gguf, is not there"),
        ("env X=1 /opt/llama-server --mmproj /gone.gguf", "the file that --mmproj names, /gone.gguf, is not there"),
        ("llama-server -m HOME/m.gguf && echo done", "&& is an argument like any other: write sh -c"),
        ("llama-server -m HOME/m.gguf | tee log", "| is an argument like any other"),
        ("llama-server -m HOME/m.gguf > log 2>&1", "> is an argument like any other"),
        ("llama-server -m HOME/m.gguf -t $(nproc)", "$(… in $(nproc) is passed on as it stands"),
        ("llama-server -m HOME/m.gguf -t `nproc`", "`… in `nproc` is passed on as it stands"),
        ("llama-server -m $MODELS/m.gguf", "$M… in $MODELS/m.gguf is passed on as it stands"),
        ("llama-server -m HOME/m.gguf # the big one", "the note # … is passed to the program"),
        ("docker run img && echo", "&& is an argument like any other"),
    ],
)
def test_what_cannot_work_is_a_problem(cmd: str, said: str, tmp_path: Path) -> None:
    """With the model, the line, and what to write instead."""
    found = problems(tmp_path, cmd)
    assert any(said in one for one in found), found
    assert all(one.startswith("c.yaml:") or "c.yaml:" in one for one in found)
    assert all("models.qwen.cmd" in one for one in found)


@pytest.mark.parametrize(
    "cmd",
    [
        "llama-server -m HOME/m.gguf --port 1",
        "sh -c 'llama-server -m HOME/m.gguf -t $(nproc) && echo done # a note'",
        "ssh gpu llama-server -m /models/there.gguf && echo $HOME",
        "docker run -v /models:/m img -m /m/there.gguf",
        "vllm serve /models/there",
        "llama-server -m HOME/m.gguf --chat-template-kwargs '{\"a\": true}' --alias a#b --temp 0.5",
        "wrapper llama-server -m HOME/m.gguf",
        "python3 -m bioproxy.embedded -m HOME/m.gguf",
        "env A=1 python3 serve.py",
    ],
)
def test_what_can_work_is_none(cmd: str, tmp_path: Path) -> None:
    """A shell's own script, another machine and a container are not judged by what we see."""
    assert problems(tmp_path, cmd) == []


def test_the_models_own_path_counts(tmp_path: Path) -> None:
    """A program is looked for where the model's process will look."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "my-engine"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    _, found = examine(loaded(tmp_path, "my-engine --port 1", env=[f"PATH={tmp_path}/bin"]))
    assert found == []
    _, found = examine(loaded(tmp_path, "my-engine --port 1"))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("cmd", "keys", "warm", "why"),
    [
        ("llama-server -m HOME/m.gguf", {}, True, "slots"),
        ("llama-server -m HOME/m.gguf --slot-save-path /s", {}, True, "its own slot folder"),
        ("sh -c 'exec llama-server -m m'", {}, True, "slots"),
        ("my-start.sh", {"env": ["LLAMA_ARG_SLOT_SAVE_PATH=/s"]}, True, "its own slot folder"),
        ("docker run -v HOME/slots:/slots ghcr.io/llama:server --slot-save-path /slots", {}, True, "/slots"),
        ("llama-server -m HOME/m.gguf", {"kv": {"policy": "off"}}, False, "kv.policy is off"),
        ("llama-server -m HOME/m.gguf -md HOME/m.gguf", {}, False, "a draft model is not restored"),
        ("docker run ghcr.io/llama:server -m /m", {}, False, "add -v FOLDER:/slots and --slot-save-path /slots"),
        ("docker run ghcr.io/llama:server --slot-save-path /s", {}, False, "add -v FOLDER:/slots"),
        ("docker run comfyui", {}, False, "does not look like llama-server"),
        ("vllm serve m", {}, False, "does not look like llama-server"),
        ("my-start.sh", {}, False, "let it pass --slot-save-path FOLDER on"),
    ],
)
def test_whether_swaps_are_warm(cmd: str, keys: dict[str, object], warm: bool, why: str, tmp_path: Path) -> None:
    """If not, why, and what to add."""
    found = outlook(tmp_path, cmd, **keys)
    assert (found.model, found.warm) == ("qwen", warm)
    assert why in found.why
