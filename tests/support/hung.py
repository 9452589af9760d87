"""A file system that does not answer, as a network folder whose server is gone: calls for a path do not come back.

The calls of the operating system are what stands in: whatever goes through them hangs there, in whichever thread that
is. The clock is not waited for: who reaches such a path has been there for `files.PATIENCE` at once.
"""

from __future__ import annotations

import builtins
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bioproxy import files

CALLS = ((os, "stat"), (os, "lstat"), (os, "open"), (os, "scandir"), (os, "mkdir"), (io, "open"), (builtins, "open"))


class Hung:
    """What was reached below `path`, by how many threads, and the end of it."""

    def __init__(self, path: Path, *, long: bool) -> None:
        self.path = path
        self.long = long
        self.over = threading.Event()
        self.reached = threading.Event()
        self.threads: list[threading.Thread] = []

    def meets(self, path: object) -> bool:
        """Whether a call for `path` hangs."""
        if isinstance(path, int) or self.over.is_set():
            return False
        name = os.fsdecode(path)  # type: ignore[arg-type]
        return name == str(self.path) or name.startswith(f"{self.path}/")

    def wait(self) -> None:
        """Hang, as somebody who does so for long."""
        me = threading.current_thread()
        self.threads.append(me)
        if self.long and me.ident in files.calls:
            path, since = files.calls[me.ident]
            files.calls[me.ident] = path, since - files.PATIENCE
        self.reached.set()
        self.over.wait()


@contextmanager
def hung(path: Path, monkeypatch: pytest.MonkeyPatch, *, long: bool = True) -> Iterator[Hung]:
    """Let calls for `path`, and for what is below it, hang until the block ends; `long`: for 10 s already."""
    made = Hung(path, long=long)

    def hanging(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".", *arguments: Any, **more: Any) -> Any:
            if made.meets(path):
                made.wait()
            return real(path, *arguments, **more)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(files, "LOOK", 0.01)
        for module, name in CALLS:
            patch.setattr(module, name, hanging(getattr(module, name)))
        try:
            yield made
        finally:
            made.over.set()
            for thread in made.threads:
                thread.join(10)
