"""The command line's client, against a real server on a real socket."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bioproxy.cli.client import Client, admin_url
from bioproxy.cli.find import trust
from bioproxy.config.schema import Config
from bioproxy.errors import BioproxyError
from support.http import certificate, free_port, needs_openssl


class Admin(BaseHTTPRequestHandler):
    """Answers as the admin port does, and keeps what it was asked."""

    seen: list[tuple[str, str, str | None]]
    answer: tuple[int, bytes]

    def reply(self) -> None:
        type(self).seen.append((self.command, self.path, self.headers["Authorization"]))
        status, body = type(self).answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = reply  # noqa: N815 - the base class's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Stay silent."""


@pytest.fixture
def admin() -> Iterator[tuple[type[Admin], str]]:
    handler = type("Handler", (Admin,), {"seen": [], "answer": (200, b'{"ok":true}')})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_json_is_read(admin: tuple[type[Admin], str]) -> None:
    """A route's JSON comes back as values, and nothing is sent beside the question."""
    handler, url = admin
    assert Client(url).get("/status") == {"ok": True}
    assert handler.seen == [("GET", "/status", None)]


def test_the_key_is_sent(admin: tuple[type[Admin], str]) -> None:
    """With an `admin_key` each question carries it."""
    handler, url = admin
    Client(url, key="secret").post("/reload")
    assert handler.seen == [("POST", "/reload", "Bearer secret")]


def test_a_prefix_is_quoted(admin: tuple[type[Admin], str]) -> None:
    """Whatever a prefix is made of, it is one path segment."""
    handler, url = admin
    Client(url).warm("@a/b c")
    assert handler.seen[0][:2] == ("POST", "/warmup/%40a%2Fb%20c")


def test_proxies_from_the_environment_are_not_used(
    admin: tuple[type[Admin], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A company's HTTP proxy knows nothing of this machine's loopback."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert Client(admin[1]).get("/status") == {"ok": True}


def test_an_error_is_the_servers_sentence(admin: tuple[type[Admin], str]) -> None:
    """What the admin API says went wrong is what the user reads."""
    handler, url = admin
    handler.answer = (404, b'{"error":{"message":"there is no prefix @x"}}')
    with pytest.raises(BioproxyError, match="there is no prefix @x"):
        Client(url).get("/warmup")


def test_a_missing_key_is_named(admin: tuple[type[Admin], str]) -> None:
    """Who is refused without a key learns how to name one."""
    handler, url = admin
    handler.answer = (401, b"no")
    with pytest.raises(BioproxyError, match="-admin-key or BIOPROXY_ADMIN_KEY"):
        Client(url).get("/status")


def test_something_else_on_the_port(admin: tuple[type[Admin], str]) -> None:
    """A web page where JSON should be is no bioproxy."""
    handler, url = admin
    handler.answer = (200, b"<html>")
    with pytest.raises(BioproxyError, match="is this bioproxy"):
        Client(url).get("/status")


def test_nothing_answers() -> None:
    """One sentence says what was tried and what to do."""
    port = free_port()
    with pytest.raises(
        BioproxyError, match=rf"no bioproxy answers on http://127.0.0.1:{port} \([^\[]*\).*bioproxy serve"
    ):
        Client(f"http://127.0.0.1:{port}").get("/status")


@needs_openssl
def test_half_of_a_renewed_pair_is_no_program_that_is_gone(tmp_path: Path) -> None:
    """It goes on with the old pair; the command line trusts the certificate that is in the file by now, or none."""
    old, new = certificate(tmp_path, "old"), certificate(tmp_path, "new")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(old.cert, old.key)
    for trusted in (trust(new.cert), trust(str(tmp_path / "gone.pem"))):
        with listening(lambda one: context.wrap_socket(one, server_side=True)) as port:
            client = Client(f"https://127.0.0.1:{port}", trust=trusted)
            with pytest.raises(BioproxyError, match="has another certificate than the one in tls_cert_file now"):
                client.get("/status")


def test_plain_http_where_the_configuration_has_tls() -> None:
    """A reload that failed, say."""
    plain, said = b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak TLS as this configuration has it"
    with listening(lambda one: one.sendall(plain)) as port, pytest.raises(BioproxyError, match=said):
        Client(f"https://127.0.0.1:{port}").get("/status")


@contextmanager
def listening(meet: Callable[[socket.socket], object]) -> Iterator[int]:
    """A port at which `meet` gets the first connection."""

    def serve() -> None:
        one, _ = listener.accept()
        with one, suppress(OSError):
            meet(one)
            one.recv(1 << 16)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("localhost", "http://localhost:8089"),
        ("0.0.0.0", "http://localhost:8089"),
        ("::", "http://localhost:8089"),
        ("10.0.0.7", "http://10.0.0.7:8089"),
        ("fd00::7", "http://[fd00::7]:8089"),
        ("[fd00::7]", "http://[fd00::7]:8089"),
        ("[::]", "http://localhost:8089"),
        ("::ffff:0.0.0.0", "http://localhost:8089"),
        ("unix:/run/bioproxy/admin.sock", "unix:/run/bioproxy/admin.sock"),
        ("unix:///run/bioproxy/admin.sock", "unix:/run/bioproxy/admin.sock"),
    ],
)
def test_where_the_admin_port_is_asked(host: str, url: str) -> None:
    """An address that means "all" is asked on this machine."""
    assert admin_url(Config(admin_host=host)) == url
