"""Every cell of the table of process states."""

from __future__ import annotations

import pytest

from bioproxy.models.book import ModelSettings, Record
from bioproxy.models.state import AIMS, TABLE, Aim, Event, IllegalStep, State, step

# One row per state; one column per event, in the order of Event. "-" is illegal.
CELLS = """
            start     healthy   stop      ended     unsound   forgive   close
stopped     starting  -         stopped   -         -         stopped   shutdown
starting    -         ready     stopping  failed    -         starting  shutdown
ready       -         -         stopping  stopped   failed    ready     shutdown
stopping    -         stopping  stopping  stopped   -         stopping  shutdown
failed      starting  -         failed    -         -         stopped   shutdown
shutdown    -         shutdown  shutdown  shutdown  -         shutdown  shutdown
"""


def cells() -> list[tuple[State, Event, str]]:
    header, *rows = CELLS.strip().splitlines()
    events = [Event(word) for word in header.split()]
    assert events == list(Event)
    found = []
    for row in rows:
        name, *values = row.split()
        found += [(State(name), event, value) for event, value in zip(events, values, strict=True)]
    return found


@pytest.mark.parametrize(("state", "event", "expected"), cells(), ids=lambda value: getattr(value, "value", value))
def test_each_cell(state: State, event: Event, expected: str) -> None:
    """What an event does in a state, or that it cannot happen there."""
    if expected == "-":
        with pytest.raises(IllegalStep, match=f"a process that is {state.value} cannot get the event '{event.value}'"):
            step(state, event)
    else:
        assert step(state, event) is State(expected)


def test_the_test_knows_every_cell() -> None:
    """The table above has as many legal cells as the program's."""
    assert len([cell for cell in cells() if cell[2] != "-"]) == len(TABLE)


@pytest.mark.parametrize("state", State)
def test_the_api_knows_four_words(state: State) -> None:
    """Failed and shut down read as stopped, the others as they are."""
    assert state.public == (state.value if state.live else "stopped")
    assert state.public in {"stopped", "starting", "ready", "stopping"}


def test_everything_can_be_shut_down_and_stays_so() -> None:
    """Close leads to shutdown from everywhere, and nothing leads out of it."""
    assert all(step(state, Event.CLOSE) is State.SHUTDOWN for state in State)
    assert {new for (old, _event), new in TABLE.items() if old is State.SHUTDOWN} == {State.SHUTDOWN}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("aim", Aim)
def test_an_aim_needs_a_process_that_can_have_it(aim: Aim, state: State) -> None:
    """What starts or runs can leave, what does not can come; a model whose process stops comes after that."""
    record = Record(ModelSettings(id="m"), now=0.0)
    record.state = state
    if state in AIMS[aim]:
        record.turn_to(aim)
        assert record.aim is aim
        assert record.serves() == (state is State.READY and aim is Aim.STAY)
    else:
        with pytest.raises(AssertionError):
            record.turn_to(aim)
