"""The process that listens behind a loopback URL: its number, start, command line and working folder, out of /proc.

What an engine was started with decides what its KV cache looks like (LoRA, cache types, slot folder), and `/props` does
not tell. On this machine the kernel does: /proc/net/tcp has the inode of the socket that listens on a port, and one
process holds that inode among its open files. Where the engine runs as another user its open files are hidden, but not
the owner of the socket nor the command lines: then the one process of that owner which was told this port is taken.

Going through the open files of every process costs milliseconds that grow with the machine's load. An engine of ours
is a child of ours, or a shell's below it: `within` looks at those few processes only.

Nothing here is certain, and nothing here is an error. Another machine, a container behind a port that is forwarded,
macOS, a hardened /proc: all mean None, and whoever asked goes on with what the engine itself tells. Everything here
blocks: call it in a thread. Layouts: proc(5), proc_net_tcp.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

PROC = Path("/proc")
LISTEN = "0A"
# programs that hold a port for a process that we cannot see: their command line is not the engine's
FORWARDERS = frozenset({"docker-proxy", "rootlessport", "slirp4netns", "pasta", "passt", "ssh", "socat", "kubectl"})


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """A process that listens; `started` is unix time, `ticks` its exact start: no two share pid and ticks."""

    pid: int
    ticks: int
    started: float
    command: tuple[str, ...]
    environment: tuple[str, ...] = ()
    folder: str = ""


class Socket(msgspec.Struct, frozen=True):
    """A listening socket: its inode and its owner."""

    inode: str
    uid: int


def find(host: str, port: int, *, proc: Path = PROC) -> Listener | None:
    """The process that listens on `port` of this machine; None where `host` is elsewhere or the process is hidden."""
    if not sys.platform.startswith("linux") or not is_loopback(host):
        return None
    sockets = listening(port, proc=proc)
    pid = owner(sockets, processes(proc=proc), proc=proc) if sockets else None
    if pid is None and sockets:
        pid = by_command(sockets, port, proc=proc)
    listener = describe(pid, proc=proc) if pid is not None else None
    return None if listener is None or is_forwarder(listener.command) else listener


def within(pid: int, port: int, *, proc: Path = PROC) -> Listener | None:
    """The process that listens on `port` among `pid` and its descendants; None where it is none of them, or hidden."""
    if not sys.platform.startswith("linux"):
        return None
    sockets = listening(port, proc=proc)
    found = owner(sockets, family(pid, proc=proc), proc=proc) if sockets else None
    return describe(found, proc=proc) if found is not None else None


def family(pid: int, *, proc: Path = PROC) -> Iterator[int]:
    """`pid` and everything below it, parents first; a kernel that keeps no lists of children shows `pid` only."""
    yield pid
    for task in entries(proc / str(pid) / "task"):
        try:
            children = (task / "children").read_text("ascii").split()
        except (OSError, UnicodeDecodeError):
            continue
        for child in children:
            yield from family(int(child), proc=proc)


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine's loopback."""
    name = host.strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def listening(port: int, *, proc: Path = PROC) -> list[Socket]:
    """The sockets of /proc/net/tcp and tcp6 that listen on `port`, on whatever address."""
    found = []
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 9 and fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.append(Socket(fields[9], int(fields[7])))
    return found


def owner(sockets: Sequence[Socket], pids: Iterable[int], *, proc: Path = PROC) -> int | None:
    """Which of `pids` holds one of `sockets` open; of a parent and a child that share it, the youngest."""
    wanted = {f"socket:[{each.inode}]" for each in sockets}
    holders = [pid for pid in pids if any(link in wanted for link in open_files(pid, proc=proc))]
    return max(holders, key=lambda pid: start_ticks(pid, proc=proc) or 0, default=None)


def by_command(sockets: Sequence[Socket], port: int, *, proc: Path = PROC) -> int | None:
    """The one process of the sockets' owner that was told `--port PORT`; None where there is none, or more than one."""
    owners = {each.uid for each in sockets}
    found = []
    for pid in processes(proc=proc):
        try:
            if (proc / str(pid)).stat().st_uid not in owners:
                continue
        except OSError:
            continue
        command = words(pid, "cmdline", proc=proc)
        if option(command, "--port") == str(port) and "llama" in " ".join(command[:3]).lower():
            found.append(pid)
    return found[0] if len(found) == 1 else None


def describe(pid: int, *, proc: Path = PROC) -> Listener | None:
    """What /proc tells about process `pid`; None when it is gone or hidden."""
    ticks, command = start_ticks(pid, proc=proc), words(pid, "cmdline", proc=proc)
    booted = boot_time(proc=proc)
    if ticks is None or booted is None or not command:
        return None
    try:
        folder = str((proc / str(pid) / "cwd").readlink())
    except OSError:
        folder = ""
    environment = tuple(sorted(each for each in words(pid, "environ", proc=proc) if each.startswith("LLAMA_")))
    started = booted + ticks / os.sysconf("SC_CLK_TCK")
    return Listener(pid=pid, ticks=ticks, started=started, command=command, environment=environment, folder=folder)


def is_forwarder(command: Sequence[str]) -> bool:
    """Whether this only forwards a port to a process elsewhere."""
    return Path(command[0]).name.partition(":")[0] in FORWARDERS


def processes(*, proc: Path = PROC) -> Iterator[int]:
    """The numbers of all processes."""
    yield from (int(entry.name) for entry in entries(proc) if entry.name.isdecimal())


def entries(folder: Path) -> list[Path]:
    """What is in `folder`; [] where we may not look, or where it is gone by now."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def open_files(pid: int, *, proc: Path = PROC) -> Iterator[str]:
    """What the file descriptors of `pid` point to; nothing where we may not look."""
    for entry in entries(proc / str(pid) / "fd"):
        try:
            yield str(entry.readlink())
        except OSError:
            continue


def words(pid: int, name: str, *, proc: Path = PROC) -> tuple[str, ...]:
    """A NUL-separated file of a process; () where it is gone or hidden."""
    try:
        data = (proc / str(pid) / name).read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(word) for word in data.rstrip(b"\0").split(b"\0")) if data else ()


def stat_fields(pid: int, *, proc: Path = PROC) -> list[str]:
    """The fields of /proc/PID/stat behind the name (which may hold blanks and brackets); [] when it is gone."""
    try:
        text = (proc / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def start_ticks(pid: int, *, proc: Path = PROC) -> int | None:
    """When `pid` started, in clock ticks since boot; None when it is gone, or dead and not buried yet."""
    fields = stat_fields(pid, proc=proc)
    return int(fields[19]) if len(fields) > 19 and fields[0] not in ("Z", "X") else None


def cpu_seconds(pid: int, *, proc: Path = PROC) -> float | None:
    """Processor time that `pid` has used so far, all threads; None when it is gone or hidden."""
    fields = stat_fields(pid, proc=proc)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if len(fields) > 12 else None


def boot_time(*, proc: Path = PROC) -> float | None:
    """When the machine was booted, unix time."""
    try:
        lines = (proc / "stat").read_text().splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) for line in lines if line.startswith("btime ")), None)


def option(command: Sequence[str], *names: str) -> str:
    """The value that `command` gives one of the flags `names`, the last one; `--flag value` and `--flag=value`."""
    found = ""
    for place, word in enumerate(command):
        name, equals, value = word.partition("=")
        if name in names and equals:
            found = value
        elif word in names and place + 1 < len(command):
            found = command[place + 1]
    return found
