"""Who may ask the proxy port: the admin port's own page, and who may read metrics there."""

from __future__ import annotations

from typing import cast

import pytest

from bioproxy.errors import Unauthorized
from bioproxy.front.access import Access
from bioproxy.front.exchange import Exchange
from bioproxy.front.routes import Route
from bioproxy.wire.http1.message import Carrier, Request, Responder
from support.config_files import config

OURS = ["http://localhost:8089", "http://127.0.0.1:8089", "http://[::1]:8089", "http://box.lan:8089"]


@pytest.mark.parametrize("origin", OURS)
@pytest.mark.parametrize("itself", [False, True])
def test_a_page_of_the_admin_port_may(origin: str, itself: bool) -> None:
    """By each name under which that port is served, also if `cors_origins` names others, or Basic was typed."""
    values = {"cors_origins": ["https://chat.lan"], "admin_hosts": ["box.lan"]}
    cors = Access(config(**values), local=True, page=8089).cors
    assert cors.allows(origin, itself=itself)
    assert not Access(config(**values), local=True).cors.allows(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:8090", "https://localhost:8089", "http://evil.example:8089", "http://localhost", "null", "",
        "http://localhost:8089x", "http://[::1", "http://localhost:8089.evil.example", "http://10.0.0.7:8089",
        "http://localhost:8089@evil.example", "http://localhost:99999",
    ],
)  # fmt: skip
def test_no_other_page_counts_as_it(origin: str) -> None:
    """Another port, another scheme, another name."""
    assert not Access(config(cors_origins=["https://chat.lan"]), local=True, page=8089).cors.allows(origin)


def test_by_any_address_if_the_admin_port_is_bound_to_all() -> None:
    """Nobody else can have one; a name has to be configured."""
    values = {"cors_origins": ["https://chat.lan"], "admin_host": "0.0.0.0", "admin_key": "k"}
    cors = Access(config(**values), local=True, page=80).cors
    assert cors.allows("http://10.0.0.7")
    assert not cors.allows("http://box.lan")


PROXIES = ["10.0.0.0/8", "fd00::/8"]


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "client"),
    [
        (PROXIES, "10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        (PROXIES, "10.0.0.1", ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
        (PROXIES, "10.0.0.1", ["6.6.6.6", "203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        (PROXIES, "10.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        (PROXIES, "10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (PROXIES, "10.0.0.1", ["203.0.113.9, unknown"], "10.0.0.1"),
        (PROXIES, "10.0.0.1", ["203.0.113.9, unix"], "10.0.0.1"),
        (PROXIES, "10.0.0.1", [], "10.0.0.1"),
        (PROXIES, "192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        (PROXIES, "unix", ["203.0.113.9"], "unix"),
        (PROXIES, "", ["203.0.113.9"], ""),
        (["unix"], "unix", ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
        (["unix"], "10.0.0.1", ["203.0.113.9"], "10.0.0.1"),
        (["unix"], "", ["203.0.113.9"], ""),
    ],
)
def test_who_is_believed_about_the_client(proxies: list[str], peer: str, forwarded: list[str], client: str) -> None:
    """The right-most address that no trusted proxy has; a client may write anything to the left of it."""
    headers = [(b"X-Forwarded-For", line.encode()) for line in forwarded]
    request = Request(method="GET", target=b"/", path="/", headers=headers, fields={}, peer=peer)
    assert Access(config(trusted_proxies=proxies), local=True).address(request) == client


async def test_metrics_want_their_key_if_there_is_no_other() -> None:
    """Who set `metrics_key` does not want them open on the proxy port, where no other key keeps strangers out."""

    def admitted(shown: str) -> str:
        headers = [(b"authorization", f"Bearer {shown}".encode())]
        request = Request("GET", b"/metrics", "/metrics", headers, dict(headers), peer="10.0.0.7")
        exchange = Exchange(
            request, Responder(cast("Carrier", None), request), Route("/metrics", guard="manage"), started=0.0
        )
        Access(config(metrics_key="scraper"), local=False).admit(exchange)
        return exchange.record.client

    assert admitted("scraper") == "metrics"
    with pytest.raises(Unauthorized, match="metrics_key"):
        admitted("other")
