"""What engines write as JSON lines: which request each of them is about."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bioproxy.engines.lines import JUST_ENDED, LATE, LONGEST, EngineLines
from bioproxy.events import EngineChanged, ModelChanged


class Engine:
    """An engine's output, the requests that it has, and a clock."""

    def __init__(self) -> None:
        self.has: dict[str, list[str]] = {}
        self.now = 0.0
        self.lines = EngineLines(lambda model: self.has.get(model, []), clock=lambda: self.now)

    def writes(self, text: str, *, model: str = "m") -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines(model, text.encode()).splitlines()]

    def of(self, text: str, *, model: str = "m") -> str | list[str]:
        """The request of one line: its id, or all that may be meant."""
        (entry,) = self.writes(text + "\n", model=model)
        found: str | list[str] = entry.get("request_id") or entry.get("request_ids") or ""
        return found


@pytest.fixture
def engine() -> Engine:
    return Engine()


def launch(task: int, slot: int = 0) -> str:
    return f"slot launch_slot_: id {slot:2d} | task {task} | processing task"


def done(task: int, slot: int = 0) -> str:
    return f"slot      release: id {slot:2d} | task {task} | stop processing: n_tokens = 12, truncated = 0"


def test_a_line_is_an_object_with_named_fields(engine: Engine) -> None:
    """Time, level, logger, model and message, and no id if no request has the engine."""
    (entry,) = engine.writes("main: model loaded\n")
    assert set(entry) == {"time", "level", "logger", "message", "model"}
    assert (entry["logger"], entry["model"], entry["message"]) == ("engine", "m", "main: model loaded")


def test_lines_have_the_id_of_the_one_request(engine: Engine) -> None:
    """Whether they name its task or not."""
    engine.has["m"] = ["a"]
    assert [engine.of(launch(5)), engine.of("srv  update_slots: all slots are idle"), engine.of(done(5))] == ["a"] * 3


def test_two_at_once_are_told_apart_by_their_tasks(engine: Engine) -> None:
    """The task that is new is that of the request that has none; a line without a task may be either's."""
    engine.has["m"] = ["a"]
    assert engine.of(launch(5)) == "a"
    engine.has["m"] = ["a", "b"]
    assert [engine.of(launch(9, 1)), engine.of(done(5)), engine.of(done(9, 1))] == ["b", "a", "b"]
    assert sorted(engine.of("srv  log_server_r: done")) == ["a", "b"]


def test_no_request_is_guessed(engine: Engine) -> None:
    """Two that come between two pieces of output have both their ids on each line."""
    engine.has["m"] = ["a", "b"]
    assert sorted(engine.of(launch(1))) == sorted(engine.of(launch(2))) == ["a", "b"]


def test_a_restore_and_the_prompt_after_it_are_one_requests(engine: Engine) -> None:
    """A request may have several tasks."""
    engine.has["m"] = ["a"]
    assert [engine.of(launch(1)), engine.of(launch(2)), engine.of(done(1))] == ["a"] * 3


def test_lines_after_the_answer_are_still_its(engine: Engine) -> None:
    """For a while: the number of a task comes again with the engine's next process."""
    engine.has["m"] = ["a"]
    engine.of(launch(5))
    engine.now, engine.has["m"] = 600.0, []
    assert engine.of(done(5)) == "a"
    engine.now += LATE + 1
    engine.of("nothing")
    assert engine.of(launch(5)) == ""


@pytest.mark.parametrize("only", [False, True])
def test_another_process_begins_anew(engine: Engine, only: bool) -> None:
    """Its first tasks have the numbers of those before it, and are other requests'."""
    engine.has["m"] = ["a"]
    engine.of(launch(5))
    if only:
        engine.lines.lost(EngineChanged(url="", state="absent"))
    else:
        engine.lines.started(ModelChanged(model="m", old="stopped", new="starting"))
    engine.has["m"] = ["b"]
    assert engine.of(launch(5)) == "b"


def test_a_first_line_may_come_late(engine: Engine) -> None:
    """A small request is over before the engine's first line about it was read."""
    engine.has["m"] = ["a"]
    engine.of("srv  params_from_: Chat format: Content-only")
    engine.has["m"] = []
    engine.of("srv")
    engine.now += JUST_ENDED / 2
    assert engine.of(launch(5)) == "a"


def test_models_are_apart(engine: Engine) -> None:
    """Each has its own tasks and its own unfinished line."""
    engine.has = {"m": ["a"], "n": ["b"]}
    assert engine.writes("slot launch: id 0 | ") == []
    assert engine.of(launch(5), model="n") == "b"
    (entry,) = engine.writes("task 5 | go\n")
    assert (entry["request_id"], entry["message"]) == ("a", "slot launch: id 0 | task 5 | go")


def test_any_bytes_become_one_line_each(engine: Engine) -> None:
    """No encoding, no terminal code and no length breaks a line; of a progress line the last state stays."""
    said = [entry["message"] for entry in engine.writes("10%\r20%\r\n\n\x1b[31mred\n")]
    assert said == ["20%", "\ufffd[31mred"]
    assert [len(entry["message"]) for entry in engine.writes("x" * (LONGEST + 1))] == [LONGEST + 1]
    (raw,) = engine.lines("m", b"\xff\xfe\n").splitlines()
    assert json.loads(raw)["message"] == "\ufffd\ufffd"


def test_the_level_is_the_engines(engine: Engine) -> None:
    """As llama-server's lines say it; what says none is information."""
    said = engine.writes("0.00.002.044 W srv  init: no API key\n0.01.1 E x\n0.01.1 I x\nW is a letter\n")
    assert [entry["level"] for entry in said] == ["warning", "error", "info", "info"]


def test_a_number_without_end_is_no_task(engine: Engine) -> None:
    """An engine may log what a client wrote, and Python refuses to read such a number."""
    engine.has["m"] = ["a"]
    assert engine.of(f"prompt: | task {'9' * 5000} |") == "a"
