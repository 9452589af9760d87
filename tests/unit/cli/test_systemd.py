"""The systemd unit fits the program, and the program tells systemd how far it is."""

from __future__ import annotations

import asyncio
import configparser
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bioproxy.cli import verbs
from bioproxy.cli.activation import listens_at, opened, taken
from bioproxy.cli.main import understand
from bioproxy.cli.notify import READY, STOPPING, interval, notify, watchdog
from bioproxy.config.keys import KEYS
from bioproxy.config.schema import Config
from bioproxy.errors import ConfigError
from bioproxy.wire.sockets import address_of
from support.sockets import needs_unix, short_folder

short = short_folder()
UNIT = Path(__file__).parents[3] / "packaging" / "systemd" / "bioproxy.service"


@pytest.fixture
def service() -> configparser.SectionProxy:
    """Its [Service] section."""
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text("utf-8"))
    assert parser["Install"]["WantedBy"] == "multi-user.target"
    return parser["Service"]


def test_it_runs_the_checkouts_own_build(service: configparser.SectionProxy) -> None:
    """The command of the environment that `make` builds, with a verb and flags that exist."""
    program, verb, flag, _ = service["ExecStart"].split()
    assert program == f"{service['WorkingDirectory']}/.venv/bin/bioproxy"
    assert (verb in verbs.BY_NAME, flag) == (True, "-config")
    assert "make -C /opt/bioproxy venv\n" in UNIT.read_text("utf-8")
    assert "\nvenv: $(DEMO)" in (UNIT.parents[2] / "Makefile").read_text("utf-8")


def test_it_waits_for_streams_and_saves(service: configparser.SectionProxy) -> None:
    """Only we get the signal, and long enough before anything is killed."""
    config = Config()
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) >= config.shutdown_timeout + 2 * config.kv.save_timeout + 10


def test_its_state_lies_where_it_may_write(service: configparser.SectionProxy) -> None:
    """Everything else is read-only for it."""
    variable, _, value = service["Environment"].partition("=")
    assert variable in {option.environment for option in KEYS.values()}
    assert value == f"%S/{service['StateDirectory']}"
    assert service["ProtectSystem"] == "strict"
    assert service["NoNewPrivileges"] == "yes"


def test_engines_keep_what_they_need(service: configparser.SectionProxy) -> None:
    """Hardening that takes away graphics cards, run-time compilers or containers would stop models."""
    forbidden = {"PrivateDevices", "MemoryDenyWriteExecute", "RestrictNamespaces", "DynamicUser", "ProcSubset"}
    assert forbidden.isdisjoint(service)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_finds_it_hardened(tmp_path: Path) -> None:
    """Below 3 of 10, the drop-ins of docs/operating.md not counted."""
    (tmp_path / UNIT.name).write_bytes(UNIT.read_bytes())
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", UNIT.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    told = re.search(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)
    if told is None:  # an old systemd knows no --offline
        pytest.skip(f"systemd-analyze cannot judge a file: {done.stderr.strip()}")
    assert float(told[1]) < 3


def test_systemd_is_told(tmp_path: Path) -> None:
    """One datagram for each state."""
    assert re.search(r"^Type=notify$", UNIT.read_text("utf-8"), re.MULTILINE)
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        assert notify(READY, {"NOTIFY_SOCKET": str(path)})
        assert notify(STOPPING, {"NOTIFY_SOCKET": str(path)})
        assert [listener.recv(100), listener.recv(100)] == [b"READY=1", b"STOPPING=1"]


@pytest.mark.skipif(not Path("/proc").exists(), reason="such names are Linux' own")
def test_a_socket_without_a_file_is_reached(tmp_path: Path) -> None:
    """Its name begins with @."""
    name = f"bioproxy-test-{tmp_path.name}-{id(tmp_path)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        assert notify(READY, {"NOTIFY_SOCKET": f"@{name}"})
        assert listener.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", [None, "", "vsock:2:1", "relative"])
def test_without_systemd_nothing_happens(address: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """No variable, or an address of another kind."""
    assert not notify(READY, {} if address is None else {"NOTIFY_SOCKET": address})
    assert not caplog.records


def test_a_socket_that_is_gone_is_no_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Serving goes on; a warning says so."""
    assert not notify(READY, {"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert "could not be told" in caplog.text


async def test_the_watchdog_hears_that_the_loop_runs(tmp_path: Path) -> None:
    """Again and again until the end, and no more after it."""
    path = tmp_path / "notify"
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.setblocking(False)
        variables = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "3000", "WATCHDOG_PID": str(os.getpid())}
        async with watchdog(variables):
            assert {await loop.sock_recv(listener, 100) for _ in range(3)} == {b"WATCHDOG=1"}
        while True:
            try:
                listener.recv(100)
            except BlockingIOError:
                break
        assert "watchdog" not in {task.get_name() for task in asyncio.all_tasks()}


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 20),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
        ({}, 0),
    ],
)
def test_a_sign_of_life_comes_three_times_as_often_as_it_must(variables: dict[str, str], seconds: float) -> None:
    """None for a watchdog of another process, or none at all."""
    assert interval(variables) == seconds


def test_the_units_watchdog_is_patient(service: configparser.SectionProxy) -> None:
    """A loop that is held for some seconds is slow, and not dead."""
    assert int(service["WatchdogSec"]) >= 60
    assert service["Restart"] == "on-failure"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_takes_the_units_of_the_ports(tmp_path: Path) -> None:
    """With the service that they start."""
    for path in UNIT.parent.iterdir():
        text = path.read_text("utf-8").replace("/opt/bioproxy/.venv/bin/bioproxy", "/bin/true")
        (tmp_path / path.name).write_text(text.replace("User=bioproxy\n", "").replace("=/opt/bioproxy\n", "=/\n"))
    units = [f"./{path.name}" for path in tmp_path.glob("*.socket")]
    command = ["systemd-analyze", "verify", "--man=no", *units]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if "bioproxy" in line]
    assert (len(units), done.returncode, told) == (2, 0, [])


def test_the_units_name_the_ports_and_their_defaults() -> None:
    """As the configuration has them, so that the command line finds the admin port."""
    config = Config()
    for name, port in (("proxy", config.proxy_port), ("admin", config.admin_port)):
        text = (UNIT.parent / f"bioproxy{'' if name == 'proxy' else '-admin'}.socket").read_text("utf-8")
        assert f"\nFileDescriptorName={name}\nListenStream=127.0.0.1:{port}\n" in text


def test_no_child_hears_systemd() -> None:
    """The variables are taken out of the environment, also if they are meant for another process."""
    told = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "9"}
    environment = {**told, "PATH": "/bin"}
    assert taken(environment) == told
    assert environment == {"PATH": "/bin"}


@contextmanager
def handed_over(*places: str) -> Iterator[tuple[int, str]]:
    """Descriptors one after another, as systemd leaves them; sockets that listen at `places`, or do not ("")."""
    first = 200
    with ExitStack() as stack:
        for number, place in enumerate(places):
            one = socket.socket(socket.AF_UNIX if place.startswith("/") else socket.AF_INET)
            stack.callback(one.close)
            if place:
                one.bind(place if place.startswith("/") else (place, 0))
                one.listen()
            stack.callback(os.close, os.dup2(one.fileno(), first + number))
        yield first, str(len(places))


@needs_unix
def test_which_port_a_socket_is(short: Path) -> None:
    """By its name; what it is called otherwise is the proxy's, which may have several."""
    with handed_over("127.0.0.1", str(short / "a"), str(short / "b")) as (first, count):
        names = "bioproxy.socket:admin:proxy"
        variables = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count, "LISTEN_FDNAMES": names}
        found = opened(variables, first=first)
        places = {port: [address_of(one)[0] for one in several] for port, several in found.items()}
        assert places == {"proxy": ["127.0.0.1", f"unix:{short}/b"], "admin": [f"unix:{short}/a"]}
        for one in [*found["proxy"], *found["admin"]]:
            assert not one.get_inheritable()
            one.detach()
    assert opened({"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1"}) == {}
    assert opened({}) == {}


def test_a_socket_that_does_not_listen_is_refused() -> None:
    """`Accept=yes` would hand over a connection."""
    with handed_over("") as (first, count), pytest.raises(ConfigError, match="write ListenStream= and Accept=no"):
        opened({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count, "LISTEN_FDNAMES": "x"}, first=first)


def test_an_open_admin_port_wants_a_key_also_if_systemd_opened_it() -> None:
    """The file may say localhost: what others reach counts, at each reload as at the start."""
    with socket.socket() as here, socket.socket() as anywhere:
        here.bind(("127.0.0.1", 0))
        anywhere.bind(("0.0.0.0", 0))
        command = listens_at(understand(["serve"]), {"admin": [here, anywhere]})
        with pytest.raises(ConfigError, match="can be reached from other machines, and there is no admin_key"):
            command.load()
