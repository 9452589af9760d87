"""How a Config comes about: defaults < file < environment < flags, and every problem of all of them at once.

    files, environment, flags ──> a layer each ──merge──> values ──resolve──> Config ──check──> Loaded
                                  layers.py               here                schema.py  check.py

`load` is the only thing here that asks the outside: it reads the config files, the key files that the config names, and
the environment that it is given. A reload calls it again with the same arguments; if it raises, nothing has changed.

Resolving gives prefixes and keys one form, reads key files, and chooses one engine. Each step works on the merged
values, so that a message can still say where a value was written. A value that cannot be resolved is left out after its
problem was noted: the load fails, and no Config with a hole is ever used.

Files come in two dialects (`layers.py`). Either way bioproxy's own keys become a Config; what llama-swap's dialect says
beyond those is `Loaded.dialect`.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from bioproxy import files
from bioproxy.config.check import find_problems, find_warnings
from bioproxy.config.dialect.fallbacks import find_default_problems
from bioproxy.config.dialect.per_model import find_model_problems
from bioproxy.config.dialect.schema import DialectConfig
from bioproxy.config.files import BOM, find, own_folder, refuse_bytes, state_folder, working_folder
from bioproxy.config.keys import KEYS, build
from bioproxy.config.layers import Layer, merge, read_environment, read_files, read_flags, top_key
from bioproxy.config.schema import Config, Key, as_prefix
from bioproxy.config.tree import DEFAULT, Origin
from bioproxy.errors import ConfigError, Problem

log = logging.getLogger(__name__)

MOST_PROBLEMS = 500  # that are told one by one
KEY_FILE_LIMIT = 4096  # bytes; a key is some dozens
RANK = {"default": 0, "file": 1, "environment": 2, "flag": 3}  # as layers win


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A Config and where it came from.

    `path` is the first file that was used (None: none), `paths` are all of them, `key_files` those of API keys, and
    `directory` is the folder of -config-dir; `folder` is where relative paths start (the working folder if there is no
    file). `origins` has the place of every key, of each prefix and API key (`prefixes.@code`, `api_keys[0]`), and of
    the keys of models (`models.qwen.cmd`); `warnings` are for the log and `/status`. `dialect` is set if requests go to
    `models` and `peers`: then neither `backend_url` nor `model` is. `state` is this configuration's folder below
    `state_directory`; nothing is made. With `problems` it is good for one thing, to find the program that runs.
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
    state: str = ""
    problems: tuple[Problem, ...] = ()

    @property
    def slot_folder(self) -> str:
        return slot_folder(self.config, self.state)


def slot_folder(config: Config, state: str | Path) -> str:
    """Where a llama-server of ours that has no slot folder of its own gets one; `state` is the folder for state."""
    return config.kv.directory or os.path.join(state, "slots")


def make_state_folder(loaded: Loaded) -> Path:
    """Where pins, heads and slot files live, a folder per configuration; made 0700. ConfigError.

    Before, it was a folder per proxy port: what is there is moved over, once.
    """
    config, folder = loaded.config, Path(loaded.state)
    before = Path(config.state_directory, str(config.proxy_port))
    try:
        if files.patiently(made, folder, before):
            log.info("the state of port %d was moved to %s: it belongs to the configuration", config.proxy_port, folder)
    except files.Stuck as error:
        raise ConfigError([Problem(error.message, key="state_directory")]) from error
    except OSError as error:
        sentence = f"the folder {folder} cannot be made: {error.strerror or error}; choose another one"
        raise ConfigError([Problem(sentence, key="state_directory")]) from error
    return folder


def made(folder: Path, before: Path) -> bool:
    """Make the folder; whether it is the one that was at `before`. OSError, Stuck."""
    with files.touching(folder):
        moves = before.is_dir() and not folder.exists()
        if moves:
            before.rename(folder)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return moves


def admin_port_asked(loaded: Loaded) -> bool:
    """Whether an admin port was configured: if not, it may be missing when `models` are served."""
    return any(loaded.origins[key].source != "default" for key in ("admin_host", "admin_port"))


def load(
    arguments: Mapping[str, str] | None = None,
    *,
    path: str | None = None,
    directory: str | None = None,
    environment: Mapping[str, str],
    names: Mapping[str, str] | None = None,
    ports: Mapping[str, int] | None = None,
    texts: Mapping[str, bytes] | None = None,
    tolerant: bool = False,
) -> Loaded:
    """Make the Config. `arguments`: texts from the command line by dotted key (`flags.parse_flags` makes them and
    `names`, the flags as written); `path`: the file named with -config, `directory`: the folder named with -config-dir;
    `ports`: those that models have now, for a reload; `texts`: what some of the files would say after a save, by their
    absolute paths. Raises ConfigError with all problems; `tolerant`: they stand in what is returned, and the keys that
    they are about are at their defaults.
    """  # noqa: D205 - one sentence per argument
    try:
        return files.patiently(
            load_now,
            arguments or {},
            path,
            directory,
            environment=environment,
            names=names or {},
            ports=ports or {},
            texts=texts or {},
            tolerant=tolerant,
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
    texts: Mapping[str, bytes],
    tolerant: bool,
) -> Loaded:
    """As `load`, without its bound: it hangs if a file does."""
    folder = working_folder()
    found = find(path, directory, environment, folder=folder)
    for name in (found.path, found.directory, folder, state_folder(environment)):
        refuse_bytes(name or "")
    file = read_files(msgspec.structs.replace(found, texts=texts), environment, ports)
    layers: list[Layer] = [
        file,
        read_environment(environment, folder=folder),
        read_flags(arguments, names=names, folder=folder, environment=environment),
    ]
    merged = merge(layers)
    dialect = resolve_source(merged, file.dialect, models=file.models)
    key_files = resolve_keys(merged)
    merged.values["prefixes"] = {name: as_prefix(one) for name, one in merged.values.get("prefixes", {}).items()}
    resolve_model(merged)
    merged.values["state_directory"] = merged.values.get("state_directory") or state_folder(environment)
    config = build(merged.values)
    problems = in_order(_problems(config, merged, dialect))
    if problems and not tolerant:
        raise ConfigError(problems)
    return Loaded(
        config=config,
        path=file.paths[0] if file.paths else None,
        paths=file.paths,
        key_files=key_files,
        directory=found.directory,
        folder=os.path.dirname(file.paths[0]) if file.paths else folder,
        origins={**dict.fromkeys(KEYS, DEFAULT), **merged.origins},
        warnings=(*merged.warnings, *(() if problems else find_warnings(config, merged.origins))),
        dialect=dialect,
        state=own_folder(
            config.state_directory,
            paths=[path for path in (found.path, found.directory) if path],
            otherwise=config.model or config.backend_url,
        ),
        problems=tuple(problems),
    )


def _problems(config: Config, merged: Layer, dialect: DialectConfig | None) -> list[Problem]:
    """The problems of the layers, and those that only the whole shows."""
    found = list(merged.problems)
    if not merged.unread:  # else most of what a check says would be consequences
        found += find_problems(config, merged.origins, broken=_broken(found), models=dialect is not None)
    if dialect is not None:
        found += find_model_problems(config, dialect.models, merged.origins)
        found += find_default_problems(config, dialect, merged.origins)
    return found


def in_order(problems: Sequence[Problem]) -> list[Problem]:
    """Problems of each file by line, then those of environment and flags; of very many the first."""
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


def note(layer: Layer, key: str, message: str) -> None:
    """Note a problem of a key at its place."""
    layer.problems.append(Problem(message, where=layer.origins.get(key, DEFAULT).where, key=key))


def resolve_source(layer: Layer, dialect: DialectConfig | None, *, models: str) -> DialectConfig | None:
    """One of `models`, `backend_url` and `model` decides where requests go; the DialectConfig if it is `models`.

    `models` is the place where models or peers stand ("": there are none); beside them nothing else may be set. A file
    in llama-swap's dialect without any counts only if nothing else is set.
    """
    given = [key for key in ("backend_url", "model") if layer.values.get(key)]
    if dialect is None or (given and not models):
        _one_engine(layer)
        return None
    for key in given:
        said = f"is set, and so are models ({models}): only one of the two decides where requests go; remove the other"
        note(layer, key, said)
    layer.values["backend_url"] = layer.values["model"] = ""
    return dialect


def _one_engine(layer: Layer) -> None:
    """One of `backend_url` and `model` decides: both set in one place, or none, is a problem.

    If they come from different places the later one wins, as it does for every key: `--model` on the command line beats
    a `backend_url` in the file.
    """
    model, url = layer.values.get("model", ""), layer.values.get("backend_url")
    if not model:
        if url == "":
            said = "is empty, and no model is set: there is no engine to send requests to; set one of the two"
            note(layer, "backend_url", said)
        return
    ahead = RANK[layer.origins["model"].source] - RANK[layer.origins["backend_url"].source] if url else 1
    if not ahead:
        other = layer.origins["backend_url"].where
        said = f"is set, and so is backend_url ({other}): a request can go to one engine only; remove one of the two"
        note(layer, "model", said)
    else:
        layer.values["backend_url" if ahead > 0 else "model"] = ""


def resolve_model(layer: Layer) -> None:
    """A model must be a file that is there."""
    model = layer.values.get("model", "")
    if not model:
        return
    try:
        mode = files.stat(model).st_mode
    except OSError as error:
        note(layer, "model", f"{model} cannot be used: {error.strerror or error}")
    else:
        if not stat.S_ISREG(mode):
            note(layer, "model", f"{model} is no file")


def resolve_keys(layer: Layer) -> tuple[str, ...]:
    """Every API key becomes a `Key`, and the key files are read, here and nowhere else; their paths.

    Whatever else is wrong with an entry is for `check.py`; an entry whose file cannot be read stays as it is.
    """
    keys = [Key(key=value) if isinstance(value, str) else value for value in layer.values.get("api_keys", ())]
    layer.values["api_keys"] = tuple(_with_file(layer, key, f"api_keys[{index}]") for index, key in enumerate(keys))
    return tuple(key.key_file for key in keys if key.key_file)


def _with_file(layer: Layer, key: Key, place: str) -> Key:
    if not key.key_file or key.key or key.sha256:
        return key
    layer.origins.setdefault(f"{place}.key_file", layer.origins.get(place, DEFAULT))
    try:
        text = read_key_file(key.key_file)
    except ValueError as error:
        note(layer, f"{place}.key_file", str(error))
        return key
    if mode := _open_to_others(key.key_file):
        sentence = f"{key.key_file} can be read by other users (mode {mode}); chmod 600 it"
        where = layer.origins[f"{place}.key_file"].where
        layer.warnings.append(Problem(sentence, where=where, key=f"{place}.key_file"))
    return msgspec.structs.replace(key, key=text, key_file="")


def read_key_file(path: str) -> str:
    """The key that a file holds, without blanks and newlines around it; ValueError says why there is none."""
    try:
        data = files.read(path, most=KEY_FILE_LIMIT)
        text = data.removeprefix(BOM).decode("ascii").strip()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} holds bytes that no key has") from error
    if not text or len(data) > KEY_FILE_LIMIT:
        raise ValueError(f"{path} is empty" if not text else f"{path} is too long for a key")
    if len(text.split()) > 1:
        raise ValueError(f"{path} holds more than one word; it must hold the key and nothing else")
    return text


def _open_to_others(path: str) -> str:
    """The mode of a file that other users may read, as text; "" if they may not, or the system has no modes."""
    mode = stat.S_IMODE(files.stat(path).st_mode)
    return f"{mode:04o}" if sys.platform != "win32" and mode & stat.S_IROTH else ""
