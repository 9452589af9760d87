"""What a shell offers after Tab: asked of the program, and of real shells that load its scripts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bioproxy.cli.completion import SCRIPTS, ask, split
from bioproxy.cli.main import OWN_FLAGS, build_parser
from bioproxy.cli.verbs import VERBS
from bioproxy.config.keys import KEYS

ASK = {
    "bash": """
source /dev/stdin <<'SCRIPT'
{script}
SCRIPT
COMP_LINE='bioproxy {line}'; COMP_POINT=${{#COMP_LINE}}
_bioproxy bioproxy '{word}' ''
printf '%s\\n' "${{COMPREPLY[@]}}"
""",
    "zsh": """
compdef() {{ :; }}
compadd() {{ print -l -- ${{(P)2}}; }}
_files() {{ print -l -- {word}*(N); }}
{script}
words=(bioproxy {words}); CURRENT=$#words
_bioproxy
""",
    "fish": "{script}\ncomplete -C 'bioproxy {line}' | string replace -r '\\t.*' ''; true\n",
}
FLAGS = {"bash": ["--norc", "-c"], "zsh": ["-f", "-c"], "fish": ["--no-config", "-c"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A home with two models, a template, a preset, and a command `bioproxy`."""
    (tmp_path / "code.txt").write_text("<{message}>")
    (tmp_path / "models.ini").write_text("")
    config = tmp_path / ".config" / "bioproxy" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(
        "models:\n  qwen:7b: {cmd: 'x ${PORT}', aliases: [alpha]}\n  llama: {cmd: 'x ${PORT}'}\n"
        f"prefixes: {{'@code': {tmp_path}/code.txt}}\n"
    )
    command = tmp_path / "bin" / "bioproxy"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m bioproxy "$@"\n')
    command.chmod(0o755)
    return tmp_path


def offered(line: str, capsys: pytest.CaptureFixture[str], *, shell: str = "zsh") -> set[str]:
    """What the program offers at the end of `line`."""
    assert ask([shell, f"bioproxy {line}"], build_parser()) == 0
    return set(capsys.readouterr().out.splitlines())


def test_a_verb_is_completed(capsys: pytest.CaptureFixture[str]) -> None:
    """From its beginning; from nothing, all are offered."""
    assert offered("lo", capsys) == {"load", "logs"}
    assert offered("", capsys) == {verb.name for verb in VERBS}
    assert offered("-proxy-port 8090 --json lo", capsys) == {"load", "logs"}


def test_a_verbs_own_flags_and_words_are_offered(capsys: pytest.CaptureFixture[str]) -> None:
    """And those of its own verbs."""
    assert "--outcome" in offered("requests --", capsys)
    assert offered("requests --outcome eng", capsys) == {"engine_error"}
    assert offered("requests --outcome=eng", capsys) == {"--outcome=engine_error"}
    assert offered("snapshots ver", capsys) == {"verify"}
    assert offered("recipes add --s", capsys) >= {"--set"}
    assert offered("help comp", capsys) == {"completion"}
    assert offered("serve -- --m", capsys) == set()


def test_flags_of_keys_and_their_values_are_offered_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    """With one dash or two, before a verb and after one."""
    assert offered("-proxy-p", capsys) == {"-proxy-port"}
    assert offered("models --proxy-p", capsys) == {"--proxy-port"}
    assert "-config" in offered("models -c", capsys)
    assert {flag for option in KEYS.values() for flag in option.flags} <= offered("-", capsys)
    assert offered("-kv-policy a", capsys) == {"always", "auto"}
    assert offered("--kv-policy=a", capsys) == {"--kv-policy=always", "--kv-policy=auto"}
    assert offered("-warmup-enabled=", capsys) == {"-warmup-enabled=true", "-warmup-enabled=false"}
    assert offered("-config ", capsys) == offered("-config conf", capsys) == set()


def test_names_come_from_the_configuration_and_the_package(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models by any name, templates, recipes; a configuration that cannot be read offers none, and says nothing."""
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert offered("load ", capsys) == {"qwen:7b", "llama", "alpha"}
    assert offered("unload qw", capsys) == {"qwen:7b"}
    assert offered("unload qwen:", capsys, shell="bash") == {"7b"}
    assert offered("logs ", capsys) == {"proxy", "upstream", "qwen:7b", "llama", "alpha"}
    assert offered("warm @", capsys) == {"@code"}
    assert len(offered("recipes show ", capsys)) > 3
    assert offered("recipes add ", capsys) == offered("recipes show ", capsys)
    assert offered(f"load -config {folder}/code.txt ", capsys) == set()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("bioproxy ", ([], "")),
        ("bioproxy -config 'my file' lo", (["-config", "my file"], "lo")),
        ("bioproxy -config 'my fi", (["-config", "'my"], "fi")),
    ],
)
def test_a_line_is_split_as_the_shell_does(line: str, found: tuple[list[str], str]) -> None:
    """An open quote is no fault: somebody is still typing."""
    assert split(line) == found


@pytest.mark.parametrize("shell", SCRIPTS)
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("lo", {"load", "logs"}),
        ("load qw", {"qwen:7b"}),
        ("snapshots ver", {"verify"}),
        ("-kv-policy al", {"always"}),
        ("import mod", {"models.ini"}),
    ],
)
def test_a_shell_offers_it(shell: str, line: str, found: set[str], folder: Path) -> None:
    """The real one, with the script that the program prints; files if no word fits (bash's `-o default` has them)."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    words = line.split()
    program = ASK[shell].format(script=SCRIPTS[shell], line=line, word=words[-1], words=" ".join(words))
    ended = subprocess.run(
        [shell, *FLAGS[shell], program],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={"PATH": f"{folder}/bin:{os.environ['PATH']}", "HOME": str(folder)},
    )
    assert ended.stderr == ""
    assert set(ended.stdout.split()) == (set() if (shell, line) == ("bash", "import mod") else found)


ZSH = """
fpath=(~/functions $fpath); autoload -Uz _bioproxy
compadd() { print -l -- ${(P)2} }
words=(bioproxy lo); CURRENT=2; _bioproxy
"""
LOADED = {  # where the shell looks for it, and what asks it for the first time
    "zsh": ("functions/_bioproxy", ZSH),
    "fish": (
        ".config/fish/completions/bioproxy.fish",
        "complete -C 'bioproxy lo'",
    ),
}


@pytest.mark.parametrize("shell", LOADED)
def test_a_shell_loads_it_from_its_own_folder(shell: str, folder: Path) -> None:
    """At the first Tab, nothing in a file of the user's own."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    file, program = LOADED[shell]
    (folder / file).parent.mkdir(parents=True)
    (folder / file).write_text(SCRIPTS[shell])
    environment = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "HOME": str(folder)}
    words = [shell, *(["-f"] if shell == "zsh" else []), "-c", program]
    ended = subprocess.run(words, capture_output=True, text=True, check=True, cwd=folder, env=environment)
    assert set(ended.stdout.split()) == {"load", "logs"}


def test_the_parser_and_the_splitter_know_the_same_flags(capsys: pytest.CaptureFixture[str]) -> None:
    """One that only argparse knew would be refused before it got there."""
    keys = {flag for option in KEYS.values() for flag in option.flags}
    named = {"-config", "-config-dir", "-listen", "-watch-config"}
    verbs = ["", *(verb.name for verb in VERBS), "recipes list", "recipes show", "recipes add", "contexts import"]
    words = {word for verb in verbs for word in offered(f"{verb} -", capsys)}
    assert words - keys - named == set(OWN_FLAGS)
