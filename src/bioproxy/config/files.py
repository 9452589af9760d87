"""Which config files count, where they are, and their texts.

Paths are plain texts. The environment is an argument everywhere, so that a test (or a reload) sees exactly what it
gives.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from bioproxy import files
from bioproxy.config.json_tree import parse_json
from bioproxy.config.keys import CONFIG_FLAG, CONFIG_VARIABLE, FOLDER_FLAG, FOLDER_VARIABLE
from bioproxy.config.tree import Parsed
from bioproxy.errors import ConfigError, Problem

SIZE_LIMIT = 4 << 20  # of a config file: naming a model file by mistake gets a sentence, not a full memory
APPLICATION = "bioproxy"
BOM = b"\xef\xbb\xbf"  # some editors begin a file with it
LARGEST = SIZE_LIMIT + len(BOM)
ENDINGS = (".yml", ".yaml")  # of the files of a folder
REASONS = {
    errno.ENOENT: "does not exist",
    errno.EISDIR: "is a folder; name the file in it",
    errno.EACCES: "cannot be read: permission denied",
}
NAMES = ("conf.json", "config.json", "config.yaml", "config.yml")


def working_folder() -> str:
    """Where relative paths of the command line start; ConfigError if it was removed."""
    try:
        return os.getcwd()
    except OSError as error:
        sentence = f"the working folder cannot be used: {error.strerror or error}; start bioproxy in another one"
        raise ConfigError([Problem(sentence)]) from error


def refuse_bytes(path: str) -> None:
    """ConfigError for a path that is no UTF-8: all that shows it is JSON or a log, and neither takes it."""
    shown = path.encode("utf-8", "backslashreplace").decode()
    if shown != path:
        raise ConfigError([Problem(f"{shown} has bytes in its name that are no UTF-8; rename it, or use another one")])


def home(environment: Mapping[str, str]) -> str:
    """The home folder: $HOME, else what the system says."""
    return environment.get("HOME") or os.path.expanduser("~")


def expand(path: str, environment: Mapping[str, str]) -> str:
    """A path with a leading `~` or `~name` replaced by that home folder."""
    if path == "~" or path.startswith(("~/", f"~{os.sep}")):
        return home(environment) + path[1:]
    return os.path.expanduser(path)


def resolve(path: str, *, folder: str, environment: Mapping[str, str]) -> str:
    """A path of ours, absolute: `~` is expanded, a relative one starts at `folder`; an empty one stays empty."""
    return os.path.normpath(os.path.join(folder, expand(path, environment))) if path else ""


def base(environment: Mapping[str, str], *, variable: str, default: str) -> str:
    """An XDG folder: the variable's value if it is absolute (the XDG rule), else `default` under the home folder."""
    value = environment.get(variable, "")
    return value if os.path.isabs(value) else os.path.join(home(environment), *default.split("/"))


def config_folder(environment: Mapping[str, str]) -> str:
    """Where a config file is looked for: $XDG_CONFIG_HOME/bioproxy, else ~/.config/bioproxy."""
    return os.path.join(base(environment, variable="XDG_CONFIG_HOME", default=".config"), APPLICATION)


def state_folder(environment: Mapping[str, str]) -> str:
    """Where state lives by default: $XDG_STATE_HOME/bioproxy, else ~/.local/state/bioproxy."""
    return os.path.join(base(environment, variable="XDG_STATE_HOME", default=".local/state"), APPLICATION)


def own_folder(base: str, *, paths: Sequence[str], otherwise: str) -> str:
    """The folder below `base` in which one configuration has its state and slot files, whatever port it serves on.

    It is named after the configuration's files as they were given (not what a link leads to: a new version of a file is
    the same configuration), or after what is served (`otherwise`) if there is no file.
    """
    names = [os.path.abspath(path) for path in paths] or [otherwise]
    one = os.path.normcase("\0".join(names))  # `c:` is `C:`
    digest = hashlib.blake2b(one.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", os.path.basename(names[0].rstrip("/")))[:40]
    return os.path.join(base, f"{stem}-{digest}")


def default_files(environment: Mapping[str, str]) -> list[str]:
    """The config files that stand at the default places, the one that counts first."""
    folder = config_folder(environment)
    with files.touching(folder):
        return [path for name in NAMES if os.path.lexists(path := os.path.join(folder, name))]


class Found(msgspec.Struct, frozen=True):
    """The config files that count: one by its path, one folder, their names in messages.

    `ignored` are the others that stand at the default places. `texts`: what is read instead of some of the files, by
    their absolute paths, as the bytes that would be in them.
    """

    path: str | None
    shown: str = ""
    ignored: tuple[str, ...] = ()
    directory: str | None = None
    directory_shown: str = ""
    texts: Mapping[str, bytes] = {}


class Source(msgspec.Struct, frozen=True):
    """One config file: its path, as messages show it, its text, and what that was read as, if it was."""

    path: str
    text: str
    parsed: Parsed | None = None


def find(path: str | None, directory: str | None, environment: Mapping[str, str], *, folder: str) -> Found:
    """The files that were named (by flags, else by variables), else the first one at the default places."""
    named = path if path is not None else environment.get(CONFIG_VARIABLE) or None
    inside = directory if directory is not None else environment.get(FOLDER_VARIABLE) or None
    if named is None and inside is None:
        standing = default_files(environment)
        return Found(standing[0], standing[0], tuple(standing[1:])) if standing else Found(None)
    return Found(
        path=None if named is None else resolve(named, folder=folder, environment=environment),
        shown=named or f"flag {CONFIG_FLAG}",
        directory=None if inside is None else resolve(inside, folder=folder, environment=environment),
        directory_shown=inside or f"flag {FOLDER_FLAG}",
    )


def read_text(path: str, *, several: bool = False, texts: Mapping[str, bytes] = {}) -> str:
    """The text of a config file; ValueError says why there is none. One of `several` files may be empty.

    One of `texts`, by its absolute path, stands for its file.
    """
    data = texts.get(os.path.abspath(path))
    try:
        text = decoded(files.read(path, most=LARGEST, pipes=True) if data is None else data)
    except OSError as error:
        said = "" if several else REASONS.get(error.errno or 0, "")
        raise ValueError(f"the config file {said or f'cannot be read: {error.strerror or error}'}") from error
    if not text.strip() and not several:
        raise ValueError("the config file is empty; write at least {} into it, or name no file")
    return text


def decoded(data: bytes) -> str:
    """The text of a config file that holds `data`; ValueError."""
    data = data.removeprefix(BOM)
    if len(data) > SIZE_LIMIT:
        raise ValueError(f"the config file is larger than {SIZE_LIMIT >> 20} MiB; this cannot be a config file")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"the config file is not UTF-8 text: byte 0x{data[error.start]:02x} in line {line}") from error


def looked_for(path: str, shown: str) -> str:
    """Where a missing file with a relative name was looked for."""
    if os.path.lexists(path) or os.path.isabs(shown) or shown.startswith("~"):
        return ""
    return f" (looked for in {os.path.dirname(path)})"


def find_files(path: str, folder: str) -> tuple[str, ...]:
    """Paths of `-config` and of the YAML files of `-config-dir` ("": not given); raises ConfigError."""
    inside = _listed(folder) if folder else []
    if path and any(_same(path, other) for other in inside):
        said = f"-config path {path} is also present in -config-dir {folder}; remove it from one"
        raise ConfigError([Problem(said, where="flag -config")])
    found = ([path] if path else []) + inside
    if not found:
        raise ConfigError([Problem("no configuration sources found", where="flag -config-dir" if folder else "")])
    return tuple(found)


def _listed(folder: str) -> list[str]:
    try:
        names = sorted(entry.name for entry in files.listed(folder))
    except OSError as error:
        said = f"the folder cannot be read: {error.strerror or error}"
        raise ConfigError([Problem(said, where=f"flag -config-dir {folder}")]) from error
    paths = [os.path.join(folder, name) for name in names if name.endswith(ENDINGS)]
    return [path for path in paths if not _is_folder(path)]


def _is_folder(path: str) -> bool:
    with files.touching(path):
        return os.path.isdir(path)


def _same(first: str, second: str) -> bool:
    with files.touching(second):
        return os.path.realpath(first) == os.path.realpath(second)


def read_sources(path: str, folder: str, *, texts: Mapping[str, bytes]) -> tuple[Source, ...]:
    """The texts of a config's files, `texts` instead of some; raises ConfigError with all that cannot be read."""
    sources, problems, size = [], [], 0
    for file in find_files(path, folder):
        try:
            source = Source(file, read_text(file, several=True, texts=texts))
        except ValueError as error:
            problems.append(Problem(str(error), where=file))
            continue
        size += len(source.text)
        if size > SIZE_LIMIT:
            said = f"with this file the configuration is larger than {SIZE_LIMIT >> 20} MiB; this cannot be one"
            raise ConfigError([*problems, Problem(said, where=file)])
        sources.append(source)
    if problems:
        raise ConfigError(problems)
    return tuple(sources)


def folder_of(path: str) -> str:
    return os.path.dirname(os.path.abspath(path))


def relative_to(folder: str, environment: Mapping[str, str]) -> Callable[[str, int], str]:
    """What makes a path of ours absolute, seen from `folder`."""
    return lambda path, _line: resolve(path, folder=folder, environment=environment)


def parse(text: str, path: str) -> Parsed:
    """Read by the name's ending; if that says nothing, a text that begins with a brace is JSON."""
    ending = os.path.splitext(path)[1].lower()
    if ending == ".json" or (ending not in ENDINGS and text.lstrip().startswith("{")):
        return parse_json(text)
    from bioproxy.config.yaml_tree import parse_yaml  # 15 ms that a start without YAML is spared

    return parse_yaml(text)
