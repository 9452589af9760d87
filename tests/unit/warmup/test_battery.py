"""What the system says of its battery."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from bioproxy.warmup.battery import on_battery


@pytest.mark.parametrize(
    ("plugged", "expected"),
    [
        pytest.param(False, True, id="unplugged"),
        pytest.param(True, False, id="plugged in"),
        pytest.param(None, False, id="it does not know"),
    ],
)
def test_a_battery(monkeypatch: pytest.MonkeyPatch, *, plugged: bool | None, expected: bool) -> None:
    """Only one that is known to be without power counts."""
    battery = SimpleNamespace(percent=80, power_plugged=plugged)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)
    assert on_battery() is expected


def test_no_battery(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server has none; some systems cannot be asked, and some drivers write what is no number."""
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None, raising=False)
    assert not on_battery()
    monkeypatch.setattr(psutil, "sensors_battery", lambda: int("unknown"))
    assert not on_battery()
    monkeypatch.delattr(psutil, "sensors_battery")
    assert not on_battery()
