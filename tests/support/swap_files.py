"""Configs in llama-swap's dialect for tests: read from texts, with what went wrong."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bioproxy.config.dialect.go import builtins
from bioproxy.config.dialect.read import read_dialect
from bioproxy.config.dialect.schema import DialectConfig
from bioproxy.config.files import Source
from bioproxy.config.yaml_tree import parse_yaml
from bioproxy.errors import ConfigError, Problem

EVERY_KEY = Path(__file__).parents[1] / "data" / "swap_every_key.yaml"


def every_key() -> Any:
    """The configuration with every key, as plain values."""
    root = parse_yaml(EVERY_KEY.read_text()).root
    assert root is not None
    return builtins(root)


def sources(*texts: str) -> list[Source]:
    """The texts as files a.yaml, b.yaml, ..."""
    return [Source(f"{chr(ord('a') + index)}.yaml", textwrap.dedent(text)) for index, text in enumerate(texts)]


def swap(*texts: str, environment: Mapping[str, str] | None = None) -> DialectConfig:
    """What the texts say together."""
    return read_dialect(sources(*texts), environment=environment or {})


def problems(*texts: str, environment: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
    """Everything wrong with the texts; fails where nothing is."""
    with pytest.raises(ConfigError) as caught:
        swap(*texts, environment=environment)
    return caught.value.problems


def messages(*texts: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """The sentences of everything wrong with the texts."""
    return [problem.message for problem in problems(*texts, environment=environment)]
