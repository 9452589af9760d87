"""`/status` and `bioproxy status` of many models, one of which is a (fake) llama-server."""

from __future__ import annotations

import asyncio
import shlex
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bioproxy import aio
from bioproxy.admin.overview import Overview
from bioproxy.admin.status import FleetStatus
from support.http import call
from support.swap_api import verb
from support.swap_client import server
from support.swap_models import apart, fake, fakes
from support.swap_rig import Inside, Rig, swap_rig

Json = Any
LLAMA = Path(__file__).parents[1] / "fakes" / "llama_server.py"
PROMPT = "one two three four " * 500


def llama(folder: Path, **keys: Json) -> Json:
    """A model of the fake llama-server, with a slot folder of the test's own."""
    (folder / "slots").mkdir(exist_ok=True)
    words = shlex.join(
        [sys.executable, str(LLAMA), "--slot-save-path", str(folder / "slots"), "--tokens-per-second", "900"]
    )
    return {"cmd": f"{words} --port ${{PORT}}", "env": ["LLAMA_ARG_HF_TOKEN=s3cret"], **keys}


async def status(rig: Rig) -> FleetStatus:
    """`/status`, read as what it is."""
    return msgspec.json.decode((await call(rig.ports.admin, "GET", "/status")).body, type=FleetStatus)


async def counted(rig: Rig) -> None:
    """Wait until the answer's tokens count as resident: its client has it a moment before that."""

    async def as_wanted() -> bool:
        [found] = (await status(rig)).models
        return found.price.tokens > 0 and found.engine is not None and found.engine.facts is not None

    await rig.look(as_wanted, "the tokens of an answer are resident")


async def test_a_program_without_any_use_has_a_status(tmp_path: Path) -> None:
    """Every model is there, stopped; every file of the configuration, and both ports."""
    async with swap_rig(tmp_path, fakes("a b")) as rig:
        found = await status(rig)
    assert [(one.model, one.state, one.engine) for one in found.models] == [
        ("a", "stopped", None),
        ("b", "stopped", None),
    ]
    assert found.config.paths == (str(tmp_path / "config.yaml"),)
    assert found.servers.keys() == {"proxy", "admin"}
    assert (found.waiting, found.running, found.shelves, found.notes) == (0, 0, (), ())


async def test_a_model_tells_of_its_process_and_its_swap(tmp_path: Path) -> None:
    """Since when, for whom another one went, and that somebody has waited; times are unix time."""
    async with swap_rig(tmp_path, fakes("a b", ttl=100)) as rig:
        await rig.chat("a")
        await rig.chat("b")
        held = await rig.ask_held("b")
        found = await status(rig)
        one = {model.model: model for model in found.models}
        await rig.release("b")
        assert server(await held) == "b"
    assert (one["b"].state, one["a"].state) == ("ready", "stopped")
    assert one["b"].swap is not None
    assert one["b"].swap.displaced == ("a",)
    assert one["b"].schedule.running == 1
    assert found.started < one["b"].since <= found.started + found.uptime
    assert one["b"].schedule.load_seconds == pytest.approx(one["b"].swap.start, abs=0.5)
    assert one["b"].pid == rig.log.of("start", "b")[0].pid
    assert one["b"].engine is None  # nothing is asked of what is no llama-server
    assert one["a"].schedule.unload_at is None


async def test_a_llama_server_tells_what_was_found_out(tmp_path: Path) -> None:
    """Its build, what its cache holds and what having that back would cost; a token of its is told nowhere."""
    model = llama(tmp_path, kv={"fingerprint": "weights of May"})
    model["cmd"] += " --model /gone.gguf"
    async with swap_rig(tmp_path, {"q": model}, kv={"save_after": "1h"}) as rig:
        answer = await rig.chat("q", messages=[{"role": "user", "content": PROMPT}], max_tokens=2)
        assert answer.status == 200, answer.text
        await counted(rig)
        raw = await call(rig.ports.admin, "GET", "/status")
        overview = msgspec.json.decode((await rig.get("/api/models")).body, type=Overview)
        shown = await verb(rig, "status")
        assert (await rig.post("/api/models/unload")).status == 200
        after = await status(rig)
    [found] = msgspec.json.decode(raw.body, type=FleetStatus).models
    assert found.engine is not None
    assert found.engine.facts is not None
    assert found.engine.facts.build.startswith("b11549")
    assert found.environment == ("LLAMA_ARG_HF_TOKEN=********", "LLAMA_ARG_CACHE_IDLE_SLOTS=0")
    assert found.added == ("LLAMA_ARG_CACHE_IDLE_SLOTS=0",)
    assert msgspec.json.decode(raw.body, type=FleetStatus).tokens.evaluated > 1000
    assert found.price.tokens == overview.models[0].tokens > 1000
    assert (shown.code, shown.err.count("note: q: ")) == (0, 1)  # the weights cannot be read
    assert f"{found.price.tokens:,} tokens, 1 not saved" in shown.out
    assert "s3cret" not in raw.text + shown.out
    [shelf] = after.shelves
    assert (shelf.directory, shelf.snapshots) == (str(tmp_path / "slots"), 1)
    [snapshot] = after.snapshots
    assert (snapshot.unused, snapshot.models) == ("", ("q",))
    assert after.models[0].price.tokens == 0
    assert after.models[0].kv.snapshots == 1


@pytest.mark.parametrize("path", ["/api/models/unload", "/api/models/unload/q", "/models/unload"])
async def test_an_unload_returns_when_what_it_saved_is_a_snapshot(path: str, tmp_path: Path) -> None:
    """However slow the disk is; an idle save that is still being written down counts as well."""
    go_on, reached = threading.Event(), threading.Event()

    def step(name: str) -> None:
        if name == "private":
            reached.set()
            go_on.wait(10)

    async with swap_rig(tmp_path, {"q": llama(tmp_path)}, kv={"save_after": "1h"}) as rig:
        assert isinstance(rig.program, Inside)
        assert rig.program.app is not None
        rig.program.app.fleet.stations["q"].keeper.tenant.step = step
        await rig.chat("q", messages=[{"role": "user", "content": PROMPT}], max_tokens=2)
        await counted(rig)
        unload = aio.spawn(rig.post(path, {"model": "q"}), name="unload")
        await asyncio.to_thread(reached.wait, 10)
        await rig.until_running()  # the process has ended
        assert not unload.done()
        go_on.set()
        assert (await unload).status == 200
        [shelf] = (await status(rig)).shelves
    assert shelf.snapshots == 1


async def test_snapshots_of_many_models_are_listed_and_verified(tmp_path: Path) -> None:
    """With the program; and afterwards from the files alone, where the folder is known."""
    async with swap_rig(tmp_path, {"q": llama(tmp_path)}, kv={"directory": str(tmp_path / "slots")}) as rig:
        await rig.chat("q", messages=[{"role": "user", "content": PROMPT}], max_tokens=2)
        await rig.post("/api/models/unload")
        listed = await verb(rig, "snapshots", "list")
        verified = await verb(rig, "snapshots", "verify")
        await rig.program.stop()
        alone = await verb(rig, "snapshots", "verify")
    assert "conversation" in listed.out
    assert "1 in all" in listed.out
    assert verified.out.endswith("1 of 1 snapshots are whole\n")
    assert alone.out == verified.out


async def test_names_that_are_no_models_are_told(tmp_path: Path) -> None:
    """Peers, selectors with how busy they are, and the active profile."""
    async with swap_rig(
        tmp_path,
        fakes("a b"),
        groups=apart("a b"),
        peers={"far": {"proxy": "http://127.0.0.1:9/v1", "models": ["x"]}},
        selectors={"any": {"strategy": "pin", "targets": ["a", "b"], "name": "Any"}},
        profiles={"night": {"pins": {"y": "b"}, "description": "quiet"}},
    ) as rig:
        await call(rig.port, "PUT", "/api/profiles/active", data={"name": "night"})
        held = rig.ask("any", hold=0)
        await rig.until_event("held", "a")
        found = await status(rig)
        shown = await verb(rig, "status")
        await rig.release("a")
        await held
    assert [(one.peer, one.models) for one in found.peers] == [("far", ("x",))]
    [selector] = found.selectors
    assert (selector.selector, selector.name, selector.busy, selector.unlisted) == ("any", "Any", {"a": 1}, False)
    assert (found.profiles.active, found.profiles.names) == ("night", ("night",))
    assert (found.profiles.descriptions, found.profiles.pins) == ({"night": "quiet"}, {"night": {"y": "b"}})
    assert found.inflight.running == 1
    for text in ("any (pin): a (1), b", "far at http://127.0.0.1:9/v1: x", "night"):
        assert text in shown.out


async def test_a_model_tells_its_names_and_what_it_can_do(tmp_path: Path) -> None:
    """In the configuration's words; and what its requests cost, today and since the start."""
    can = {"in": ["text", "image"], "out": ["text"], "tools": True, "context": 8192}
    words: dict[str, Any] = {
        "name": "Big A",
        "description": "writes",
        "aliases": ["gpt"],
        "unlisted": True,
        "capabilities": can,
    }
    async with swap_rig(tmp_path, {**fakes("a", **words), **fakes("b")}) as rig:
        await rig.chat("gpt")
        found = await status(rig)
    [one, plain] = found.models
    assert (one.name, one.description, one.aliases, one.unlisted) == ("Big A", "writes", ("gpt",), True)
    assert (one.capabilities, one.context) == (("vision", "function_calling"), 8192)
    assert (plain.name, plain.aliases, plain.unlisted, plain.capabilities, plain.context) == ("", (), False, (), 0)
    assert found.tokens.generated == found.today.generated > 0
    assert found.tokens.spared == 0.0  # how fast it reads was never measured


async def test_what_was_added_to_a_command_is_told(tmp_path: Path) -> None:
    """The folder for slot files, and the variable that keeps idle slots; of a llama-server only."""
    models = {"q": {"cmd": "llama-server --port ${PORT} -m x.gguf", "env": ["A=1"]}, **fakes("b")}
    async with swap_rig(tmp_path, models) as rig:
        one = {model.model: model for model in (await status(rig)).models}
    folder, variable = one["q"].added
    assert folder.startswith("--slot-save-path /")
    assert folder in one["q"].command
    assert variable == "LLAMA_ARG_CACHE_IDLE_SLOTS=0"
    assert one["q"].environment == ("A=1", variable)
    assert (one["b"].environment, one["b"].added) == ((), ())


async def test_who_waits_tells_what_for_and_who_makes_room(tmp_path: Path) -> None:
    """Before anything is decided, too: a request of the model that has to go runs still."""
    async with swap_rig(tmp_path, fakes("a b")) as rig:
        held = await rig.ask_held("a")
        waits = rig.ask("b")
        found: dict[str, Any] = {}

        async def waiting() -> bool:
            found.update({one.model: one.schedule for one in (await status(rig)).models})
            return bool(found["b"].waiting)

        await rig.look(waiting, "b is waited for")
        await rig.release("a")
        await held
        await waits
        over = {one.model: one.schedule for one in (await status(rig)).models}
    assert (found["b"].waits_for, found["b"].displaces) == ("in_use", ("a",))
    assert found["b"].waits_since is not None
    assert (found["a"].waits_for, found["a"].waits_since, found["a"].displaces) == ("", None, ())
    assert (over["b"].waits_for, over["b"].displaces) == ("", ())


async def test_what_an_operator_should_know_is_noted(tmp_path: Path) -> None:
    """A model that does not start, and captures that several keys switch off."""
    models = {"broken": fake("--exit 3 --say boom")}
    async with swap_rig(tmp_path, models, api_keys=["one", "two"]) as rig:
        await rig.chat("broken", headers={"Authorization": "Bearer one"})
        shown = await verb(rig, "status")
    assert shown.code == 0
    assert "note: broken: " in shown.err
    assert "ended with exit code 3" in shown.err
    assert "captures are off" in shown.err


async def test_a_removed_model_is_not_missed(tmp_path: Path) -> None:
    """While its process still ends, status and overview know only that."""
    async with swap_rig(tmp_path, fakes("a b"), groups=apart("a b")) as rig:
        held = await rig.ask_held("a")
        await rig.reload(fakes("b"))
        assert [one.model for one in (await status(rig)).models] == ["b"]
        rows = await rig.overview()
        assert rows["a"]["running"] == 1
        await rig.release("a")
        await held


async def test_a_template_is_warmed_on_every_model_that_runs(tmp_path: Path) -> None:
    """`bioproxy warm` tells of each; where none runs it says so."""
    (tmp_path / "code.txt").write_text("word " * 300 + "<{message}>")
    prefixes = {"@code": str(tmp_path / "code.txt")}
    async with swap_rig(tmp_path, {"q": llama(tmp_path)}, prefixes=prefixes, warmup={"enabled": False}) as rig:
        none = await verb(rig, "warm", "@code")
        await verb(rig, "load", "q")
        warmed = await verb(rig, "warm", "@code")
        shown = await verb(rig, "status")
        unknown = await verb(rig, "warm", "@zzz")
    assert (none.code, none.out) == (0, "no model that has @code is loaded; it is warmed up when one is\n")
    assert (warmed.code, warmed.out.split()[:2]) == (0, ["q:", "@code"])
    assert [line for line in shown.out.splitlines() if line.startswith("q ") and "@code" in line]
    assert unknown.code == 1
