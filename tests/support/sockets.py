"""Unix sockets for tests: in a folder whose path is short enough on each system, which `tmp_path` is not on macOS."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

needs_unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no unix sockets")


def short_folder() -> Any:
    """A fixture: a folder for sockets."""

    @pytest.fixture
    def made() -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="bp") as folder:
            yield Path(folder)

    return made
