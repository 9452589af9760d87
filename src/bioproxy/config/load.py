"""How a Config comes about: defaults < file < environment < flags, and every problem of all of them at once.

`load` is the only thing here that looks at the outside: it reads one file, the key files that the config names, and
the environment that it is given. Nothing else in the program reads a variable or a config file. A reload calls it again
with the same arguments; what it raises changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from bioproxy.config import places
from bioproxy.config.check import find_problems, find_warnings
from bioproxy.config.keys import CONFIG_FLAG, CONFIG_VARIABLE, KEYS, SECTIONS
from bioproxy.config.resolve import resolve_keys, resolve_model, resolve_prefixes, resolve_source
from bioproxy.config.schema import Config
from bioproxy.config.sources import Layer, read_environment, read_file, read_flags
from bioproxy.config.tree import DEFAULT, Origin
from bioproxy.errors import ConfigError, Problem


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A Config and where it came from.

    `path` is the file that was used (None: none), `folder` where relative paths of it start (the working folder where
    there is no file), `origins` the place of every key, and of each prefix and API key (`prefixes.@code`,
    `api_keys[0]`); `warnings` are for the log and `/status`.
    """

    config: Config
    path: str | None
    folder: str
    origins: dict[str, Origin]
    warnings: tuple[Problem, ...]


class Found(msgspec.Struct, frozen=True):
    """The config file that counts: its path, its name in messages, and the others that stand at the default places."""

    path: str | None
    shown: str = ""
    ignored: tuple[str, ...] = ()


def find(path: str | None, environment: Mapping[str, str], *, folder: str) -> Found:
    """The file that was named (by flag, else by BIOPROXY_CONFIG), else the first one at the default places."""
    named = path if path is not None else environment.get(CONFIG_VARIABLE) or None
    if named is not None:
        shown = named or f"flag {CONFIG_FLAG}"
        return Found(places.resolve(named, folder=folder, environment=environment), shown)
    files = places.default_files(environment)
    return Found(files[0], files[0], tuple(files[1:])) if files else Found(None)


def load(
    arguments: Mapping[str, str] | None = None,
    *,
    path: str | None = None,
    environment: Mapping[str, str],
    names: Mapping[str, str] | None = None,
) -> Loaded:
    """Make the Config. `arguments`: texts from the command line by dotted key (`flags.parse_flags` makes them and
    `names`, the flags as written); `path`: the file named with -config. Raises ConfigError with all problems.
    """  # noqa: D205 - one sentence per argument
    folder = os.getcwd()  # noqa: PTH109 - a text
    found = find(path, environment, folder=folder)
    layers = [
        _file_layer(found, environment),
        read_environment(environment, folder=folder),
        read_flags(arguments or {}, names=names or {}, folder=folder, environment=environment),
    ]
    merged = _merge(layers)
    resolve_source(merged)
    resolve_keys(merged)
    resolve_prefixes(merged)
    resolve_model(merged)
    merged.values.setdefault("state_directory", "")
    merged.values["state_directory"] = merged.values["state_directory"] or places.state_folder(environment)
    config = build(merged.values)
    problems = list(merged.problems)
    if not merged.unread:  # else most of what a check would say were consequences
        problems += find_problems(config, merged.origins, broken=_broken(problems))
    if problems:
        raise ConfigError(in_order(problems))
    return Loaded(
        config=config,
        path=found.path,
        folder=os.path.dirname(found.path) if found.path else folder,  # noqa: PTH120 - a text
        origins={**dict.fromkeys(KEYS, DEFAULT), **merged.origins},
        warnings=(*merged.warnings, *find_warnings(config, merged.origins)),
    )


def _file_layer(found: Found, environment: Mapping[str, str]) -> Layer:
    if found.path is None:
        return Layer()
    if not found.path:
        problem = Problem("names no file; leave it out, or give it the path of one", where=found.shown)
        return Layer(unread=True, problems=[problem])
    layer = read_file(found.path, shown=found.shown, environment=environment)
    for other in found.ignored:
        layer.warnings.append(Problem(f"is ignored, because {found.path} comes first; delete one of them", where=other))
    return layer


def in_order(problems: list[Problem]) -> list[Problem]:
    """Problems of a file by line, as one mends them; then those of environment and flags."""

    def line(problem: Problem) -> tuple[bool, int]:
        number = problem.where.rpartition(":")[2]
        return (False, int(number)) if number.isdecimal() else (bool(problem.where), 0)

    return sorted(problems, key=line)


def _merge(layers: list[Layer]) -> Layer:
    """Later layers win, key by key. A list or mapping that wins replaces the whole one, its items' origins too."""
    merged = Layer()
    for layer in layers:
        for path in layer.values:
            stale = [key for key in merged.origins if key == path or key.startswith((f"{path}.", f"{path}["))]
            for key in stale:
                del merged.origins[key]
        merged.values |= layer.values
        merged.origins |= {key: origin for key, origin in layer.origins.items() if _top(key) in layer.values}
        merged.unread |= layer.unread
        merged.problems += layer.problems
        merged.warnings += layer.warnings
    return merged


def _broken(problems: list[Problem]) -> set[str]:
    """The keys and list items whose values could not be read: "kv", "prefixes", "api_keys[0]"."""
    keys = [problem.key for problem in problems]
    return {_top(key) for key in keys} | {key.partition("]")[0] + "]" for key in keys if "]" in key}


def _top(key: str) -> str:
    """The key of the table that a value belongs to: "prefixes" for "prefixes.@code", "kv.policy" for itself."""
    if key in KEYS:
        return key
    return key.partition("[")[0].partition(".")[0]


def build(values: Mapping[str, Any]) -> Config:
    """A Config of values by dotted key; what is not given has its default."""
    arguments: dict[str, Any] = {path: value for path, value in values.items() if "." not in path}
    for section, struct in SECTIONS.items():
        inner = {path.partition(".")[2]: value for path, value in values.items() if path.startswith(f"{section}.")}
        arguments[section] = struct(**inner)
    return Config(**arguments)
