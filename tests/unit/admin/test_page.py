"""The web page's files: which are served, how small, for how long, and what they may do."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bioproxy.admin.page import File, WebPage, chosen, listed, other_port
from bioproxy.wire.http1.message import Request, Responder
from support.admin import AdminPort
from support.http import Answer, call
from support.page import HTML, INDEX, NAME, SECRET, SMALLER, build


async def no_models(_request: Request, responder: Responder) -> None:
    """What models would answer."""
    responder.send(200, [], b"")


@asynccontextmanager
async def port(folder: Path) -> AsyncIterator[AdminPort]:
    """An admin port with this page."""
    page = WebPage(no_models, folder=folder)
    running = AdminPort(page=page, admin_key="sesame")
    await running.server.listen("127.0.0.1", 0)
    try:
        yield running
    finally:
        running.admin.close()
        await running.server.close(deadline=1.0)


async def asked(folder: Path, path: str, method: str = "GET", **headers: str) -> Answer:
    """One file, asked without a key."""
    async with port(build(folder / "page")) as running:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return await call(running.server.port, method, path, headers=fields)


@pytest.mark.parametrize("path", ["/ui/", "/ui/index.html"])
async def test_the_page_wants_no_key_and_is_asked_for_anew(path: str, tmp_path: Path) -> None:
    """A person types the key into it; another build must be seen at once."""
    answer = await asked(tmp_path, path)
    assert (answer.status, answer.body) == (200, INDEX)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"


async def test_a_browser_is_told_what_the_page_may_do(tmp_path: Path) -> None:
    """Load and run what is ours, and ask nobody else."""
    headers = (await asked(tmp_path, "/ui/")).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "connect-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-opener-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br", "br"), ("gzip;q=0.5", "gzip"), ("br;q=0, gzip", "gzip"), ("*", "br"), ("*;q=0", None),
        ("identity", None), ("", None),
    ],
)  # fmt: skip
async def test_the_smallest_form_that_the_client_reads(accepted: str, coding: str | None, tmp_path: Path) -> None:
    """As the build made them; for ever, because the name changes with what is in it."""
    answer = await asked(tmp_path, f"/ui/{NAME}", Accept_Encoding=accepted)
    assert (answer.headers.get("content-encoding"), answer.body) == (coding, SMALLER[coding])
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"


def test_a_file_without_a_smaller_form_comes_plain() -> None:
    """Pictures have none."""
    assert chosen(b"br, gzip", File(kind=b"", keep=b"", forms={"": Path("x")})) == ""


async def test_what_has_no_hash_in_its_name_is_asked_for_anew(tmp_path: Path) -> None:
    """Only a hash makes a name mean one content."""
    assert (await asked(tmp_path, "/ui/assets/readme.txt")).headers["cache-control"] == "no-cache"


async def test_a_known_file_is_not_sent_again(tmp_path: Path) -> None:
    """304 by its tag, weak or one of several; each coding has a tag of its own."""
    async with port(build(tmp_path / "page")) as running:
        first = await running.ask("GET", "/ui/")
        tag = first.headers["etag"]
        same = [await running.ask("GET", "/ui/", If_None_Match=said) for said in (tag, f"W/{tag}", f'"x", {tag}')]
        other = await running.ask("GET", "/ui/", If_None_Match='"x"')
        codings = {
            (await running.ask("GET", f"/ui/{NAME}", Accept_Encoding=one)).headers["etag"]
            for one in ("br", "gzip", "x")
        }
    assert [(answer.status, answer.body, answer.headers["etag"]) for answer in same] == [(304, b"", tag)] * 3
    assert (other.status, other.headers["etag"]) == (200, tag)
    assert len(codings) == 3


async def test_head_tells_the_length(tmp_path: Path) -> None:
    """And sends nothing."""
    answer = await asked(tmp_path, "/ui/", "HEAD")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", str(len(INDEX)))


@pytest.mark.parametrize(
    "path",
    [
        "/ui/../secret.txt", "/ui/%2e%2e/secret.txt", "/ui/..%2fsecret.txt", "/ui/assets/../../secret.txt",
        "/ui//secret.txt", "/ui/assets", "/ui/assets/", f"/ui/{NAME}.br", "/ui/nothing", "/ui/%00", "/ui/.",
        "/ui/link.txt", "/ui/..\\secret.txt",
    ],
)  # fmt: skip
async def test_no_path_leads_out_of_the_folder(path: str, tmp_path: Path) -> None:
    """Only what the folder's listing names is there; a link to elsewhere is not followed."""
    page = build(tmp_path / "page")
    (page / "link.txt").symlink_to(tmp_path / "secret.txt")
    async with port(page) as running:
        answer = await call(running.server.port, "GET", path, headers={"Authorization": "Bearer sesame"})
    assert answer.status in {400, 404}
    assert SECRET not in answer.text


async def test_another_build_is_seen_at_once(tmp_path: Path) -> None:
    """Its files have other names."""
    page = build(tmp_path / "page")
    async with port(page) as running:
        await running.ask("GET", "/ui/")
        (page / "assets" / "new-Ab3_-x9Z.js").write_bytes(b"new")
        (page / "index.html").write_bytes(b"other")
        os.utime(page / "index.html", ns=(1000, 1000))
        assert (await running.ask("GET", "/ui/")).body == b"other"
        assert (await running.ask("GET", "/ui/assets/new-Ab3_-x9Z.js")).body == b"new"


@pytest.mark.parametrize("path", ["/ui", "/ui/", "/ui/assets/x.js"])
async def test_without_a_build_a_404_says_how_to_make_one(path: str, tmp_path: Path) -> None:
    """A source folder has none before `make ui`."""
    async with port(tmp_path / "nothing") as running:
        answer = await running.ask("GET", path)
    assert answer.status == 404
    assert "make ui" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "headers", "to"),
    [
        ("/ui", {}, "ui/"),
        ("/ui", HTML, "ui/"),
        ("/", HTML, "ui/"),
        ("/", HTML | {"X-Forwarded-Prefix": "/box"}, "/box/ui/"),
        ("/", HTML | {"X-Forwarded-Prefix": "/a/b/"}, "/a/b/ui/"),
        ("/", HTML | {"X-Forwarded-Prefix": "//evil.example"}, "ui/"),
        ("/", HTML | {"X-Forwarded-Prefix": "https://evil.example"}, "ui/"),
        ("/ui", HTML | {"X-Forwarded-Prefix": "/box"}, "ui/"),
    ],
)
async def test_a_browser_is_sent_to_the_page(path: str, headers: dict[str, str], to: str, tmp_path: Path) -> None:
    """By a relative address, which holds below a path of a reverse proxy; only `/` may need the prefix."""
    async with port(build(tmp_path / "page")) as running:
        answer = await call(running.server.port, "GET", path, headers=headers)
    assert (answer.status, answer.headers["location"]) == (302, to)


async def test_a_program_gets_the_list_of_routes_and_needs_the_key(tmp_path: Path) -> None:
    """As before there was a page."""
    async with port(build(tmp_path / "page")) as running:
        refused = await running.ask("GET", "/")
        listed_ = await running.ask("GET", "/", Authorization="Bearer sesame")
        data = await running.ask("GET", "/status", **HTML)
    assert refused.status == 401
    assert listed_.json()["name"] == "bioproxy"
    assert data.status == 401


async def test_without_a_build_a_browser_gets_the_list_of_routes(tmp_path: Path) -> None:
    """With the key."""
    async with port(tmp_path / "nothing") as running:
        assert (await running.ask("GET", "/", Authorization="Bearer sesame", **HTML)).json()["name"] == "bioproxy"


async def test_a_foreign_name_does_not_get_the_page(tmp_path: Path) -> None:
    """The refusal says what to set; the page would get no data by that name."""
    answer = await asked(tmp_path, "/ui/", Host="evil.example")
    assert (answer.status, "admin_hosts" in answer.text) == (403, True)


@pytest.mark.parametrize(
    ("host", "bound", "tls", "origin"),
    [
        ("localhost:8089", "localhost", False, "http://localhost:8088"),
        ("GPU-Box:8089", "0.0.0.0", True, "https://gpu-box:8088"),
        ("[::1]:8089", "::", False, "http://[::1]:8088"),
        ("localhost:8089", "192.168.1.5", False, "http://192.168.1.5:8088"),
        ("localhost:8089", "unix:/run/bioproxy.sock", False, ""),
        ("chat.example.org", "localhost", False, ""),
        ("localhost:9089", "localhost", False, ""),
        ("a b; script-src *", "localhost", False, ""),
        ("", "localhost", False, ""),
    ],
)
def test_where_the_page_finds_the_proxy_port(host: str, bound: str, tls: bool, origin: str) -> None:
    """By the name that the browser used; what is no name gets into no header."""
    request = Request(method="GET", target=b"/", path="/", headers=[], fields={b"host": host.encode()} if host else {})
    assert other_port(request, here=8089, bound=bound, port=8088, tls=tls) == origin


def test_below_a_path_of_a_reverse_proxy_the_proxy_port_cannot_be_found() -> None:
    """Nobody knows whether it shows that one, too, and where."""
    fields = {b"host": b"localhost:8089", b"x-forwarded-prefix": b"/llm"}
    request = Request(method="GET", target=b"/", path="/", headers=[*fields.items()], fields=fields)
    assert other_port(request, here=8089, bound="localhost", port=8088, tls=False) == ""


def test_the_listing_pairs_files_with_their_smaller_forms(tmp_path: Path) -> None:
    """Those have no name of their own."""
    found = listed(build(tmp_path / "page"))
    assert sorted(found) == ["assets/main-Ab3_-x9Z.js", "assets/readme.txt", "index.html"]
    assert sorted(found[NAME].forms) == ["", "br", "gzip"]
