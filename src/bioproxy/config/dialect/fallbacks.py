"""Models that stand in for others: `fallback` of a model, and the `default_model` of requests that name none. Pure.

A chain is what a request of a model tries one after the other: the models of its `fallback` in their order, each
followed by its own ones. A model stands in it once, and a loop is refused, because whoever wrote it meant something
else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from bioproxy.config.dialect.names import Meaning, Names
from bioproxy.config.dialect.schema import DialectConfig, Model
from bioproxy.config.notes import Notes
from bioproxy.config.schema import Config
from bioproxy.config.tree import DEFAULT, Origin
from bioproxy.errors import Problem

ERRORS = range(400, 600)
LEVELS = range(3)  # of vLLM's sleep


def settle_fallbacks(config: DialectConfig, names: Names, notes: Notes) -> dict[str, Model]:
    """The models with their `fallback` checked; of a name that is left out with its peer nothing remains."""
    models = {name: _settle(name, model, names, notes) for name, model in config.models.items()}
    if way := loop(models, names):
        said = f"models.{way[0]}.fallback comes back to where it began: {' -> '.join(way)}"
        notes.complain(("models", way[0], "fallback"), said)
        models = {name: replace(model, fallback=()) for name, model in models.items()}
    return models


def _settle(name: str, model: Model, names: Names, notes: Notes) -> Model:
    path = ("models", name)
    found = []
    for index, other in enumerate(model.fallback):
        if names.find(other) is not None:
            found.append(other)
        elif other not in notes.absent:
            said = names.ambiguous(other) or f'models.{name}.fallback references unknown model "{other}"'
            notes.complain((*path, "fallback", index), said)
    for index, status in enumerate(model.fallback_status):
        if status not in ERRORS:
            said = f"models.{name}.fallbackStatus: {status} is no status of an error; write some of 400 to 599"
            notes.complain((*path, "fallbackStatus", index), said)
    if model.sleep not in LEVELS:
        notes.complain((*path, "sleep"), f"models.{name}.sleep must be 0, 1 or 2")
    if model.fallback_after < 0:
        notes.complain((*path, "fallbackAfter"), f"models.{name}.fallbackAfter must be >= 0")
    return replace(model, fallback=tuple(found))


def loop(models: Mapping[str, Model], names: Names) -> list[str]:
    """A way by which a model stands in for itself, as IDs; empty if there is none."""
    done: set[str] = set()
    for first in models:
        way: dict[str, Iterator[str]] = {} if first in done else {first: iter(models[first].fallback)}
        while way:
            last = next(reversed(way))
            other = next(way[last], None)
            model = names.real(other) if other is not None else ""
            if model in way:
                return [*list(way)[list(way).index(model) :], model]
            if other is None:
                done.add(last)
                del way[last]
            elif model in models and model not in done:
                way[model] = iter(models[model].fallback)
    return []


def chain(name: str, models: Mapping[str, Model], names: Names) -> tuple[str, ...]:
    """What is tried instead of a model, in order, as it is written; there is no loop."""
    found: dict[Meaning | None, str] = {}
    left = [iter(models[name].fallback)]
    while left:
        other = next(left[-1], None)
        if other is None:
            left.pop()
        elif (meant := names.find(other)) not in found:
            found[meant] = other
            if (model := names.real(other)) in models:
                left.append(iter(models[model].fallback))
    return tuple(found.values())


def find_default_problems(config: Config, dialect: DialectConfig, origins: Mapping[str, Origin]) -> list[Problem]:
    """Whether `default_model` is there, and can be loaded if it is to come back by itself."""
    name, peers = config.default_model, {name: peer.models for name, peer in dialect.peers.items()}
    known = Names(ids=dialect.models, aliases=dialect.aliases, peers=peers)
    found = {}
    if name and name not in dialect.selectors and known.find(name) is None:
        found["default_model"] = f"there is no model {name!r}"
    elif config.return_to_default and not known.real(name):
        found["return_to_default"] = "needs a default_model that is one of `models`"
    return [Problem(said, where=origins.get(key, DEFAULT).where, key=key) for key, said in found.items()]
