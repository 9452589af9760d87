"""The line of `-version`, with what is known of the build."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

from bioproxy import __version__
from bioproxy.cli.build import UNKNOWN, commit, version_line


def package(folder: Path, origin: str | None) -> metadata.Distribution:
    """A package as an installer leaves it."""
    info = folder / "thing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: thing\nVersion: 1.0\n")
    if origin is not None:
        (info / "direct_url.json").write_text(origin)
    return metadata.Distribution.at(info)


def test_the_line_has_llama_swaps_shape() -> None:
    """Scripts take it apart."""
    assert re.fullmatch(rf"version: {re.escape(__version__)} \(\w+\), built at [-\w:]+", version_line())


def test_a_package_that_was_not_installed_has_a_version() -> None:
    """The rest is not known."""
    assert version_line("no-such-package") == f"version: {__version__} ({UNKNOWN}), built at {UNKNOWN}"


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ('{"url": "u", "vcs_info": {"vcs": "git", "commit_id": "abc123"}}', "abc123"),
        ('{"url": "u", "dir_info": {}}', UNKNOWN),
        ("[]", UNKNOWN),
        ("{", UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_the_commit_is_the_installers(origin: str | None, expected: str, tmp_path: Path) -> None:
    """PEP 610; anything else is not known."""
    assert commit(package(tmp_path, origin)) == expected
