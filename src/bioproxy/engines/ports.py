"""Free ports for programs that are told theirs, some time before they listen there.

Whoever binds port 0 is given one by the kernel, from the range that it also takes the local ports of outgoing
connections from. Such a port is free now and may be somebody's end of a connection when the engine is started, or
started again: "Address already in use", once in a few hundred starts of a busy machine. So a port is chosen below that
range (Linux: `net.ipv4.ip_local_port_range`, 32768 and up; elsewhere from 49152), at random, for two who choose at the
same time.
"""

from __future__ import annotations

import errno
import random
import socket

from bioproxy.errors import ConfigError, Problem

LOWEST, HIGHEST = 10_000, 20_000  # no privileged ones, and few that a well-known service has
ATTEMPTS = 100


def free_port(host: str = "127.0.0.1", *, run: int = 1) -> int:
    """The first of `run` ports in a row that nobody has on `host` now.

    ConfigError if `host` is no address of this machine, or where no attempt found one.
    """
    for _ in range(ATTEMPTS):
        first = random.randrange(LOWEST, HIGHEST)  # noqa: S311 - no secret
        try:
            if all(_is_free(host, port) for port in range(first, first + run)):
                return first
        except OSError as error:
            problem = Problem(f"--host {host} cannot be listened on: {error.strerror}", key="engine_arguments")
            raise ConfigError([problem]) from error
    sought = f"{ATTEMPTS} attempts between {LOWEST} and {HIGHEST} found no free port on {host}"
    raise ConfigError([Problem(f"{sought}; name one with --port", key="engine_arguments")])


def _is_free(host: str, port: int) -> bool:
    """Whether one could listen there now; OSError if that has nothing to do with the port."""
    family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True
