"""What a package index shows, and what a wheel has: links that lead somewhere, no tools as an extra, the web page."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support.page import ROOT, packaging

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    """packaging/metadata.py, which the build runs."""
    return packaging("metadata")


def made(hook: ModuleType, root: Path = ROOT) -> dict[str, Any]:
    """The metadata that the hook fills in."""
    metadata: dict[str, Any] = {}
    hook.Metadata(str(root), {}).update(metadata)
    return metadata


@pytest.mark.parametrize(
    ("remote", "home"),
    [
        ("https://forge.example/ann/bioproxy.git\n", "https://forge.example/ann/bioproxy"),
        ("https://forge.example/ann/bioproxy/", "https://forge.example/ann/bioproxy"),
        ("https://ann:token@forge.example/ann/bioproxy.git", "https://forge.example/ann/bioproxy"),
        ("git@forge.example:group/sub/bioproxy.git", "https://forge.example/group/sub/bioproxy"),
        ("ssh://git@forge.example/ann/bioproxy", "https://forge.example/ann/bioproxy"),
        ("/srv/git/bioproxy.git", ""),
        ("file:///srv/git/bioproxy.git", ""),
        ("http://localhost:3000/ann/bioproxy.git", ""),
        ("", ""),
    ],
)
def test_a_remotes_home(hook: ModuleType, remote: str, home: str) -> None:
    """A page that a browser can open, without the credentials of the machine that built the package; else nothing."""
    assert hook.home_of(remote) == home


def test_every_link_of_the_readme_is_whole(hook: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package index has no repository beside the README."""
    monkeypatch.setenv("BIOPROXY_HOME", "https://forge.example/ann/bioproxy")
    metadata = made(hook)
    links = re.findall(r"\]\(([^)]+)\)", metadata["readme"]["text"])
    assert "https://forge.example/ann/bioproxy/blob/HEAD/docs/README.md" in links
    assert "https://forge.example/ann/bioproxy/raw/HEAD/docs/web-page.png" in links
    assert [link for link in links if not link.startswith("https://")] == []
    assert metadata["urls"]["Homepage"] == "https://forge.example/ann/bioproxy"
    assert metadata["urls"]["Changelog"].endswith("/CHANGELOG.md")


def test_without_a_home_there_are_no_urls(hook: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tree that was unpacked somewhere; the README stays as it is."""
    monkeypatch.delenv("BIOPROXY_HOME", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "README.md").write_text("[docs](docs/README.md)")
    metadata = made(hook, tmp_path)
    assert metadata == {"readme": {"content-type": "text/markdown", "text": "[docs](docs/README.md)"}}


def test_users_are_offered_no_developers_tools() -> None:
    """They are a group, which an index does not show."""
    assert set(PROJECT["project"]["optional-dependencies"]) == {"llama", "otel", "perf"}
    assert {"pytest", "ruff", "mypy"} <= set(PROJECT["dependency-groups"]["dev"])


def test_the_sdist_has_what_its_build_needs() -> None:
    """The hooks run again when a wheel is made of it."""
    hatch = PROJECT["tool"]["hatch"]
    hooks = [hatch["metadata"]["hooks"]["custom"]["path"], hatch["build"]["hooks"]["custom"]["path"]]
    assert {f"/{path.partition('/')[0]}" for path in hooks} | {"/ui"} <= set(
        hatch["build"]["targets"]["sdist"]["include"]
    )


# the web page in the package

NPM = """#!/bin/sh
echo "npm $*" >> {calls}
[ "$1" != {fails} ] || {{ echo "no registry answers" >&2; exit 1; }}
[ "$1" != ci ] || /bin/mkdir -p node_modules
[ "$1" != run ] || {{ /bin/mkdir -p ../src/bioproxy/page; echo built > ../src/bioproxy/page/index.html; }}
"""


class Tree:
    """A source tree with a page's sources, and an npm that writes down what it is asked to do."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.module = root, packaging("page")
        self.page: Path = self.module.index(root)
        self.calls, self.bin = root / "calls", root / "bin"
        self.source = root / "ui" / "src" / "deep" / "main.ts"
        self.source.parent.mkdir(parents=True)
        self.source.write_text("let a = 1")
        self.bin.mkdir()
        monkeypatch.setenv("PATH", str(self.bin))
        monkeypatch.setattr(sys, "executable", str(self.bin / "python"))

    def npm(self, *, fails: str = "nothing") -> None:
        """Have an npm, of which one command fails."""
        (self.bin / "npm").write_text(NPM.format(calls=self.calls, fails=fails))
        (self.bin / "npm").chmod(0o755)

    def built(self) -> None:
        """Have a page that is newer than every source."""
        self.page.parent.mkdir(parents=True)
        self.page.write_text("built")
        later = self.source.stat().st_mtime + 60
        os.utime(self.page, (later, later))

    def asked(self) -> list[str]:
        """What npm was asked to do."""
        return [line.split()[1] for line in self.calls.read_text().splitlines()] if self.calls.exists() else []

    def package(self, version: str = "standard") -> list[str]:
        """Put a wheel together; the warnings that this gave."""
        warnings: list[str] = []

        class Application:
            display_warning = warnings.append

        self.module.Page(str(self.root), {}, None, None, "", "wheel", Application()).initialize(version, {})
        return warnings


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    return Tree(tmp_path, monkeypatch)


def test_a_page_that_is_there_is_taken(tree: Tree) -> None:
    """Nobody needs npm for that."""
    tree.npm()
    tree.built()
    assert tree.package() == []
    assert tree.asked() == []


def test_a_page_is_old_if_a_source_changed_came_or_went(tree: Tree) -> None:
    """A source that went changed its folder."""
    tree.built()
    assert tree.module.fresh(tree.root)
    later = tree.page.stat().st_mtime + 60
    os.utime(tree.source.parent, (later, later))
    assert not tree.module.fresh(tree.root)


def test_a_page_without_sources_is_not_old(tree: Tree) -> None:
    """A wheel may be made of a tree that has only the page."""
    tree.built()
    tree.source.unlink()
    for folder in (tree.source.parent, tree.root / "ui" / "src", tree.root / "ui"):
        folder.rmdir()
    assert tree.package() == []


def test_a_page_is_built_for_the_wheel(tree: Tree) -> None:
    """Its packages are fetched the first time only."""
    tree.npm()
    assert tree.package() == []
    assert tree.asked() == ["ci", "run"]
    assert tree.page.exists()
    tree.page.unlink()
    assert tree.package() == []
    assert tree.asked() == ["ci", "run", "run"]


def test_an_editable_install_builds_no_page(tree: Tree) -> None:
    """`make venv` takes seconds; `make ui` builds the page."""
    tree.npm()
    assert tree.package("editable") == []
    assert tree.asked() == []


def test_a_wheel_without_a_page_says_so(tree: Tree) -> None:
    """The program works without one."""
    assert tree.package() == ["this wheel has no web page, because npm was not found"]


@pytest.mark.parametrize("fails", ["ci", "run"])
def test_a_wheel_says_why_its_page_was_not_built(tree: Tree, fails: str) -> None:
    """In npm's own words."""
    tree.npm(fails=fails)
    [warning] = tree.package()
    assert warning == f"this wheel has no web page, because npm {fails} failed:\nno registry answers"


def test_an_old_page_is_better_than_none(tree: Tree) -> None:
    """And the wheel says that it is old."""
    tree.built()
    later = tree.page.stat().st_mtime + 60
    os.utime(tree.source, (later, later))
    assert tree.package() == ["this wheel has an old web page, because npm was not found"]
