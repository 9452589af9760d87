"""A command line, taken apart, and what a verb is; main.py makes both."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from bioproxy.cli.output import Output
from bioproxy.config.flags import Flags


class Verb(msgspec.Struct, frozen=True):
    """One verb: `run` gets the whole command and returns the exit code; `flags` adds arguments to its parser."""

    name: str
    about: str
    run: Callable[[Command], int]
    flags: Callable[[argparse.ArgumentParser], object] = lambda _parser: None
    engine: bool = False  # takes llama-server's arguments behind `--`


class Command(msgspec.Struct, frozen=True):
    """A command line, taken apart. `engine`: the words behind `--`."""

    arguments: argparse.Namespace
    flags: Flags
    engine: tuple[str, ...]
    output: Output

    def load(self, ports: Mapping[str, int] | None = None) -> Any:
        """The configuration as file, environment and flags say now. Raises ConfigError with all problems.

        `ports`: those that models have now, for a reload.
        """
        from bioproxy.config.load import load

        values, names = dict(self.flags.values), dict(self.flags.names)
        if self.engine:
            values["engine_arguments"] = msgspec.json.encode(self.engine).decode()
            names["engine_arguments"] = "--"
        flags = self.flags
        found = load(
            values, path=flags.path, directory=flags.directory, environment=os.environ, names=names, ports=ports
        )
        return msgspec.structs.replace(found, warnings=(*flags.warnings, *found.warnings))
