"""Which process listens on a port: out of a /proc of the test's own making, and once out of the real one."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from bioproxy.engines import listener
from bioproxy.engines.listener import Listener, Socket

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
BOOTED = 1_700_000_000


def make_proc(folder: Path) -> Path:
    """An empty /proc."""
    (folder / "net").mkdir(parents=True)
    (folder / "stat").write_text(f"cpu 1 2 3\nbtime {BOOTED}\n")
    return folder


def add_socket(proc: Path, *, port: int, inode: str, state: str = "0A", uid: int = 1000, name: str = "tcp") -> None:
    """One line of /proc/net/tcp."""
    path = proc / "net" / name
    before = path.read_text() if path.exists() else HEADER
    path.write_text(before + f"   0: 0100007F:{port:04X} 00000000:0000 {state} 0:0 00:0 0 {uid} 0 {inode} 1 0\n")


def add_process(
    proc: Path, pid: int, *, command: list[str], inode: str = "", ticks: int = 500, state: str = "S"
) -> None:
    """A process; its name has blanks and brackets in it, as a name may have."""
    folder = proc / str(pid)
    (folder / "fd").mkdir(parents=True)
    if inode:
        (folder / "fd" / "7").symlink_to(f"socket:[{inode}]")
    (folder / "cmdline").write_bytes(b"\0".join(word.encode() for word in command) + b"\0")
    (folder / "environ").write_bytes(b"HOME=/root\0LLAMA_ARG_CTX_SIZE=4096\0")
    (folder / "cwd").symlink_to("/srv/models")
    fields = [state, *["0"] * 10, "250", "50", *["0"] * 6, str(ticks), *["0"] * 5]
    (folder / "stat").write_text(f"{pid} (a ) name (x) {' '.join(fields)}\n")


def find(proc: Path, port: int = 8081, host: str = "127.0.0.1") -> Listener | None:
    """The listener in a made-up /proc."""
    return listener.find(host, port, proc=proc)


pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, which is Linux's")


def test_found_by_inode(tmp_path: Path) -> None:
    """The process that holds the listening socket open, with start, command line, folder and LLAMA_ variables."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77")
    add_process(proc, 41, command=["other"], inode="76")
    add_process(proc, 42, command=["llama-server", "-m", "a b.gguf"], inode="77", ticks=1000)
    found = find(proc)
    assert found == Listener(
        pid=42,
        ticks=1000,
        started=BOOTED + 1000 / os.sysconf("SC_CLK_TCK"),
        command=("llama-server", "-m", "a b.gguf"),
        environment=("LLAMA_ARG_CTX_SIZE=4096",),
        folder="/srv/models",
    )


def test_ipv6_socket(tmp_path: Path) -> None:
    """A server on [::1] stands in tcp6."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77", name="tcp6")
    add_process(proc, 42, command=["llama-server"], inode="77")
    assert find(proc) is not None


def test_only_listening_sockets_of_the_port_count(tmp_path: Path) -> None:
    """A connection from that port, or a server on another one, is not the engine."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77", state="01")
    add_socket(proc, port=8082, inode="78")
    add_process(proc, 42, command=["llama-server"], inode="77")
    add_process(proc, 43, command=["llama-server"], inode="78")
    assert find(proc) is None


def test_child_that_shares_the_socket(tmp_path: Path) -> None:
    """Of a parent and the child that inherited the socket, the younger one serves."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77")
    add_process(proc, 42, command=["launcher"], inode="77", ticks=100)
    add_process(proc, 43, command=["llama-server"], inode="77", ticks=200)
    found = find(proc)
    assert found is not None
    assert found.pid == 43


def test_engine_of_another_user(tmp_path: Path) -> None:
    """Where open files are hidden, the one process of the socket's owner that was told this port is it."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77", uid=os.getuid())
    add_process(proc, 42, command=["llama-server", "--port", "8081"])
    add_process(proc, 43, command=["llama-server", "--port", "8082"])
    add_process(proc, 44, command=["vim", "--port", "8081"])
    found = find(proc)
    assert found is not None
    assert found.pid == 42


def test_two_candidates_are_none(tmp_path: Path) -> None:
    """Two processes that both could be it: better none than the wrong one."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77", uid=os.getuid())
    add_process(proc, 42, command=["llama-server", "--port", "8081"])
    add_process(proc, 43, command=["llama-server", "--port=8081"])
    assert find(proc) is None


def test_another_owner(tmp_path: Path) -> None:
    """A process of somebody else does not own the socket."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77", uid=os.getuid() + 1)
    add_process(proc, 42, command=["llama-server", "--port", "8081"])
    assert find(proc) is None


@pytest.mark.parametrize("program", ["/usr/bin/docker-proxy", "ssh", "socat"])
def test_forwarders_are_not_the_engine(tmp_path: Path, program: str) -> None:
    """A forwarded port's command line says nothing about the engine behind it."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77")
    add_process(proc, 42, command=[program, "-m", "x"], inode="77")
    assert find(proc) is None


@pytest.mark.parametrize("host", ["192.168.1.5", "engine.example", "10.0.0.1"])
def test_elsewhere(tmp_path: Path, host: str) -> None:
    """A process here is not the engine on another machine, same port or not."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77")
    add_process(proc, 42, command=["llama-server"], inode="77")
    assert find(proc, host=host) is None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]", "me.localhost"])
def test_loopback_names(host: str) -> None:
    """Every name of this machine's loopback counts."""
    assert listener.is_loopback(host)


def test_no_proc_at_all(tmp_path: Path) -> None:
    """Without /proc nothing is found and nothing raises."""
    missing = tmp_path / "missing"
    assert find(missing) is None
    assert listener.start_ticks(1, proc=missing) is None
    assert listener.cpu_seconds(1, proc=missing) is None
    assert listener.boot_time(proc=missing) is None


def test_dead_but_not_buried(tmp_path: Path) -> None:
    """A zombie has ended."""
    proc = make_proc(tmp_path)
    add_process(proc, 42, command=["x"], state="Z")
    assert listener.start_ticks(42, proc=proc) is None


def test_cpu_seconds(tmp_path: Path) -> None:
    """Processor time is user plus system, in seconds."""
    proc = make_proc(tmp_path)
    add_process(proc, 42, command=["x"])
    assert listener.cpu_seconds(42, proc=proc) == 300 / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("command", "value"),
    [
        (["s", "--slot-save-path", "/a"], "/a"),
        (["s", "--slot-save-path=/a"], "/a"),
        (["s", "--slot-save-path", "/a", "--slot-save-path", "/b"], "/b"),
        (["s", "--slot-save-path"], ""),
        (["s"], ""),
        ([], ""),
    ],
)
def test_option(command: list[str], value: str) -> None:
    """The last value of a flag counts, as with llama-server; a flag without one has none."""
    assert listener.option(command, "--slot-save-path") == value


def test_this_process() -> None:
    """On the real /proc: this very process is found behind a socket that it listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = listener.find("localhost", server.getsockname()[1])
    assert found is not None
    assert found.pid == os.getpid()
    assert found.folder == str(Path.cwd())
    assert 0 <= time.time() - found.started < 86400
    assert (listener.cpu_seconds(found.pid) or 0) > 0


def test_sockets_of_both_tables(tmp_path: Path) -> None:
    """Both tables are read, with inode and owner."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77", uid=7)
    add_socket(proc, port=8081, inode="78", uid=8, name="tcp6")
    assert listener.listening(8081, proc=proc) == [Socket("77", 7), Socket("78", 8)]


def add_children(proc: Path, pid: int, *children: int) -> None:
    """What the kernel lists below a process."""
    (proc / str(pid) / "task" / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "task" / str(pid) / "children").write_text("".join(f"{child} " for child in children))


def test_an_engine_behind_a_shell_is_found_below_it(tmp_path: Path) -> None:
    """The child that we started is a shell; the grandchild listens, and no other process is looked at."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77")
    add_process(proc, 10, command=["sh", "-c", "llama-server"])
    add_process(proc, 11, command=["llama-server"], inode="77")
    add_process(proc, 12, command=["somebody else"], inode="77")
    add_children(proc, 10, 11)
    found = listener.within(10, 8081, proc=proc)
    assert found is not None
    assert (found.pid, found.command) == (11, ("llama-server",))


def test_a_port_that_another_process_has_is_not_our_childs(tmp_path: Path) -> None:
    """Then whoever asked has to look at all of them."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77")
    add_process(proc, 10, command=["llama-server"])
    add_process(proc, 12, command=["llama-server", "other"], inode="77")
    assert listener.within(10, 8081, proc=proc) is None
    assert listener.within(10, 9999, proc=proc) is None
    assert listener.within(99, 8081, proc=proc) is None
