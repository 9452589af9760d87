"""A reload by difference: what did not change runs on, with its streams; what changed makes way in its own time."""

from __future__ import annotations

from pathlib import Path

from support.swap_client import message, server
from support.swap_models import apart, fake, fakes
from support.swap_rig import swap_rig


async def test_models_that_did_not_change_run_on(tmp_path: Path) -> None:
    """The same process, though another model came and this one's list of aliases grew."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        await rig.chat("a")
        await rig.reload({"a": fake(aliases=["short"]), "b": fake()})
        assert await rig.running() == {"a": "ready"}
        assert server(await rig.chat("short")) == "a"
    assert rig.log.starts() == ["a"]


async def test_streams_go_on_over_a_reload(tmp_path: Path) -> None:
    """Not an event is lost."""
    async with swap_rig(tmp_path, fakes("a")) as rig, rig.stream("a", events=4, hold=2) as stream:
        await stream.head()
        await rig.until_event("held", "a")
        await rig.reload(fakes("a b"))
        await rig.release("a")
        found = await stream.rest()
    assert sum("word" in str(event) for event in found) == 4
    assert found[-1] == "[DONE]"


async def test_a_model_that_changed_finishes_what_it_serves_and_starts_anew(tmp_path: Path) -> None:
    """The next request gets the new process."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        held = await rig.ask_held("a")
        await rig.reload({"a": fake(env=["COLOUR=red"])})
        queued = await rig.ask_queued("a")
        await rig.release("a")
        assert server(await held) == server(await queued) == "a"
        assert (await rig.get("/upstream/a/env")).json()["env"]["COLOUR"] == "red"
    assert rig.log.starts() == ["a", "a"]
    assert not rig.log.overlap("a a", "a a")


async def test_what_a_reload_cuts_goes_to_the_next_process(tmp_path: Path) -> None:
    """It ran longer than `unloadTimeout` and had no byte of its answer: it was not its fault."""
    async with swap_rig(tmp_path, {"a": fake(unloadTimeout=1)}) as rig:
        held = await rig.ask_held("a")
        await rig.reload({"a": fake(env=["COLOUR=red"], unloadTimeout=1)})
        await rig.until(lambda: len(rig.log.of("held", "a")) == 2)
        await rig.release("a")
        assert server(await held) == "a"
    assert rig.log.starts() == ["a", "a"]


async def test_a_model_that_was_taken_out_goes(tmp_path: Path) -> None:
    """After what it serves, and it cannot be asked for any more."""
    async with swap_rig(tmp_path, fakes("a b"), groups=apart("a b")) as rig:
        held = await rig.ask_held("a")
        await rig.reload(fakes("b"))
        assert (await rig.chat("a")).status == 404
        await rig.release("a")
        assert server(await held) == "a"
        await rig.until_running()


async def test_who_waits_for_a_model_that_is_taken_out_is_told(tmp_path: Path) -> None:
    """With its name."""
    async with swap_rig(tmp_path, fakes("a b")) as rig:
        held = await rig.ask_held("a")
        queued = await rig.ask_queued("b")
        await rig.reload(fakes("a"))
        answer = await queued
        await rig.release("a")
        assert server(await held) == "a"
    assert answer.status == 404
    assert "b" in message(answer)


async def test_a_broken_configuration_changes_nothing(tmp_path: Path) -> None:
    """It is said, and everything runs on."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        await rig.chat("a")
        rig.configure({"a": fake(ttl=-7)})
        rig.program.reload()
        await rig.until(lambda: rig.said("invalid TTL value -7"))
        assert server(await rig.chat("a")) == "a"
    assert rig.log.starts() == ["a"]


async def test_a_reload_in_the_middle_of_a_swap(tmp_path: Path) -> None:
    """One model is stopping, the other one waited for: the request is served all the same."""
    async with swap_rig(tmp_path, fakes("a b", "--slow-stop 0.3")) as rig:
        await rig.chat("a")
        task = rig.ask("b")
        await rig.until_event("sigterm", "a")
        await rig.reload(fakes("a b c", "--slow-stop 0.3"))
        assert server(await task) == "b"
    assert rig.log.starts() == ["a", "b"]
    assert not rig.log.overlap("a", "b")


async def test_other_groups_count_from_the_next_swap_on(tmp_path: Path) -> None:
    """Nothing is stopped for them, and what comes next follows them."""
    async with swap_rig(tmp_path, fakes("a b")) as rig:
        await rig.chat("a")
        await rig.reload(fakes("a b"), groups=apart("a b"))
        await rig.chat("b")
        assert await rig.running() == {"a": "ready", "b": "ready"}


async def test_a_new_model_moves_nobodys_port(tmp_path: Path) -> None:
    """It comes first by its name, and the one that runs goes on with the port that it has."""
    async with swap_rig(tmp_path, fakes("m")) as rig:
        await rig.chat("m")
        port = rig.log.port("m")
        await rig.reload(fakes("a m"))
        assert server(await rig.chat("m")) == "m"
        assert (rig.log.starts(), rig.log.port("m")) == (["m"], port)
        assert server(await rig.chat("a")) == "a"
        assert rig.log.port("a") != port
