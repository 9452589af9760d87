"""docs/recipes.md says what recipes and import do."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from bioproxy.recipes.recipe import entry_of, recipe_named, recipes

PAGE = (Path(__file__).parents[3] / "docs" / "recipes.md").read_text("utf-8")


def test_every_recipe_stands_on_the_page() -> None:
    """In the table, and nothing else does."""
    table = PAGE.partition("| recipe |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE) == ["llama-server", "llama-cpp-container"] + [
        name for name in recipes() if name.startswith("vllm")
    ]


def test_the_entry_on_the_page_is_the_one_that_comes_out() -> None:
    """Of the command above it."""
    [shown] = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    entry = entry_of(recipe_named("llama-server"), "qwen", {"file": "/models/Qwen3-8B-Q4_K_M.gguf"})
    assert yaml.safe_load(shown) == {"models": {"qwen": entry}}


def test_settings_on_the_page_exist() -> None:
    """`--set NAME=` of the examples."""
    settings = {name for recipe in recipes().values() for name in recipe.settings}
    named = set(re.findall(r"--set (\w+)=", PAGE))
    assert named
    assert named <= settings
