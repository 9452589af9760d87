"""`bioproxy models`, `load` and `unload` beside a running program."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from bioproxy.engines.listener import resident
from support.swap_api import running, verb
from support.swap_models import apart, fake, fakes
from support.swap_rig import swap_rig

Json = Any


def table(out: str) -> dict[str, str]:
    """A table's rows by their first word."""
    return {line.split()[0]: line for line in out.splitlines()[1:] if line.strip()}


async def test_models_are_listed_with_their_states(tmp_path: Path) -> None:
    """Before anything ran, and when one runs and another failed, with its last error."""
    models = fakes("a") | {"broken": fake("--exit 3 --say boom")}
    async with swap_rig(tmp_path, models, groups=apart("a broken")) as rig:
        before = table((await verb(rig, "models")).out)
        assert before["a"].split()[:4] == ["a", "stopped", "-", "-"]
        await rig.chat("a")
        await rig.chat("broken")
        after = table((await verb(rig, "models")).out)
    assert after["a"].split()[1] == "ready"
    assert after["broken"].split()[1] == "failed"
    assert "ended with exit code 3" in after["broken"]
    assert "last lines of its log" not in after["broken"]


async def test_the_memory_of_what_an_engine_started_counts(tmp_path: Path) -> None:
    """Also that of a child in a session of its own."""
    async with swap_rig(tmp_path, fakes("a", "--fork-child --setsid")) as rig:
        await rig.chat("a")
        engine, child = rig.log.of("start", "a")[0].pid, rig.log.of("child", "a")[0].pid
        [row] = (await verb(rig, "models", "--json")).json()
        assert row["pid"] == engine != child
        assert row["memory"] > 1.3 * (resident(child) or 0)  # two processes of one program


async def test_requests_that_run_and_wait_are_counted(tmp_path: Path) -> None:
    """Each with its model."""
    async with swap_rig(tmp_path, fakes("a b")) as rig:
        await rig.ask_held("a")
        await rig.ask_queued("b")
        rows = {row["model"]: row for row in (await verb(rig, "models", "--json")).json()}
        assert (rows["a"]["running"], rows["a"]["waiting"]) == (1, 0)
        assert (rows["b"]["running"], rows["b"]["waiting"]) == (0, 1)


async def test_when_a_model_is_unloaded_is_told(tmp_path: Path) -> None:
    """In seconds, while it is idle."""
    async with swap_rig(tmp_path, fakes("a", ttl=100)) as rig:
        await rig.chat("a")
        [row] = (await verb(rig, "models", "--json")).json()
    assert 0 < row["unload_in"] <= 100


async def test_secrets_of_a_command_are_not_shown(tmp_path: Path) -> None:
    """Whoever may use one model sees the rows of all."""
    async with swap_rig(tmp_path, {"a": fake("--say --api-key=s3cret")}) as rig:
        ended = await verb(rig, "models", "--json")
    assert "s3cret" not in ended.out
    assert "--api-key=********" in ended.json()[0]["command"]


async def test_load_returns_when_the_model_is_ready(tmp_path: Path) -> None:
    """By any of its names; and says what it did."""
    async with swap_rig(tmp_path, {"a": fake("--start-delay 0.4", aliases=["alpha"])}) as rig:
        ended = await verb(rig, "load", "alpha")
        assert (ended.code, await rig.running()) == (0, {"a": "ready"})
        again = await verb(rig, "load", "a")
    assert ended.out.startswith("a is ready, after ")
    assert ended.err.startswith("alpha ...\n")
    assert (again.out, again.err) == ("a was loaded already\n", "")


async def test_a_load_that_fails_says_why(tmp_path: Path) -> None:
    """In the engine's last words, with 1."""
    async with swap_rig(tmp_path, {"a": fake("--exit 3 --say boom")}) as rig:
        ended = await verb(rig, "load", "a")
    assert (ended.code, ended.out) == (1, "")
    assert "ended with exit code 3" in ended.err
    assert ended.err.rstrip().endswith("boom")


async def test_an_unknown_model_is_a_sentence(tmp_path: Path) -> None:
    """That names those there are."""
    async with swap_rig(tmp_path, fakes("a b")) as rig:
        for words in (["load", "zzz"], ["unload", "zzz"]):
            ended = await verb(rig, *words)
            assert (ended.code, ended.err) == (1, "bioproxy: there is no model zzz; there are: a, b\n")


async def test_who_interrupts_a_load_does_not_end_it(tmp_path: Path) -> None:
    """Not even one that has to wait until another model is free."""
    async with swap_rig(tmp_path, fakes("a b")) as rig:
        held = await rig.ask_held("a")
        async with running(rig, "load", "b") as command:
            await command.line("b ...")
            await rig.until_waiting(1)
            assert await command.end(signal.SIGINT) == 130
        assert (await rig.overview())["b"]["state"] == "stopped"
        await rig.release("a")
        await held
        await rig.until_running(b="ready")


async def test_unload_says_what_it_stopped(tmp_path: Path) -> None:
    """One, all, none."""
    async with swap_rig(tmp_path, fakes("a b c"), groups=apart("a b c")) as rig:
        for model in "abc":
            await rig.chat(model)
        one = await verb(rig, "unload", "b")
        assert await rig.running() == {"a": "ready", "c": "ready"}
        everything = await verb(rig, "unload", "--json")
        assert await rig.running() == {}
        nothing = await verb(rig, "unload")
        none = await verb(rig, "unload", "a")
    assert one.out == "stopped: b\n"
    assert everything.json() == {"stopped": ["a", "c"]}
    assert nothing.out == "nothing was loaded\n"
    assert none.out == "a was not loaded\n"


async def test_an_interrupted_unload_goes_on(tmp_path: Path) -> None:
    """What runs on the model gets its time, and then it stops."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        held = await rig.ask_held("a")
        async with running(rig, "unload", "a") as command:
            await command.line("a ...")
            await rig.until_leaving("a")
            assert await command.end(signal.SIGINT) == 130
        await rig.release("a")
        assert (await held).status == 200
        await rig.until_running()


async def test_the_admin_key_comes_from_the_configuration(tmp_path: Path) -> None:
    """Nobody has to type it."""
    async with swap_rig(tmp_path, fakes("a"), admin_key="s3cret") as rig:
        assert (await verb(rig, "load", "a")).code == 0
        refused = await verb(rig, "models", "-admin-key", "wrong")
    assert refused.code == 1
    assert "admin_key" in refused.err
