"""Configurations in llama-swap's dialect for tests, with models that the fake engine serves, and what these tell.

The ports come in blocks below those that the system gives to outgoing connections, and the first port of a block stays
bound while it is used. So tests that run at once never meet, and no client's connection can take an engine's port
while that engine is being restarted. What the engines of a test did is read from the file that they all write
(fakes/swap_journal.py). `every_key` is the configuration with every key of the dialect.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from bioproxy.config.dialect.go import builtins
from bioproxy.config.dialect.read import read_dialect
from bioproxy.config.dialect.schema import DialectConfig
from bioproxy.config.files import Source
from bioproxy.config.yaml_tree import parse_yaml
from bioproxy.errors import ConfigError, Problem
from support.config_files import yaml_text

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
    """Groups in which no model stops another."""
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


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One line: what happened to which process when. The other members belong to some events only."""

    t: float
    pid: int
    model: str
    event: str
    others: tuple[str, ...] = ()
    port: int = 0
    number: int = 0
    path: str = ""
    method: str = ""
    how: str = ""
    why: str = ""
    code: int = 0
    group: int = 0


class EventLog:
    """The file, read anew each time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> list[Told]:
        """Every event so far, in the order in which they were written."""
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines()
        return [msgspec.convert(json.loads(line), Told) for line in lines]

    def of(self, event: str, model: str = "") -> list[Told]:
        """The events of one kind, of one model or of all."""
        return [told for told in self.all() if told.event == event and model in ("", told.model)]

    def starts(self) -> list[str]:
        """The models in the order in which their processes started."""
        return [told.model for told in self.of("start")]

    def served(self) -> list[str]:
        """The models in the order in which their requests began."""
        return [told.model for told in self.of("begin")]

    def together(self) -> list[set[str]]:
        """Sets of models of which a process lived at once; a model that lived beside itself is named twice: `a a`."""
        found = []
        for told in self.of("beside"):
            names = {told.model, *told.others}
            found.append(names | {f"{told.model} {told.model}"} if told.model in told.others else names)
        return found

    def overlap(self, one: str, other: str) -> bool:
        """Whether processes of both models ever lived at once."""
        return any({one, other} <= names for names in self.together())

    def port(self, model: str) -> int:
        """Where the newest process of `model` listens."""
        return self.of("listening", model)[-1].port


def marked(variable: str, mark: str) -> list[int]:
    """The pids of every process with `variable=mark` in its environment."""
    found, entry = [], f"{variable}={mark}".encode()
    if sys.platform != "linux":
        others = (one for one in psutil.process_iter(["environ"]) if one.pid != os.getpid())  # ours is what it is now
        return [one.pid for one in others if (one.info["environ"] or {}).get(variable) == mark]
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdecimal() and entry in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


EVERY_KEY = Path(__file__).parents[1] / "data" / "swap_every_key.yaml"


def every_key() -> Any:
    """The configuration with every key, as plain values."""
    root = parse_yaml(EVERY_KEY.read_text()).root
    assert root is not None
    return builtins(root)


def sources(*texts: str) -> list[Source]:
    """The texts as files a.yaml, b.yaml, ..."""
    return [Source(f"{chr(ord('a') + index)}.yaml", textwrap.dedent(text)) for index, text in enumerate(texts)]


def swap(*texts: str, environment: Mapping[str, str] | None = None) -> DialectConfig:
    """What the texts say together."""
    return read_dialect(sources(*texts), environment=environment or {})


def problems(*texts: str, environment: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
    """Everything wrong with the texts; fails if nothing is."""
    with pytest.raises(ConfigError) as caught:
        swap(*texts, environment=environment)
    return caught.value.problems


def messages(*texts: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """The sentences of everything wrong with the texts."""
    return [problem.message for problem in problems(*texts, environment=environment)]
