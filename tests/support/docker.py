"""The fake docker on a PATH of its own, and what is asked of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

PROGRAM = Path(__file__).parents[1] / "fakes" / "docker.py"


class Docker(msgspec.Struct, frozen=True):
    """A fake docker; `folder` holds its containers."""

    folder: Path

    @property
    def containers(self) -> dict[str, Any]:
        """Every container by its name."""
        read = (json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json")))
        return {one["name"]: one for one in read}

    @property
    def calls(self) -> list[str]:
        """Every command that it was given."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def leave(self, name: str, label: str) -> None:
        """A container that was started, and that no program waits for."""
        identity = f"left-{name}"
        about = {"id": identity, "name": name, "label": label, "pid": 2**22 + 1}
        (self.folder / f"{identity}.json").write_text(json.dumps(about))

    def break_down(self) -> None:
        """Let every command fail."""
        (self.folder / "broken").touch()

    async def start(self, words: list[str]) -> asyncio.subprocess.Process:
        """Run a command of a model and wait until its container stands."""
        process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        assert await process.stdout.readline()
        return process


def fake_docker(folder: Path, patch: pytest.MonkeyPatch) -> Docker:
    """Put a fake docker first on PATH for one test."""
    programs, containers = folder / "bin", folder / "containers"
    programs.mkdir()
    containers.mkdir()
    program = programs / "docker"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{PROGRAM}" "$@"\n')
    program.chmod(0o755)
    patch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    patch.setenv("FAKE_DOCKER", str(containers))
    return Docker(containers)
