"""Listening sockets: of ports, and of files (`unix:/path`).

A unix socket's file gets its mode before anybody can connect. What a program that is gone left there is taken over,
what is alive is not, and our own is removed at the end, unless another program has put one in its place by then. It
never speaks TLS, which keeps out nobody who may read what two programs of one machine say to each other.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import stat
import sys
from pathlib import Path
from typing import Any

from bioproxy.config.addresses import UNIX
from bioproxy.errors import ConfigError, Problem

log = logging.getLogger(__name__)

BACKLOG = 4096  # connections that the system may hold for us; its own limit applies too


class PortTaken(ConfigError):
    """Another program listens there; who knows more (its name, our flag) may say so."""


async def bind(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[socket.socket]:
    """Sockets bound to every address of `host`, all on one port; ConfigError if not even one could be had.

    `localhost` is two addresses on most machines and one in many containers: what the system does not have is left out.
    """
    try:
        name = None if host in {"", "*"} else host.strip("[]")
        found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise cannot_listen(host, port, error) from error
    bound: list[socket.socket] = []
    last: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        wanted = bound[0].getsockname()[1] if bound and not port else port
        try:
            bound.append(bind_one(family, kind, protocol, (address[0], wanted, *address[2:])))
        except OSError as error:
            last = error
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                break
    else:
        if bound:
            return bound
    for one in bound:
        one.close()
    raise cannot_listen(host, port, last or OSError("the name has no address"))


def bind_one(family: int, kind: int, protocol: int, address: tuple[Any, ...]) -> socket.socket:
    """One bound socket; IPv6 ones take no IPv4, which has a socket of its own."""
    one = socket.socket(family, kind, protocol)
    try:
        if sys.platform == "win32":  # there SO_REUSEADDR lets another program take the port from us
            one.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
    except OSError:
        one.close()
        raise
    return one


def bind_unix(path: str, mode: int) -> tuple[socket.socket, tuple[Path, int]]:
    """A socket that listens at `path`, and its file and inode. Blocks. ConfigError if it cannot be had.

    What a program that is gone left there makes way.
    """
    if sys.platform == "win32":
        raise NotImplementedError  # the configuration was refused
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        clear_the_way(path)
        one.bind(path)
        Path(path).chmod(mode)  # nobody can connect before we listen
        one.listen(BACKLOG)
    except OSError as error:
        one.close()
        reason = error.strerror or str(error)
        if isinstance(error, FileNotFoundError):
            reason = f"the folder {Path(path).parent} is missing; make it, or choose another path"
        raise ConfigError([Problem(f"{UNIX}{path} cannot be opened: {reason}")]) from error
    except BaseException:
        one.close()
        raise
    return one, (Path(path), os.lstat(path).st_ino)


def clear_the_way(path: str) -> None:
    """Remove a socket at which nobody listens; ConfigError if somebody does, or if it is no socket. OSError."""
    if sys.platform == "win32":  # there are none
        return
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError([Problem(f"{path} is there already and is no socket; remove it, or choose another path")])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # one that is alive and busy says EAGAIN
        if probe.connect_ex(path) != errno.ECONNREFUSED:
            said = f"at {UNIX}{path} another program listens; stop that one, or choose another path"
            raise ConfigError([Problem(said)])
    remove_socket(Path(path), found.st_ino)


def remove_socket(path: Path, inode: int) -> None:
    """Remove the file of a socket, unless another one stands there by now."""
    try:
        if path.lstat().st_ino == inode:
            path.unlink()
    except OSError as error:
        if error.errno != errno.ENOENT:
            log.warning("%s could not be removed: %s", path, error.strerror or error)


def is_unix(one: socket.socket) -> bool:
    return one.family == getattr(socket, "AF_UNIX", None)


def address_of(one: socket.socket) -> tuple[str, int]:
    """Where a socket listens: host and port, or `unix:/path` and 0."""
    name = one.getsockname()
    return (f"{UNIX}{name}", 0) if is_unix(one) else (name[0], name[1])


def cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    """The error for an address that cannot be had."""
    place = f"port {port} on {host or 'all addresses'}"
    if error.errno == errno.EADDRINUSE:
        return PortTaken([Problem(f"{place} is taken by another program; stop that one, or choose another port")])
    if error.errno == errno.EACCES:
        said = "is not ours to open; choose a port of 1024 or above"
        if sys.platform == "win32":
            said = "is taken, or kept back (`netsh int ipv4 show excludedportrange tcp`); choose another port"
        return ConfigError([Problem(f"{place} {said}")])
    return ConfigError([Problem(f"{place} cannot be opened: {error.strerror or error}")])
