"""Which build this is, for `-version`: llama-swap's line, which scripts read.

A Python package has no linker that stamps it. What there is: the commit stands in the metadata of a package that was
installed from a repository (PEP 610), and the time of a build is the time at which its metadata was written. Where one
of them is not known the line says so, as llama-swap's does.
"""

from __future__ import annotations

import datetime as dt
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from bioproxy import __version__

UNKNOWN = "unknown"


def version_line(package: str = "bioproxy") -> str:
    """`version: V (COMMIT), built at DATE`."""
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return f"version: {__version__} ({UNKNOWN}), built at {UNKNOWN}"
    return f"version: {__version__} ({commit(distribution)}), built at {built(distribution)}"


def commit(distribution: metadata.Distribution) -> str:
    """The commit that was installed, where the installer knew it."""
    try:
        origin: Any = msgspec.json.decode(distribution.read_text("direct_url.json") or "{}")
        return str(origin["vcs_info"]["commit_id"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return UNKNOWN


def built(distribution: metadata.Distribution) -> str:
    """When the package was built or installed, in UTC."""
    try:
        file = next(file for file in distribution.files or () if file.name == "METADATA")
        seconds = Path(str(file.locate())).stat().st_mtime
    except (OSError, StopIteration):
        return UNKNOWN
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
