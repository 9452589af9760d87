"""A model that cannot be started: what a client is told, that it is told at once, and what makes us try again."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import pytest

from bioproxy.config.dialect import settle
from support.http import Answer
from support.swap_client import message, server
from support.swap_models import apart, fake
from support.swap_rig import swap_rig

BEGINNING = "unspecific error: "
DEAF = {
    "never": "--health-never",
    "loading": "--health-503-forever",
    "redirect": "--health-redirect",
    "empty": "--health-204",
}


def failed(answer: Answer) -> str:
    """What it says behind the words that llama-swap's sentences begin with; the answer is a 500 in JSON."""
    assert answer.status == 500, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    assert message(answer).startswith(BEGINNING)
    return message(answer).removeprefix(BEGINNING)


@pytest.mark.parametrize("code", [0, 1, 3])
async def test_a_process_that_ends_before_it_is_ready(code: int, tmp_path: Path) -> None:
    """Whatever its exit code, which the router's list has; the last lines of its log are in the error."""
    async with swap_rig(tmp_path, {"a": fake(f"--exit {code} --say out-of-memory")}) as rig:
        sentence = failed(await rig.chat("a"))
        (listed,) = (await rig.get("/models")).json()["data"]
    assert (listed["status"]["failed"], listed["status"]["exit_code"]) == (True, code)
    assert sentence.startswith("upstream command exited prematurely")
    assert "out-of-memory" in sentence


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    """The sentence names the command as it was run."""
    async with swap_rig(tmp_path, {"a": {"cmd": "/no/such/program --port ${PORT}"}}) as rig:
        sentence = failed(await rig.chat("a"))
    assert sentence.startswith("failed to start command '/no/such/program --port ")


async def test_a_quote_that_is_not_closed(tmp_path: Path) -> None:
    """The rest of the command is one word, and no program has that name."""
    async with swap_rig(tmp_path, {"a": {"cmd": '"/no/such program ${PORT}'}}) as rig:
        sentence = failed(await rig.chat("a"))
    assert sentence.startswith("failed to start command '")
    assert "/no/such program" in sentence


async def test_a_file_that_cannot_be_executed(tmp_path: Path) -> None:
    """The same, with the system's reason."""
    file = tmp_path / "engine"
    file.write_text("")
    async with swap_rig(tmp_path, {"a": {"cmd": f"{file} ${{PORT}}"}}) as rig:
        sentence = failed(await rig.chat("a"))
    assert sentence.startswith(f"failed to start command '{file} ")
    assert "ermission denied" in sentence


async def test_a_model_without_a_command(tmp_path: Path) -> None:
    """Found when it is asked for, not when the file is read."""
    async with swap_rig(tmp_path, {"a": {"cmd": "", "proxy": "http://127.0.0.1:9"}}) as rig:
        assert failed(await rig.chat("a")) == "unable to get sanitized command: empty command"


async def test_a_port_that_somebody_else_has(tmp_path: Path) -> None:
    """The stranger's health is not taken for the engine's."""
    async with swap_rig(tmp_path, {"a": fake()}) as rig:
        with socket.create_server(("127.0.0.1", rig.ports.models)):
            sentence = failed(await rig.chat("a"))
    assert f"port {rig.ports.models} is taken" in sentence


async def test_a_health_check_that_never_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer, 503, a redirect and 204 are no health; a user's shortest time-out is 15 s."""
    monkeypatch.setattr(settle, "LEAST_HEALTH_SECONDS", 2)
    models = {name: fake(words) for name, words in DEAF.items()}
    async with swap_rig(tmp_path, models, groups=apart(" ".join(models)), healthCheckTimeout=2) as rig:
        answers = await asyncio.gather(*(rig.chat(name) for name in models))
        assert rig.children() == []
    for answer in answers:
        assert failed(answer).startswith("health check timed out after 2s")


async def test_all_who_wait_for_a_start_that_fails_are_told(tmp_path: Path) -> None:
    """With the same words; one process was tried."""
    async with swap_rig(tmp_path, {"a": fake("--exit 1 --after 0.2 --start-delay 60")}) as rig:
        answers = await asyncio.gather(*(rig.chat("a") for _ in range(3)))
    assert len({failed(answer) for answer in answers}) == 1
    assert rig.log.starts() == ["a"]


async def test_who_comes_right_after_a_failure_is_told_at_once(tmp_path: Path) -> None:
    """The same reason and when to come back, and no second process."""
    async with swap_rig(tmp_path, {"a": fake("--exit 1")}) as rig:
        first, second = await rig.chat("a"), await rig.chat("a")
        assert await rig.running() == {}
    assert failed(second) == failed(first)
    assert int(second.headers["retry-after"]) >= 1
    assert rig.log.starts() == ["a"]


async def test_it_is_tried_again_after_a_while(tmp_path: Path) -> None:
    """A client that comes back when it was told to finds the model."""
    async with swap_rig(tmp_path, {"a": fake("--fail-first 1")}) as rig:
        answer = await rig.chat("a")
        await asyncio.sleep(int(answer.headers["retry-after"]))
        assert server(await rig.chat("a")) == "a"


async def test_an_explicit_load_does_not_wait_for_the_back_off(tmp_path: Path) -> None:
    """Who asks for it by name has mended it, or wants to know."""
    async with swap_rig(tmp_path, {"a": fake("--fail-first 1")}) as rig:
        failed(await rig.chat("a"))
        assert (await rig.post("/models/load", {"model": "a"})).status == 200
        assert server(await rig.chat("a")) == "a"


async def test_a_changed_configuration_ends_the_back_off(tmp_path: Path) -> None:
    """The next request starts what is configured now."""
    async with swap_rig(tmp_path, {"a": fake("--exit 1")}) as rig:
        failed(await rig.chat("a"))
        await rig.reload({"a": fake()})
        assert server(await rig.chat("a")) == "a"


async def test_a_start_that_dies_right_after_anothers_stop_is_tried_once_more(tmp_path: Path) -> None:
    """Drivers free memory late; nobody sees an error."""
    async with swap_rig(tmp_path, {"a": fake(), "b": fake("--fail-first 1")}) as rig:
        await rig.chat("a")
        assert server(await rig.chat("b")) == "b"
    assert rig.log.starts() == ["a", "b", "b"]


async def test_a_failure_leaves_the_way_free_for_other_models(tmp_path: Path) -> None:
    """Who waits behind it is served next."""
    async with swap_rig(tmp_path, {"a": fake("--exit 1 --after 0.2 --start-delay 60"), "b": fake()}) as rig:
        broken = rig.ask("a")
        await rig.until_event("start", "a")
        assert server(await rig.chat("b")) == "b"
        failed(await broken)


async def test_the_end_of_the_program_ends_a_start(tmp_path: Path) -> None:
    """Who waits is told in JSON, and nothing of the engine is left."""
    async with swap_rig(tmp_path, {"a": fake("--health-503-for 60")}, child=True) as rig:
        task = rig.ask("a")
        await rig.until_event("listening", "a")
        rig.child.signal(signal.SIGTERM)
        answer = await task
    assert answer.status in (500, 503)
    assert "shutdown" in message(answer) or "shutting down" in message(answer)


async def test_an_anthropic_client_is_told_in_its_own_dialect(tmp_path: Path) -> None:
    """Its SDK finds type and message where it looks for them."""
    async with swap_rig(tmp_path, {"a": fake("--exit 1")}) as rig:
        answer = await rig.chat("a", path="/v1/messages", max_tokens=8)
    assert answer.status == 500
    assert answer.json()["type"] == "error"
    assert "exited prematurely" in answer.json()["error"]["message"]
