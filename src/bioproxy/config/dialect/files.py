"""Which files make up a config: the one that is named, then a folder's, sorted by name."""

from __future__ import annotations

import os

from bioproxy import files
from bioproxy.config.dialect.pipeline import Source
from bioproxy.config.sources import SIZE_LIMIT
from bioproxy.errors import ConfigError, Problem

ENDINGS = (".yml", ".yaml")


def find_files(path: str, folder: str) -> tuple[str, ...]:
    """Paths of `-config` and of the YAML files of `-config-dir` ("" where not given); raises ConfigError."""
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


def read_sources(path: str = "", folder: str = "") -> tuple[Source, ...]:
    """The texts of a config's files; raises ConfigError with every file that cannot be read."""
    sources, problems, size = [], [], 0
    for file in find_files(path, folder):
        try:
            source = Source(file, read_text(file))
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


def read_text(path: str) -> str:
    """The text of a file, which may be empty; ValueError says why there is none."""
    try:
        data = files.read(path, most=SIZE_LIMIT, pipes=True)
    except OSError as error:
        raise ValueError(f"the config file cannot be read: {error.strerror or error}") from error
    if len(data) > SIZE_LIMIT:
        raise ValueError(f"the config file is larger than {SIZE_LIMIT >> 20} MiB; this cannot be a config file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"the config file is not UTF-8 text: byte 0x{data[error.start]:02x} in line {line}") from error
