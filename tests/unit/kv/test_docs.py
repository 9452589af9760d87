"""docs/kv-cache.md explains each rule, key and kind of pause; tests/kv_rules.md names tests of each rule."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from bioproxy.config.schema import Kv

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "kv-cache.md").read_text("utf-8")
RULES = set(range(1, 25))
TABLE = (ROOT / "tests" / "kv_rules.md").read_text("utf-8")
ROWS = re.findall(r"^\| (.+?) \| `((?:unit|integration)/[\w/]+\.py)::(\w+)` \|$", TABLE, re.MULTILINE)


def test_every_test_in_the_table_exists() -> None:
    """A rule that lost its test is found out here."""
    assert len(ROWS) > 60
    for _, file, name in ROWS:
        source = (ROOT / "tests" / file).read_text("utf-8")
        assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), f"{file}::{name}"


def test_every_rule_has_a_test() -> None:
    """By its number in the design."""
    assert {int(number) for rule, _, _ in ROWS if (number := rule.split()[0]).isdigit()} == RULES


def test_every_rule_is_explained() -> None:
    """In order and without a gap, or Markdown would number them otherwise."""
    part = PAGE.partition("## The rules, and why")[2].partition("\n## ")[0]
    assert [int(number) for number in re.findall(r"^(\d+)\. \*\*", part, re.MULTILINE)] == sorted(RULES)


def test_every_key_is_explained() -> None:
    """What each of `kv`'s keys is for."""
    part = PAGE.partition("## The settings")[2].partition("\n## ")[0]
    assert set(re.findall(r"`kv\.(\w+)`", part)) == {field.name for field in msgspec.structs.fields(Kv)}


def test_every_kind_of_pause_is_explained() -> None:
    """The metric's labels, with what to do."""
    part = PAGE.partition("## When something is in the way")[2].partition("\n## ")[0]
    named = set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE))
    source = "".join(path.read_text("utf-8") for path in (ROOT / "src/bioproxy/kv").glob("*.py"))
    used = set(re.findall(r'pause\.enter\("(\w+)"', source)) | set(
        re.findall(r'Refusal\(\s*"(\w+)", (?!.*pauses=False)', source)
    )
    assert named == used - {"too_large", "budget"}
