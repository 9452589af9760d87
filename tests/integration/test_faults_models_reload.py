"""Reloads at the worst moment: in a start, under those who wait, broken half-way, two at once, there and back."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from bioproxy.wire import tls
from support.http import Certificate, call, certificate, needs_openssl
from support.swap_client import message, server
from support.swap_models import apart, engine_words, fake, fakes
from support.swap_rig import Rig, swap_rig

Json = Any
OTHER: Json = {"env": ["COLOUR=red"]}
LLAMA = Path(__file__).parents[1] / "fakes" / "llama_server.py"


async def colour(rig: Rig) -> str | None:
    """What the process of `a` that answers now was started with."""
    environment: dict[str, str] = (await rig.get("/upstream/a/env")).json()["env"]
    return environment.get("COLOUR")


async def test_a_command_that_changes_while_it_starts(tmp_path: Path) -> None:
    """The start is given up; who waits for it is served by the next process, and by nothing else."""
    async with swap_rig(tmp_path, {"a": fake("--health-503-for 60")}) as rig:
        queued = [rig.ask("a"), rig.ask("a", stream=True)]
        await rig.until_event("listening", "a")
        await rig.reload({"a": fake(**OTHER)})
        answers = await asyncio.wait_for(asyncio.gather(*queued), 25)
        assert [answer.status for answer in answers] == [200, 200]
        assert await colour(rig) == "red"
    assert rig.log.starts() == ["a", "a"]
    assert not rig.log.overlap("a a", "a a")


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/tokenize", "/upstream/a/v1/chat/completions", "/upstream/a/x"]
)
async def test_a_command_that_changes_under_who_waits_for_a_swap(path: str, tmp_path: Path) -> None:
    """It is at another port by then: nothing may go to where it was."""
    async with swap_rig(tmp_path, fakes("b a")) as rig:
        await rig.chat("a")
        held = await rig.ask_held("b")
        queued = await rig.ask_queued("a", path=path)
        await rig.reload({"b": fake(), "a": fake(**OTHER), "0": fake()})  # whose port is one further now
        await rig.release("b")
        assert server(await held) == "b"
        answer = await asyncio.wait_for(queued, 25)
        assert answer.status == 200, answer.text
        assert await colour(rig) == "red"


async def test_a_command_that_changes_there_and_back(tmp_path: Path) -> None:
    """Twice while one request runs: it ends in peace, and there is never more than one process."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        held = await rig.ask_held("a")
        await rig.reload({"a": fake(**OTHER)})
        queued = await rig.ask_queued("a")
        await rig.reload({"a": fake()})
        await rig.release("a")
        assert server(await held) == server(await queued) == "a"
        assert await colour(rig) is None
    assert not rig.log.overlap("a a", "a a")


async def test_a_model_that_is_taken_out_and_put_back_while_it_serves(tmp_path: Path) -> None:
    """It never had to go: its process, its requests, its log and what is known of its engine are those of before."""
    models = {"q": {"cmd": f"{sys.executable} {LLAMA} --port ${{PORT}} -np 2 --decode-rate 40"}, "b": fake()}
    async with swap_rig(tmp_path, models, groups=apart("q b")) as rig:
        async with rig.stream("q", max_tokens=30, messages=[{"role": "user", "content": "hello"}]) as stream:
            await stream.head()
            await stream.event()
            await rig.reload({"b": fake()})
            await rig.reload({**models, "z": fake()}, groups=apart("q b z"))
            status = (await call(rig.ports.admin, "GET", "/status")).json()
            (found,) = [one for one in status["models"] if one["model"] == "q"]
            assert found["state"] == "ready"
            assert found["engine"] is not None
            assert (await rig.chat("q", max_tokens=2)).status == 200  # beside the stream
            assert (await stream.rest())[-1] == "[DONE]"
        assert (await rig.post("/api/models/unload/q")).status == 200
        assert rig.children() == []
        assert (await rig.chat("q", max_tokens=2)).status == 200
        await rig.until(lambda: len(rig.said("q started")) == 2)


async def test_a_model_that_is_taken_out_and_put_back_when_it_has_gone(tmp_path: Path) -> None:
    """And again, with another command, and as it was: each time it is there."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        for wanted in (None, "red", None, None):
            await rig.reload({"a": fake(**(OTHER if wanted else {})), "b": fake()})
            assert server(await rig.chat("a")) == "a"
            assert await colour(rig) == wanted
            await rig.reload(fakes("b"))
            assert (await rig.chat("a")).status == 404
            await rig.until(lambda: not rig.children())
    assert not rig.log.overlap("a a", "a a")


async def test_a_model_that_is_taken_out_with_requests_in_every_place(tmp_path: Path) -> None:
    """One runs, one waits for it to be started again, one for a swap: each is told, nothing hangs."""
    async with swap_rig(tmp_path, fakes("a b c")) as rig:
        held = await rig.ask_held("a")
        queued = [await rig.ask_queued(name) for name in "bcb"]
        await rig.reload(fakes("c"))
        gone = [await asyncio.wait_for(queued[place], 25) for place in (0, 2)]
        await rig.release("a")
        assert server(await held) == "a"
        assert server(await queued[1]) == "c"
    assert [answer.status for answer in gone] == [404, 404]
    assert 'model "b" is no longer configured' in message(gone[0])


async def test_a_start_whose_model_is_taken_out(tmp_path: Path) -> None:
    """It is given up, and who waited is told."""
    async with swap_rig(tmp_path, {"a": fake("--health-503-for 60"), "b": fake()}) as rig:
        task = rig.ask("a")
        await rig.until_event("listening", "a")
        await rig.reload(fakes("b"))
        answer = await asyncio.wait_for(task, 25)
        assert server(await rig.chat("b")) == "b"
    assert answer.status == 404


async def reload_refused(rig: Rig, models: Json, said: str, **config: Json) -> None:
    """A configuration that is refused, with `said` in the log."""
    rig.configure(models, **config)
    rig.program.reload()
    await rig.until(lambda: rig.said(said))


@pytest.mark.parametrize("part", ["models.b.prefixes", "prefixes", "groups", "unreadable"])
async def test_a_broken_reload_changes_nothing(part: str, tmp_path: Path) -> None:
    """Whatever is broken, and however late that is found: models, keys and names are those of before."""
    (tmp_path / "good.txt").write_text("good <{message}>")
    (tmp_path / "bad.txt").write_text("no place for a message")
    good, bad = ({"@x": str(tmp_path / f"{name}.txt")} for name in ("good", "bad"))
    async with swap_rig(tmp_path, {"a": fake(prefixes=good)}) as rig:
        await rig.chat("a")
        broken: Json = {"models": {"a": fake(**OTHER, aliases=["other"]), "b": fake()}, "api_keys": ["new"]}
        if part == "models.b.prefixes":
            broken["models"]["b"] = fake(prefixes=bad)
        elif part == "prefixes":
            broken["prefixes"] = bad
        elif part == "groups":
            broken["groups"] = {"g": {"members": ["nobody"]}}
        else:
            broken["models"]["b"] = {"cmd": 7}
        await reload_refused(rig, **broken, said="failed to reload config")
        assert server(await rig.chat("a")) == "a"
        assert await colour(rig) is None
        assert (await rig.chat("b")).status == (await rig.chat("other")).status == 404
        status = (await call(rig.ports.admin, "GET", "/status")).json()
        assert status["config"]["reload_error"]
        await rig.reload({"a": fake(), "b": fake()}, groups=apart("a b"))
        assert server(await rig.chat("b")) == "b"
        assert not (await call(rig.ports.admin, "GET", "/status")).json()["config"]["reload_error"]
    assert rig.log.starts().count("b") == 1


@needs_openssl
async def test_a_broken_template_renews_no_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What clients see of the port is that of before, too."""
    monkeypatch.setattr(tls, "INTERVAL", 3600)  # the reload alone looks at the files
    old, new = certificate(tmp_path, "old"), certificate(tmp_path, "new")
    (tmp_path / "bad.txt").write_text("no place for a message")

    async def trusts(made: Certificate) -> bool:
        try:
            context = ssl.create_default_context(cafile=made.cert)
            _, writer = await asyncio.open_connection("127.0.0.1", rig.port, ssl=context)
        except ssl.SSLError:
            return False
        writer.close()
        return True

    paths = {"tls_cert_file": str(tmp_path / "tls.pem"), "tls_key_file": str(tmp_path / "tls.key")}
    for made in (old, new):
        shutil.copy(made.cert, paths["tls_cert_file"])
        shutil.copy(made.key, paths["tls_key_file"])
        if made is old:
            rig = Rig(tmp_path)
            rig.configure(fakes("a"), **paths)
            await rig.program.start()
    try:
        await reload_refused(
            rig, fakes("a"), "nothing was changed", prefixes={"@x": str(tmp_path / "bad.txt")}, **paths
        )
        assert (await trusts(old), await trusts(new)) == (True, False)
        await rig.reload(fakes("a"), **paths)
        assert (await trusts(old), await trusts(new)) == (False, True)
    finally:
        await rig.end()


async def test_two_reloads_at_once(tmp_path: Path) -> None:
    """What was read last counts, whichever of them is through first."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        tasks = []
        for number in range(6):
            (tmp_path / f"{number}.txt").write_text(f"{number} <{{message}}>")
            prefixes = {f"@{number}": str(tmp_path / f"{number}.txt")}
            rig.configure({"a": fake(env=[f"COLOUR={number}"], prefixes=prefixes)}, prefixes=prefixes)
            tasks.append(aio.spawn(call(rig.ports.admin, "POST", "/reload"), name="reload"))
            await asyncio.sleep(0.002)
        answers = await asyncio.gather(*tasks)
        assert {answer.status for answer in answers} <= {200, 422}  # the file may be read while it is written
        assert answers[-1].status == 200
        assert await colour(rig) == "5"


async def test_template_models_come_and_go(tmp_path: Path) -> None:
    """`as_model` at a reload: listed, served, and gone again; the process runs on."""
    (tmp_path / "code.txt").write_text("code: <{message}>")
    prefixes = {"@code": {"template": str(tmp_path / "code.txt"), "as_model": True}}
    async with swap_rig(tmp_path, fakes("a")) as rig:
        assert (await rig.chat("a+code")).status == 404
        await rig.reload(fakes("a"), prefixes=prefixes)
        names = [one["id"] for one in (await rig.get("/v1/models")).json()["data"]]
        assert "a+code" in names
        assert server(await rig.chat("a+code")) == "a"
        assert "code: hello" in (await rig.last("a"))["body"]
        await rig.reload(fakes("a"))
        assert (await rig.chat("a+code")).status == 404
        assert server(await rig.chat("a")) == "a"
    assert rig.log.starts() == ["a"]


async def test_the_first_llama_server_of_all_at_a_reload(tmp_path: Path) -> None:
    """The folder that it is given for its slot files is there."""
    program = tmp_path / "llama-server.py"
    program.symlink_to(LLAMA)
    shutil.rmtree(tmp_path / "state", ignore_errors=True)
    async with swap_rig(tmp_path, fakes("a")) as rig:
        await rig.reload({"q": {"cmd": f"{sys.executable} {program} --port ${{PORT}}"}})
        answer = await rig.chat("q", max_tokens=2)
        assert answer.status == 200, answer.text
        assert [path.name for path in (tmp_path / "state").rglob("slots") if path.is_dir()] == ["slots"]


async def test_many_reloads_in_the_middle_of_swaps(tmp_path: Path) -> None:
    """Every request of models that stay is served, and there is never a second process of one."""
    async with swap_rig(tmp_path, fakes("a b", "--slow-stop 0.05")) as rig:

        async def ask(name: str) -> None:
            for _ in range(4):
                assert server(await asyncio.wait_for(rig.chat(name, delay=0.02), 25)) == name

        async with asyncio.TaskGroup() as group:
            for name in "abab":
                group.create_task(ask(name))
            for number in range(5):
                await asyncio.sleep(0.1)
                await rig.reload(fakes("a b", "--slow-stop 0.05", env=[f"COLOUR={number}"], unloadTimeout=20))
    assert not rig.log.overlap("a a", "a a")
    assert not rig.log.overlap("b b", "b b")
    assert not rig.log.overlap("a", "b")
    assert engine_words(rig.log.path)
