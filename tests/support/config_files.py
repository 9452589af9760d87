"""Config files for tests: written into a folder of their own, loaded with an environment that holds nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from bioproxy.config.load import Loaded, load
from bioproxy.config.tree import Node
from bioproxy.errors import ConfigError, Problem

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def builtins(node: Node | None) -> Any:
    """The tree without its lines."""
    assert node is not None
    match node.value:
        case dict() as members:
            return {key: builtins(member) for key, member in members.items()}
        case tuple() as items:
            return [builtins(item) for item in items]
        case value:
            return value


def write(folder: Path, text: str, *, name: str = "conf.yaml") -> str:
    """Write a config file and give its path."""
    path = folder / name
    path.write_text(text, "utf-8")
    return str(path)


def loaded(
    folder: Path,
    text: str | None = None,
    *,
    name: str = "conf.yaml",
    arguments: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Loaded:
    """Load a text as a config file (none: without a file), the folder being home."""
    path = None if text is None else write(folder, text, name=name)
    return load(arguments, path=path, environment={"HOME": str(folder), **(environment or {})})


def problems(
    folder: Path,
    text: str | None = None,
    *,
    name: str = "conf.yaml",
    arguments: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[Problem, ...]:
    """The problems of a config that cannot be loaded."""
    with pytest.raises(ConfigError) as raised:
        loaded(folder, text, name=name, arguments=arguments, environment=environment)
    return raised.value.problems


def sentences(folder: Path, text: str, *, name: str = "conf.yaml") -> list[str]:
    """The problems of a file as they are read, the folder taken off: "conf.yaml:3: key: sentence"."""
    return [str(problem).replace(f"{folder}/", "") for problem in problems(folder, text, name=name)]
