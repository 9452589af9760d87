"""The JSON Schemas in the package are what the Structs make of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.reference import SCHEMAS, schema_files


@pytest.mark.parametrize("path", schema_files(), ids=lambda path: path.name)
def test_the_file_is_what_the_structs_make_of_it(path: Path) -> None:
    """If this fails: python -m tools.reference."""
    assert path.read_text("utf-8") == schema_files()[path]


def test_there_is_one_for_each_dialect() -> None:
    """And no other file, which nobody would keep up to date."""
    assert {path.name for path in SCHEMAS.iterdir()} == {"bioproxy.schema.json", "llama-swap.schema.json"}
