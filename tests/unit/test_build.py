"""The line of `-version`, with what is known of the build."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path

import pytest

from bioproxy import __version__
from bioproxy.build import UNKNOWN, checked_out, commit, this_build, version_line


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
    assert re.fullmatch(rf"version: {re.escape(__version__)} \(\w+\), built at [-\w:]+", version_line(this_build()))


def test_a_package_that_was_not_installed_has_a_version() -> None:
    """The rest is not known."""
    assert version_line(this_build("no-such-package")) == f"version: {__version__} ({UNKNOWN}), built at {UNKNOWN}"


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


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def repository(folder: Path, **files: str) -> Path:
    """A folder with these files of Git's; two underscores are a slash."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("dot_git", ".git")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    "files",
    [
        {"dot_git__HEAD": f"{COMMIT}\n"},
        {"dot_git__HEAD": "ref: refs/heads/main\n", "dot_git__refs__heads__main": f"{COMMIT}\n"},
        {"dot_git__HEAD": "ref: refs/heads/main\n", "dot_git__packed-refs": f"# pack-refs\n{COMMIT} refs/heads/main\n"},
        {"dot_git": "gitdir: other/w\n", "other__w__HEAD": "ref: refs/heads/x\n", "other__w__commondir": "..\n",
         "other__refs__heads__x": f"{COMMIT}\n"},
    ],
)  # fmt: skip
def test_a_source_tree_has_the_commit_that_is_checked_out(files: dict[str, str], tmp_path: Path) -> None:
    """A branch, a packed one, no branch, a worktree."""
    assert checked_out(repository(tmp_path, **files)) == COMMIT


@pytest.mark.parametrize(
    "files", [{"x": ""}, {"dot_git__HEAD": "ref: refs/heads/none\n"}, {"dot_git__HEAD": "what?\n"}]
)
def test_a_folder_without_a_commit_has_none(files: dict[str, str], tmp_path: Path) -> None:
    """And that is no fault."""
    assert checked_out(repository(tmp_path, **files)) == UNKNOWN


def test_a_package_that_is_used_where_it_lies_has_its_commit(tmp_path: Path) -> None:
    """`pip install -e`."""
    source = repository(tmp_path / "a b", dot_git__HEAD=COMMIT)
    origin = {"url": source.as_uri(), "dir_info": {"editable": True}}
    assert commit(package(tmp_path, json.dumps(origin))) == COMMIT
