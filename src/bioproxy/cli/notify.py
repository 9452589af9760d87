"""Telling systemd how far we are: one datagram to the socket that it names in NOTIFY_SOCKET (sd_notify(3)).

With `Type=notify` in the unit, `systemctl start` returns when the ports are open, and fails if the configuration is
broken. Without systemd the variable is not set, and nothing happens. What cannot be sent is no reason to stop serving.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)

VARIABLE = "NOTIFY_SOCKET"
READY, STOPPING = "READY=1", "STOPPING=1"


def notify(state: str, environment: Mapping[str, str] | None = None) -> bool:
    """Send `state`; False if systemd does not wait for it."""
    address = (os.environ if environment is None else environment).get(VARIABLE, "")
    if not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
        return False
    if address.startswith("@"):  # a name that is no file
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.connect(address)
            to.send(state.encode())
    except OSError as error:
        log.warning("systemd could not be told %s: %s", state, error.strerror or error)
        return False
    return True
