"""How a model is started: by the first request for it, healthy before anybody is let at it, and as its keys say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from support.swap_client import server
from support.swap_models import apart, fake, fakes
from support.swap_rig import swap_rig


async def test_the_first_request_starts_its_model(tmp_path: Path) -> None:
    """Nothing runs before; the request is answered by it, and it stays."""
    async with swap_rig(tmp_path, fakes("a b")) as rig:
        assert await rig.running() == {}
        assert server(await rig.chat("a")) == "a"
        assert await rig.running() == {"a": "ready"}
    assert rig.log.starts() == ["a"]


async def test_requests_for_a_model_that_starts_join_that_start(tmp_path: Path) -> None:
    """Three clients, one process."""
    async with swap_rig(tmp_path, {"a": fake("--start-delay 0.2")}) as rig:
        answers = await asyncio.gather(*(rig.chat("a") for _ in range(3)))
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert rig.log.starts() == ["a"]


async def test_nobody_is_let_at_an_engine_that_is_not_healthy_yet(tmp_path: Path) -> None:
    """It listens and answers 503 to health checks; the request comes after the first 200."""
    async with swap_rig(tmp_path, {"a": fake("--health-503-for 60")}) as rig:
        task = rig.ask("a")
        await rig.until_event("listening", "a")
        assert await rig.running() == {"a": "starting"}
        await rig.recover("a")
        assert (await task).status == 200
    assert rig.log.of("healthy")[0].t <= rig.log.of("begin")[0].t


async def test_a_model_without_a_check_is_ready_at_once(tmp_path: Path) -> None:
    """`checkEndpoint: none`: nobody asks for its health, which is never given."""
    async with swap_rig(tmp_path, {"a": fake("--health-never", checkEndpoint="none")}) as rig:
        rig.ask("a")
        await rig.until_running(a="ready")
        await rig.until_event("listening", "a")
        assert (await rig.chat("a")).status == 200
    assert rig.log.of("probed") == []


async def test_the_check_may_be_another_path(tmp_path: Path) -> None:
    """It is asked for as it is written, with its query."""
    async with swap_rig(tmp_path, {"a": fake("--health-503-forever", checkEndpoint="/other?x=1")}) as rig:
        assert (await rig.chat("a")).status == 200
    assert rig.log.of("begin")[0].path == "/other"


async def test_an_engine_gets_its_environment_and_its_process_group(tmp_path: Path) -> None:
    """Ours, with the model's `env` over it; and one signal reaches all of it."""
    async with swap_rig(tmp_path, {"a": fake(env=["COLOUR=red", "HOME=/nowhere"])}) as rig:
        await rig.chat("a")
        found = (await rig.get("/upstream/a/env")).json()
    assert (found["env"]["COLOUR"], found["env"]["HOME"]) == ("red", "/nowhere")
    assert "PATH" in found["env"]
    assert found["group"] == found["pid"]


async def test_a_clients_key_does_not_reach_the_engine(tmp_path: Path) -> None:
    """However it was sent; llama-swap passes it on."""
    async with swap_rig(tmp_path, fakes("a"), apiKeys=["sesame"]) as rig:
        for headers in ({"Authorization": "Bearer sesame"}, {"x-api-key": "sesame"}):
            assert (await rig.chat("a", headers=headers)).status == 200
            assert "sesame" not in str(await rig.last("a"))
        assert (await rig.chat("a")).status == 401
    assert len(rig.log.served()) == 2


async def test_models_that_may_run_together_start_together(tmp_path: Path) -> None:
    """Neither waits for the other's start."""
    models = fakes("a b", "--health-503-for 60")
    async with swap_rig(tmp_path, models, groups=apart("a b")) as rig:
        tasks = [rig.ask("a"), rig.ask("b")]
        for name in "ab":
            await rig.until_event("listening", name)
        assert await rig.running() == {"a": "starting", "b": "starting"}
        for name in "ab":
            await rig.recover(name)
        assert [server(await task) for task in tasks] == ["a", "b"]


async def test_a_load_that_nobody_waits_for_gives_way(tmp_path: Path) -> None:
    """Its client has left; another model need not wait until it is ready."""
    models = {"a": fake("--health-503-for 60"), "b": fake()}
    async with swap_rig(tmp_path, models) as rig:
        task = rig.ask("a")
        await rig.until_event("listening", "a")
        task.cancel()
        assert server(await rig.chat("b")) == "b"
    assert not rig.log.overlap("a", "b")


@pytest.mark.parametrize("how", ["", "--log-no-newline", "--log-binary"])
async def test_a_log_without_end_keeps_no_engine_from_working(how: str, tmp_path: Path) -> None:
    """Whatever it writes is taken from it: 8 MB of lines, of one line, of bytes that are no text."""
    async with swap_rig(tmp_path, {"a": fake(f"--log-bytes 8000000 {how}")}) as rig:
        assert (await rig.chat("a")).status == 200
        await rig.until_event("logged", "a")
        assert (await rig.chat("a")).status == 200


async def test_an_engine_that_closes_its_output_still_runs(tmp_path: Path) -> None:
    """The end of its log is not its end."""
    async with swap_rig(tmp_path, {"a": fake("--close-pipes")}) as rig:
        assert (await rig.chat("a")).status == 200
        assert await rig.running() == {"a": "ready"}
        assert (await rig.chat("a")).status == 200
    assert rig.log.starts() == ["a"]
