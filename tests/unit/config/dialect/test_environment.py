"""${env.X}: filled in before parsing, needed only where it is no comment."""

from __future__ import annotations

import pytest

from support.swap_models import messages, problems, swap

MODEL = "models: {m: {cmd: 'x ${PORT}'}}\n"


def test_a_variable_may_stand_anywhere() -> None:
    """In keys, in numbers, in macros and in the middle of texts."""
    text = """
        startPort: ${env.FIRST}
        macros:
          who: ${env.WHO}
        models:
          ${env.NAME}:
            cmd: run-${who}-${env.WHO} ${PORT}
    """
    config = swap(text, environment={"FIRST": "7000", "WHO": "me", "NAME": "big/model"})
    assert config.models["big/model"].cmd == "run-me-me 7000"


def test_a_comment_needs_no_variable() -> None:
    """YAML's comments are gone before anybody looks."""
    assert swap("# ${env.MISSING}\nglobalTTL: 5 # ${env.MISSING}\n").global_ttl == 5


def test_a_comment_inside_a_command_does() -> None:
    """For YAML, a # line of a block is its content."""
    text = "models:\n  m:\n    cmd: |\n      # ${env.MISSING}\n      run ${PORT}\n"
    assert messages(text) == ["environment variable 'MISSING' is not set"]


def test_every_unset_variable_is_named_with_its_line() -> None:
    """All of them at once, and nothing about the values that they would have been."""
    found = problems("globalTTL: ${env.ONE}\nmodels:\n  m:\n    cmd: ${env.TWO} ${PORT}\n    ttl: ${env.ONE}\n")
    assert [(problem.where, problem.message) for problem in found] == [
        ("a.yaml:1", "environment variable 'ONE' is not set"),
        ("a.yaml:4", "environment variable 'TWO' is not set"),
    ]


def test_of_several_files_the_message_names_one() -> None:
    """llama-swap's wording then begins with the file."""
    assert messages("globalTTL: 1", "apiKeys: ['${env.KEY}']") == [
        "config b.yaml: environment variable 'KEY' is not set"
    ]


def test_an_empty_variable_is_fine() -> None:
    """It is set."""
    assert swap(MODEL + 'logTimeFormat: "${env.NOTHING}"', environment={"NOTHING": ""}).log_time_format == ""


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b"])
def test_a_variable_cannot_change_the_structure(value: str) -> None:
    """Line ends could add keys to the file."""
    said = "environment variable 'X' contains newlines or null bytes which are not allowed in YAML substitution"
    assert messages("apiKeys: ['${env.X}']", environment={"X": value}) == [said]


def test_quotes_and_backslashes_are_escaped_for_double_quotes() -> None:
    """So they are right there, and doubled in a plain scalar, as in llama-swap."""
    config = swap('apiKeys: ["${env.X}"]\nlogTimeFormat: ""\nstore: {path: ${env.X}}', environment={"X": r"a\b"})
    assert config.api_keys == (r"a\b",)
    assert config.store.path == r"a\\b"


def test_a_variable_whose_value_asks_for_another_gets_it_once() -> None:
    """The step runs twice and not more, so it ends whatever the values say."""
    environment = {"A": "${env.B}", "B": "${env.A}"}
    assert swap("apiKeys: ['${env.A}']", environment=environment).api_keys == ("${env.A}",)
    assert messages("apiKeys: ['${env.A}']", environment={"A": "${env.C}"}) == ["environment variable 'C' is not set"]


def test_a_file_that_is_no_yaml_yet_is_looked_at_as_text() -> None:
    """Inside of braces, ${env.X} is no YAML before it is filled in."""
    assert swap("store: {path: ${env.X}}", environment={"X": "a.db"}).store.path == "a.db"
    assert messages("store: {path: ${env.X}}")[0] == "environment variable 'X' is not set"
