"""Captures on disk: found again, private, bounded in size, age and number; a disk that refuses stops no request."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bioproxy.activity import Capture
from bioproxy.admin.capture_folder import BLOCK, CaptureFolder
from bioproxy.admin.capture_text import LONGEST_TEXT, line, unpacked
from bioproxy.admin.captures import Captures
from bioproxy.config.schema import MIB
from bioproxy.config.settings import Settings
from support.admin import metered
from support.config_files import config
from support.leaks import until

Json = Any
HEADERS = ((b"Content-Type", b"application/json"), (b"Authorization", b"Bearer my-own-key"))


def capture(body: bytes = b'{"messages": []}', answer: bytes = b'{"choices": []}', **more: Any) -> Capture:
    return Capture(request_headers=HEADERS, request_body=body, response_body=answer, **more)


def made(folder: Path, *, memory: int = 0, keys: Json = (), **bounds: Json) -> Captures:
    values = {f"captures__{name}": value for name, value in {"disk": MIB, **bounds}.items()}
    return Captures(memory, CaptureFolder(folder / "captures", Settings(config(api_keys=tuple(keys), **values))))


def disk(captures: Captures) -> CaptureFolder:
    assert captures.folder is not None
    return captures.folder


async def written(captures: Captures, *numbers: int, **more: Any) -> None:
    """Take captures in, and have them written."""
    for number in numbers:
        captures.add(number, metered(id=f"r{number}", client="ann"), capture(**more))
    folder = disk(captures)
    folder.flush()
    await until(lambda: not folder.waiting)
    await folder.tidy()


async def again(folder: Path, **bounds: Json) -> Captures:
    """As a program finds them that starts."""
    captures = made(folder, **bounds)
    await disk(captures).find()
    return captures


async def test_a_restart_finds_them(tmp_path: Path) -> None:
    """With the records of their requests, and the number that is given next is a new one."""
    captures = made(tmp_path)
    await written(captures, 1, 7)
    await captures.close()
    found = await again(tmp_path)
    assert (found.numbers(), disk(found).newest) == ([1, 7], 7)
    assert [(number, record.id) for number, record in await disk(found).start()] == [(1, "r1"), (7, "r7")]
    assert found.has(7)
    kept = await found.kept(7)
    assert kept is not None
    assert (kept.id, kept.req_body) == (7, b'{"messages": []}')
    assert await found.kept(2) is None


async def test_nobody_else_reads_them(tmp_path: Path) -> None:
    """Neither the files nor the folder."""
    await written(made(tmp_path), 1)
    [file] = (tmp_path / "captures").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("waits", [False, True])
async def test_no_credential_is_written(tmp_path: Path, *, waits: bool) -> None:
    """Not in headers, not the client's own key in a body, and no field of the request that is named as one."""
    request = b'{"tools": [{"headers": {"Authorization": "Bearer of-a-server"}}], "user": "my-own-key", "n": 1}'
    captures = made(tmp_path)
    captures.add(1, metered(), capture(request, b"you said my-own-key", secret=b"my-own-key"))
    if not waits:
        await written(captures)
    kept = await captures.kept(1)
    assert kept is not None
    text = repr(kept)
    assert "my-own-key" not in text
    assert "of-a-server" not in text
    assert json.loads(kept.req_body or b"")["n"] == 1
    await captures.close()


@pytest.mark.parametrize(
    "body",
    [
        b'{"api_key": "of-a-server", "top_p": NaN, "n": 1}',
        b'{"headers": {"Authorization": "Bearer of-a-server"}, "messages": ["\\ud800"]}',
        b"model=one&api_key=of-a-server",
        b'{"password": "of-a-server", "user": "\xff"}',
    ],
)
async def test_nor_if_the_request_is_no_json(body: bytes, tmp_path: Path) -> None:
    """Some engines take what the standard does not: names of secrets count in any text."""
    captures = made(tmp_path)
    await written(captures, 1, body=body)
    kept = await captures.kept(1)
    assert kept is not None
    assert b"of-a-server" not in (kept.req_body or b"")
    assert (kept.req_body or b"")[:6] == body[:6]


async def test_a_long_text_that_is_no_json_is_left_out(tmp_path: Path) -> None:
    """To look through it would hold up everything else; what is no text at all stays as it came."""
    captures = made(tmp_path)
    await written(captures, 1, body=b"api_key=of-a-server&text=" + b"x" * LONGEST_TEXT)
    await written(captures, 2, body=b"\x89PNG\xff" * LONGEST_TEXT)
    text, picture = await captures.kept(1), await captures.kept(2)
    assert text is not None
    assert picture is not None
    assert (text.req_body, picture.req_body) == (None, b"\x89PNG\xff" * LONGEST_TEXT)


async def test_nor_the_clients_key_in_the_address_of_a_page(tmp_path: Path) -> None:
    """Which comes as `Referer`; an engine may say it again."""
    captures = made(tmp_path)
    address = b"https://chat.lan/?key=my-own-key"
    one = Capture(
        request_headers=((b"Referer", address),), response_headers=((b"Location", address),), secret=b"my-own-key"
    )
    captures.add(1, metered(), one)
    kept = await captures.kept(1)
    assert kept is not None
    assert kept.req_headers["Referer"] == kept.resp_headers["Location"] == "https://chat.lan/?key=[REDACTED]"
    await captures.close()


async def test_what_holds_no_credential_is_kept_byte_for_byte(tmp_path: Path) -> None:
    """With its blanks and its order."""
    body = b'{ "b": 1,\n  "a": [1.0, 2] }'
    captures = made(tmp_path)
    await written(captures, 1, body=body)
    kept = await captures.kept(1)
    assert kept is not None
    assert kept.req_body == body


async def test_the_oldest_go_if_there_are_too_many(tmp_path: Path) -> None:
    """Or too many bytes; a file takes a block at least."""
    captures = made(tmp_path, max_count=3)
    await written(captures, 1, 2, 3, 4, 5)
    assert captures.numbers() == [3, 4, 5]
    small = await again(tmp_path, disk=2 * BLOCK)
    await disk(small).start()
    assert small.numbers() == [4, 5]
    assert len(list((tmp_path / "captures").iterdir())) == 2
    statistics = disk(small).statistics()
    assert (statistics.kept, statistics.bytes, statistics.limit) == (2, 2 * BLOCK, 2 * BLOCK)


async def test_what_is_too_old_goes(tmp_path: Path) -> None:
    """Also if nothing new comes."""
    await written(made(tmp_path), 1, 2)
    old = tmp_path / "captures" / "000000000001.capture"
    os.utime(old, (1e9, 1e9))
    captures = await again(tmp_path)
    await disk(captures).tidy()
    assert captures.numbers() == [2]
    os.utime(tmp_path / "captures" / "000000000002.capture", (1e9, 1e9))
    captures = await again(tmp_path, max_age=0)
    await disk(captures).tidy()
    assert captures.numbers() == [2]


async def test_a_disk_that_refuses_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Requests never hear of it; once it takes something again that is told, too."""
    (tmp_path / "captures").write_text("in the way")
    captures = made(tmp_path)
    await written(captures, 1, 2)
    await written(captures, 3)
    statistics = disk(captures).statistics()
    assert (statistics.lost, statistics.kept) == (3, 0)
    assert "exists" in statistics.fault
    (tmp_path / "captures").unlink()
    await written(captures, 4)
    assert captures.numbers() == [4]
    assert (caplog.text.count("cannot be written"), caplog.text.count("written again")) == (1, 1)


async def test_what_waits_for_the_disk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs costs captures, not memory."""
    monkeypatch.setattr("bioproxy.admin.capture_folder.MOST_WAITING", 5000)
    captures = made(tmp_path)
    for number in range(1, 9):
        captures.add(number, metered(), capture(b"x" * 1000))
    folder = disk(captures)
    assert folder.held <= 5000
    assert folder.lost == 8 - len(folder.waiting)
    await captures.close()


@pytest.mark.parametrize("data", [b"", b"bpc1", b"bpc1\xff\xff\xff\xff", b"bpc1\0\0\0\1\x80rest", b"other"])
async def test_a_broken_file_is_none(data: bytes, tmp_path: Path) -> None:
    """It shows nothing, and stops nothing."""
    await written(made(tmp_path), 1, 2)
    (tmp_path / "captures" / "000000000002.capture").write_bytes(data)
    captures = await again(tmp_path)
    assert [number for number, _ in await disk(captures).start()] == [1]
    assert await captures.kept(2) is None


async def test_several_keys_without_an_admin_have_none(tmp_path: Path) -> None:
    """Nobody could say who may look at them."""
    captures = made(tmp_path, keys=["k1", "k2"])
    captures.add(1, metered(), capture())
    assert (captures.most, captures.numbers()) == (0, [])


async def test_memory_and_disk_are_one_to_who_asks(tmp_path: Path) -> None:
    """What made room in memory is on disk still."""
    captures = made(tmp_path, memory=2000)
    await written(captures, 1, 2, 3, 4)
    assert len(captures.packed) < 4
    assert captures.numbers() == [1, 2, 3, 4]
    assert [(await captures.kept(number)) is not None for number in (1, 4)] == [True, True]


def test_a_line_of_an_export_reads_as_what_it_was() -> None:
    """JSON stays JSON, events are a text, and bytes are base64."""
    captures = Captures(MIB)
    captures.add(1, metered(client="ann"), capture(b'{"a": 1}', b"data: {}\n\n", original_body=b"\xff\xfe"))
    found = json.loads(line(metered(client="ann"), unpacked(1, captures.packed[1])))
    assert (found["request"], found["response"], found["original"]) == ({"a": 1}, "data: {}\n\n", {"base64": "//4="})
    assert (found["id"], found["client"], found["status"]) == (1, "ann", 200)
    assert found["request_headers"]["Authorization"] == "[REDACTED]"
    assert msgspec.json.encode(found).count(b"\n") == 0
