"""Which process listens on a port: out of a /proc of the test's own making, and once out of the real one."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from bioproxy.engines import listener
from bioproxy.engines.commands import option
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
    """A process in our network; its name has blanks and brackets in it, as a name may have."""
    folder = proc / str(pid)
    (folder / "fd").mkdir(parents=True)
    (folder / "net").symlink_to(proc / "net")
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


def test_found_at_a_unix_socket(tmp_path: Path) -> None:
    """By the path that it listens at; connections to it stand in the same table."""
    proc = make_proc(tmp_path / "proc")
    add_process(proc, 11, command=["llama-server", "--host", "/run/a b.sock"], inode="90")
    add_process(proc, 12, command=["llama-server", "--host", "/run/a"], inode="91")
    row = "0000000000000000: 00000002 00000000 {} 0001 01 {} {}\n"
    rows = (("00010000", "90", "/run/a b.sock"), ("00010000", "91", "/run/a"), ("00000000", "92", "/run/a b.sock"))
    (proc / "net" / "unix").write_text("Num RefCount ...\n" + "".join(row.format(*one) for one in rows))
    found = listener.find("localhost", "/run/a b.sock", proc=proc)
    assert found is not None
    assert found.pid == 11
    assert listener.find("localhost", "/run/c", proc=proc) is None


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


def test_a_container_of_the_same_owner_has_another_network(tmp_path: Path) -> None:
    """The same number is another port there."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77", uid=os.getuid())
    add_process(proc, 42, command=["llama-server", "--port", "8081"])
    (proc / "42" / "net").unlink()
    add_socket(make_proc(proc / "42" / "sub"), port=8081, inode="99", uid=os.getuid())
    (proc / "42" / "net").symlink_to(proc / "42" / "sub" / "net")
    assert find(proc) is None


FORWARDERS = ["/usr/bin/docker-proxy", "ssh", "socat", "rootlessport", "gvproxy", "forwarder-of-tomorrow", "llama-swap"]


@pytest.mark.parametrize("program", FORWARDERS)
@pytest.mark.parametrize("words", [["-m", "/models/x.gguf"], ["llama-server", "-m", "/models/x.gguf"], []])
def test_only_a_llama_server_is_the_engine(tmp_path: Path, program: str, words: list[str]) -> None:
    """Whoever else listens says nothing about the engine behind it, whatever it is called and was told."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77")
    add_process(proc, 42, command=[program, *words], inode="77")
    assert find(proc) is None
    assert listener.within(42, 8081, proc=proc) is None


@pytest.mark.parametrize(
    "command",
    [
        ["/opt/llama.cpp/build/bin/llama-server", "-m", "x"],
        ["llama", "serve", "-m", "x"],
        ["/nix/store/.llama-server-wrapped"],
        ["python3", "-u", "tools/llama_server.py"],
        ["python3.12", "-X", "dev", "-m", "bioproxy.embedded", "-m", "x"],
        ["python", "-m", "bioproxy", "engine"],
        ["python", "/venv/bin/bioproxy", "engine"],
        ["bioproxy", "engine", "-m", "x"],
    ],
)
def test_a_llama_server_is_known_by_its_own_name(tmp_path: Path, command: list[str]) -> None:
    """The program's, or that of the script or module that Python runs."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77")
    add_process(proc, 42, command=command, inode="77")
    assert find(proc) is not None


def test_a_llama_server_under_another_name_is_known_by_its_file(tmp_path: Path) -> None:
    """A link, or a name that a launcher gave it."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77")
    add_process(proc, 42, command=["qwen", "-m", "x"], inode="77")
    (proc / "42" / "exe").symlink_to("/opt/llama-server")
    assert find(proc) is not None


def test_two_strangers_on_one_port_are_none(tmp_path: Path) -> None:
    """One on IPv4, one on IPv6: nobody knows which of them answers."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77")
    add_socket(proc, port=8081, inode="78", name="tcp6")
    add_process(proc, 42, command=["llama-server"], inode="77")
    add_process(proc, 43, command=["llama-server"], inode="78")
    assert find(proc) is None


@pytest.mark.parametrize("host", ["192.168.1.5", "engine.example", "10.0.0.1"])
def test_elsewhere(tmp_path: Path, host: str) -> None:
    """A process here is not the engine on another machine, same port or not."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77")
    add_process(proc, 42, command=["llama-server"], inode="77")
    assert find(proc, host=host) is None


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


def add_child(proc: Path, parent: int, child: int) -> None:
    """Let one process be the child of another."""
    task = proc / str(parent) / "task" / str(parent)
    task.mkdir(parents=True, exist_ok=True)
    (task / "children").write_text(f"{child} ")


def test_cpu_seconds_of_all_below(tmp_path: Path) -> None:
    """What a shell starts does the work; the shell does none."""
    proc = make_proc(tmp_path)
    for pid in (42, 43, 44):
        add_process(proc, pid, command=["x"])
    add_child(proc, 42, 43)
    assert listener.cpu_seconds(42, proc=proc) == 600 / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("command", "inode", "works"),
    [
        pytest.param(["python3", "-m", "vllm"], "77", True, id="itself"),
        pytest.param(["/usr/bin/ssh", "-L", "8081:gpu:8000"], "77", False, id="a tunnel"),
        pytest.param(["docker", "run", "image"], "", False, id="a container's client"),
        pytest.param(["python3", "server.py"], "", False, id="another process has the port"),
    ],
)
def test_who_does_the_work(command: list[str], inode: str, *, works: bool, tmp_path: Path) -> None:
    """Processor time tells of an engine only if one of ours listens there, and none is the client of another one."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77")
    add_process(proc, 42, command=["sh", "-c", "x"])
    add_process(proc, 43, command=command, inode=inode)
    add_child(proc, 42, 43)
    assert listener.works_here(42, 8081, proc=proc) is works


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
    assert option(command, "--slot-save-path") == value


def test_this_process() -> None:
    """On the real /proc: this very process is found behind a socket that it listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = listener.holder("localhost", server.getsockname()[1])
        assert listener.find("localhost", server.getsockname()[1]) is None  # it is no llama-server
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


@pytest.mark.parametrize(("port", "found"), [(8081, ["77"]), (8082, ["79"])])
def test_connections_are_read_only_if_none_of_what_listens_first_is_it(
    port: int, found: list[str], tmp_path: Path
) -> None:
    """There may be ten thousand of them; on Linux no socket that listens comes after them."""
    proc = make_proc(tmp_path)
    add_socket(proc, port=8081, inode="77")
    add_socket(proc, port=8081, inode="1", state="01")
    add_socket(proc, port=8081, inode="78")
    add_socket(proc, port=8082, inode="79")
    assert [one.inode for one in listener.listening(port, proc=proc)] == found


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


# what stands for an engine that cannot be seen

PODMAN = ["podman", "run", "--rm", "-it", "-p", "8081:8080", "-v", "/srv/a:/models:ro", "-e", "LLAMA_ARG_THREADS=2"]


def behind(proc: Path, *command: str) -> Listener:
    """What is known of an engine behind the child 10, a shell whose child runs `command`; the port is a forwarder's."""
    make_proc(proc)
    add_socket(proc, port=8081, inode="77")
    add_process(proc, 10, command=["sh", "-c", "start"])
    add_process(proc, 11, command=list(command))
    add_process(proc, 12, command=["rootlessport"], inode="77")
    add_children(proc, 10, 11)
    add_children(proc, 11, 12)
    assert listener.within(10, 8081, proc=proc) is None
    found = listener.launched(10, 8081, proc=proc)
    assert found is not None
    return found


def test_the_words_that_launched_a_container_count(tmp_path: Path) -> None:
    """What follows the image is the engine's, and the volumes say which of our files it sees."""
    found = behind(tmp_path, *PODMAN, "llama.cpp:server", "-m", "/models/x.gguf", "--lora", "l.gguf")
    assert found.command == ("llama-server", "-m", "/models/x.gguf", "--lora", "l.gguf")
    assert (found.volumes, found.launched) == ((("/srv/a", "/models"),), ("llama.cpp:server",))
    assert (found.environment, found.folder, found.hidden) == (("LLAMA_ARG_THREADS=2",), "", False)


@pytest.mark.parametrize(
    ("options", "volumes", "folder"),
    [
        (["--memory", "8g", "-m", "9g", "--volume=/a:/b", "-w", "/b"], (("/a", "/b"),), "/b"),
        (["-dp", "1:2", "-v./m:/b", "--workdir=/b"], (("/srv/models/m", "/b"),), "/b"),
        (["--mount", "type=bind,src=/a,dst=/b,readonly", "--privileged"], (("/a", "/b"),), ""),
        (["-tid", "--name", "x", "--gpus=all", "-v", "named:/b"], (("named", "/b"),), ""),
        (["-v/a:/b", "--mount", "type=volume,src=x,dst=/b/c"], (("/a", "/b"), ("", "/b/c")), ""),
        (["-v/a:/b", "-v", "/b/c", "--tmpfs", "/b/d:size=1g"], (("/a", "/b"), ("", "/b/c"), ("", "/b/d")), ""),
        (["-v/a:/b", "--volumes-from", "other"], (), ""),
    ],
)
def test_options_of_a_container_are_not_its_image(
    tmp_path: Path, options: list[str], volumes: tuple[tuple[str, str], ...], folder: str
) -> None:
    """Each option takes its value, and the first word after them is the image."""
    found = behind(tmp_path, "docker", "run", *options, "image", "/app/llama-server", "-m", "x")
    assert (found.command, found.launched) == (("llama-server", "-m", "x"), ("image",))
    assert (found.volumes, found.folder) == (volumes, folder)


def test_environment_files_of_a_container_are_read(tmp_path: Path) -> None:
    """And one that cannot be is said to be hidden; a bare name is taken over from the client's own environment."""
    (tmp_path / "env").write_text("LLAMA_ARG_LORA=/models/l.gguf\nHOME=/\n")
    options = ["--env-file", str(tmp_path / "env"), "--env", "LLAMA_ARG_CTX_SIZE"]
    found = behind(tmp_path / "one", "docker", "run", *options, "image", "-m", "x")
    assert (found.environment, found.hidden) == (("LLAMA_ARG_CTX_SIZE=4096", "LLAMA_ARG_LORA=/models/l.gguf"), False)
    assert behind(tmp_path / "two", "docker", "run", "--env-file=/missing", "image", "-m", "x").hidden


@pytest.mark.parametrize(
    "command",
    [
        ["docker", "start", "-a", "qwen"],
        ["docker", "run", "image", "bash", "-c", "llama-server -m x"],
        ["docker", "run", "--entrypoint", "bash", "image", "-c", "llama-server -m x"],
        ["ssh", "-L", "8081:localhost:8081", "gpu", "llama-server", "-m", "x"],
        ["forwarder", "llama-server", "--port", "8081"],
    ],
)
def test_words_that_are_not_the_engines_only_tell_it_from_another(tmp_path: Path, command: list[str]) -> None:
    """They are no arguments; all of them but the port are kept, for two such engines may tell the same."""
    found = behind(tmp_path, *command)
    assert (found.command, found.environment, found.folder, found.volumes) == ((), (), "", None)
    assert found.launched == ("sh", "-c", "start")


def test_the_port_is_no_difference(tmp_path: Path) -> None:
    """The same command on another port is the same engine."""
    proc = make_proc(tmp_path)
    add_process(proc, 10, command=["ssh", "-L", "8081:localhost:18081", "gpu"])
    found = listener.launched(10, 8081, proc=proc)
    assert found is not None
    assert found.launched == ("ssh", "-L", "PORT:localhost:18081", "gpu")


def test_a_child_whose_socket_is_hidden_is_known_by_its_port(tmp_path: Path) -> None:
    """A llama-server of ours that was told this port; not one that listens elsewhere."""
    proc = make_proc(tmp_path)
    add_process(proc, 10, command=["llama-server", "--port", "8081", "-m", "x"])
    found = listener.launched(10, 8081, proc=proc)
    assert found is not None
    assert found.command == ("llama-server", "--port", "8081", "-m", "x")
    other = listener.launched(10, 9000, proc=proc)
    assert other is not None
    assert other.command == ()


def test_a_child_is_described_without_proc_too() -> None:
    """As on macOS: command line, folder and start of a process of ours."""
    found = listener.elsewhere(os.getpid())
    assert found is not None
    assert (found.pid, found.folder, found.hidden) == (os.getpid(), str(Path.cwd()), False)
    assert found.command
    assert listener.elsewhere(2**22 + 1) is None
