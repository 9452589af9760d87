"""Reading recipes, and making a `models:` entry of one.

A recipe's `model` is an entry as it stands in a config, and its `settings` become the entry's `macros`. To change the
image later, an operator changes one line of the config, and needs no recipe. A setting is one word of the command and
stands in quotes there; one that is marked `words` (more arguments) is written as it is. Recipes that run a container
get one more macro, `container`: the name that `cmdStop` stops, made from the model's ID.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, TypeAlias

import msgspec
import yaml

from bioproxy.errors import ConfigError, NotFound, Problem
from bioproxy.models.containers import container_name

Json: TypeAlias = Any
Scalar: TypeAlias = str | int | float | bool

USE = re.compile(r"\$\{([a-zA-Z0-9_-]+)\}")
CONTAINER = "container"
NOT_IN_A_WORD = re.compile(r'["\\\x00-\x1f]')


class Setting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that a user may set; without a default they must."""

    about: str
    default: Scalar | None = None
    words: bool = False


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to start a model. `needs`: what must be there, for people; `model`: the entry, with `${settings}`."""

    name: str
    description: str
    needs: tuple[str, ...]
    settings: dict[str, Setting]
    model: dict[str, Json]


def texts() -> Iterator[str]:
    """The texts of the recipes that are shipped, sorted by file name."""
    for file in sorted(resources.files("bioproxy.recipes").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            yield file.read_text("utf-8")


def recipes() -> dict[str, Recipe]:
    read = (msgspec.convert(yaml.safe_load(text), Recipe) for text in texts())
    return {recipe.name: recipe for recipe in read}


def recipe_named(name: str) -> Recipe:
    """One recipe. NotFound names the nearest."""
    known = recipes()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
        raise NotFound(f"there is no recipe {name}{hint}")
    return known[name]


def entry_of(recipe: Recipe, model: str, values: Mapping[str, str]) -> dict[str, Json]:
    """The entry of a model called `model`. ConfigError with everything that is wrong with name and values."""
    problems = [*id_problems(model), *value_problems(recipe, values)]
    if problems:
        raise ConfigError(problems)
    macros: dict[str, Scalar] = {}
    if CONTAINER in used(recipe.model):
        macros[CONTAINER] = container_name(model)
    for name, setting in recipe.settings.items():
        value = values.get(name, setting.default)
        assert value is not None
        macros[name] = value
    return {"description": recipe.description, "macros": macros, **recipe.model}


def id_problems(model: str) -> Iterator[Problem]:
    """What keeps a name from being a model's ID: it stands within quotes of a command."""
    if not model.strip() or model != model.strip():
        yield Problem(f"{model!r} is no name for a model; give one with --as NAME")
    elif NOT_IN_A_WORD.search(model) or "${" in model:
        yield Problem(f"{model!r} cannot be a model's name here: no quotes, backslashes, control characters or ${{")


def value_problems(recipe: Recipe, values: Mapping[str, str]) -> Iterator[Problem]:
    """Settings that do not exist, that are missing, and that would end the quotes they stand in."""
    for name, value in values.items():
        setting = recipe.settings.get(name)
        if setting is None:
            near = difflib.get_close_matches(name, recipe.settings, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(recipe.settings)}"
            yield Problem(f"the recipe {recipe.name} has no setting {name}; {hint}")
        elif "\n" in value or "\r" in value or (NOT_IN_A_WORD.search(value) and not setting.words):
            yield Problem(f"{name}={value!r}: it stands within quotes of a command; no quotes or backslashes in it")
    for name, setting in recipe.settings.items():
        if setting.default is None and not values.get(name):
            yield Problem(f"the recipe {recipe.name} needs {name}; give it with --set {name}=… ({setting.about})")


def used(value: Json) -> set[str]:
    """The macros that a tree uses."""
    match value:
        case str():
            return set(USE.findall(value))
        case dict():
            return set().union(*(used(child) for child in value.values()))
        case list():
            return set().union(*(used(child) for child in value))
        case _:
            return set()
