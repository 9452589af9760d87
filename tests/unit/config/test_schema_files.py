"""The JSON Schemas in the package are what the Structs make of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioproxy.config.schema_files import FOLDER, files


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_the_file_is_what_the_structs_make_of_it(path: Path) -> None:
    """If this fails: python -m bioproxy.config.schema_files."""
    assert path.read_text("utf-8") == files()[path]


def test_there_is_one_for_each_dialect() -> None:
    """And no other file, which nobody would keep up to date."""
    assert {path.name for path in FOLDER.iterdir()} == {"bioproxy.schema.json", "llama-swap.schema.json"}
