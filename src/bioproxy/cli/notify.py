"""Telling systemd how far we are: one datagram to the socket that it names in NOTIFY_SOCKET (sd_notify(3)).

With `Type=notify` in the unit, `systemctl start` returns when the ports are open, and fails if the configuration is
broken. Without systemd the variable is not set, and nothing happens. What cannot be sent is no reason to stop serving.

With `WatchdogSec=` systemd starts the program again if it hears nothing for that long. What tells it is a task of the
event loop, so a loop that hangs is silent; an engine that hangs is no matter of this (engines/stall.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from bioproxy import aio

log = logging.getLogger(__name__)

VARIABLE = "NOTIFY_SOCKET"
WATCHDOG = ("WATCHDOG_USEC", "WATCHDOG_PID")
READY, STOPPING, ALIVE = "READY=1", "STOPPING=1", "WATCHDOG=1"
SEND_LIMIT = 1.0  # seconds that systemd may take to take a datagram


def notify(state: str, environment: Mapping[str, str] | None = None) -> bool:
    """Send `state`; False if systemd does not wait for it."""
    address = (os.environ if environment is None else environment).get(VARIABLE, "")
    if not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
        return False
    if address.startswith("@"):  # a name that is no file
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.settimeout(SEND_LIMIT)
            to.connect(address)
            to.send(state.encode())
    except OSError as error:
        log.warning("systemd could not be told %s: %s", state, error.strerror or error)
        return False
    return True


@asynccontextmanager
async def watchdog(environment: Mapping[str, str] | None = None) -> AsyncIterator[None]:
    """Tell systemd's watchdog that the event loop runs, for as long as this is entered; nothing if there is none."""
    known = os.environ if environment is None else environment
    tasks = [aio.spawn(beat(seconds, known), name="watchdog")] if (seconds := interval(known)) else []
    try:
        yield
    finally:
        await aio.finish(tasks)


async def beat(seconds: float, environment: Mapping[str, str]) -> None:
    while True:
        notify(ALIVE, environment)
        await asyncio.sleep(seconds)


def interval(environment: Mapping[str, str]) -> float:
    """Seconds between two signs of life, a third of what systemd waits for; 0 if it waits for none of ours."""
    wanted, of = environment.get(WATCHDOG[0], ""), environment.get(WATCHDOG[1], "")
    ours = not of or of == str(os.getpid())
    return int(wanted) / 3e6 if wanted.isdecimal() and ours else 0.0
