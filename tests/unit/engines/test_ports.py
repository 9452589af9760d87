"""Free ports: below what the kernel gives to outgoing connections, and as many in a row as are wanted."""

from __future__ import annotations

import random
import socket
import sys
from pathlib import Path

import pytest

from bioproxy.engines.launch import HIGHEST, LOWEST, free_port
from bioproxy.errors import ConfigError


def taken() -> socket.socket:
    """A listener on a port of the range."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", free_port()))
    listener.listen()
    return listener


def choose(monkeypatch: pytest.MonkeyPatch, *firsts: int) -> None:
    """Let chance be known: these numbers come, in order."""
    numbers = iter(firsts)
    monkeypatch.setattr(random, "randrange", lambda *_: next(numbers))


@pytest.mark.skipif(sys.platform != "linux", reason="the range is the kernel's own elsewhere")
def test_no_outgoing_connection_is_given_one_of_them() -> None:
    """The kernel's range for local ports begins above."""
    assert int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]) >= HIGHEST + 100
    assert LOWEST <= free_port() < HIGHEST


def test_a_port_that_somebody_has_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next number is tried."""
    with taken() as listener:
        other = free_port()
        choose(monkeypatch, listener.getsockname()[1], other)
        assert free_port() == other


def test_all_of_a_row_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is taken in the middle spoils it."""
    other = free_port(run=3)
    with taken() as listener:
        port = listener.getsockname()[1]
        choose(monkeypatch, port - 1, port - 2, other)
        assert free_port(run=3) == other


def test_when_all_are_taken_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what to do."""
    with taken() as listener:
        port = listener.getsockname()[1]
        choose(monkeypatch, *[port] * 1000)
        with pytest.raises(ConfigError, match=r"no free port on 127\.0\.0\.1; name one with --port"):
            free_port()


def test_an_address_of_another_machine_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second attempt is made."""
    choose(monkeypatch, LOWEST)
    with pytest.raises(ConfigError, match=r"--host 192\.0\.2\.1 cannot be listened on"):
        free_port("192.0.2.1")


def test_ipv6_in_brackets() -> None:
    """As a URL has it."""
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    assert LOWEST <= free_port("[::1]") < HIGHEST
