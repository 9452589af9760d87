"""The verbs for many models: what there is, what runs, what was asked. Each asks the running program."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bioproxy.cli.command import Command, Verb

if TYPE_CHECKING:
    from bioproxy.cli.client import Client

OUTCOMES = ("ok", "client_error", "engine_error", "client_left", "rejected", "timeout", "error")
NEWEST = 20  # requests that are shown where nobody says how many


def client(command: Command) -> Client:
    """A client for the program that the command's configuration describes."""
    from bioproxy.cli.find import find

    return find(command.load())


def models(command: Command) -> int:
    """Every model in a row."""
    from bioproxy.cli import models as module

    return module.models(command.output, client(command))


def load(command: Command) -> int:
    """Have a model loaded."""
    from bioproxy.cli import models as module

    return module.load(command.output, client(command), command.arguments.model)


def unload(command: Command) -> int:
    """Stop one model, or all."""
    from bioproxy.cli import models as module

    return module.unload(command.output, client(command), command.arguments.model)


def logs(command: Command) -> int:
    """A log, as it was written."""
    from bioproxy.cli import logs as module

    return module.logs(command.output, client(command), command.arguments.model, follow=command.arguments.follow)


def requests(command: Command) -> int:
    """What was asked lately."""
    from bioproxy.cli import requests as module

    given = command.arguments
    return module.requests(
        command.output, client(command), number=given.number, outcome=given.outcome, follow=given.follow
    )


def top(command: Command) -> int:
    """Models and requests under way, drawn anew every second."""
    from bioproxy.cli import top as module

    return module.top(command.output, client(command))


def load_flags(parser: argparse.ArgumentParser) -> None:
    """Arguments of `load`."""
    parser.add_argument("model", help="the model, by any of its names")


def unload_flags(parser: argparse.ArgumentParser) -> None:
    """Arguments of `unload`."""
    parser.add_argument("model", nargs="?", default="", help="the model; without it, all of them")


def logs_flags(parser: argparse.ArgumentParser) -> None:
    """Arguments of `logs`."""
    parser.add_argument(
        "model", nargs="?", default="", help="a model, `proxy` (our own) or `upstream` (all engines'); without it, both"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is written")


def at_least_one(text: str) -> int:
    """A number of requests; argparse tells of a ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def requests_flags(parser: argparse.ArgumentParser) -> None:
    """Arguments of `requests`."""
    parser.add_argument("-n", dest="number", metavar="N", type=at_least_one, default=NEWEST, help="how many")
    parser.add_argument("--outcome", choices=OUTCOMES, default="", help="only those that ended like this")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with those that end from now on")


MODEL_VERBS = (
    Verb("models", "every model: state, memory, requests, what its cache holds", models),
    Verb("load", "have a model loaded", load, load_flags),
    Verb("unload", "stop a model, or all", unload, unload_flags),
    Verb("logs", "a model's log, or another one; -f goes on", logs, logs_flags),
    Verb("requests", "the newest requests, and where their time went; -f goes on", requests, requests_flags),
    Verb("top", "models and requests under way, live", top),
)
