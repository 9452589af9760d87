"""The fake engine for swaps does what its flags say; tests of the program may then blame the program."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

from fakes.engine_process import EngineProcess
from support.http import call, events
from support.leaks import until
from support.swap_models import ENGINE, EventLog

FORM = (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nw\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="A.wav"\r\nContent-Type: audio/wav\r\n\r\nRIFF\r\n'
    b"--b--\r\n"
)


class SwapEngine(EngineProcess):
    """The fake by itself, on a port that the system chooses."""

    def __init__(self, folder: Path, words: str = "", *, name: str = "a") -> None:
        super().__init__()
        self.words = ["--events", str(folder / "events"), "--model", name, *words.split()]
        self.log = EventLog(folder / "events")

    def command(self) -> list[str]:
        """As a model's `cmd` runs it."""
        return [sys.executable, "-I", "-S", str(ENGINE), "--port", str(self.port), *self.words]

    def ready(self, line: str) -> int:
        """It prints its port."""
        return int(line.rsplit(" ", 1)[1]) if line.startswith("listening on ") else 0


async def test_it_answers_a_chat_and_tells_who_it_is(tmp_path: Path) -> None:
    """The model is echoed as the client named it."""
    async with SwapEngine(tmp_path) as engine:
        answer = (await engine.post("/v1/chat/completions?tool_calls=true", b"")).json()
        named = await call(engine.port, "POST", "/v1/chat/completions", data={"model": "alias"})
    assert (answer["model"], answer["served_by"]) == ("a", "a")
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert named.json()["model"] == "alias"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/messages"])
async def test_it_streams_as_many_events_as_it_is_asked_for(path: str, tmp_path: Path) -> None:
    """In the shape of the route."""
    async with SwapEngine(tmp_path) as engine:
        answer = await call(engine.port, "POST", path, data={"stream": True, "events": 3})
    assert sum("word" in json.dumps(event) for event in events(answer)) == 3


async def test_it_reads_a_form(tmp_path: Path) -> None:
    """In order, files with their names."""
    async with SwapEngine(tmp_path) as engine:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        answer = await call(engine.port, "POST", "/v1/audio/transcriptions", body=FORM, headers=headers)
    model, file = answer.json()["fields"]
    assert (model["name"], model["value"]) == ("model", "w")
    assert (file["filename"], file["type"], file["bytes"]) == ("A.wav", "audio/wav", 4)


async def test_a_held_request_waits_for_its_release(tmp_path: Path) -> None:
    """And is told of in the log."""
    async with SwapEngine(tmp_path) as engine, asyncio.TaskGroup() as group:
        task = group.create_task(call(engine.port, "POST", "/v1/chat/completions", data={"hold": 0}))
        await until(lambda: engine.log.of("held"))
        assert not engine.log.of("end")
        await engine.post("/release")
        assert (await task).status == 200


async def test_who_lives_at_once_sees_each_other(tmp_path: Path) -> None:
    """Also where one of them is killed: what is dead is not seen."""
    async with SwapEngine(tmp_path, name="a") as first:
        async with SwapEngine(tmp_path, name="b"):
            pass
        await first.kill()
        async with SwapEngine(tmp_path, name="c"):
            assert first.log.together() == [{"a"}, {"a", "b"}, {"c"}]
    assert first.log.overlap("a", "b")
    assert not first.log.overlap("a", "c")


@pytest.mark.parametrize(
    ("flag", "status"), [("--health-503-forever", 503), ("--health-redirect", 302), ("--health-204", 204), ("", 200)]
)
async def test_its_health_is_as_the_flag_says(flag: str, status: int, tmp_path: Path) -> None:
    """And nothing else of it is changed by that."""
    async with SwapEngine(tmp_path, flag) as engine:
        assert (await engine.get("/health")).status == status
        assert (await engine.get("/any")).status == 200


async def test_it_becomes_healthy_when_it_is_told_to(tmp_path: Path) -> None:
    """Before that it answers 503, and then it says so in the log."""
    async with SwapEngine(tmp_path, "--health-503-for 0.05") as engine:
        assert (await engine.get("/health")).status == 503
        await until(lambda: engine.log.of("healthy"))
        assert (await engine.get("/health")).status == 200


@pytest.mark.parametrize(("words", "code"), [("--exit 7", 7), ("--exit 0 --say why", 0), ("--fail-first 1", 1)])
async def test_it_can_end_before_it_listens(words: str, code: int, tmp_path: Path) -> None:
    """With the code that it is given."""
    engine = SwapEngine(tmp_path, words)
    with pytest.raises(RuntimeError):
        await engine.start()
    assert await engine.wait() == code


async def test_only_its_first_starts_fail(tmp_path: Path) -> None:
    """Counted by the log."""
    with pytest.raises(RuntimeError):
        await SwapEngine(tmp_path, "--fail-first 1").start()
    async with SwapEngine(tmp_path, "--fail-first 1") as engine:
        assert engine.running


async def test_it_crashes_in_the_middle_of_a_stream(tmp_path: Path) -> None:
    """Events came, the end did not."""
    async with SwapEngine(tmp_path, "--crash-on-request 1 --crash-mid-stream") as engine:
        reader, writer = await asyncio.open_connection("127.0.0.1", engine.port)
        body = b'{"stream":true}'
        head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\n" + head + body)
        raw = await reader.read()
        writer.close()
        assert await engine.wait() == 3
    assert b"word1" in raw
    assert b"[DONE]" not in raw


async def test_it_can_ignore_sigterm(tmp_path: Path) -> None:
    """It goes on serving, and the log tells that it was asked."""
    async with SwapEngine(tmp_path, "--ignore-sigterm") as engine:
        engine.signal(signal.SIGTERM)
        await until(lambda: engine.log.of("sigterm"))
        assert (await engine.get("/health")).status == 200
