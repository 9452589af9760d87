"""The sentence that says why a request took as long as it did."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from bioproxy.activity import Finding, Place, Record
from bioproxy.engines.answers import Timings
from bioproxy.explain import WAITS, explain, parts_of, seconds
from bioproxy.front.inference import cache_word
from bioproxy.models.waits import Part


def record(**fields: object) -> Record:
    return Record(id="1", started=0.0, method="POST", path="/x", endpoint="/x", **fields)  # type: ignore[arg-type]


def test_each_part_that_counted_is_named_in_order() -> None:
    """Queue, restore, prompt, generation."""
    sentence = explain(
        record(
            queue=3.21,
            restore=0.016,
            tokens_cached=2983,
            tokens_evaluated=27,
            prefill=0.051,
            tokens_generated=120,
            decode=4.1,
        )
    )
    assert sentence == (
        "waited 3.2 s in the queue; 0.02 s to restore the cache; 2,983 of 3,010 prompt tokens came from the cache, "
        "the rest was evaluated in 0.05 s; 120 tokens were generated in 4.1 s"
    )


def test_a_prompt_of_which_nothing_was_cached_is_told_as_one() -> None:
    """And a time that is not worth a hundredth of a second in milliseconds."""
    told = record(tokens_cached=0, tokens_evaluated=739, prefill=0.004)
    assert explain(told) == "none of 739 prompt tokens came from the cache, all were evaluated in 4 ms"


def test_a_wait_for_a_model_is_told_by_its_parts() -> None:
    """In the order in which they come; what took no time is not worth a word, and what is held back says by what."""
    waits = {"start": 1.5, "min_resident": 4.0, "stop": 0.42, "attach": 0.01, "in_use": 0.3, "linger": 0.7}
    waits |= {"pause": 2.0, "save": 0.61, "restore": 0.08}
    assert explain(record(swap=9.62, waits=waits)).split("; ") == [
        "waited 0.30 s for requests of other models to end",
        "waited 0.70 s because another model was in the middle of tool calls (swap.linger)",
        "waited 4.0 s because another model had been loaded a moment before (swap.min_resident)",
        "waited 0.61 s for what others held to be saved",
        "waited 0.42 s for others to stop",
        "waited 2.0 s before the second try of a start",
        "waited 1.5 s for the model to be loaded",
        "waited 0.08 s for the model's cache to be brought back",
    ]


@pytest.mark.parametrize(
    ("finding", "reason"),
    [
        ({"cause": "system_changed", "place": Place("system message", "content", 1234, "", "old", "new")},
         "the system message changed at character 1,234"),
        ({"cause": "tools_changed", "place": Place('tool "x"', at=7)}, 'the tool "x" changed at character 7'),
        ({"cause": "tools_changed", "place": Place('tool "x"'), "note": "the same tools in another order"},
         "the same tools in another order"),
        ({"cause": "message_changed"}, "the prompt changed"),
        ({"cause": "arguments_changed", "note": "changed: effort"}, "changed: effort"),
        ({"cause": "group_changed"}, "the prompt changed"),
        ({"cause": "template_edited", "note": "template @code"}, "the template @code was edited"),
        ({"cause": "model_changed"}, "model changed"),
        ({"cause": "evicted"}, "something else took its place in the engine"),
        ({"cause": "evicted", "by": "anna", "note": "busy"}, "anna took its place in the engine (busy)"),
        ({"cause": "not_saved"}, "the engine was started again and the conversation was not on disk"),
        ({"cause": "not_reused", "note": "a sliding window"}, "the engine did not use what it had: a sliding window"),
    ],
)  # fmt: skip
def test_what_was_evaluated_again_is_told_with_its_reason(finding: dict[str, Any], reason: str) -> None:
    """Never with words of the prompt."""
    told = record(tokens_cached=10, tokens_evaluated=990, finding=Finding(tokens=900, seconds=1.5, **finding))
    assert explain(told) == (
        "10 of 1,000 prompt tokens came from the cache, the rest was evaluated; "
        f"900 of them again in 1.5 s, because {reason}"
    )
    costless = record(finding=Finding(**finding))
    assert explain(costless) == "nothing to speak of: 0 ms"


def test_every_part_of_a_wait_has_words() -> None:
    """Whatever the schedule can wait for."""
    assert set(get_args(Part)) == set(WAITS)


def test_a_client_that_left_is_said_to_have_left() -> None:
    """The time it stayed is given."""
    assert explain(record(outcome="client_left", total=2.0)) == "the client left after 2.0 s"


def test_an_error_stands_in_the_sentence() -> None:
    """The message of the error is the reason."""
    assert explain(record(error="the engine is gone")) == "the engine is gone"


def test_a_quick_request_has_nothing_to_explain() -> None:
    """No part was long enough to name."""
    assert explain(record(total=0.004)) == "nothing to speak of: 4 ms"


def test_seconds_show_as_many_digits_as_say_something() -> None:
    """Short times have hundredths, long ones none."""
    assert [seconds(0.123), seconds(3.44), seconds(75.2)] == ["0.12 s", "3.4 s", "75 s"]


@pytest.mark.parametrize(
    ("status", "cached", "word"),
    [
        ("restored", 900, "restored"),
        ("restored", 0, "miss"),
        ("resident", 950, "hit"),
        ("resident", 500, "miss"),
        ("restored", None, ""),
    ],
)
def test_what_the_cache_gave_is_one_word(status: str, cached: int | None, word: str) -> None:
    """A restore of which the engine used nothing gave nothing."""
    assert cache_word(status, Timings(cached=cached, evaluated=1000 - (cached or 0))) == word


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"swap": 3.0, "waits": {"start": 2.0, "save": 1.0}, "queue": 0.5, "restore": 0.25, "first_byte": 5.0,
             "prefill": 1.0, "decode": 2.0, "total": 8.0},
            [("save", 0.0, 1.0), ("start", 1.0, 2.0), ("queue", 3.0, 0.5), ("restore", 3.5, 0.25),
             ("other", 3.75, 0.25), ("prefill", 4.0, 1.0), ("decode", 5.0, 2.0), ("other", 7.0, 1.0)],
        ),
        ({"first_byte": 1.0, "total": 1.5}, [("engine", 0.0, 1.0), ("answer", 1.0, 0.5)]),
        ({"queue": 2.0, "total": 2.0}, [("queue", 0.0, 2.0)]),
        (
            {"first_byte": 1.0, "prefill": 9.0, "decode": 9.0, "total": 2.0},
            [("prefill", 0.0, 1.0), ("decode", 1.0, 1.0)],
        ),
        (
            {"first_byte": 4.0, "prefill": 1.0, "decode": 2.0, "total": 4.5},  # no stream: it came when it was whole
            [("other", 0.0, 1.5), ("prefill", 1.5, 1.0), ("decode", 2.5, 2.0)],
        ),
        ({}, []),
    ],
)  # fmt: skip
def test_the_parts_of_a_request_follow_one_another_and_add_up(
    fields: dict[str, object], expected: list[tuple[str, float, float]]
) -> None:
    """Whatever an engine said about its own times."""
    assert [(part.name, part.at, part.seconds) for part in parts_of(record(**fields))] == expected
