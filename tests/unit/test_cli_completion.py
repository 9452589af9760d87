"""What a shell offers after Tab."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bioproxy.cli.completion import script, verbs_of
from bioproxy.cli.main import OWN_FLAGS, VERBS, build_parser
from bioproxy.config.keys import KEYS

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is missing")
ASK = """
compgen() { builtin compgen "$@"; }
complete() { :; }
source /dev/stdin <<'SCRIPT'
%s
SCRIPT
COMP_WORDS=(bioproxy %s); COMP_CWORD=%d
_bioproxy
printf '%%s\\n' "${COMPREPLY[@]}"
"""


def offered(*words: str, folder: str = "/") -> set[str]:
    """What bash would offer for the last word in `folder`."""
    quoted = " ".join(f"'{word}'" for word in words)
    made = script("bash", build_parser(), ["-proxy-port", "-config"])
    ended = subprocess.run(
        ["bash", "--norc", "-c", ASK % (made, quoted, len(words))],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    assert ended.stderr == ""
    return set(ended.stdout.split())


@needs_bash
def test_a_verb_is_completed() -> None:
    """From its beginning; from nothing, all are offered."""
    assert offered("lo") == {"load", "logs"}
    assert {verb.name for verb in VERBS} <= offered("")


@needs_bash
def test_a_verbs_own_flags_and_words_are_offered() -> None:
    """And those of its own verbs."""
    assert "--outcome" in offered("requests", "--")
    assert "engine_error" in offered("requests", "--outcome", "eng")
    assert offered("snapshots", "ver") == {"verify"}
    assert "--set" in offered("recipes", "add", "--s")


@needs_bash
def test_flags_of_keys_are_offered_everywhere() -> None:
    """Before a verb and behind one."""
    assert offered("-proxy") == {"-proxy-port"}
    assert "-config" in offered("models", "-c")


@needs_bash
def test_files_are_offered_where_no_word_fits(tmp_path: Path) -> None:
    """A preset's path, say."""
    (tmp_path / "models.ini").write_text("")
    assert offered("import", "mod", folder=str(tmp_path)) == {"models.ini"}


def test_fish_gets_a_line_for_each_word() -> None:
    """Every verb with what it is for, and the flags of keys in fish's way of saying -old."""
    lines = script("fish", build_parser(), [flag for key in KEYS.values() for flag in key.flags]).splitlines()
    for verb in VERBS:
        assert [line for line in lines if f"-n __fish_use_subcommand -a {verb.name} -d " in line], verb.name
    assert "complete -c bioproxy -o proxy-port" in lines
    assert "complete -c bioproxy -n '__fish_seen_subcommand_from logs' -l follow" in lines


def test_zsh_runs_bashs_script() -> None:
    """With its own emulation of bash's completion."""
    made = script("zsh", build_parser(), [])
    assert made.startswith("autoload -U +X bashcompinit")
    assert script("bash", build_parser(), []) in made


def test_the_parser_and_the_splitter_know_the_same_flags() -> None:
    """One that only argparse knew would be refused before it got there."""
    words = {word for verb in verbs_of(build_parser()).values() for word in verb.words}
    assert {word for word in words if word.startswith("-")} | {"--version"} == set(OWN_FLAGS)
