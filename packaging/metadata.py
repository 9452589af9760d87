"""What the package's metadata takes from the place where it is built: URLs, and links that work anywhere.

The README's links are relative, so they work in a checkout and on every host of the repository. A package index
shows the README without the repository, where a relative link leads nowhere. So the build makes each link whole: it
starts with the address of git's remote `origin`, or with the variable BIOPROXY_HOME (a fork's build, or a tree without
git). If neither names a public host, the README stays as it is and the package has no URLs, because a wrong address
would be worse than none.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

# https://host/owner/name, ssh://git@host/owner/name, git@host:owner/name; credentials before the @ are left out
REMOTE = re.compile(
    r"(?:https?://(?:[^@/]+@)?|ssh://(?:[^@/]+@)?|[\w.-]+@)([\w-]+(?:\.[\w-]+)+)[:/]([\w.-]+(?:/[\w.-]+)+)"
)
PICTURE = re.compile(r"(!\[[^\]]*\]\()(?!\w+:)([^)]+)\)")
LINK = re.compile(r"\]\((?!\w+:|#)([^)]+)\)")


def home_of(remote: str) -> str:
    """The web address of a git remote; "" for a folder, a bare name or a port of this machine."""
    match = REMOTE.fullmatch(remote.strip().removesuffix("/").removesuffix(".git"))
    return f"https://{match[1]}/{match[2]}" if match else ""


def whole(readme: str, home: str) -> str:
    """The README with each relative link starting at `home`; a picture's leads to the file itself."""
    return LINK.sub(rf"]({home}/blob/HEAD/\1)", PICTURE.sub(rf"\1{home}/raw/HEAD/\2)", readme))


def origin(root: Path) -> str:
    """Git's remote `origin` of the tree; "" without git."""
    command = ["git", "-C", str(root), "remote", "get-url", "origin"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


class Metadata(MetadataHookInterface):
    """Fills `readme` and `urls`, which pyproject.toml names as dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        root = Path(self.root)
        text = (root / "README.md").read_text("utf-8")
        home = home_of(os.environ.get("BIOPROXY_HOME", "") or origin(root))
        metadata["readme"] = {"content-type": "text/markdown", "text": whole(text, home) if home else text}
        if home:
            metadata["urls"] = {
                "Homepage": home,
                "Documentation": f"{home}/blob/HEAD/docs/README.md",
                "Changelog": f"{home}/blob/HEAD/CHANGELOG.md",
                "Source": home,
                "Issues": f"{home}/issues",
            }
