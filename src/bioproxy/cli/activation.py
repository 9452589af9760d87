"""Sockets that systemd opened for us (sd_listen_fds(3)), and the variables that are for us alone.

With a `.socket` unit the ports are open before we are, and stay open while we restart: who connects meanwhile waits. An
address that is none of the configuration's would slip past its checks (an admin port that others reach wants a key, a
port of this machine looks at `Host`), so what systemd opened counts as a flag that names it, now and at each reload.

What systemd says to us in variables is no business of engines: podman would report its containers to NOTIFY_SOCKET. So
they are taken out of the environment before anything is started.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping, Sequence

import msgspec

from bioproxy.cli.command import Command
from bioproxy.cli.notify import VARIABLE, WATCHDOG
from bioproxy.config.addresses import stays_here
from bioproxy.errors import ConfigError, Problem
from bioproxy.wire.sockets import address_of

FIRST = 3  # the number of the first descriptor
SOCKETS = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
ADMIN = "admin"  # FileDescriptorName= of the admin port's; any other one is the proxy port's
WRITTEN = "-listen, as systemd gave it"  # where messages say that an address was written

Sockets = Mapping[str, Sequence[socket.socket]]


def taken(environment: MutableMapping[str, str]) -> dict[str, str]:
    """What systemd says to us, taken out of the environment."""
    return {name: environment.pop(name) for name in (*SOCKETS, VARIABLE, *WATCHDOG) if name in environment}


def opened(variables: Mapping[str, str], *, first: int = FIRST) -> dict[str, list[socket.socket]]:
    """The sockets that were opened for us, by port; ConfigError if one is none that listens."""
    count = variables.get("LISTEN_FDS", "")
    if variables.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return {}
    names = variables.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[socket.socket]] = {}
    for place in range(int(count)):
        name = names[place] if place < len(names) else ""
        found.setdefault(ADMIN if name == ADMIN else "proxy", []).append(listening(first + place, name))
    return found


def listening(number: int, name: str) -> socket.socket:
    """The socket of a descriptor, which no child gets."""
    try:
        one = socket.socket(fileno=number)
        if one.type == socket.SOCK_STREAM and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            one.set_inheritable(False)
            return one
    except OSError as error:
        raise ConfigError([Problem(f"systemd's socket {name or number} is none: {error.strerror or error}")]) from error
    one.detach()
    raise ConfigError(
        [Problem(f"systemd's socket {name or number} does not listen: write ListenStream= and Accept=no")]
    )


def listens_at(command: Command, sockets: Sockets) -> Command:
    """The command with flags for what is open already; of several addresses the one that most can reach."""
    values, names = dict(command.flags.values), dict(command.flags.names)
    for port, several in sockets.items():
        host, number = min(map(address_of, several), key=lambda place: stays_here(place[0]))
        for key, value in ((f"{port}_host", host), (f"{port}_port", str(number))):
            values[key], names[key] = value, WRITTEN
    return msgspec.structs.replace(command, flags=msgspec.structs.replace(command.flags, values=values, names=names))
