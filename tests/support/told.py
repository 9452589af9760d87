"""A verb of the command line, called in this process: what its function gets."""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any, cast

from bioproxy.cli.client import Client
from bioproxy.cli.command import Command
from bioproxy.cli.find import find
from bioproxy.cli.output import Output
from bioproxy.config.load import Loaded


def told(output: Output, *, client: Client | None = None, loaded: Loaded | None = None, **arguments: Any) -> Command:
    """A command with these `arguments`, which asks `client`, else the program that `loaded` describes."""

    def asked() -> Client:
        if client is not None:
            return client
        assert loaded is not None
        return find(loaded)

    given = argparse.Namespace(**arguments)
    return cast("Command", SimpleNamespace(output=output, arguments=given, load=lambda: loaded, client=asked))
