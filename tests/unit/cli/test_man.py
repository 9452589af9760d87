"""The man page, which is made from docs/cli.md."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from bioproxy.cli import main, verbs
from tools.manpage import PAGE, manual

MANUAL = manual(PAGE.read_text("utf-8"))
TAGS = [line.replace("\\-", "-") for line in re.findall(r"^\.TP\n\\fB(.*)\\fR$", MANUAL, re.MULTILINE)]


def test_it_has_each_verb_flag_and_exit_code() -> None:
    """As the page has them, which is held to the code."""
    assert {verb.name for verb in verbs.VERBS} <= {tag.split()[0] for tag in TAGS}
    assert {word for tag in TAGS for word in tag.split() if word in main.OWN_FLAGS} >= {"--json", "--older", "-n"}
    assert {"0", "1", "2", "130", "SIGHUP"} <= set(TAGS)


def test_no_markdown_is_left() -> None:
    """Links are their text, cells are no lines of dashes."""
    assert re.findall(r"\]\(|`|\*\*|^#|\|\s*-+|^\| ", MANUAL, re.MULTILINE) == []
    assert re.findall(r"^\.SH (.*)$", MANUAL, re.MULTILINE)[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"]


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("a `--b` and [`c\\d`](x.md)", ".PP\na \\fB\\-\\-b\\fR and \\fBc\\ed\\fR"),
        (".hidden", ".PP\n\\&.hidden"),
        ("| a | b | c |\n|---|---|---|\n| `x\\|y` | z | it `is` |", ".TP\n\\fBx|y\\fR\n(z) it \\fBis\\fR"),
        ("- one\n  more\n- two", ".IP \\(bu 2\none more\n.IP \\(bu 2\ntwo"),
    ],
)
def test_what_a_line_becomes(text: str, made: str) -> None:
    """In the words of man(7)."""
    assert manual(f"```console\n$ b\n```\n{text}\n").rstrip().endswith(f".SH DESCRIPTION\n{made}")


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_groff_has_no_complaint() -> None:
    """Each request is known, and each font is left again."""
    command = ["groff", "-man", "-ww", "-Tutf8"]
    done = subprocess.run(command, input=MANUAL.encode(), capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert "snapshots prune" in re.sub(r"\x1b\[[\d;]*m|.\x08", "", done.stdout.decode())
