"""curl, the client that everybody tries first, with the flags that make HTTP servers stumble."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from support.clients import CURL, Line, curl, fake_line

Json = Any
pytestmark = pytest.mark.skipif(not CURL, reason="curl is not installed")
CHAT = "/v1/chat/completions"
HELLO: Json = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


async def post(line: Line, *words: str, data: Json = HELLO) -> tuple[int, str, str]:
    """A chat request by curl; `words` are further flags."""
    body = json.dumps(data)
    return await curl("-H", "Content-Type: application/json", "-d", body, *words, line.url + CHAT)


async def test_stream(tmp_path: Path) -> None:
    """`-N`: events as they come, up to [DONE]; the connection ends well."""
    async with fake_line(tmp_path) as line:
        code, out, _ = await post(line, "-N", data=HELLO | {"stream": True})
        assert code == 0
        assert out.rstrip().endswith("data: [DONE]")
        assert out.count("data: ") > 4


@pytest.mark.parametrize("stream", [False, True])
async def test_http_1_0(stream: bool, tmp_path: Path) -> None:
    """A client of the last century gets the same, and the end of the connection as the end of the answer."""
    async with fake_line(tmp_path) as line:
        code, out, _ = await post(line, "--http1.0", "-i", data=HELLO | {"stream": stream})
        head, _, body = out.partition("\r\n\r\n")
        assert code == 0
        assert head.startswith("HTTP/1.1 200")
        assert "transfer-encoding" not in head.lower()
        assert body.rstrip().endswith("data: [DONE]") if stream else json.loads(body)["choices"]


async def test_large_body_asks_first(tmp_path: Path) -> None:
    """Expect: 100-continue before 8 MB: told to go on, and every byte reaches the engine."""
    body = b"x" * (8 << 20)
    async with fake_line(tmp_path) as line:
        code, out, err = await curl(
            "-v", "-H", "Expect: 100-continue", "--data-binary", "@-", line.url + "/echo", stdin=body
        )
        assert code == 0
        assert "HTTP/1.1 100 Continue" in err
        assert json.loads(out)["sha256"] == hashlib.sha256(body).hexdigest()


async def test_body_over_the_limit(tmp_path: Path) -> None:
    """Who asks first is refused before sending: 413, in JSON."""
    async with fake_line(tmp_path, limits={"body": 1000}) as line:
        code, out, err = await curl(
            "-v", "-H", "Expect: 100-continue", "--data-binary", "@-", line.url + CHAT, stdin=b"x" * 2000
        )
        assert code == 0
        assert "100 Continue" not in err
        assert "< HTTP/1.1 413" in err
        assert json.loads(out)["error"]["message"]


async def test_head(tmp_path: Path) -> None:
    """`-I`: the head of an answer and nothing behind it."""
    async with fake_line(tmp_path) as line:
        code, out, _ = await curl("-I", line.url + "/health")
        assert code == 0
        assert out.startswith("HTTP/1.1 200")
        assert out.endswith("\r\n\r\n")


async def test_chunked_upload(tmp_path: Path) -> None:
    """A body of unknown length arrives whole, and with a length, which llama-server wants."""
    async with fake_line(tmp_path) as line:
        body = json.dumps(HELLO | {"messages": [{"role": "user", "content": "@rules may I?"}]}).encode()
        code, out, _ = await curl(
            "-H", "Transfer-Encoding: chunked", "-H", "Content-Type: application/json", "--data-binary", "@-",
            line.url + CHAT, stdin=body,
        )  # fmt: skip
        assert code == 0
        assert json.loads(out)["choices"]
        (seen,) = await line.engine.requests(CHAT)
        assert seen.header("transfer-encoding") is None
        assert seen.header("content-length") == str(seen.bytes)
        assert seen.json()["messages"][0]["content"].startswith("These are the house rules.")


async def test_offer_of_http_2(tmp_path: Path) -> None:
    """`--http2` on a plain port offers an upgrade: it is passed over, and the request answered as it is."""
    async with fake_line(tmp_path) as line:
        if "HTTP2" not in (await curl("--version"))[1]:
            pytest.skip("this curl has no HTTP/2")
        code, out, err = await post(line, "--http2", "-v")
        assert code == 0
        assert "Upgrade: h2c" in err
        assert json.loads(out)["choices"]
        (seen,) = await line.engine.requests(CHAT)
        assert (seen.header("upgrade"), seen.header("http2-settings")) == (None, None)


async def test_password(tmp_path: Path) -> None:
    """Basic auth: the password is the key, whoever the user is; without one, 401 says how."""
    async with fake_line(tmp_path, api_keys=["right"]) as line:
        code, out, _ = await post(line, "-u", "anybody:right")
        assert code == 0
        assert json.loads(out)["choices"]
        for user in ("anybody:wrong", "right:"):
            _, out, err = await post(line, "-u", user, "-v")
            assert "< HTTP/1.1 401" in err
            assert "API key" in json.loads(out)["error"]["message"]


async def test_one_connection_for_all(tmp_path: Path) -> None:
    """Three requests on one command line use one connection."""
    async with fake_line(tmp_path) as line:
        urls = [line.url + path for path in ("/health", "/v1/models", "/props")]
        code, _, err = await curl("-v", "-o", "/dev/null", "-o", "/dev/null", "-o", "/dev/null", *urls)
        assert code == 0
        assert err.count("< HTTP/1.1 200") == 3
        assert err.count("Re-using existing connection") == 2


async def test_paths_reach_the_engine_as_they_are(tmp_path: Path) -> None:
    """What the router does not know is passed on: method, path, query and body, and the answer's status back."""
    async with fake_line(tmp_path) as line:
        code, out, _ = await curl("-X", "PUT", "-d", "body", line.url + "/new/route?status=207&q=a%20b")
        got = json.loads(out)
        assert code == 0
        assert (got["method"], got["path"], got["body"]) == ("PUT", "/new/route", "body")
        assert got["target"] == "/new/route?status=207&q=a%20b"
