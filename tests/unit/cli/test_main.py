"""How a command line is taken apart."""

from __future__ import annotations

import pytest

from bioproxy.cli.main import UsageError, understand


@pytest.mark.parametrize("words", [["-n5"], ["-n", "5"], ["--outcome", "ok", "-n5"]])
def test_a_number_may_stand_at_its_flag(words: list[str]) -> None:
    """As everywhere else on a command line; `-no-wait` is no `-n`."""
    assert understand(["requests", *words]).arguments.number == 5
    assert understand(["warm", "@code", "-no-wait"]).arguments.no_wait


def test_no_requests_are_no_number_of_requests() -> None:
    """The sentence says what may stand there."""
    with pytest.raises(UsageError, match="expected a whole number from 1, got '0'"):
        understand(["requests", "-n0"])
