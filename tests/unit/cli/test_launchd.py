"""The service for macOS' launchd fits the program."""

from __future__ import annotations

import plistlib
from pathlib import Path
from typing import Any

import pytest

from bioproxy.cli import verbs
from bioproxy.config.schema import Config

FILE = Path(__file__).parents[3] / "packaging" / "launchd" / "bioproxy.plist"
Json = Any


@pytest.fixture
def service() -> Json:
    return plistlib.loads(FILE.read_bytes())


def test_it_runs_the_checkouts_own_build(service: Json) -> None:
    """The command of the environment that `make` builds, with a verb and flags that exist."""
    program, verb, flag, _ = service["ProgramArguments"]
    assert program == f"{service['WorkingDirectory']}/.venv/bin/bioproxy"
    assert (verb in verbs.BY_NAME, flag) == (True, "-config")
    assert service["Label"] == FILE.stem


def test_it_waits_for_streams_and_saves(service: Json) -> None:
    """Long enough before anything is killed; and only a crash is a reason to start it again."""
    config = Config()
    assert service["ExitTimeOut"] >= config.shutdown_timeout + 2 * config.kv.save_timeout + 10
    assert service["KeepAlive"] == {"SuccessfulExit": False}
    assert service["RunAtLoad"]


def test_it_has_room_for_streams(service: Json) -> None:
    """Who does not ask gets 256 open files, and nobody has more than the hard limit."""
    wanted = {"NumberOfFiles": 65_536}
    assert (service["SoftResourceLimits"], service["HardResourceLimits"]) == (wanted, wanted)
