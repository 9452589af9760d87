"""The engine's own process at a loopback URL: its number, start, command line and working folder, out of /proc.

What an engine was started with decides what its KV cache looks like (LoRA, cache types, slot folder), and `/props` does
not tell. On this machine the kernel does: /proc/net/tcp has the inode of the socket that listens on a port, and one
process holds that inode among its open files. If the engine runs as another user its open files are hidden, but not
the owner of the socket nor the command lines: then the one process of that owner which was told this port is taken, if
it is in the same network (a container has ports of its own).

What listens need not be the engine: ports of containers, tunnels and virtual machines are held by forwarders of many
names. So a process counts only if its command line is known to be llama-server's (commands.py). For an engine that we
started in a container there are the words that launched it (`launched`): the arguments after the image are the
engine's, and the volumes say which of our files it sees.

An engine at a unix socket is found in the same way by the socket's path, which stands for `port` here.

Going through the open files of every process costs milliseconds that grow with the machine's load. An engine of ours
is a child of ours, or a shell's below it: `within` looks at those few processes only.

Nothing here is certain, and nothing here is an error. Another machine, a forwarded port, a hardened /proc: all mean
None, and the caller goes on with what the engine itself tells. Everything here blocks: call it in a thread.
Layouts: proc(5), proc_net_tcp.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import msgspec

from bioproxy.config.addresses import is_loopback
from bioproxy.engines.commands import CONTAINERS, ContainerRun, basename, container_run, is_server, option, server_at
from bioproxy.errors import ConfigError, Problem

PROC = Path("/proc")
LISTEN, ACCEPTS = "0A", "00010000"  # the states of TCP sockets and the flags of unix ones that listen
NOBODY = -1  # whose a unix socket is, the table does not tell
USUAL_PORT = "8080"  # llama-server's, if its command line names none
LINUX = sys.platform.startswith("linux")
STAND_INS = CONTAINERS | {"apptainer", "kubectl", "machinectl", "mosh", "socat", "ssh", "systemd-run"}
if sys.platform == "win32":
    TICKS, PAGE = 1, 1  # nothing is counted in them
else:
    TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")  # a second's; bytes


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """An engine's process; `started` is unix time, `ticks` its exact start: no two share pid and ticks.

    `command` and `environment` (`LLAMA_…` variables) are llama-server's own; `program` is the file that runs. `hidden`:
    environment and folder cannot be read (another user's). `volumes`: of a container, what of our files it shows, as
    (here, there). `launched`: for a child of ours whose own command line is not seen, what was started instead: a
    container's image, or the whole command, which is the only thing that tells two such engines apart.
    """

    pid: int
    ticks: int
    started: float
    command: tuple[str, ...]
    environment: tuple[str, ...] = ()
    folder: str = ""
    program: str = ""
    hidden: bool = False
    volumes: tuple[tuple[str, str], ...] | None = None
    launched: tuple[str, ...] = ()


class Socket(msgspec.Struct, frozen=True):
    """A listening socket: its inode and its owner."""

    inode: str
    uid: int


def find(host: str, port: int | str, *, proc: Path = PROC) -> Listener | None:
    """The llama-server that listens on `port` of this machine; None if it is elsewhere, hidden, or another program."""
    found = holder(host, port, proc=proc)
    return found if found is not None and is_server(found.command, found.program) else None


def holder(host: str, port: int | str, *, proc: Path = PROC) -> Listener | None:
    """The process that listens on `port` of this machine, whatever it is; None if `host` is elsewhere, or it hides."""
    if not LINUX or not is_loopback(host):
        return None
    sockets = listening(port, proc=proc)
    pid = owner(sockets, processes(proc=proc), proc=proc) if sockets else None
    if pid is None and sockets:
        pid = by_command(sockets, port, proc=proc)
    return describe(pid, proc=proc) if pid is not None else None


def within(pid: int, port: int | str, *, proc: Path = PROC) -> Listener | None:
    """The llama-server that listens on `port` among `pid` and its descendants; None if none of them is seen to."""
    if not LINUX:
        return None
    sockets = listening(port, proc=proc)
    pid_found = owner(sockets, family(pid, proc=proc), proc=proc) if sockets else None
    found = describe(pid_found, proc=proc) if pid_found is not None else None
    return found if found is not None and is_server(found.command, found.program) else None


def launched(pid: int, port: int | str, *, proc: Path = PROC) -> Listener | None:
    """What stands for the engine of our child `pid` if no process is seen to listen: the words that started it.

    A llama-server in the child's family that was told this port; the client of a container, whose words after the image
    are the engine's; else the child, of whose words none is known to be the engine's.
    """
    family_found = [found for each in family(pid, proc=proc) if (found := describe(each, proc=proc)) is not None]
    for found in family_found:
        if is_server(found.command, found.program) and port_of(found) == str(port):
            return found
    for found in family_found:
        run = container_run(found.command)
        if run is not None and (inside := contained(found, run)) is not None:
            return inside
    return stripped(family_found[0], port) if family_found else None


def port_of(process: Listener) -> str:
    """The port that a llama-server was told."""
    named = [entry.partition("=")[2] for entry in process.environment if entry.startswith("LLAMA_ARG_PORT=")]
    return option(process.command, "--port") or next(iter(named), USUAL_PORT)


def stripped(child: Listener, port: int | str) -> Listener:
    """A child of ours whose words are not the engine's; but for the port they are what tells it from another one."""
    plain = re.compile(rf"(?<!\d){re.escape(str(port))}(?!\d)")
    words = tuple(plain.sub("PORT", word) for word in (*child.launched, *child.command))
    return msgspec.structs.replace(child, command=(), environment=(), folder="", launched=words)


def contained(client: Listener, run: ContainerRun) -> Listener | None:
    """The engine in a container, as the client's words tell; None if the container runs a program of its own choice."""
    words = (*filter(None, [run.entrypoint]), *run.words)
    behind = server_at(words, 0)
    if not behind and words and not words[0].startswith("-"):
        return None
    environment, hidden = environment_of(client, run)
    sources = [(str(Path(client.folder, one)) if one.startswith(".") else one, there) for one, there in run.volumes]
    return msgspec.structs.replace(
        client,
        command=("llama-server", *words[behind:]),
        environment=environment,
        folder=run.folder,
        hidden=hidden,
        volumes=tuple(sources),
        launched=(run.image,),
    )


def environment_of(client: Listener, run: ContainerRun) -> tuple[tuple[str, ...], bool]:
    """The `LLAMA_…` variables that a container gets, and whether some of them cannot be seen."""
    outside = dict(entry.partition("=")[::2] for entry in client.environment)
    entries, hidden = list(run.environment), False
    for name in run.environment_files:
        try:
            entries += Path(client.folder, name).read_text(errors="replace").splitlines()
        except OSError:
            hidden = True
    pairs = {name: value if equals else outside.get(name, "") for name, equals, value in map(parts_of, entries)}
    found = tuple(sorted(f"{name}={value}" for name, value in pairs.items() if name.startswith("LLAMA_")))
    return found, hidden


def parts_of(entry: str) -> tuple[str, str, str]:
    """`NAME=value` or `NAME`, which is taken over from the client."""
    return entry.partition("=")


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


def listening(port: int | str, *, proc: Path = PROC) -> list[Socket]:
    """Sockets of /proc/net/tcp and tcp6 that listen on `port`, on whatever address, or of /proc/net/unix at a path.

    Linux lists those that listen first (its proc_net_tcp.rst). The rest, ten thousands of them on a busy machine, is
    read only if none of them is it.
    """
    found: list[Socket] = []
    if isinstance(port, str):
        try:
            lines = (proc / "net" / "unix").read_text(errors="replace").splitlines()[1:]
        except OSError:
            return []
        rows = [line.split(maxsplit=7) for line in lines]
        return [Socket(row[6], NOBODY) for row in rows if row[3] == ACCEPTS and row[7:] == [port]]
    for name in ("tcp", "tcp6"):
        with suppress(OSError), (proc / "net" / name).open() as table:
            for line in islice(table, 1, None):
                fields = line.split()
                if found and fields[3:4] != [LISTEN]:
                    break
                if len(fields) > 9 and fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    found.append(Socket(fields[9], int(fields[7])))
    return found


def owner(sockets: Sequence[Socket], pids: Iterable[int], *, proc: Path = PROC) -> int | None:
    """Which of `pids` holds one of `sockets` open; of a parent and a child that share it, the youngest.

    None if strangers hold one each (one on IPv4, one on IPv6): then it is not known which of them answers.
    """
    wanted = {f"socket:[{each.inode}]" for each in sockets}
    holders: dict[str, int] = {}
    for pid in sorted(pids, key=lambda one: start_ticks(one, proc=proc) or 0):
        holders |= dict.fromkeys(wanted.intersection(open_files(pid, proc=proc)), pid)
    found = set(holders.values())
    return found.pop() if len(found) == 1 else None


def by_command(sockets: Sequence[Socket], port: int | str, *, proc: Path = PROC) -> int | None:
    """The one llama-server of the sockets' owner and network that was told `--port PORT`; None if it is not one."""
    owners, inodes = {each.uid for each in sockets}, {each.inode for each in sockets}
    found = []
    for pid in processes(proc=proc):
        try:
            if (proc / str(pid)).stat().st_uid not in owners:
                continue
        except OSError:
            continue
        command = words(pid, "cmdline", proc=proc)
        if option(command, "--port") == str(port) and is_server(command) and shares_network(pid, port, inodes, proc):
            found.append(pid)
    return found[0] if len(found) == 1 else None


def shares_network(pid: int, port: int | str, inodes: set[str], proc: Path) -> bool:
    """Whether `pid` sees the same sockets on `port`: in a container of its own the same number is another port."""
    return inodes <= {each.inode for each in listening(port, proc=proc / str(pid))}


def describe(pid: int, *, proc: Path = PROC) -> Listener | None:
    """What the system tells about process `pid`; None when it is gone or hidden."""
    if not LINUX:
        return elsewhere(pid)
    ticks, command = start_ticks(pid, proc=proc), words(pid, "cmdline", proc=proc)
    booted = boot_time(proc=proc)
    if ticks is None or booted is None or not command:
        return None
    environment = words(pid, "environ", proc=proc)
    folder = link(proc / str(pid) / "cwd")
    return Listener(
        pid=pid,
        ticks=ticks,
        started=booted + ticks / TICKS,
        command=command,
        environment=tuple(sorted(each for each in environment if each.startswith("LLAMA_"))),
        folder=folder,
        program=link(proc / str(pid) / "exe"),
        hidden=not folder,
    )


def elsewhere(pid: int) -> Listener | None:
    """The same on systems without /proc, for our own children."""
    import psutil

    try:
        process = psutil.Process(pid)
        started, command, folder = process.create_time(), tuple(process.cmdline()), process.cwd()
        environment = tuple(sorted(f"{name}={value}" for name, value in process.environ().items()))
    except (psutil.Error, OSError):
        return None
    program = ""
    with suppress(psutil.Error, OSError):  # the command tells what it is, too
        program = process.exe()
    return Listener(
        pid=pid,
        ticks=round(started * 100),
        started=started,
        command=command,
        environment=tuple(each for each in environment if each.startswith("LLAMA_")),
        folder=folder,
        program=program,
    )


def link(path: Path) -> str:
    """Where a link of /proc leads; empty if we may not look."""
    try:
        return str(path.readlink())
    except OSError:
        return ""


def processes(*, proc: Path = PROC) -> Iterator[int]:
    yield from (int(entry.name) for entry in entries(proc) if entry.name.isdecimal())


def entries(folder: Path) -> list[Path]:
    """What is in `folder`; [] if we may not look, or if it is gone by now."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def open_files(pid: int, *, proc: Path = PROC) -> Iterator[str]:
    """What the file descriptors of `pid` point to; nothing if we may not look."""
    for entry in entries(proc / str(pid) / "fd"):
        try:
            yield str(entry.readlink())
        except OSError:
            continue


def words(pid: int, name: str, *, proc: Path = PROC) -> tuple[str, ...]:
    """A NUL-separated file of a process; () if it is gone or hidden."""
    try:
        data = (proc / str(pid) / name).read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(word) for word in data.rstrip(b"\0").split(b"\0")) if data else ()


def stat_fields(pid: int, *, proc: Path = PROC) -> list[str]:
    """The fields of /proc/PID/stat after the name (which may hold blanks and brackets); [] when it is gone."""
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
    """Processor time that `pid` and its descendants have used so far; None when they are gone or hidden."""
    if not LINUX:
        return cpu_elsewhere(pid)
    found = [
        int(one[11]) + int(one[12]) for each in family(pid, proc=proc) if len(one := stat_fields(each, proc=proc)) > 12
    ]
    return sum(found) / TICKS if found else None


def cpu_elsewhere(pid: int) -> float | None:
    """The same on systems without /proc."""
    import psutil

    try:
        top = psutil.Process(pid)
        times = [one.cpu_times() for one in (top, *top.children(recursive=True))]
    except (psutil.Error, OSError):
        return None
    return float(sum(one.user + one.system for one in times))


def works_here(pid: int, port: int | str, *, proc: Path = PROC) -> bool:
    """Whether what answers on `port` is one of `pid` and its descendants, and does its work itself.

    The client of a container, or a tunnel, only stands for a program whose processor time is not seen.
    """
    if not LINUX:
        return False
    known = set(family(pid, proc=proc))
    commands = (words(one, "cmdline", proc=proc) for one in known)
    if any(command and basename(command[0]) in STAND_INS for command in commands):
        return False
    sockets = listening(port, proc=proc)
    return bool(sockets) and owner(sockets, known, proc=proc) is not None


def resident(pid: int, *, proc: Path = PROC) -> int | None:
    """Bytes of memory of `pid` and its descendants; None if the system does not tell, or the process is gone.

    Weights that are mapped from a file count as far as they are in memory. Processes of one engine that share memory
    count it once each; what a card holds is not in here.
    """
    if not LINUX:
        return None
    pages = [found for one in set(family(pid, proc=proc)) if (found := resident_pages(one, proc=proc)) is not None]
    return sum(pages) * PAGE if pages else None


def resident_pages(pid: int, *, proc: Path = PROC) -> int | None:
    """Pages in memory of one process (proc(5), statm: the second number)."""
    try:
        return int((proc / str(pid) / "statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None


def boot_time(*, proc: Path = PROC) -> float | None:
    """When the machine was booted, unix time."""
    try:
        lines = (proc / "stat").read_text().splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) for line in lines if line.startswith("btime ")), None)


def taken_by(error: ConfigError, host: str, port: int, *, flag: str) -> ConfigError:
    """The same error with the name of the program that has the port, if it can be told, and our flag for another."""
    found = holder(host if is_loopback(host) else "localhost", port)
    if found is None:
        return ConfigError([Problem(f"{error.message} with {flag}")])
    ours = any(Path(word).name == "bioproxy" for word in found.command[:4])
    who = "another bioproxy" if ours else Path(found.command[0]).name if found.command else "another program"
    said = f"port {port} on {host or 'all addresses'} is taken by {who} (pid {found.pid})"
    return ConfigError([Problem(f"{said}; stop it, or choose another port with {flag}")])
