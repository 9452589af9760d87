"""docs/cli.md names every verb, every flag and every exit code, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bioproxy.cli import main, verbs
from bioproxy.config.schema import Config

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "cli.md").read_text("utf-8")


def rows(heading: str) -> list[str]:
    """The first cells of the table under `heading` (the page's first table: an empty one)."""
    part = PAGE.partition(heading)[2].partition("\n## ")[0]
    return [
        line.split(" | ")[0].strip("| ") for line in part.splitlines() if line.startswith("| `") or line[:3].isdigit()
    ]


def test_every_verb_is_described() -> None:
    """The table of verbs is the table in the code."""
    named = {re.split(r"[ `]", cell.strip("`"))[0] for cell in rows("bioproxy config` shows the values")}
    assert named == {verb.name for verb in verbs.VERBS}


def test_every_flag_is_described() -> None:
    """Those of the command line, and those that name files; those of config keys stand in configuration.md."""
    named = set(re.findall(r"`(--?[a-z-]+)", "\n".join(rows("## Flags"))))
    files = {flag.partition(" ")[0] for flag in main.FILE_FLAGS}
    assert {main.with_two_dashes(flag) for flag in named} == {*map(main.with_two_dashes, files), *main.OWN_FLAGS}


@pytest.mark.parametrize("code", [0, main.FAILED, main.USAGE, main.INTERRUPTED, main.PIPE_CLOSED, 128 + 15])
def test_every_exit_code_is_described(code: int) -> None:
    """Scripts rely on them."""
    assert f"\n| {code} | " in PAGE


def test_getting_started_uses_what_there_is() -> None:
    """Verbs and ports on the page are the real ones, and its links lead somewhere."""
    page = (DOCS / "getting-started.md").read_text("utf-8")
    config = Config()
    for verb in re.findall(r"bioproxy (\w+) ?(?:-|#|`|\n)", page):
        assert verb in verbs.BY_NAME
    assert f"localhost:{config.proxy_port}" in page
    assert config.backend_url in page
    for link in re.findall(r"\]\(([a-z-]+\.md)", page + PAGE):
        assert (DOCS / link).exists(), link
