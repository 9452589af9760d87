"""Recipes: what is shipped, the entries they make, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from bioproxy.config.dialect.read import read_dialect
from bioproxy.config.dialect.schema import DialectConfig, Model
from bioproxy.config.files import Source
from bioproxy.errors import ConfigError, NotFound
from bioproxy.models.command import prepare, split
from bioproxy.models.containers import container_name, container_of
from bioproxy.recipes import yaml_text
from bioproxy.recipes.recipe import CONTAINER, Recipe, Setting, entry_of, recipe_named, recipes, used

NAMES = ["llama-cpp-container", "llama-server", "vllm-container", "vllm-venv"]
REQUIRED = {
    "image": "llama.cpp:server",
    "file": "x.gguf",
    "models": "/models",
    "venv": "/opt/vllm",
    "model": "Qwen/Qwen3-8B",
}
HOME = {"HOME": "/home/me", "PATH": "/usr/bin"}


def values_for(recipe: Recipe, **more: str) -> dict[str, str]:
    """What must be given, and more."""
    return {name: REQUIRED[name] for name, one in recipe.settings.items() if one.default is None} | more


def config_of(name: str, model: str = "m", **more: str) -> DialectConfig:
    """The config that holds one entry and nothing else, as the program reads it."""
    recipe = recipe_named(name)
    entry = entry_of(recipe, model, values_for(recipe, **more))
    text = "\n".join(yaml_text.lines({"models": {model: entry}}))
    return read_dialect([Source("config.yaml", text)], environment=HOME)


def model_of(name: str, model: str = "m", **more: str) -> Model:
    return config_of(name, model, **more).models[model]


def complaints(recipe: Recipe, model: str, values: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        entry_of(recipe, model, values)
    return [problem.message for problem in caught.value.problems]


def test_four_recipes_are_shipped() -> None:
    """Each stands in a file of its own name."""
    assert list(recipes()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_makes_an_entry_that_loads(name: str) -> None:
    """Without a warning or an unknown key, and with a command."""
    config = config_of(name)
    assert (config.unknown, config.warnings) == ((), ())
    assert split(config.models["m"].cmd)


@pytest.mark.parametrize("name", NAMES)
def test_every_placeholder_is_a_setting_and_every_setting_is_used(name: str) -> None:
    """A misspelt one would be an error in the user's config."""
    recipe = recipe_named(name)
    placeholders = used(recipe.model) - {"PORT", "MODEL_ID", "PID", CONTAINER}
    assert placeholders == set(recipe.settings)
    assert CONTAINER not in recipe.settings


def test_settings_become_macros_of_the_model() -> None:
    """So the image stands in the config, in one line, and is changed there."""
    entry = entry_of(recipe_named("vllm-container"), "m", {"model": "a/b", "image": "my/image:1"})
    assert entry["macros"]["image"] == "my/image:1"
    assert "my/image:1" in split(model_of("vllm-container", image="my/image:1").cmd)


@pytest.mark.parametrize("name", ["llama-cpp-container", "vllm-container"])
def test_a_container_is_labelled_and_stopped_by_its_own_name(name: str) -> None:
    """That is how it is found again, and why nothing else is ever stopped."""
    model = model_of(name, "a/b c")
    found = container_of("a/b c", model.cmd)
    assert found is not None
    assert (found.engine, found.name) == ("docker", container_name("a/b c"))
    assert split(model.cmd_stop) == ["docker", "stop", "-t", "10", found.name]
    assert "bioproxy=a/b c" in split(model.cmd)


def test_a_container_has_time_to_stop() -> None:
    """The program that stops it must end before the model counts as stuck."""
    assert all(model_of(name).unload_timeout > 10 for name in ("llama-cpp-container", "vllm-container"))


def test_the_slot_folder_of_a_container_is_known() -> None:
    """A volume shows it, so a model in a container comes back warm without further keys."""
    prepared = prepare(split(model_of("llama-cpp-container", slots="/var/slots").cmd), folder="/elsewhere")
    assert (prepared.folders.ours, prepared.folders.engine) == ("/var/slots", "/slots")


def test_a_llama_server_from_path_gets_its_slot_folder_from_us() -> None:
    """The recipe names none, and its program is recognised."""
    assert prepare(split(model_of("llama-server").cmd), folder="/slots").added


def test_a_setting_is_one_word_and_arguments_are_many() -> None:
    """A path with blanks stays whole; arguments are split and quoted as the user wrote them."""
    words = split(model_of("llama-server", file="/my models/x.gguf", arguments="--jinja --alias 'a b'").cmd)
    assert "/my models/x.gguf" in words
    assert words[-3:] == ["--jinja", "--alias", "a b"]


def test_everything_wrong_is_told_at_once() -> None:
    """Unknown settings with the nearest one, missing ones, and what would end the quotes."""
    said = complaints(recipe_named("llama-cpp-container"), "m", {"modles": "x", "file": 'a"b'})
    assert len(said) == 4
    assert "did you mean models?" in said[0]
    assert "no quotes or backslashes" in said[1]
    assert "needs image" in said[2]
    assert "needs models" in said[3]


@pytest.mark.parametrize("value", ["a\nb", "a\rb"])
def test_no_setting_has_lines(value: str) -> None:
    """A line of a command that begins with # is none."""
    assert complaints(recipe_named("llama-server"), "m", {"file": "x", "arguments": value})


@pytest.mark.parametrize("model", ["", " ", " m", 'a"b', "a\\b", "a\nb", "${x}"])
def test_names_that_cannot_stand_in_a_command_are_refused(model: str) -> None:
    """They would break the quotes around the label."""
    assert complaints(recipe_named("llama-server"), model, {"file": "x"})


def test_an_unknown_recipe_names_the_nearest() -> None:
    """Or all, where none is near."""
    with pytest.raises(NotFound, match="did you mean vllm-venv"):
        recipe_named("vllm-vnv")
    with pytest.raises(NotFound, match="llama-cpp-container, llama-server"):
        recipe_named("zzz")


def test_macros_of_a_tree_are_found_everywhere() -> None:
    """In texts, lists and mappings."""
    tree: dict[str, Any] = {"a": "${x} ${env.HOME}", "b": ["${y}", 1], "c": {"d": "${z-1}"}, "e": None}
    assert used(tree) == {"x", "y", "z-1"}
    assert Setting(about="x").default is None
