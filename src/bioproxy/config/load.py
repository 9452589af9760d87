"""How a Config comes about: defaults < file < environment < flags, and every problem of all of them at once.

`load` is the only thing here that looks at the outside: it reads the config files, the key files that the config names,
and the environment that it is given. A reload calls it
again with the same arguments; what it raises changes nothing.

Files come in two dialects, told apart by what stands in them (`file_layer.py`). Either way bioproxy's own keys become a
Config; what llama-swap's dialect says beyond those is `Loaded.dialect`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import msgspec

from bioproxy import files
from bioproxy.config.check import find_problems, find_warnings
from bioproxy.config.dialect.per_model import find_model_problems
from bioproxy.config.dialect.schema import DialectConfig
from bioproxy.config.files import find, own_folder, state_folder
from bioproxy.config.keys import KEYS, build
from bioproxy.config.layers import FileLayer, Layer, merge, read_environment, read_files, read_flags, top_key
from bioproxy.config.resolve import resolve_keys, resolve_model, resolve_prefixes, resolve_source
from bioproxy.config.schema import Config
from bioproxy.config.tree import DEFAULT, Origin
from bioproxy.errors import ConfigError, Problem

MOST_PROBLEMS = 500  # that are told one by one


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A Config and where it came from.

    `path` is the first file that was used (None: none), `paths` are all of them, `key_files` those of API keys, and
    `directory` is the folder of -config-dir; `folder` is where relative paths start (the working folder if there is no
    file). `origins` has the place of every key, and of each prefix and API key (`prefixes.@code`, `api_keys[0]`);
    `warnings` are for the log and `/status`. `dialect` is there where requests go to `models` and `peers`: then neither
    `backend_url` nor `model` is set. `dialect_origins` has the places of its keys (`models.qwen.cmd`). `state` is this
    configuration's folder below `state_directory`; nothing is made.
    """

    config: Config
    path: str | None
    folder: str
    origins: dict[str, Origin]
    warnings: tuple[Problem, ...]
    paths: tuple[str, ...] = ()
    key_files: tuple[str, ...] = ()
    directory: str | None = None
    dialect: DialectConfig | None = None
    dialect_origins: dict[str, Origin] = {}
    state: str = ""

    @property
    def slot_folder(self) -> str:
        """Where a llama-server of ours that has no slot folder of its own gets one."""
        return self.config.kv.directory or f"{self.state}/slots"


def admin_port_asked(loaded: Loaded) -> bool:
    """Whether somebody asked for the admin port: one that nobody asked for may be missing where `models` are served."""
    return any(loaded.origins[key].source != "default" for key in ("admin_host", "admin_port"))


def load(
    arguments: Mapping[str, str] | None = None,
    *,
    path: str | None = None,
    directory: str | None = None,
    environment: Mapping[str, str],
    names: Mapping[str, str] | None = None,
    ports: Mapping[str, int] | None = None,
) -> Loaded:
    """Make the Config. `arguments`: texts from the command line by dotted key (`flags.parse_flags` makes them and
    `names`, the flags as written); `path`: the file named with -config, `directory`: the folder named with -config-dir;
    `ports`: those that models have now, for a reload. Raises ConfigError with all problems.
    """  # noqa: D205 - one sentence per argument
    try:
        return files.patiently(
            load_now, arguments or {}, path, directory, environment=environment, names=names or {}, ports=ports or {}
        )
    except files.Stuck as error:
        raise ConfigError([Problem(error.message)]) from error


def load_now(
    arguments: Mapping[str, str],
    path: str | None,
    directory: str | None,
    *,
    environment: Mapping[str, str],
    names: Mapping[str, str],
    ports: Mapping[str, int],
) -> Loaded:
    """The same, and if a file hangs it hangs."""
    folder = os.getcwd()
    found = find(path, directory, environment, folder=folder)
    file = read_files(found, environment, ports)
    layers: list[Layer] = [
        file,
        read_environment(environment, folder=folder),
        read_flags(arguments, names=names, folder=folder, environment=environment),
    ]
    merged = merge(layers)
    dialect = resolve_source(merged, file.dialect, models=file.models)
    key_files = resolve_keys(merged)
    resolve_prefixes(merged)
    resolve_model(merged)
    merged.values["state_directory"] = merged.values.get("state_directory") or state_folder(environment)
    config = build(merged.values)
    if problems := _problems(config, merged, dialect, file):
        raise ConfigError(in_order(problems))
    return Loaded(
        config=config,
        path=file.paths[0] if file.paths else None,
        paths=file.paths,
        key_files=key_files,
        directory=found.directory,
        folder=os.path.dirname(file.paths[0]) if file.paths else folder,
        origins={**dict.fromkeys(KEYS, DEFAULT), **merged.origins},
        warnings=(*merged.warnings, *find_warnings(config, merged.origins)),
        dialect=dialect,
        dialect_origins=file.dialect_origins if dialect is not None else {},
        state=own_folder(
            config.state_directory,
            paths=[path for path in (found.path, found.directory) if path],
            otherwise=config.model or config.backend_url,
        ),
    )


def _problems(config: Config, merged: Layer, dialect: DialectConfig | None, file: FileLayer) -> list[Problem]:
    """Those of the sources, and those that only the whole shows."""
    found = list(merged.problems)
    if not merged.unread:  # else most of what a check would say were consequences
        found += find_problems(config, merged.origins, broken=_broken(found), models=dialect is not None)
    if dialect is not None:
        found += find_model_problems(config, dialect.models, file.dialect_origins)
    return found


def in_order(problems: Sequence[Problem]) -> list[Problem]:
    """Problems of each file by line, as one mends them; then those of environment and flags. Of very many the first."""
    files: dict[str, int] = {}

    def place(problem: Problem) -> tuple[bool, int, int]:
        file, _, number = problem.where.rpartition(":")
        if not number.isdecimal():
            return bool(problem.where), 0, 0
        return False, files.setdefault(file, len(files)), int(number)

    found = sorted(problems, key=place)
    if len(found) > MOST_PROBLEMS:
        found[MOST_PROBLEMS:] = [Problem(f"and {len(found) - MOST_PROBLEMS:,} more problems")]
    return found


def _broken(problems: list[Problem]) -> set[str]:
    """The keys and list items whose values could not be read: "kv", "prefixes", "api_keys[0]"."""
    keys = [problem.key for problem in problems]
    return {top_key(key) for key in keys} | {key.partition("]")[0] + "]" for key in keys if "]" in key}
