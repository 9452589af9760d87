"""A web page that was built, what builds it, and a running program that shows it."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from types import ModuleType

from bioproxy.app import App
from support.swap_rig import Inside, Rig

ROOT = Path(__file__).parents[2]
INDEX, SCRIPT = b"<!doctype html><title>x</title>", b"let a = 1;" * 50
SMALLER = {"gzip": gzip.compress(SCRIPT, mtime=0), "br": b"smaller", None: SCRIPT}
NAME = "assets/main-Ab3_-x9Z.js"
SECRET = "kept in the cellar"
HTML = {"Accept": "text/html,*/*;q=0.8"}


def build(folder: Path) -> Path:
    """What `make ui` leaves in `folder`, and beside it a file that is no part of it."""
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_bytes(INDEX)
    (folder / NAME).write_bytes(SCRIPT)
    (folder / f"{NAME}.gz").write_bytes(SMALLER["gzip"])
    (folder / f"{NAME}.br").write_bytes(SMALLER["br"])
    (folder / "assets" / "readme.txt").write_bytes(b"no hash")
    (folder.parent / "secret.txt").write_text(SECRET)
    return folder


def app_of(rig: Rig) -> App:
    """The program, which must run in this process."""
    assert isinstance(rig.program, Inside)
    assert rig.program.app is not None
    return rig.program.app


def packaging(name: str) -> ModuleType:
    """A module of `packaging/`, which is no package; the build of a wheel runs it."""
    spec = importlib.util.spec_from_file_location(f"packaging_{name}", ROOT / "packaging" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
