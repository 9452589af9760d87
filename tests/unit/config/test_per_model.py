"""What counts for one model: its own keys over those of the top level."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioproxy.config.dialect.per_model import as_models_of, kv_of, prefixes_of
from bioproxy.config.dialect.schema import Model
from bioproxy.config.load import Loaded
from bioproxy.config.schema import Config
from bioproxy.errors import ConfigError
from support.config_files import loaded

TEXT = """
kv: {min_free: 1GiB, policy: always}
prefixes:
  "@code": code.txt
  "@docs": {template: docs.txt, as_model: true}
models:
  plain: {cmd: 'x ${PORT}'}
  own:
    cmd: x ${PORT}
    kv: {disk_budget: 2GiB, policy: auto}
    prefixes:
      "@code": {template: /other.txt, as_model: true}
  off: {cmd: 'x ${PORT}', kv: off}
"""


def models(found: Loaded) -> dict[str, Model]:
    """The models of a config that has some."""
    assert found.dialect is not None
    return found.dialect.models


def test_a_model_changes_single_keys_of_kv(tmp_path: Path) -> None:
    """What it does not say is the top level's."""
    found = loaded(tmp_path, TEXT)
    config = found.config
    plain, own, off = (kv_of(config, models(found)[name]) for name in ("plain", "own", "off"))
    assert plain == config.kv
    assert (own.policy, own.disk_budget, own.min_free) == ("auto", 2 << 30, 1 << 30)
    assert (off.policy, off.min_free) == ("off", 1 << 30)


def test_a_models_prefixes_win(tmp_path: Path) -> None:
    """Those for every model are there, too."""
    found = loaded(tmp_path, TEXT)
    common = {"@code": str(tmp_path / "code.txt"), "@docs": str(tmp_path / "docs.txt")}
    assert prefixes_of(found.config, models(found)["plain"]) == common
    assert prefixes_of(found.config, models(found)["own"]) == {**common, "@code": "/other.txt"}


def test_prefixes_that_are_models_too(tmp_path: Path) -> None:
    """Each model's own answer counts."""
    found = loaded(tmp_path, TEXT)
    listed = as_models_of(found.config, models(found))
    assert (listed["plain"], listed["own"]) == (("@docs",), ("@code", "@docs"))


def test_a_budget_is_for_a_model_or_key_that_there_is(tmp_path: Path) -> None:
    """Another one would bound nothing, and nobody would notice."""
    text = TEXT.replace("policy: always", "policy: always, model_budgets: {plan: 1GiB}")
    with pytest.raises(ConfigError, match=r'kv\.model_budgets\.plan: no model has the ID "plan"'):
        loaded(tmp_path, text)
    text = TEXT.replace("policy: always", "policy: always, model_budgets: {plain: 1GiB}, key_budgets: {bob: 1}")
    with pytest.raises(ConfigError, match=r'no key of api_keys has "bob" as its name or group'):
        loaded(tmp_path, text)


def test_a_config_that_was_made_by_hand_has_plain_paths() -> None:
    """As tests make them."""
    assert prefixes_of(Config(prefixes={"@a": "/a"}), Model()) == {"@a": "/a"}
