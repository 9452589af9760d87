"""Whether this machine runs on its battery: then work that nobody asked for may wait for the plug."""

from __future__ import annotations


def on_battery() -> bool:
    """Whether no power comes in; False without a battery, and if the system does not tell. Blocks."""
    import psutil

    read = getattr(psutil, "sensors_battery", None)  # not on every system
    try:
        battery = read() if read is not None else None
    except (psutil.Error, OSError, ValueError):  # what a driver writes there is not always a number
        return False
    return battery is not None and battery.power_plugged is False
