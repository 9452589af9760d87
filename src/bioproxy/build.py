"""Which build this is: for `-version`, llama-swap's line that scripts read, and for `/api/version`.

A Python package has no linker that stamps it. What there is: the commit stands in the metadata of a package that was
installed from a repository (PEP 610); of a package that is used from its source folder (`pip install -e`) it is the one
that is checked out there; and the time of a build is the time at which its metadata was written. If one of them is not
known the line says so, as llama-swap's does.
"""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import msgspec

from bioproxy import __version__
from bioproxy.errors import NOT_JSON

if TYPE_CHECKING:
    from importlib import metadata

UNKNOWN = "unknown"
HASH = re.compile(r"[0-9a-f]{40,64}")


class Build(msgspec.Struct, frozen=True):
    """Version, commit and date, as far as they are known."""

    version: str
    commit: str = UNKNOWN
    build_date: str = UNKNOWN


def this_build(package: str = "bioproxy") -> Build:
    from importlib import metadata  # 40 ms, for a question that is seldom asked

    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return Build(__version__)
    return Build(__version__, commit(distribution), built(distribution))


def version_line(build: Build) -> str:
    """`version: V (COMMIT), built at DATE`."""
    return f"version: {build.version} ({build.commit}), built at {build.build_date}"


def commit(distribution: metadata.Distribution) -> str:
    """The commit that was installed, or that is checked out in the source folder."""
    try:
        origin: Any = msgspec.json.decode(distribution.read_text("direct_url.json") or "{}")
        if origin.get("dir_info", {}).get("editable"):
            return checked_out(Path(unquote(urlsplit(origin["url"]).path)))
        return str(origin["vcs_info"]["commit_id"])
    except (*NOT_JSON, KeyError, TypeError, AttributeError, ValueError):
        return UNKNOWN


def checked_out(folder: Path) -> str:
    """The commit that Git has checked out in a folder; no Git is needed to read it."""
    git = folder / ".git"
    try:
        if git.is_file():  # a worktree: a line says where the rest is
            git = folder / git.read_text("utf-8").removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text("utf-8").strip()
        common = git / (git / "commondir").read_text("utf-8").strip() if (git / "commondir").is_file() else git
        if not head.startswith("ref:"):
            return head if HASH.fullmatch(head) else UNKNOWN
        name = head.removeprefix("ref:").strip()
        if (loose := common / name).is_file():
            return loose.read_text("utf-8").strip()
        packed = (line.split(" ") for line in (common / "packed-refs").read_text("utf-8").splitlines())
        return next((line[0] for line in packed if line[1:] == [name]), UNKNOWN)
    except (OSError, UnicodeDecodeError):
        return UNKNOWN


def built(distribution: metadata.Distribution) -> str:
    """When the package was built or installed, in UTC."""
    try:
        file = next(file for file in distribution.files or () if file.name == "METADATA")
        seconds = Path(str(file.locate())).stat().st_mtime
    except (OSError, StopIteration):
        return UNKNOWN
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
