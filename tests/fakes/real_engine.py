"""Start the real llama.cpp in a test: `async with RealEngine(slot_folder=tmp_path) as engine: ...`.

It is the wheel of the `[llama]` extra behind bioproxy's own `engine` program, on a generated model of random weights
(3 MB, written once into the system's temporary folder). `reason_to_skip` is empty where that can run here.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from bioproxy.embedded.model import Name, ensure_model
from fakes.engine_process import EngineProcess, flags_of
from support.http import free_port

Json = Any
MODELS = Path(tempfile.gettempdir()) / "bioproxy-test-models"
MISSING = [name for name in ("xllamacpp", "gguf", "numpy") if importlib.util.find_spec(name) is None]
reason_to_skip = f"the [llama] extra is not installed ({', '.join(MISSING)} missing)" if MISSING else ""


def needs_real_engine() -> None:
    """Skip the test, with the reason, where the real engine cannot run."""
    if reason_to_skip:
        pytest.skip(reason_to_skip)


class RealEngine(EngineProcess):
    """llama.cpp as a child process; keyword arguments are llama-server's flags (`cache_ram=0`)."""

    def __init__(
        self,
        *,
        slot_folder: Path | str | None = None,
        shape: Name = "tiny",
        seed: int = 0,
        port: int = 0,
        **flags: Json,
    ) -> None:
        super().__init__()
        needs_real_engine()
        self.port = port or free_port()
        self.model = ensure_model(MODELS, shape=shape, seed=seed)
        self.flags: dict[str, Json] = {"ctx_size": 4096, "parallel": 1, "batch_size": 512, "threads": 1, **flags}
        if slot_folder is not None:
            Path(slot_folder).mkdir(parents=True, exist_ok=True)
            self.flags["slot_save_path"] = str(slot_folder)

    def command(self) -> list[str]:
        """The command line of the next start."""
        program = [sys.executable, "-m", "bioproxy.embedded"]
        return [*program, *flags_of({"model": self.model, **self.flags, "host": "127.0.0.1", "port": self.port})]

    def ready(self, line: str) -> int:
        """It says so itself."""
        return self.port if "ready on http://" in line else 0
