"""The beginning of what `make fuzz` does: each target's seeds, and some of what is made of them, find nothing."""

from __future__ import annotations

import sys

import pytest

from fuzz import __main__ as fuzz


@pytest.mark.parametrize(
    ("name", "rounds"),
    [("requests", 500), ("bodies", 300), ("templates", 50), ("configs", 30), ("index", 40), ("ports", 60)],
)
async def test_nothing_is_found(name: str, rounds: int) -> None:
    """Whatever the bytes: they are read as they should be, or refused as they should be."""
    one = await fuzz.run(name, rounds, seconds=15, seed="test", only=None)
    assert one.found == []
    assert sum(one.outcomes.values()) >= len(one.known)


def test_an_input_can_be_had_again() -> None:
    """The same seed and number give the same bytes, after the seeds themselves."""
    first, again, other = (fuzz.Run("requests", seed=seed) for seed in ("1", "1", "2"))
    assert [first.input(number)[0] for number in range(len(first.known))] == first.known
    assert first.input(900)[0] == again.input(900)[0]
    assert [first.input(number)[0] for number in range(900, 910)] != [
        other.input(number)[0] for number in range(900, 910)
    ]


def test_the_command_names_its_targets(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown one is told what there is."""
    monkeypatch.setattr(sys, "argv", ["fuzz", "nothing"])
    with pytest.raises(SystemExit):
        fuzz.main()
    assert "there are requests, ports, configs, templates, bodies, index" in capsys.readouterr().err
