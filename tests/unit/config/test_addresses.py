"""Whose address a text names, however it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.addresses import (
    arrives,
    authority,
    host_fault,
    host_of,
    is_address,
    is_any,
    is_loopback,
    origin_fault,
    overlap,
)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("a:1", "a"),
        ("A.", "a"),
        ("a b", "a b"),
        ("http://A:80/x", "a"),
        ("[::1]:1", "::1"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("http://[::1]:8080", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("FD00::5", "fd00::5"),
        ("[fe80::1%25eth0]:80", "fe80::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("[::ffff:7f00:1]:80", "127.0.0.1"),
        ("::", "::"),
        ("[::]:80", "::"),
        ("::ffff:0.0.0.0", "0.0.0.0"),
        ("127.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("app://localhost", "localhost"),
    ],
)
def test_one_host_has_one_form(text: str, host: str) -> None:
    """Brackets, port, zone, case, the root's dot and long forms do not belong to a host."""
    assert host_of(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[::1",
        "unix:/run/localhost",
        "unix://localhost",
        "http://[",
        "[::1]x",
        "localhost:8089.evil.example",
        "localhost:x",
        "localhost:\u0663",
        "null",
    ],
)
def test_what_is_malformed_is_nobodys_address(text: str) -> None:
    """Half a bracket or a port that is no number lets nobody in."""
    assert not is_loopback(text)
    assert not is_address(text)


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST.", "me.localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]", "[::1]:80", "127.1",
        "::ffff:127.0.0.1", "[::ffff:127.0.0.1]", "http://localhost:3000",
    ],
)  # fmt: skip
def test_this_machine_alone(host: str) -> None:
    """Every name of the loopback counts, and none of them is an address of all."""
    assert is_loopback(host)
    assert not is_any(host)


@pytest.mark.parametrize(
    "host",
    [
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "evil.example",
        "localhost@evil.example",
        "0.0.0.0",
        "::",
        "10.0.0.1",
    ],
)
def test_what_others_reach(host: str) -> None:
    """A name that only begins like ours is somebody else's."""
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["", "*", "0.0.0.0", "::", "[::]", "0", "::ffff:0.0.0.0", "[0::0]"])
def test_all_addresses(host: str) -> None:
    """An address of all is in the way of every other one."""
    assert is_any(host)
    assert overlap(host, "10.0.0.1")


@pytest.mark.parametrize(
    ("one", "other"), [("[fd00::5]", "FD00::5"), ("box", "BOX."), ("::ffff:127.0.0.1", "localhost")]
)
def test_the_same_address_in_two_forms(one: str, other: str) -> None:
    """What listens on one of them is reached by the other."""
    assert overlap(one, other)
    assert arrives(one, other)


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("localhost", "localhost:1"),
        ("", ":1"),
        ("::1", "[::1]:1"),
        ("[::1]", "[::1]:1"),
        ("fe80::1%eth0", "[fe80::1%eth0]:1"),
    ],
)
def test_a_host_in_a_url(host: str, text: str) -> None:
    """IPv6 gets its brackets once."""
    assert authority(host, 1) == text


@pytest.mark.parametrize(
    "host", ["localhost", "", "*", "::", "[::]", "fd00::5", "[fd00::5]", "fe80::1%eth0", "10.0.0.7"]
)
def test_what_can_be_listened_on(host: str) -> None:
    """IPv6 with its brackets and without."""
    assert host_fault(host) == ""


@pytest.mark.parametrize(
    "host", ["[::1", "::1]", "[::1]:80", "1.2.3.4:80", "http://box", "box/", "a b", "[]", "0.0.0.0:80"]
)
def test_what_cannot(host: str) -> None:
    """With what to write instead."""
    assert "without scheme, port and path" in host_fault(host)


@pytest.mark.parametrize(
    "origin", ["*", "null", "https://chat.lan", "app://*", "vscode-webview://*", "file://*", "app://x.y"]
)
def test_what_may_be_named_as_an_origin(origin: str) -> None:
    """One page's origin, or all of one scheme."""
    assert origin_fault(origin) == ""


@pytest.mark.parametrize("origin", ["https://*.lan", "https://chat.lan/x", "chat.lan", "app:*", "*://x", "app://**"])
def test_what_may_not(origin: str) -> None:
    """A star stands for a whole scheme, or it would match nothing and say nothing."""
    assert "app://*" in origin_fault(origin)


@given(st.text(max_size=20))
def test_reading_a_host_twice_changes_nothing(text: str) -> None:
    """Whatever comes, in brackets or not."""
    host = host_of(text)
    assert not host or is_loopback(text) == is_loopback(host)
    assert is_address(text) == is_address(host)
