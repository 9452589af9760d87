"""What llama.cpp's router would tell of what happens to a model."""

from __future__ import annotations

from typing import Any

import pytest

from bioproxy.admin.events import router_event
from bioproxy.events import ConfigReloaded, ModelChanged, ProfileChanged

Json = Any


def told(old: str, new: str) -> Json:
    return router_event(ModelChanged(model="org/m", old=old, new=new))


@pytest.mark.parametrize(
    ("old", "new", "event", "data"),
    [
        ("stopped", "starting", "model_status", {"status": "loading"}),
        ("failed", "starting", "model_status", {"status": "loading"}),
        ("starting", "ready", "status_change", {"status": "loaded"}),
        ("stopping", "stopped", "status_change", {"status": "unloaded", "exit_code": 0}),
        ("ready", "stopped", "status_change", {"status": "unloaded", "exit_code": 0}),
        ("starting", "failed", "status_change", {"status": "unloaded", "exit_code": 1}),
        ("ready", "failed", "status_change", {"status": "unloaded", "exit_code": 1}),
    ],
)
def test_each_change_has_the_routers_words(old: str, new: str, event: str, data: Json) -> None:
    """A model, an event, and its data."""
    assert told(old, new) == {"model": "org/m", "event": event, "data": data}


@pytest.mark.parametrize(("old", "new"), [("ready", "stopping"), ("failed", "stopped"), ("stopped", "shutdown")])
def test_what_it_has_no_word_for_is_not_told(old: str, new: str) -> None:
    """A model that stops is loaded until it is gone, and one that is forgiven was unloaded before."""
    assert told(old, new) is None


def test_a_reload_may_change_every_model() -> None:
    """Unless it was refused."""
    assert router_event(ConfigReloaded()) == {"model": "*", "event": "models_reload"}
    assert router_event(ConfigReloaded(error="no")) is None
    assert router_event(ProfileChanged(active="p")) is None
