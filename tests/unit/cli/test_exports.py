"""Files that verbs of the command line write: whole or not at all, and never another's."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioproxy.cli.captures import query
from bioproxy.cli.contexts import new_file
from bioproxy.errors import BioproxyError


def test_a_file_is_there_when_it_is_whole_and_private(tmp_path: Path) -> None:
    """Under its own name only then."""
    path = tmp_path / "out"
    with new_file(path) as file:
        file.write(b"all")
        assert not path.exists()
    assert path.read_bytes() == b"all"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_of_one_that_broke_off_nothing_is_left(tmp_path: Path) -> None:
    """The program went away in the middle."""
    with pytest.raises(BioproxyError, match="gone"), new_file(tmp_path / "out"):
        raise BioproxyError("gone")
    assert not [*tmp_path.iterdir()]


def test_two_that_write_at_once_do_not_take_each_others_file_away(tmp_path: Path) -> None:
    """The second is refused, the first ends well."""
    path = tmp_path / "out"
    with new_file(path) as first:
        first.write(b"first")
        with pytest.raises(BioproxyError, match=r"out\.part is there already"), new_file(path):
            pass
    assert path.read_bytes() == b"first"


def test_a_time_before_all_times_means_all() -> None:
    """As `--since` of three thousand years is written into the query."""
    assert query("1000000d", "", "") == "?start=1970-01-01T00%3A00%3A00%2B00%3A00"
