"""The fake and the real engine side by side: what the conformance tests ask of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes.engine_process import Answer, EngineProcess
from fakes.fake_engine import FakeEngine
from fakes.real_engine import RealEngine

Json = Any
KINDS = ["fake", pytest.param("real", marks=pytest.mark.real_engine)]


def make(kind: str, folder: Path | None, **flags: Json) -> EngineProcess:
    """An engine of a kind, on the flags that both understand."""
    options = {"ctx_size": 4096, "metrics": True, **flags}
    if kind == "fake":
        return FakeEngine(slot_folder=folder, disconnect_poll=1.0, **options)
    return RealEngine(slot_folder=folder, **options)


def error_of(answer: Answer) -> tuple[int, str, str]:
    """Status, message and type of an error; its code repeats the status."""
    error = answer.json()["error"]
    assert error["code"] == answer.status
    return answer.status, error["message"], error["type"]


async def complete(engine: EngineProcess, prompt: Json, **more: Json) -> Json:
    """One /completion of one token."""
    answer = await engine.post("/completion", {"prompt": prompt, "n_predict": 1, **more})
    assert answer.status == 200, answer.body
    return answer.json()
