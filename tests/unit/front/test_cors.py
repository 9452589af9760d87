"""Which web pages may read answers."""

from __future__ import annotations

import pytest

from bioproxy.errors import ForeignPage
from bioproxy.front.cors import HEAP, MOST_PAGES, Cors, Refusals, check_name
from bioproxy.wire.http1.message import Request


def request(method: str = "POST", **fields: str) -> Request:
    lower = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
    return Request(method, b"/v1/models", path="/v1/models", headers=list(lower.items()), fields=lower)


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:8080", "https://LOCALHOST"]
)
def test_without_keys_a_page_of_this_machine_may_read(origin: str) -> None:
    """Its origin is named in the answer."""
    assert Cors((), keys=False).headers(request(origin=origin))[0] == (b"Access-Control-Allow-Origin", origin.encode())


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost.evil.example", "null", "file://", "http://127.0.0.1.nip.io"]
)
def test_without_keys_a_foreign_page_may_not_read(origin: str) -> None:
    """It could ask for a template and read the operator's files out of the answer."""
    assert Cors((), keys=False).headers(request(origin=origin)) == []


def test_with_keys_any_page_may_read_for_the_key_is_the_secret() -> None:
    """No cookie is involved."""
    assert Cors((), keys=True).headers(request(origin="https://chat.example"))


def test_named_origins_are_the_only_ones() -> None:
    """Case and a trailing slash of the configuration do not matter."""
    cors = Cors(("https://Chat.example/",), keys=True)
    assert cors.headers(request(origin="https://chat.example"))
    assert not cors.headers(request(origin="http://localhost:3000"))


def test_a_client_that_is_no_page_gets_no_headers() -> None:
    """Curl and SDKs send no Origin."""
    assert Cors(("*",), keys=False).headers(request()) == []


def test_a_preflight_is_told_methods_and_the_headers_it_asked_for() -> None:
    """The browser asks before it sends a key."""
    ask = request(
        "OPTIONS",
        origin="http://localhost:3000",
        access_control_request_method="POST",
        access_control_request_headers="authorization, content-type",
    )
    cors = Cors((), keys=False)
    assert cors.is_preflight(ask)
    assert (b"Access-Control-Allow-Headers", b"authorization, content-type") in cors.preflight(ask)


def test_a_foreign_preflight_is_told_nothing() -> None:
    """Without Access-Control headers the browser does not send the request."""
    ask = request("OPTIONS", origin="https://evil.example", access_control_request_method="POST")
    assert Cors((), keys=False).preflight(ask) == [(b"Vary", b"Origin")]


def test_an_options_request_of_an_sdk_is_no_preflight() -> None:
    """It goes to the engine."""
    assert not Cors.is_preflight(request("OPTIONS"))


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http://a]b/"])
def test_what_is_no_origin_is_foreign(origin: str) -> None:
    """It raises nothing, however it is malformed."""
    assert Cors((), keys=False).headers(request(origin=origin)) == []


@pytest.mark.parametrize(
    "origin",
    [
        "app://obsidian.md", "vscode-webview://0f3a", "chrome-extension://abc", "moz-extension://abc", "tauri://localhost",
        "capacitor://localhost", "ionic://localhost", "http://tauri.localhost", "https://tauri.localhost",
    ],
)  # fmt: skip
def test_apps_may_read_by_default(origin: str) -> None:
    """No web page can have their schemes, and names below `.localhost` mean this machine."""
    assert Cors((), keys=False).headers(request(origin=origin))
    assert not Cors(("https://chat.example",), keys=False).headers(request(origin=origin))


@pytest.mark.parametrize(
    "origin",
    [
        "app.evil.example",
        "https://app",
        "app:x",
        "tauri",
        "localhost",
        "file://localhost",
        "file://",
        "http://tauri.localhost.evil.example",
    ],
)
def test_what_only_looks_like_an_app_may_not(origin: str) -> None:
    """The scheme decides, and nothing else in the text."""
    assert not Cors((), keys=False).headers(request(origin=origin))


def test_a_scheme_can_be_named_whole() -> None:
    """`obsidian://*` is every page of that scheme, and of no other."""
    cors = Cors(("obsidian://*",), keys=False)
    assert cors.allows("obsidian://vault")
    assert not cors.allows("https://obsidian")
    assert not cors.allows("obsidian")


MOZILLA = "Mozilla/5.0 (X11; Linux x86_64)"
POWERSHELL = "Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1"
HOST = "box.lan:8080"
BASIC = "Basic eDp5"


OPEN = Cors((), keys=False)


def asked(method: str = "GET", cors: Cors = OPEN, /, **fields: str) -> str:
    """`ok`, `refused`, or `link` if a person may go on by a link, for what changes something."""
    try:
        cors.check(request(method, host=HOST, **fields))
    except ForeignPage as error:
        return "link" if error.confirmed_by else "refused"
    return "ok"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"user_agent": "curl/8.5.0", "accept": "*/*"},
        {"user_agent": "python-requests/2.32"},
        {"user_agent": "node", "accept_language": "*", "sec_fetch_mode": "cors"},
        {"user_agent": POWERSHELL},
        {"user_agent": "Shortcuts CFNetwork/1494 Darwin/23", "accept_language": "en-US"},
        {"user_agent": MOZILLA, "authorization": "Bearer x"},
        {"user_agent": MOZILLA, "x_api_key": "x"},
        {"user_agent": MOZILLA, "api_key": "x"},
        {"user_agent": MOZILLA, "content_type": "application/json"},
    ],
)
def test_programs_need_no_proof(fields: dict[str, str]) -> None:
    """They do not look like browsers, or send what browsers send for a foreign page only after a preflight."""
    assert asked(**fields) == "ok"
    assert asked("POST", **fields) == "ok"


@pytest.mark.parametrize(
    "fields",
    [
        {"sec_fetch_site": "none"},
        {"sec_fetch_site": "same-origin", "origin": "https://behind.a.proxy"},
        {"origin": f"http://{HOST}"},
        {"origin": "http://localhost:3000"},
        {"referer": f"http://{HOST}/ui/"},
        {"referer": "http://localhost:3000/"},
        {"origin": "vscode-webview://0f3a"},
    ],
)
def test_our_own_pages_and_allowed_ones_may_ask(fields: dict[str, str]) -> None:
    """Each of these a browser says by itself; no page can write it."""
    assert asked(user_agent=MOZILLA, **fields) == "ok"
    assert asked("POST", user_agent=MOZILLA, **fields) == "ok"


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"origin": "https://evil.example"}, "refused"),
        ({"origin": "null"}, "refused"),
        ({"origin": "http://["}, "refused"),
        ({"origin": f"http://{HOST}.evil.example"}, "refused"),
        ({"origin": "https://evil.example", "referer": f"http://{HOST}/"}, "refused"),
        ({"origin": "https://evil.example", "content_type": "application/json"}, "refused"),
        ({"referer": "https://evil.example/"}, "link"),
        ({"referer": f"https://evil.example/http://{HOST}/"}, "link"),
        ({"sec_fetch_site": "cross-site"}, "link"),
        ({"sec_fetch_site": "same-site", "user_agent": ""}, "link"),
        ({}, "link"),
        ({"accept": "image/avif,*/*"}, "link"),
        ({"user_agent": "Lynx/2.9", "accept_language": "en"}, "link"),
        ({"authorization": BASIC}, "link"),
    ],
)
def test_foreign_pages_may_not_ask(fields: dict[str, str], verdict: str) -> None:
    """An image, a link, a frame, a form and a blind fetch have one of these forms, over plain HTTP in a LAN, too."""
    fields = {"user_agent": MOZILLA} | fields
    assert asked(**fields) == verdict
    assert asked("HEAD", **fields) == asked("POST", **fields) == "refused"


@pytest.mark.parametrize(
    "kind", ["text/plain", "TEXT/PLAIN; charset=x", "multipart/form-data; boundary=b", "text/ping"]
)
def test_a_form_is_sent_without_a_preflight(kind: str) -> None:
    """So its content type proves nothing."""
    assert asked("POST", user_agent=MOZILLA, content_type=kind) == "refused"


def test_a_password_that_a_browser_sends_by_itself_is_no_proof() -> None:
    """With keys any page may ask that shows a key itself; a browser adds what was typed once for every page."""
    evil = "https://evil.example"
    assert asked("POST", Cors((), keys=True), origin=evil, authorization="Bearer k") == "ok"
    assert asked("POST", Cors((), keys=True), origin=evil, authorization=BASIC) == "refused"
    assert asked("POST", Cors(("*",), keys=True), origin=evil, authorization=BASIC) == "refused"
    assert asked("POST", Cors((evil,), keys=True), origin=evil, authorization=BASIC) == "ok"


def by_name(host: str) -> None:
    """Ask a port that is called box.lan as `host`."""
    check_name(request(host=host), names=frozenset({"box.lan", ""}), addresses=True, port="proxy")


@pytest.mark.parametrize("host", ["localhost:8088", "127.0.0.1:8088", "[::1]:8088", "192.168.1.5", "box.lan:1"])
def test_an_address_and_a_name_of_ours_are_served(host: str) -> None:
    """Nobody can point an address somewhere else."""
    by_name(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8088",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "",
        "[::1",
        "box.lan:x",
        "box.lan.evil.example",
    ],
)
def test_a_name_that_is_none_of_ours_was_pointed_at_us(host: str) -> None:
    """The refusal says what to set, should it be one of ours after all."""
    with pytest.raises(ForeignPage, match="admin_hosts"):
        by_name(host)


def test_refused_pages_are_counted_and_cannot_fill_the_memory() -> None:
    """Each is new once; whoever makes up names is counted in one heap."""
    refusals = Refusals()
    assert [refusals.add("a"), refusals.add("a"), refusals.add("b")] == [True, False, True]
    assert sum(refusals.add(f"https://{number}.example") for number in range(1000)) == MOST_PAGES - 2
    counts = refusals.statistics()
    assert (counts["a"], counts[HEAP], len(counts)) == (2, 1000 - MOST_PAGES + 2, MOST_PAGES + 1)
