"""A command line, taken apart (main.py does that): what a verb's function gets."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from bioproxy.cli.output import Output
from bioproxy.config.flags import Flags
from bioproxy.errors import BioproxyError

if TYPE_CHECKING:
    from bioproxy.cli.client import Client
    from bioproxy.config.load import Loaded


class Command(msgspec.Struct, frozen=True):
    """`arguments` are the verb's own, `flags` those of config keys, `engine` the words after `--`."""

    arguments: argparse.Namespace
    flags: Flags
    engine: tuple[str, ...]
    output: Output

    def load(
        self,
        ports: Mapping[str, int] | None = None,
        texts: Mapping[str, bytes] | None = None,
        *,
        tolerant: bool = False,
    ) -> Loaded:
        """The configuration as file, environment and flags say now. Raises ConfigError with all problems.

        `ports`: those that models have now, for a reload; `texts`: what files would say, by their absolute paths;
        `tolerant`: problems are not raised.
        """
        from bioproxy.config.load import load

        values, names = dict(self.flags.values), dict(self.flags.names)
        if self.engine:
            values["engine_arguments"] = msgspec.json.encode(self.engine).decode()
            names["engine_arguments"] = "--"
        flags = self.flags
        found = load(
            values,
            path=flags.path,
            directory=flags.directory,
            environment=os.environ,
            names=names,
            ports=ports,
            texts=texts,
            tolerant=tolerant,
        )
        return msgspec.structs.replace(found, warnings=(*flags.warnings, *found.warnings))

    def client(self, *, changes: bool = False) -> Client:
        """A client for the program that the configuration describes, or described before somebody broke it.

        If another one answers there, that is said; a verb that `changes` something does nothing then (BioproxyError).
        ConfigError if the configuration is broken and nothing else tells where the program listens.
        """
        from bioproxy.cli.find import another, find

        loaded = self.load(tolerant=True)
        client = find(loaded)
        if said := another(client):
            if changes:
                raise BioproxyError(said)
            self.output.note(said)
        if loaded.problems:
            more = f", and {len(loaded.problems) - 1} more" if loaded.problems[1:] else ""
            broken = f"the configuration is broken ({loaded.problems[0]}{more})"
            self.output.note(f"{broken}; asking the program that runs, on {client.url}")
        return client
