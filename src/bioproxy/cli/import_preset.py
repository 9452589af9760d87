"""`bioproxy import FILE.ini`: a llama.cpp router preset as a config for bioproxy.

The config goes to stdout, or into a file that does not exist yet: an import starts something new, it never overwrites.
What has no counterpart stands as comments at the top of the config, and on stderr.
"""

from __future__ import annotations

import os
from pathlib import Path

from bioproxy import files
from bioproxy.cli.command import Command
from bioproxy.cli.output import Output
from bioproxy.config.dialect.read import read_dialect
from bioproxy.config.files import SIZE_LIMIT, Source
from bioproxy.errors import ConfigError, Problem
from bioproxy.recipes.preset import Translated, translate


def run(command: Command) -> int:
    """Translate the preset, and print the config or write it. ConfigError if it cannot be read or written."""
    source, target = command.arguments.file, command.arguments.target
    translated = translate(read(source), path=Path(source).name)
    found = read_dialect([Source(target or "the config", translated.text)], environment=os.environ)
    notes = (*translated.notes, *(str(warning) for warning in found.warnings))
    if target:
        create(target, translated.text)
    show(command.output, translated, notes=notes, target=target)
    return 0


def show(output: Output, translated: Translated, *, notes: tuple[str, ...], target: str) -> None:
    """The config, or where it is; the notes beside it."""
    if output.json:
        output.document({"models": translated.models, "notes": notes, "config": translated.text, "path": target})
        return
    for note in notes:
        output.note(f"note: {note}")
    if target:
        number = len(translated.models)
        output.line(f"wrote {number} model{'s' if number > 1 else ''} to {target}")
    else:
        output.line(translated.text.removesuffix("\n"))


def read(path: str) -> str:
    """The text of a preset; ConfigError says why there is none."""
    try:
        return files.patiently(files.read, path, most=SIZE_LIMIT, pipes=True).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([Problem("the preset is not UTF-8 text", path)]) from error
    except OSError as error:
        raise ConfigError([Problem(f"the preset cannot be read: {error.strerror or error}", path)]) from error


def create(path: str, text: str) -> None:
    """Write a new file; ConfigError if there is one already, or if it cannot be written."""
    try:
        with Path(path).open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError([Problem("there is such a file already; name another one, or remove it", path)]) from error
    except OSError as error:
        raise ConfigError([Problem(f"the config cannot be written: {error.strerror or error}", path)]) from error
