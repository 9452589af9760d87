"""The JSON Schema of llama-swap's dialect takes the config with every key, and editors can learn from it."""

from __future__ import annotations

from typing import Any

import pytest

from bioproxy.config.dialect.go import builtins
from bioproxy.config.json_schema import dialect_schema
from bioproxy.config.yaml_tree import parse_yaml
from support.config_files import fits
from support.swap_models import EVERY_KEY

SCHEMA = dialect_schema()


def plain(text: str) -> Any:
    """A text in YAML as plain values."""
    root = parse_yaml(text).root
    assert root is not None
    return builtins(root)


def test_every_key_fits() -> None:
    """With macros where numbers may stand, and our own keys."""
    assert fits(plain(EVERY_KEY.read_text()), SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        "globalTTL: soon",
        "models: {m: {ttl: [1]}}",
        "models: {m: {kv: sometimes}}",
        "performance: {every: 5}",
        "proxy_port: -x",
        "groups: {g: {members: a}}",
    ],
)
def test_mistakes_do_not_fit(text: str) -> None:
    """An editor underlines them."""
    assert not fits(plain(text), SCHEMA)


def test_keys_are_described() -> None:
    """What an editor shows while one types."""
    model = SCHEMA["$defs"]["Model"]["properties"]
    assert all(value.get("description") or "$ref" in str(value) for value in model.values())
    assert "proxy_port" in SCHEMA["$defs"]["File"]["properties"]
