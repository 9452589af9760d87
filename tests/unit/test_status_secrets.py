"""What `/status` does not tell of an engine's command line."""

from __future__ import annotations

import pytest

from bioproxy.status import masked, without_secrets


def test_the_values_of_secret_flags_are_hidden() -> None:
    """Whether they stand behind the flag or in the same word; everything else stays readable."""
    command = ("llama-server", "-m", "m.gguf", "--api-key", "abc", "--api-key=def", "-hft", "hf_1", "--port", "1")
    hidden = ("llama-server", "-m", "m.gguf", "--api-key", "***", "--api-key=***", "-hft", "***", "--port", "1")
    assert without_secrets(command) == hidden


def test_an_empty_command_line_stays_empty() -> None:
    """It is not known for an engine elsewhere."""
    assert without_secrets(()) == ()


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("LLAMA_API_KEY=abc", "LLAMA_API_KEY=***"),
        ("LLAMA_ARG_HF_TOKEN=a=b", "LLAMA_ARG_HF_TOKEN=***"),
        ("LLAMA_ARG_CTX_SIZE=4096", "LLAMA_ARG_CTX_SIZE=4096"),
        ("--api-key-file=/etc/keys", "--api-key-file=/etc/keys"),
    ],
)
def test_variables_that_hold_a_secret_are_hidden(word: str, shown: str) -> None:
    """By their names; a file's name is no secret."""
    assert masked(word) == shown
