"""Configurations in llama-swap's dialect for tests: models that the fake engine serves, on ports of the test's own.

The ports come in blocks below those that the system gives to outgoing connections, and the first port of a block stays
bound while it is used. So tests that run at once never meet, and no client's connection can take an engine's port
while that engine is being restarted.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
from pathlib import Path
from typing import Any

from support.yaml_text import yaml_text

Json = Any
ENGINE = Path(__file__).parents[1] / "fakes" / "swap_engine.py"
FIRST, LAST, SIZE = 20_000, 32_000, 24
QUICK: Json = {"swap": {"min_resident": 0}}  # models go as soon as another one is asked for


def fake(words: str = "", **keys: Json) -> Json:
    """A model of the fake engine: `words` are flags of swap_engine.py, `keys` are llama-swap's for a model."""
    return {"words": words, **keys}


def fakes(names: str, words: str = "", **keys: Json) -> Json:
    """Several such models that do not differ."""
    return {name: fake(words, **keys) for name in names.split()}


def engine_words(events: Path, words: str = "") -> str:
    """The `cmd` of a fake model; port and name are llama-swap's macros."""
    program = shlex.join([sys.executable, "-I", "-S", str(ENGINE)])
    return f"{program} --port ${{PORT}} --model ${{MODEL_ID}} --events {shlex.quote(str(events))} {words}".strip()


def group(members: str, **keys: bool) -> Json:
    """A group of llama-swap's."""
    return {"members": members.split(), **keys}


def apart(names: str) -> Json:
    """Groups in which nobody stops anybody."""
    return {"all": {"swap": False, "exclusive": False, "members": names.split()}}


class Ports:
    """A block of ports; `close` gives it back."""

    def __init__(self) -> None:
        count = (LAST - FIRST) // SIZE
        for step in range(count):
            base = FIRST + SIZE * ((os.getpid() * 31 + step) % count)
            guard = socket.socket()
            try:
                guard.bind(("127.0.0.1", base))
            except OSError:
                guard.close()
                continue
            self.guard = guard
            self.proxy, self.admin, self.models = base + 1, base + 2, base + 3
            return
        raise RuntimeError("no block of ports is free")

    def close(self) -> None:
        """Let others have the block."""
        self.guard.close()


def config_text(models: Json, *, ports: Ports, folder: Path, events: Path, **config: Json) -> str:
    """The file: `models` as `fake` makes them (or with a `cmd` of their own), and further top-level keys."""
    entries = {}
    for name, model in models.items():
        keys = dict(model)
        words = keys.pop("words", "")
        entries[name] = {"cmd": engine_words(events, words), **keys}
    before: Json = {
        "admin_host": "127.0.0.1",
        "admin_port": ports.admin,
        "state_directory": str(folder / "state"),
        "startPort": ports.models,
    }
    return yaml_text({**before, **QUICK, **config, "models": entries})
