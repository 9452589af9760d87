"""What a package index shows: a README whose links lead somewhere, the project's URLs, and no tools as an extra."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    """packaging/metadata.py, which the build runs."""
    spec = importlib.util.spec_from_file_location("packaging_metadata", ROOT / "packaging" / "metadata.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    assert set(PROJECT["project"]["optional-dependencies"]) == {"llama", "perf"}
    assert {"pytest", "ruff", "mypy"} <= set(PROJECT["dependency-groups"]["dev"])


def test_the_sdist_has_what_its_build_needs() -> None:
    """The hook runs again when a wheel is made of it."""
    include = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    path = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]["path"]
    assert path.partition("/")[0] in include
