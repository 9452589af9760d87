"""A model that dies or breaks its connections: what the request sees that was under way, and what the next one sees."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest

from bioproxy import aio
from fakes.fake_engine import PROGRAM
from support.apps import running_app
from support.faults import good
from support.http import Answer
from support.leaks import until
from support.swap_client import message, server
from support.swap_models import fake, fakes
from support.swap_rig import Rig, swap_rig


def broken(answer: Answer) -> str:
    """The sentence of a 502 in JSON; llama-swap's has an empty body."""
    assert answer.status == 502, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    return message(answer)


async def die(rig: Rig, model: str) -> None:
    """Kill the engine of `model`, and wait until that is known."""
    rig.kill(model)
    await rig.until_running()


async def test_what_an_engine_died_of_is_not_sent_to_the_next_one(tmp_path: Path) -> None:
    """Its client is told how the engine ended; the next request starts the model, and is served."""
    async with swap_rig(tmp_path, {"a": fake("--crash-on-request 1 --only-first-life")}) as rig:
        assert "while it had this request; it is not sent again" in broken(await rig.chat("a"))
        assert rig.log.starts() == ["a"]
        assert server(await rig.chat("a")) == "a"
    assert rig.log.starts() == ["a", "a"]


async def test_a_stream_that_had_no_byte_is_not_sent_again_either(tmp_path: Path) -> None:
    """It had not begun, so it is a status like any other."""
    async with (
        swap_rig(tmp_path, {"a": fake("--crash-on-request 1")}) as rig,
        rig.stream("a", events=3) as stream,
    ):
        assert await stream.head() == 502
    assert rig.log.starts() == ["a"]


async def test_who_only_waited_is_served_by_the_next_process(tmp_path: Path) -> None:
    """The engine had the first request, not the second: that one goes to the next process as if nothing had been."""
    command = shlex.join([sys.executable, str(PROGRAM), "--decode-rate", "100"])
    async with running_app(tmp_path, models={"m": {"cmd": f"{command} --port ${{PORT}}"}}) as app:
        first = aio.spawn(good(app, tokens=4000), name="first")
        await until(lambda: app.fleet.supervisor.statistics().running == 1)
        engine = app.fleet.supervisor.lives.present["m"].unit
        gate = engine.station.gate
        await until(lambda: gate.running == 1)
        second = aio.spawn(good(app, tokens=2), name="second")
        await until(lambda: gate.user_waiting)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        assert "SIGKILL while it had this request" in broken(await first)
        assert (await second).status == 200


async def test_a_connection_that_breaks_before_the_first_byte_is_not_seen(tmp_path: Path) -> None:
    """The same process is asked once more."""
    async with swap_rig(tmp_path, {"a": fake("--drop-before-byte 1")}) as rig:
        assert server(await rig.chat("a")) == "a"
    assert rig.log.starts() == ["a"]


async def test_connections_that_break_again_and_again_are_an_error(tmp_path: Path) -> None:
    """A kept connection that breaks proves nothing, a fresh one is tried twice; the process, which lives, stays."""
    async with swap_rig(tmp_path, {"a": fake("--drop-before-byte 3")}) as rig:
        assert broken(await rig.chat("a"))
        assert await rig.running() == {"a": "ready"}
        assert server(await rig.chat("a")) == "a"
    assert rig.log.starts() == ["a"]


async def test_an_engine_that_takes_no_connections_any_more(tmp_path: Path) -> None:
    """Healthy once, then refusing: an error in JSON."""
    async with swap_rig(tmp_path, {"a": fake("--refuse-connections-after-healthy")}) as rig:
        assert broken(await rig.chat("a"))


async def test_a_crash_in_a_stream_is_an_error_event(tmp_path: Path) -> None:
    """What had come is there, and the client can tell that it was not all."""
    async with (
        swap_rig(tmp_path, {"a": fake("--crash-on-request 1 --crash-mid-stream")}) as rig,
        rig.stream("a", events=4) as stream,
    ):
        assert await stream.head() == 200
        found = await stream.rest()
    assert "word0" in str(found[0])
    assert found[-1]["error"]["message"]
    assert rig.log.starts() == ["a"]


async def test_the_next_request_after_a_crash_starts_the_model(tmp_path: Path) -> None:
    """A crash under a request is no reason to keep anybody waiting."""
    words = "--crash-on-request 1 --crash-mid-stream --only-first-life"
    async with swap_rig(tmp_path, {"a": fake(words)}) as rig:
        async with rig.stream("a", events=4) as stream:
            await stream.head()
            await stream.rest()
        await rig.until_running()
        assert server(await rig.chat("a")) == "a"
    assert rig.log.starts() == ["a", "a"]


async def test_a_crash_stands_in_the_log(tmp_path: Path) -> None:
    """In the words that people search for."""
    async with swap_rig(tmp_path, {"a": fake()}) as rig:
        await rig.chat("a")
        await die(rig, "a")
        await rig.until(lambda: rig.said("<a> upstream process exited unexpectedly"))


async def test_a_model_that_dies_right_after_each_start_is_a_failed_start(tmp_path: Path) -> None:
    """Nobody waits for it again and again: after the third time the next client is told at once, and why."""
    async with swap_rig(tmp_path, {"a": fake("--say out-of-memory")}) as rig:
        for _ in range(3):
            assert server(await rig.chat("a")) == "a"
            await die(rig, "a")
        answer = await rig.chat("a")
    assert answer.status == 500
    assert "out-of-memory" in message(answer)
    assert rig.log.starts() == ["a"] * 3


async def test_requests_wait_for_the_new_process_of_a_model_that_was_killed_soon_after_its_start(
    tmp_path: Path,
) -> None:
    """Twice in a row within seconds of its start, with nothing running: nobody hears of it."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        await rig.chat("a")
        for _ in range(2):
            await die(rig, "a")
            answers = await asyncio.gather(*(rig.chat("a") for _ in range(3)))
            assert [server(answer) for answer in answers] == ["a"] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death ends its child on Linux only")
async def test_the_death_of_an_engines_watcher_is_its_own(tmp_path: Path) -> None:
    """Both are gone, which is noticed, and the model can be loaded again."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        await rig.chat("a")
        engine = rig.log.of("start")[0].pid
        os.kill(int(Path(f"/proc/{engine}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
        await rig.until_running()
        await rig.until(lambda: not rig.children())
        assert (await rig.post("/models/load", {"model": "a"})).status == 200
        assert server(await rig.chat("a")) == "a"
    assert not rig.log.overlap("a a", "a a")


async def test_a_long_header_of_an_engine_is_passed_on(tmp_path: Path) -> None:
    """60 KB of it."""
    async with swap_rig(tmp_path, {"a": fake("--big-header 60000")}) as rig:
        answer = await rig.chat("a")
    assert (answer.status, len(answer.headers["x-big"])) == (200, 60_000)


async def test_a_status_of_the_engine_is_passed_on(tmp_path: Path) -> None:
    """An error that the engine itself answers is no fault of the line: it is not tried again."""
    async with swap_rig(tmp_path, {"a": fake()}) as rig:
        answer = await rig.chat("a", status=503)
    assert (answer.status, message(answer)) == (503, "the fake was asked for 503")
    assert rig.log.served() == ["a"]
