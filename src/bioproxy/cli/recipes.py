"""`bioproxy recipes list|show|add`: entries for `models:` that one need not write oneself.

`add` changes the user's own file, so it is careful: the entry is put in as text, the result must say what the file said
before and the entry, and it must load no worse than before. Only then the file is replaced, in one step. What else the
recipe needs (a program, an image, a longer time-out) is said on stderr, because few people read documentation
afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from bioproxy.cli.command import Command
from bioproxy.cli.output import Output
from bioproxy.cli.verbs import STDOUT
from bioproxy.config.dialect.read import read_dialect
from bioproxy.config.files import Source, find
from bioproxy.engines import gguf
from bioproxy.errors import ConfigError, Problem
from bioproxy.recipes import insert, yaml_text
from bioproxy.recipes.recipe import Recipe, entry_of, recipe_named, recipes


def run(command: Command) -> int:
    arguments, output = command.arguments, command.output
    if arguments.action == "list":
        return show_all(output)
    if arguments.action == "show":
        return show(output, arguments.name)
    path = arguments.file or configuration(command)
    return add(output, arguments.name, path=path, model=arguments.model, given=arguments.given)


def configuration(command: Command) -> str:
    """The configuration file that every verb would read; ConfigError if there is none to write into."""
    path = find(command.flags.path, command.flags.directory, os.environ, folder=os.getcwd()).path
    if path is None:
        raise ConfigError([Problem("there is no configuration file at the default places; name the file to write to")])
    return path


def show_all(output: Output) -> int:
    """`list`: every recipe in a line."""
    known = list(recipes().values())
    if output.json:
        output.document([{"name": recipe.name, "description": recipe.description} for recipe in known])
        return 0
    output.table(("recipe", "what it starts"), [(recipe.name, recipe.description) for recipe in known])
    return 0


def show(output: Output, name: str) -> int:
    """`show NAME`: what it needs, what one may set, and the entry that it makes."""
    recipe = recipe_named(name)
    if output.json:
        output.document(recipe)
        return 0
    output.line(recipe.description, "bold")
    for need in recipe.needs:
        output.line(f"needs: {need}")
    output.line()
    rows = [
        (name, "must be given" if setting.default is None else str(setting.default) or "-", setting.about)
        for name, setting in recipe.settings.items()
    ]
    output.table(("setting", "default", "meaning"), rows)
    output.line()
    output.line(entry_text(recipe))
    return 0


def entry_text(recipe: Recipe) -> str:
    """The entry as it would be written, with the names of the settings that must be given in capitals."""
    required = {name: name.upper() for name, setting in recipe.settings.items() if setting.default is None}
    entry = entry_of(recipe, recipe.name, required)
    return "\n".join(yaml_text.lines({"models": {recipe.name: entry}}))


def add(output: Output, name: str, *, path: str, model: str, given: Sequence[str]) -> int:
    """`add NAME`: write an entry called `model` (empty: after the recipe's model or name) into the config at `path`."""
    recipe = recipe_named(name)
    values = settings(given)
    model = model or model_name(recipe, values)
    entry = entry_of(recipe, model, values)
    if path != STDOUT:
        file = Path(path)
        before = insert.read(file)
        after = insert.insert(before, path=path, model=model, entry=entry)
        check(before, after, path=path)
        insert.write(file, after)
    if output.json:
        output.document({"path": path, "model": model, "entry": entry, "needs": recipe.needs})
        return 0
    if path == STDOUT:
        output.line("\n".join(yaml_text.lines({"models": {model: entry}})))
    else:
        output.line(f"wrote models.{model} to {path}")
    for need in recipe.needs:
        output.note(f"it needs {need}")
    return 0


def settings(given: Sequence[str]) -> dict[str, str]:
    """`--set key=value` as a mapping. ConfigError names what is none."""
    problems = [Problem(f"--set {text}: write it as --set name=value") for text in given if "=" not in text]
    if problems:
        raise ConfigError(problems)
    return {name.strip(): value for name, _, value in (text.partition("=") for text in given)}


def model_name(recipe: Recipe, values: Mapping[str, str]) -> str:
    """A name for a model that was given none: its file's without the ending, or the repository's without its owner."""
    source = values.get("model") or values.get("file") or ""
    name = source.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return gguf.stem(name) or recipe.name


def check(before: str, after: str, *, path: str) -> None:
    """ConfigError with what the new file has wrong that the old one had not (an alias of the same name, say)."""
    old = {(problem.key, problem.message) for problem in problems(before, path=path)}
    new = [problem for problem in problems(after, path=path) if (problem.key, problem.message) not in old]
    if new:
        raise ConfigError([*new, Problem("nothing was changed", where=path)])


def problems(text: str, *, path: str) -> tuple[Problem, ...]:
    """Everything wrong with a config."""
    try:
        read_dialect([Source(path, text)], environment=os.environ)
    except ConfigError as error:
        return error.problems
    return ()
