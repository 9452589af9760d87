"""Who may ask the admin port: names, pages and keys, judged without a socket."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from bioproxy.admin.guard import Access, Guard
from bioproxy.config.addresses import host_fault
from bioproxy.config.schema import Config
from bioproxy.errors import BioproxyError, Forbidden, Unauthorized
from bioproxy.wire.http1.message import Request


def ask(
    config: dict[str, Any], *, access: Access = "admin", host: str | None = "localhost:8089", **headers: str
) -> str:
    """`ok`, `forbidden` or `unauthorized` for a request with these headers (underscores are dashes)."""
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    if host is not None:
        fields[b"host"] = host.encode()
    request = Request("GET", b"/status", path="/status", headers=list(fields.items()), fields=fields)
    try:
        Guard(Config(**config)).check(request, access)
    except Forbidden:
        return "forbidden"
    except Unauthorized:
        return "unauthorized"
    return "ok"


@pytest.mark.parametrize(
    ("config", "host", "verdict"),
    [
        ({}, "localhost:8089", "ok"),
        ({}, "LOCALHOST", "ok"),
        ({}, "localhost.:8089", "ok"),
        ({}, "127.0.0.1:8089", "ok"),
        ({}, "[::1]:8089", "ok"),
        ({}, "evil.example:8089", "forbidden"),
        ({}, "localhost.evil.example", "forbidden"),
        ({}, "192.168.1.5:8089", "forbidden"),
        ({}, "", "forbidden"),
        ({}, None, "forbidden"),
        ({}, "[::1", "forbidden"),
        ({"admin_hosts": ("box.lan",)}, "box.lan:8089", "ok"),
        ({"admin_hosts": ("Box.LAN:8089",)}, "box.lan", "ok"),
        ({"admin_host": "192.168.1.5"}, "192.168.1.5:8089", "ok"),
        ({"admin_host": "192.168.1.5"}, "192.168.1.6:8089", "forbidden"),
        ({"admin_host": "0.0.0.0"}, "192.168.1.5:8089", "ok"),
        ({"admin_host": "::"}, "[fe80::1]:8089", "ok"),
        ({"admin_host": "0.0.0.0"}, "evil.example", "forbidden"),
        ({"admin_host": "fd00::5"}, "[fd00::5]:8089", "ok"),
        ({"admin_host": "[fd00::5]"}, "[FD00:0::5]", "ok"),
        ({"admin_host": "fd00::5"}, "[fd00::6]:8089", "forbidden"),
        ({"admin_hosts": ("fd00::5",)}, "[fd00::5]:8089", "ok"),
        ({"admin_host": "[::]"}, "192.168.1.5:8089", "ok"),
        ({"admin_host": "::ffff:10.0.0.1"}, "10.0.0.1:8089", "ok"),
    ],
)
def test_only_our_own_names_are_served(config: dict[str, Any], host: str | None, verdict: str) -> None:
    """A page that had its name pointed at this machine is refused, whatever it wants to read."""
    assert ask(config, host=host) == verdict


@pytest.mark.parametrize(
    ("config", "origin", "verdict"),
    [
        ({}, "http://localhost:8089", "ok"),
        ({}, "http://localhost:3000", "forbidden"),
        ({}, "https://evil.example", "forbidden"),
        ({}, "null", "forbidden"),
        ({}, "http://[", "forbidden"),
        ({"admin_hosts": ("box.lan",)}, "https://box.lan", "ok"),
        ({"admin_hosts": ("fd00::5",)}, "http://[fd00::5]:3000", "ok"),
    ],
)
def test_only_our_own_pages_may_ask(config: dict[str, Any], origin: str, verdict: str) -> None:
    """A page of another site, or of another program on this machine, changes nothing here."""
    assert ask(config, origin=origin) == verdict


def test_the_advice_of_a_refusal_helps() -> None:
    """What it names can be written into `admin_hosts` as it stands there."""
    request = Request("GET", b"/", path="/", headers=[], fields={b"host": b"[fd00::5]:8089"})
    with pytest.raises(BioproxyError) as raised:
        Guard(Config()).check(request, "admin")
    named = raised.value.message.split("'")[1]
    assert host_fault(named) == ""
    Guard(Config(admin_hosts=(named,))).check(request, "admin")


def test_a_browser_that_does_not_say_for_which_page_changes_nothing() -> None:
    """`GET /unload` is a change, and an image in a page would do; the list of routes is none."""
    request = Request(
        "GET", b"/unload", path="/unload", headers=[], fields={b"host": b"box.lan", b"user-agent": b"Mozilla/5.0"}
    )
    guard = Guard(Config(admin_hosts=("box.lan",)))
    guard.check(request, "admin")
    with pytest.raises(Forbidden, match="does not say for which page"):
        guard.check(request, "admin", changes=True)


@pytest.mark.parametrize("access", ["open", "metrics"])
def test_probes_and_scrapers_use_any_name(access: Access) -> None:
    """What carries no private text is served under the name that a container network gives."""
    assert ask({}, access=access, host="bioproxy:8089", origin="https://evil.example") == "ok"


@pytest.mark.parametrize(
    ("config", "access", "key", "verdict"),
    [
        ({"admin_key": "a"}, "admin", None, "unauthorized"),
        ({"admin_key": "a"}, "admin", "b", "unauthorized"),
        ({"admin_key": "a"}, "admin", "a", "ok"),
        ({"admin_key": "a"}, "open", None, "ok"),
        ({"admin_key": "a"}, "metrics", None, "ok"),
        ({"admin_key": "a", "metrics_key": "m"}, "metrics", None, "unauthorized"),
        ({"admin_key": "a", "metrics_key": "m"}, "metrics", "m", "ok"),
        ({"admin_key": "a", "metrics_key": "m"}, "metrics", "a", "ok"),
        ({"admin_key": "a", "metrics_key": "m"}, "admin", "m", "unauthorized"),
        ({"metrics_key": "m"}, "metrics", "", "unauthorized"),
    ],
)
def test_each_key_opens_what_it_is_for(config: dict[str, Any], access: Access, key: str | None, verdict: str) -> None:
    """The metrics key reads metrics and nothing else; the admin key opens everything; probes need none."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    assert ask(config, access=access, **headers) == verdict


def test_a_browser_sends_the_key_as_a_password() -> None:
    """Basic credentials with any user name count, and so does x-api-key."""
    password = base64.b64encode(b"anyone:a").decode()
    assert ask({"admin_key": "a"}, authorization=f"Basic {password}") == "ok"
    assert ask({"admin_key": "a"}, x_api_key="a") == "ok"


def test_a_refusal_says_what_to_set() -> None:
    """The sentence names `admin_hosts` and what the port was asked as."""
    request = Request("GET", b"/", path="/", headers=[], fields={b"host": b"box.lan"})
    with pytest.raises(BioproxyError, match=r"'box\.lan'.*admin_hosts"):
        Guard(Config()).check(request, "admin")
