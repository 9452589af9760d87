"""docs/configuration.md is what the schema makes of it, and what it says is tried."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from bioproxy.config.keys import KEYS, SECTIONS, Option
from bioproxy.config.schema import Key, Prefix
from support.config_files import loaded, sentences
from tools.reference import OBJECTS, block, fill

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


@pytest.fixture
def page() -> str:
    """The page as it is."""
    return PAGE.read_text("utf-8")


def example(page: str, language: str, *, number: int = 0) -> str:
    """A fenced stretch of the page."""
    found: list[str] = re.findall(rf"\n\n```{language}\n(.*?)```", page, re.DOTALL)
    return found[number]


def test_the_page_is_what_the_schema_makes_of_it(page: str) -> None:
    """If this fails: python -m tools.reference."""
    assert fill(page) == page


def test_every_section_has_its_table(page: str) -> None:
    """A section that is added later must not be forgotten."""
    assert set(re.findall(r"<!-- keys: (.*?) -->", page)) == {"top", *OBJECTS, *SECTIONS}


@pytest.mark.parametrize("option", KEYS.values(), ids=list(KEYS))
def test_every_key_stands_in_the_page(option: Option, page: str) -> None:
    """With its environment variable, its flags and its sentence."""
    words = [option.path, option.environment, *option.flags]
    assert [word for word in words if f"`{word}`" not in page] == []
    assert option.description.replace("|", "\\|") in page


@pytest.mark.parametrize("name", [*Key.__struct_fields__, *Prefix.__struct_fields__])
def test_every_key_of_an_object_stands_in_the_page(name: str, page: str) -> None:
    """Of API keys and prefixes."""
    assert f"| `{name}` |" in page


def test_a_mark_that_names_nothing_is_an_error() -> None:
    """A slip in the page must not leave it empty in silence."""
    with pytest.raises(KeyError):
        block("nothing")


def test_the_examples_are_loaded_and_say_the_same(page: str, tmp_path: Path) -> None:
    """Ten lines of YAML, and the same in JSON."""
    (tmp_path / "keys").mkdir()
    for name in ("alice", "build"):
        (tmp_path / "keys" / name).write_text(f"key-of-{name}\n")
        (tmp_path / "keys" / name).chmod(0o600)
    text = example(page, "yaml")
    assert len(text.splitlines()) == 10
    found = loaded(tmp_path, text)
    assert found.warnings == ()
    assert found.config == loaded(tmp_path, example(page, "json"), name="conf.json").config


def test_the_errors_that_the_page_shows_are_what_is_said(page: str, tmp_path: Path) -> None:
    """Word for word."""
    text = 'proxy_prot: 1\n\nkv:\n  min_free: 5G\n\nprefixes:\n  "@code": /a\n\n  "@code": /b\n'
    assert sentences(tmp_path, text, name="config.yaml") == example(page, "").splitlines()


def test_the_ways_to_write_a_value_that_the_page_shows(page: str) -> None:
    """Durations and sizes in backticks are read."""
    from bioproxy.config.units import read_bytes, read_seconds  # only this test needs them

    durations, sizes = re.findall(r"- \*\*(?:Durations|Sizes)\*\*: (.*?);", page, re.DOTALL)
    assert all(read_seconds(text) > 0 for text in re.findall(r"`(.*?)`", durations))
    assert all(read_bytes(text) > 0 for text in re.findall(r"`(.*?)`", sizes))
    assert yaml.safe_load(example(page, "yaml"))["kv"]["disk_budget"] == "50GiB"
