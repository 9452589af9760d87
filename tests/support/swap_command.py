"""The `bioproxy` command beside a running program with many models, both as their users run them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from support.command import Ended, Serving, run, serving
from support.swap_rig import Rig


def found_by(rig: Rig) -> list[str]:
    """The flags by which a command finds the program of `rig`."""
    return ["-config", str(rig.folder / "config.yaml"), "-listen", f"127.0.0.1:{rig.port}"]


async def verb(rig: Rig, *words: str) -> Ended:
    """Run `bioproxy words` to its end."""
    return await run(rig.folder, *words, *found_by(rig))


def running(rig: Rig, *words: str) -> AbstractAsyncContextManager[Serving]:
    """Run `bioproxy words` in the background."""
    return serving(rig.folder, *words, *found_by(rig))
