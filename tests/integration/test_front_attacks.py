"""What a client can try at the proxy port: ways around the gate, into others' cache, and into our memory."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bioproxy.activity import Record
from bioproxy.events import ServiceFailed
from bioproxy.explain import explain
from bioproxy.kv.resident import Want
from fakes.fake_engine import FakeEngine
from support.apps import MS, engine_ready, running_app, station
from support.clients import Line, fake_line
from support.http import Answer, build, call, exchange
from support.leaks import until

Json = Any
CHAT = "/v1/chat/completions"
BODY: Json = {"messages": [{"role": "user", "content": "hello there"}], "max_tokens": 2}
KEY = {"Authorization": "Bearer k1"}


def wants(line: Line) -> list[Want]:
    """What the keeper is asked for from now on."""
    found: list[Want] = []
    ask = station(line.app).keeper.want

    def noted(*given: Any, **named: Any) -> Want:
        found.append(ask(*given, **named))
        return found[-1]

    station(line.app).keeper.want = noted  # type: ignore[method-assign] # listens, changes nothing
    return found


async def post(line: Line, path: str, data: Json, **headers: str) -> Answer:
    """POST JSON to the proxy port."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return await call(line.app.proxy_port, "POST", path, data=data, headers=fields)


def last(line: Line) -> Record:
    """The record of the newest request."""
    return line.app.records[-1]


async def drained(line: Line) -> None:
    """Let the engine count as possibly busy with a request whose client left."""
    (await station(line.app).gate.acquire()).release(cut=True)
    assert station(line.app).gate.draining


@pytest.mark.parametrize("path", ["/slots/0", "/slots/0/", "/%73lots/0/", "/slots/-1/"])
async def test_every_spelling_of_a_slot_action_wants_the_admin_key(path: str, tmp_path: Path) -> None:
    """llama-server takes a slash behind the slot's number, too."""
    async with fake_line(tmp_path, api_keys=["k1"], admin_key="root") as line:
        answer = await post(line, f"{path}?action=save", {"filename": "theirs.bin"}, **KEY)
        assert answer.status == 403
        assert "admin key" in answer.text


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403),
        ("null", 403),
        ("http://localhost:3000", 200),
        ("http://localhost", 200),
        ("", 200),
    ],
)
async def test_a_foreign_page_cannot_touch_the_slots(origin: str, status: int, tmp_path: Path) -> None:
    """A browser sends a simple POST without asking; without keys nothing else would stop it."""
    async with fake_line(tmp_path, engine={"slot_folder": tmp_path / "slots"}) as line:
        fields = {"Origin": origin} if origin else {}
        assert (await post(line, "/slots/0?action=erase", {}, **fields)).status == status


@pytest.mark.parametrize("path", ["/apply-template", CHAT, "/slots/0?action=erase", "/v1/models", "/nothing"])
async def test_a_page_by_another_name_reads_no_files_of_the_operator(path: str, tmp_path: Path) -> None:
    """A name that was pointed at this machine makes the answer the page's own, and `@t` holds what the operator has."""
    (tmp_path / "t.txt").write_text("the secret plan <{message}>")
    async with fake_line(tmp_path, prefixes={"@t": str(tmp_path / "t.txt")}) as line:
        await line.engine.forget()
        fields = {"Host": "evil.example", "Origin": "http://evil.example"}
        answer = await post(line, path, {"messages": [{"role": "user", "content": "@t x"}]}, **fields)
        assert (answer.status, "admin_hosts" in answer.text, "secret" in answer.text) == (403, True, False)
        assert await line.engine.requests(path.partition("?")[0]) == []


async def test_a_page_elsewhere_computes_nothing(tmp_path: Path) -> None:
    """It could not read the answer, but the engine would work for it, and another model would go."""
    async with fake_line(tmp_path) as line:
        body, fields = json.dumps(BODY).encode(), {"Origin": "https://evil.example", "Content-Type": "text/plain"}
        raw = await exchange(line.app.proxy_port, build("POST", CHAT, body=body, headers=fields))
        assert raw.startswith(b"HTTP/1.1 403 ")
        assert await line.engine.requests(CHAT) == []


@pytest.mark.parametrize(("origin", "status"), [("https://evil.example", 403), ("http://localhost:3000", 101)])
async def test_a_foreign_page_opens_no_websocket(origin: str, status: int, tmp_path: Path) -> None:
    """Browsers let any page read what comes out of one; CORS does not count there."""
    async with fake_line(tmp_path) as line:
        fields = {"Origin": origin, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        fields["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
        reader, writer = await asyncio.open_connection("127.0.0.1", line.app.proxy_port)
        writer.write(build("GET", "/ws", headers=fields))
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        assert int(head.split()[1]) == status


async def test_the_admins_slot_action_counts_as_the_admins(tmp_path: Path) -> None:
    """Not as that of the first key, whose default name it would share."""
    async with fake_line(
        tmp_path, api_keys=["k1"], admin_key="root", engine={"slot_folder": tmp_path / "slots"}
    ) as line:
        assert (await post(line, "/slots/0?action=erase", {}, Authorization="Bearer root")).status == 200
        assert last(line).client == "admin"


async def test_what_was_cut_during_a_look_keeps_the_engine_draining(tmp_path: Path) -> None:
    """The slots were idle when they were looked at, and are not any more."""
    async with fake_line(tmp_path) as line:
        looked = asyncio.Event()

        async def all_idle() -> bool:
            if not looked.is_set():
                (await station(line.app).gate.acquire()).release(cut=True)
            looked.set()
            return True

        station(line.app).all_idle = all_idle  # type: ignore[method-assign] # the engine's answer, and what happens meanwhile
        await drained(line)
        await looked.wait()
        assert station(line.app).gate.draining
        await until(lambda: not station(line.app).gate.draining)


@pytest.mark.parametrize("name", ["bp-1.kv", "BP-1.kv", "Bp-1.kv"])
async def test_our_own_files_are_refused_in_any_case(name: str, tmp_path: Path) -> None:
    """On some file systems the names are the same."""
    async with fake_line(tmp_path) as line:
        assert (await post(line, "/slots/0?action=restore", {"filename": name})).status == 403


@pytest.mark.parametrize(
    ("path", "body"), [(CHAT, {"messages": 3}), ("/v1/embeddings?status=400", {}), ("/unknown", {"a": 1})]
)
async def test_an_answer_that_no_slot_gave_does_not_prove_the_engine_idle(
    path: str, body: Json, tmp_path: Path
) -> None:
    """A refusal comes at once, while the request whose client left still runs (kv-rule 4)."""
    async with fake_line(tmp_path) as line:

        async def busy() -> bool:
            return False

        station(line.app).all_idle = busy  # type: ignore[method-assign] # the engine never says by itself that it is idle
        await drained(line)
        await post(line, path, body)
        assert station(line.app).gate.draining
        assert (await post(line, CHAT, BODY)).status == 200
        assert not station(line.app).gate.draining


async def test_users_behind_one_key_have_cache_groups_of_their_own(tmp_path: Path) -> None:
    """`forwards_users`: what one of them said never comes back for another; who names none has the key's group."""
    async with fake_line(tmp_path, api_keys=[{"key": "k1", "name": "web", "forwards_users": True}]) as line:
        asked = wants(line)
        for user in ("ann", "bob", "ann"):
            await post(line, CHAT, BODY, **KEY, X_OpenWebUI_User_Id=user)
        await post(line, CHAT, BODY, **KEY)
        groups = [want.group for want in asked]
        assert groups[0] == groups[2]
        assert len(set(groups)) == 3


async def test_no_store_counts_in_whichever_line_it_stands(tmp_path: Path) -> None:
    """A header may be sent in several lines."""
    async with fake_line(tmp_path) as line:
        asked = wants(line)
        fields = {"Cache-Control": "max-age=0", "cache-control": "No-Store"}
        await exchange(line.app.proxy_port, build("POST", CHAT, body=json.dumps(BODY).encode(), headers=fields))
        assert [want.store for want in asked] == [False]


async def test_what_must_not_be_stored_pins_no_text(tmp_path: Path) -> None:
    """A pin says on the disk which conversation was had with which text."""
    (tmp_path / "code.txt").write_text("Answer: <{message}>")
    asked = {"messages": [{"role": "user", "content": "@code what is a cache?"}]}
    async with fake_line(tmp_path, prefixes={"@code": str(tmp_path / "code.txt")}) as line:
        pins = station(line.app).pins
        assert (await post(line, CHAT, asked, Cache_Control="no-store")).status == 200
        assert pins.statistics().pins == 0
        assert (await post(line, CHAT, asked)).status == 200
        assert pins.statistics().pins == 1


async def test_a_key_is_not_forwarded_on_public_routes_either(tmp_path: Path) -> None:
    """The engine learns no client's key."""
    async with fake_line(tmp_path, api_keys=["k1"]) as line:
        assert (await call(line.app.proxy_port, "GET", "/health", headers=KEY)).status == 200
        assert (await line.engine.requests("/health"))[-1].header("authorization") is None


async def test_status_does_not_tell_the_keys_that_the_engine_was_started_with(tmp_path: Path) -> None:
    """Its command line stands there; the value behind --api-key does not."""
    async with fake_line(tmp_path, engine={"api_key": "topsecret"}, backend_key="topsecret") as line:
        answer = await call(line.app.admin_port, "GET", "/status")
        assert "--api-key" in answer.text
        assert "topsecret" not in answer.text


async def test_many_messages_with_a_prefix_cannot_fill_the_memory(tmp_path: Path) -> None:
    """Each would become the whole template: forty bytes of the client's, a megabyte of ours."""
    (tmp_path / "big.txt").write_text("x" * 1_000_000 + "<{message}>")
    async with fake_line(tmp_path, prefixes={"@big": str(tmp_path / "big.txt")}) as line:
        answer = await post(line, CHAT, {"messages": [{"role": "user", "content": "@big x"}] * 70})
        assert (answer.status, answer.json()["error"]["type"]) == (413, "invalid_request_error")
        assert "@big" in answer.text


async def test_one_loading_answer_does_not_keep_the_gate_closed(tmp_path: Path) -> None:
    """The engine says 503 once and is ready at the next look: the request is served, and so is everyone behind it."""
    async with fake_line(tmp_path) as line:
        await line.engine.faults(answer="status", status=503, message="Loading model", paths=[CHAT], times=1)
        async with asyncio.timeout(30):
            assert (await post(line, CHAT, BODY)).status == 200
        assert station(line.app).gate.statistics().open


async def test_a_record_keeps_no_megabytes_of_a_client(tmp_path: Path) -> None:
    """A thousand records are kept: neither a model's name nor a path may fill the memory."""
    async with fake_line(tmp_path, api_keys=[{"key": "k1", "models": ["m"]}]) as line:
        answer = await post(line, CHAT, {**BODY, "model": "M" * 1_000_000}, **KEY)
        assert answer.status == 403
        assert len(answer.body) < 2000
        assert 0 < len(explain(last(line))) < 2000
        await call(line.app.proxy_port, "GET", "/" + "p" * 10_000, headers=KEY)
        assert len(last(line).path) < 2000


async def test_a_malformed_origin_is_no_fault_of_ours(tmp_path: Path) -> None:
    """Python's own URL reader raises for it."""
    async with fake_line(tmp_path) as line:
        answer = await call(line.app.proxy_port, "GET", "/v1/models", headers={"Origin": "http://["})
        assert answer.status == 200
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("10.1.1.1", "10.1.1.1"),
        ("1.2.3.4, 10.1.1.1", "10.1.1.1"),  # the client wrote the first one
        ("1.2.3.4, 10.1.1.1, 127.0.0.2", "10.1.1.1"),  # through two proxies of ours
        ("[fd00::7]:4711, ::ffff:127.0.0.2", "fd00::7"),
        ("nonsense", "127.0.0.1"),
    ],
)
async def test_a_client_cannot_choose_its_address(forwarded: str, client: str, tmp_path: Path) -> None:
    """Behind a trusted proxy the address is the one that the proxy saw, not the first one in the list."""
    async with fake_line(tmp_path, trusted_proxies=["127.0.0.0/8"]) as line:
        await post(line, CHAT, BODY, X_Forwarded_For=forwarded)
        assert last(line).client == client


async def test_a_request_that_forbids_the_cache_gets_no_restore(tmp_path: Path) -> None:
    """With `cache_prompt: false` the engine uses nothing: a good snapshot would be judged worthless for it."""
    async with fake_line(tmp_path) as line:
        asked = wants(line)
        await post(line, CHAT, {**BODY, "cache_prompt": False})
        await post(line, CHAT, {**BODY, "cache_prompt": True})
        assert [bool(want.cuts) for want in asked] == [False, True]


@pytest.mark.parametrize("path", [CHAT, "/infill", "/v1/embeddings", "/unknown"])
async def test_no_id_slot_goes_through_on_any_route(path: str, tmp_path: Path) -> None:
    """Also with several slots: in one that is busy it corrupts or hangs another client's request (kv-rule 3)."""
    async with fake_line(tmp_path, engine={"parallel": 2}) as line:
        await post(line, path, {**BODY, "input_prefix": "a", "input_suffix": "b", "input": "c", "id_slot": 0})
        received = await line.received(path)
        assert "id_slot" not in received
        assert received["max_tokens"] == 2


async def test_no_slot_action_while_an_earlier_grant_is_out(tmp_path: Path) -> None:
    """An engine that comes back is looked at, but not touched, while a request from before may still reach it."""
    async with (
        FakeEngine(slot_folder=tmp_path / "slots") as engine,
        running_app(tmp_path, backend_url=engine.url) as app,
    ):
        await engine_ready(app)
        await engine.forget()
        with await station(app).gate.acquire():
            station(app).attachment.meet_again("as if it had been away")
            await engine_ready(app)
            actions = [one for one in await engine.requests("/slots/0") if one.query.get("action") != "none"]
            assert actions == []


async def test_changed_lora_scales_make_another_engine_of_it(tmp_path: Path) -> None:
    """What was saved under other scales must not come back: the engine would take it and write nonsense (rule 2)."""
    faults = {"adapters": [{"id": 0, "path": __file__, "scale": 1.0}]}
    async with fake_line(tmp_path, engine={"slot_folder": tmp_path / "slots", "faults": faults}) as line:
        keeper, attachment = station(line.app).keeper, station(line.app).attachment
        first = keeper.tenant.scope.fingerprint
        assert (await post(line, "/lora-adapters", [{"id": 0, "scale": 0.5}])).status == 200
        assert attachment.state == "loading"
        await engine_ready(line.app)
        second = keeper.tenant.scope.fingerprint
        assert second not in {"", first}
        await post(line, "/lora-adapters", [{"id": 0, "scale": 1.0}])
        await engine_ready(line.app)
        assert keeper.tenant.scope.fingerprint == first


async def test_a_stop_does_not_wait_for_a_save_that_it_refused(tmp_path: Path) -> None:
    """The idle saver stands in the queue when the gate closes for good: it ends, without a fault."""
    quick = {"save_timeout": 100 * MS}  # of the last save, which finds the engine in use
    async with FakeEngine() as engine, running_app(tmp_path, backend_url=engine.url, kv=quick) as app:
        await engine_ready(app)
        faults: list[ServiceFailed] = []
        app.bus.subscribe(ServiceFailed, faults.append)
        grant = await station(app).gate.acquire()
        moments = station(app).keeper.moments
        moments.config = msgspec.structs.replace(moments.config, save_every=0.0)
        moments.growing = lambda: station(app).keeper.residents.slots  # type: ignore[method-assign]
        moments.grown.set()
        await until(lambda: station(app).gate.statistics().waiting["background"] == 1)
        await app.stop(1.0)
        grant.release()
        assert faults == []
        assert all(service.cancelled() for service in app.services)


async def test_a_reload_takes_over_how_long_a_template_settles(tmp_path: Path) -> None:
    """All of `warmup` is taken over while running."""
    async with fake_line(tmp_path) as line:
        path = tmp_path / "conf.json"
        values = json.loads(path.read_text())
        values["warmup"]["settle"] = 3
        path.write_text(json.dumps(values))
        assert await line.app.reload() == ("warmup.settle",)
        assert line.app.catalogue.settle == 3
