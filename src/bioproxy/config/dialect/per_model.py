"""What counts for one model: bioproxy's own keys at the top, replaced by those that the model has.

Pure values: `models.<id>.kv` and `models.<id>.prefixes` were read and checked already (`decode.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bioproxy.config.dialect.schema import Model
from bioproxy.config.schema import Config, Kv, Prefix, as_prefix, template_files
from bioproxy.config.tree import DEFAULT, Origin
from bioproxy.errors import Problem

MOST_LISTED = 100_000


def kv_of(config: Config, model: Model) -> Kv:
    """The `kv` of a model: the top level's, key by key replaced by what the model says."""
    return msgspec.structs.replace(config.kv, **model.kv) if model.kv else config.kv


def prefixes_of(config: Config, model: Model) -> dict[str, str]:
    """Prefix to template file for a model: those for every model, and its own, which win."""
    return template_files(_prefixes(config, model))


def as_models_of(config: Config, models: Mapping[str, Model]) -> dict[str, tuple[str, ...]]:
    """The prefixes by which each model is listed once more (`<model>+code`); only models that are."""
    common = tuple(name for name, prefix in _prefixes(config, Model()).items() if prefix.as_model)
    found = {
        name: tuple(key for key, one in _prefixes(config, model).items() if one.as_model) if model.prefixes else common
        for name, model in models.items()
    }
    return {name: prefixes for name, prefixes in found.items() if prefixes}


def find_model_problems(config: Config, models: Mapping[str, Model], origins: Mapping[str, Origin]) -> list[Problem]:
    """What is wrong only when the top level and a model are seen together; `origins` by `models.<id>.kv`."""
    listed = sum(map(len, as_models_of(config, models).values()))
    if listed > MOST_LISTED:
        said = f"models and prefixes with as_model make {listed:,} names, too many for a list; {MOST_LISTED:,} will do"
        return [Problem(said, where=origins.get("prefixes", DEFAULT).where, key="prefixes")]
    unknown = [name for name in config.kv.model_budgets if name not in models]
    if unknown:
        said = f'no model has the ID "{unknown[0]}"'
        where = origins.get("kv.model_budgets", DEFAULT).where
        return [Problem(said, where=where, key=f"kv.model_budgets.{unknown[0]}")]
    said = (
        "its engine_directory is set, and its directory is not: set that too, to the folder as bioproxy itself sees it"
    )
    return [
        Problem(said, where=origins.get(f"models.{name}.kv", DEFAULT).where, key=f"models.{name}.kv")
        for name, model in models.items()
        if "engine_directory" in model.kv
        and kv_of(config, model).engine_directory
        and not kv_of(config, model).directory
    ]


def _prefixes(config: Config, model: Model) -> dict[str, Prefix]:
    return {**{name: as_prefix(prefix) for name, prefix in config.prefixes.items()}, **model.prefixes}
