"""docs/llama-swap.md has every key of a llama-swap config, with its default."""

from __future__ import annotations

import re
from pathlib import Path

from bioproxy.config.dialect.go import builtins
from bioproxy.config.dialect.read import read
from bioproxy.config.dialect.schema import File
from bioproxy.config.yaml_tree import parse_yaml
from support.swap_models import sources
from tools.reference import DIALECT, MARKS, fill

PAGE = (Path(__file__).parents[4] / "docs" / "llama-swap.md").read_text("utf-8")


def test_the_tables_are_up_to_date() -> None:
    """`python -m tools.reference` makes them."""
    assert fill(PAGE) == PAGE


def test_every_table_is_on_the_page() -> None:
    """One for each thing that has keys."""
    assert {match[3] for match in MARKS.finditer(PAGE) if match[2] == "swap"} == set(DIALECT)


def test_every_top_level_key_is_named() -> None:
    """Sections by their keys."""
    for name in top_names():
        assert re.search(rf"^\| `{name}[`.]", PAGE, re.MULTILINE), name


def top_names() -> tuple[str, ...]:
    """The top-level keys as a file has them."""
    return File.__struct_encode_fields__


def test_the_example_loads() -> None:
    """Nothing in it is unknown or doubtful."""
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert parse_yaml(example).faults == ()
    found = read(sources(example))
    config = found.config
    assert (config.unknown, config.warnings) == ((), ())
    assert config.models["whisper"].kv == {"policy": "off"}
    assert list(builtins(found.own["prefixes"])) == ["@code"]
