"""What each live key does from the moment of a reload on, seen from outside of the running program.

Which keys are live stands in the schema: one that is added there fails here until its effect is shown.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import ssl
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from bioproxy.activity import Record
from bioproxy.app import App
from bioproxy.config.dialect.go import builtins
from bioproxy.config.keys import KEYS
from bioproxy.config.load import Loaded, load
from bioproxy.config.yaml_tree import parse_yaml
from bioproxy.errors import ConfigError
from bioproxy.events import Event, RequestEnded, SavingPaused
from bioproxy.models.fleet import Fleet
from bioproxy.models.plan import Plan, make_plan
from bioproxy.models.state import State
from bioproxy.station import Station
from fakes.fake_engine import FakeEngine
from support.apps import log_put_back, running_app, station
from support.faults import good, ready
from support.http import Answer, build, call, certificate, needs_openssl
from support.leaks import until
from support.swap_client import Client, server
from support.swap_models import Ports, config_text, fakes

Json = Any
LIVE = [path for path, option in KEYS.items() if option.kind.live]
PLAIN = [path for path in LIVE if "tls" not in path]
NOBODY = "http://127.0.0.1:9"
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """A reload sets the log up."""
    with log_put_back():
        yield


@pytest.mark.parametrize("path", PLAIN)
async def test_the_effect_of_each_live_key(path: str, tmp_path: Path) -> None:
    """At once, in the running program; the function that shows it has the key's name, two underscores for a dot."""
    show: Callable[[Path], Awaitable[None]] = globals()[path.replace(".", "__")]
    await show(tmp_path)


class Site:
    """A running program, and its file."""

    def __init__(self, app: App, path: Path) -> None:
        self.app, self.path = app, path

    async def reload(self, **changes: Json) -> tuple[str, ...]:
        """Change keys of the file (sections key by key), and have it read again."""
        values = json.loads(self.path.read_text())
        for name, value in changes.items():
            values[name] = values.get(name, {}) | value if isinstance(value, dict) else value
        self.path.write_text(json.dumps(values))
        return await self.app.reload()

    async def proxy(self, method: str = "GET", target: str = "/v1/models", **asked: Json) -> Answer:
        """One request to the proxy port."""
        return await call(self.app.proxy_port, method, target, **asked)

    async def admin(self, target: str = "/status", **headers: str) -> Answer:
        """One question to the admin port."""
        return await call(self.app.admin_port, "GET", target, headers={k.title(): v for k, v in headers.items()})


@asynccontextmanager
async def alone(folder: Path, **values: Json) -> AsyncIterator[Site]:
    """A program whose engine is not there; whoever wants it waits."""
    async with running_app(folder, backend_url=NOBODY, **values) as app:
        await until(lambda: station(app).attachment.statistics().looks)
        station(app).gate.close("the test wants it so")
        yield Site(app, folder / "conf.json")


@asynccontextmanager
async def attached(folder: Path, **values: Json) -> AsyncIterator[tuple[Site, FakeEngine]]:
    """A program before a fake engine."""
    (folder / "code.txt").write_text("some rules " * 400 + "<{message}>")
    async with (
        FakeEngine(slot_folder=folder / "slots", tokens_per_second=20_000) as engine,
        running_app(folder, backend_url=engine.url, **values) as app,
    ):
        await ready(app)
        yield Site(app, folder / "conf.json"), engine


def chat(site: Site, **more: Json) -> asyncio.Task[Answer]:
    """A request in the background."""
    body = {"model": "m", "messages": HELLO, **more}
    return aio.spawn(site.proxy("POST", "/v1/chat/completions", data=body), name="client")


def waiting(site: Site, count: int) -> Callable[[], bool]:
    """Whether so many wait in the gate."""
    return lambda: sum(station(site.app).gate.statistics().waiting.values()) == count


# bioproxy's own keys, one engine


async def queue_limit(folder: Path) -> None:
    async with alone(folder) as site:
        first = chat(site)
        await until(waiting(site, 1))
        await site.reload(queue_limit=1)
        assert (await chat(site)).status == 429
        await site.reload(queue_limit=2)
        second = chat(site)
        await until(waiting(site, 2))
        await aio.finish([first, second])


async def queue_timeout(folder: Path) -> None:
    async with alone(folder) as site:
        await site.reload(queue_timeout=0.05)
        assert (await chat(site)).status == 503


async def stream_keepalive(folder: Path) -> None:
    async with alone(folder, stream_keepalive=3600) as site:
        await site.reload(stream_keepalive=0.01)
        reader, writer = await asyncio.open_connection("127.0.0.1", site.app.proxy_port)
        body = json.dumps({"model": "m", "messages": HELLO, "stream": True}).encode()
        writer.write(build("POST", "/v1/chat/completions", body=body))
        assert b" 200 " in await reader.readline()
        writer.transport.abort()


async def api_keys(folder: Path) -> None:
    async with alone(folder, api_keys=["old"]) as site:
        await site.reload(api_keys=["new", {"key": "other", "name": "ann", "max_running": 2}])
        assert station(site.app).gate.owners.bounds["ann"] == 2  # also of what waits
        assert (await site.proxy(target="/nothing", headers={"x-api-key": "old"})).status == 401
        assert (await site.proxy(target="/nothing", headers={"x-api-key": "new"})).status != 401


async def admin_key(folder: Path) -> None:
    async with alone(folder, admin_key="old") as site:
        await site.reload(admin_key="new")
        assert [(await site.admin(**{"x-api-key": key})).status for key in ("old", "new")] == [401, 200]


async def metrics_key(folder: Path) -> None:
    async with alone(folder) as site:
        await site.reload(metrics_key="new")
        assert (await site.admin("/metrics")).status == 401
        assert (await site.admin("/metrics", **{"x-api-key": "new"})).status == 200


async def admin_hosts(folder: Path) -> None:
    async with alone(folder) as site:
        assert (await site.admin(host="box.lan")).status == 403
        await site.reload(admin_hosts=["box.lan"])
        assert (await site.admin(host="box.lan")).status == 200


async def trusted_proxies(folder: Path) -> None:
    async with alone(folder) as site:
        seen: list[str] = []
        site.app.bus.subscribe(RequestEnded, lambda event: seen.append(event.record.client))
        for proxies in ([], ["127.0.0.1"]):
            await site.reload(trusted_proxies=proxies)
            await site.proxy(target="/health", headers={"X-Forwarded-For": "192.0.2.7"})
        assert seen == ["127.0.0.1", "192.0.2.7"]


async def cors_origins(folder: Path) -> None:
    async with alone(folder) as site:
        headers = {"Origin": "https://chat.lan"}
        assert "access-control-allow-origin" not in (await site.proxy(target="/health", headers=headers)).headers
        await site.reload(cors_origins=["https://chat.lan"])
        answer = await site.proxy(target="/health", headers=headers)
        assert answer.headers["access-control-allow-origin"] == "https://chat.lan"


async def log__level(folder: Path) -> None:
    async with alone(folder) as site:
        await site.reload(log={"level": "error"})
        assert not logging.getLogger("bioproxy.test").isEnabledFor(logging.WARNING)
        await site.reload(log={"level": "debug"})
        assert logging.getLogger("bioproxy.test").isEnabledFor(logging.DEBUG)


async def log__format(folder: Path) -> None:
    async with alone(folder) as site:
        await site.reload(log={"format": "json"})
        record = logging.LogRecord("bioproxy.test", logging.INFO, "", 0, "words", (), None)
        lines = [handler.format(record) for handler in logging.getLogger("bioproxy").handlers]
        assert [json.loads(line)["message"] for line in lines if line.startswith("{")] == ["words"]
        await site.reload(log={"format": "plain"})
        lines = [handler.format(record) for handler in logging.getLogger("bioproxy").handlers]
        assert lines
        assert not [line for line in lines if line.startswith("{")]
        assert not logging.getLogger("asyncio").handlers


async def ui__edit_config(folder: Path) -> None:
    async with alone(folder) as site:
        for allowed in (False, True, False):
            await site.reload(ui={"edit_config": allowed})
            page = (await site.admin("/api/config")).json()
            assert (page["edit"], page["files"][0]["text"] is not None) == (allowed, allowed)


async def ui__captures(folder: Path) -> None:
    async with attached(folder) as (site, _):
        for size in ("1MB", 0):
            await site.reload(ui={"captures": size})
            await good(site.app, "what?")
            (row,) = (await site.admin("/api/metrics/activity?limit=1")).json()["data"]
            assert row["has_capture"] == bool(size)


async def captured(site: Site, count: int) -> None:
    """So many requests are asked, and on disk."""
    for _ in range(count):
        await good(site.app, "what?")
    await until(lambda: len(site.app.management.folder.places) == count)


async def captures__disk(folder: Path) -> None:
    async with attached(folder) as (site, _):
        await good(site.app, "what?")
        await site.reload(captures={"disk": "1MB"})
        await captured(site, 1)
        await site.reload(captures={"disk": 0})
        assert site.app.management.folder.numbers() == []


async def captures__max_age(folder: Path) -> None:
    async with attached(folder, captures={"disk": "1MB"}) as (site, _):
        await captured(site, 1)
        await site.reload(captures={"max_age": "1ms"})
        assert site.app.management.folder.numbers() == []


async def captures__max_count(folder: Path) -> None:
    async with attached(folder, captures={"disk": "1MB"}) as (site, _):
        await captured(site, 3)
        await site.reload(captures={"max_count": 2})
        assert site.app.management.folder.numbers() == [2, 3]


async def doctor__memory(folder: Path) -> None:
    async with attached(folder) as (site, _):
        doctor = site.app.doctor
        await good(site.app, "what?")
        await until(lambda: doctor.statistics().prompts == 1)
        await site.reload(doctor={"memory": 0})
        await good(site.app, "what?")
        assert (doctor.statistics().prompts, doctor.statistics().waiting) == (0, 0)
        await site.reload(doctor={"memory": "1MB"})
        await good(site.app, "what?")
        await until(lambda: doctor.statistics().prompts == 1)


def records(site: Site) -> list[Record]:
    """Those of requests that end from now on."""
    found: list[Record] = []
    site.app.bus.subscribe(RequestEnded, lambda event: found.append(event.record))
    return found


async def clients__apps(folder: Path) -> None:
    async with attached(folder) as (site, _):
        seen = records(site)
        for apps in ([], [{"name": "mine", "agents": ["mine/*"]}]):
            await site.reload(clients={"apps": apps})
            assert (await good(site.app, headers={"User-Agent": "mine/1"})).status == 200
        assert [one.app for one in seen] == ["", "mine"]


async def clients__side(folder: Path) -> None:
    async with attached(folder) as (site, _):
        seen = records(site)
        for side in ([], [{"name": "mine", "side": "refuse", "first": ["a title*"]}]):
            await site.reload(clients={"side": side})
            assert (await good(site.app, "a title, please")).status == 200
        assert [(one.side, one.gated) for one in seen] == [("", True), ("mine", False)]


async def clients__side_wait(folder: Path) -> None:
    rule = {"name": "mine", "first": ["a title*"]}
    async with attached(folder, clients={"side": [rule], "side_wait": 3600}) as (site, _):
        await good(site.app)
        late = aio.spawn(good(site.app, "a title, please"), name="late")
        await until(lambda: station(site.app).gate.statistics().aside)
        await site.reload(clients={"side_wait": 0})
        assert (await good(site.app, "a title, too")).status == 200
        await aio.finish([late])


async def mended(site: Site, engine: FakeEngine) -> bool:
    """Whether a line goes that the rule is for."""
    system = {"role": "system", "content": "Be brief.\nIt is noon."}
    assert (await chat(site, messages=[system, *HELLO])).status == 200
    return "noon" not in (await engine.requests("/v1/chat/completions"))[-1].body


RULE = {"name": "mine", "do": "drop", "line": "It is *"}


async def clients__stabilize(folder: Path) -> None:
    async with attached(folder) as (site, engine):
        for rules in ([], [RULE | {"mode": "on"}]):
            await site.reload(clients={"stabilize": rules})
            assert await mended(site, engine) == bool(rules)


async def clients__stabilize_mode(folder: Path) -> None:
    async with attached(folder, clients={"stabilize": [RULE]}) as (site, engine):
        for mode in ("observe", "on", "off"):
            await site.reload(clients={"stabilize_mode": mode})
            assert await mended(site, engine) == (mode == "on")


async def warmup__plain_heads(folder: Path) -> None:
    async with attached(folder) as (site, _):
        system = {"role": "system", "content": "You are an agent. " * 800}
        for words in ("one", "two"):
            assert (await chat(site, messages=[system, {"role": "user", "content": words}])).status == 200
        await until(lambda: station(site.app).runner.statistics().targets)
        await site.reload(warmup={"plain_heads": 0})
        await until(lambda: not station(site.app).runner.statistics().targets)


async def prefixes(folder: Path) -> None:
    async with attached(folder) as (site, engine):
        await site.reload(prefixes={"@code": "code.txt"})
        await good(site.app, "@code what?")
        (asked,) = await engine.requests("/v1/chat/completions")
        assert asked.json()["messages"][0]["content"].startswith("some rules")


async def warmup_check_interval(folder: Path) -> None:
    async with attached(folder, warmup_check_interval=3600) as (site, _):
        await until(lambda: station(site.app).runner.statistics().checks)
        await site.reload(warmup_check_interval=0.01)
        checks = station(site.app).runner.statistics().checks
        await until(lambda: station(site.app).runner.statistics().checks > checks + 3)


def state(site: Site, prefix: str = "@code") -> str:
    """What is said of the warm-up of a template."""
    return next(one.state for one in station(site.app).runner.statistics().targets if one.prefix == prefix)


async def warmup__enabled(folder: Path) -> None:
    async with attached(folder, prefixes={"@code": "code.txt"}, warmup={"enabled": False}) as (site, _):
        await until(lambda: station(site.app).runner.statistics().checks)
        assert state(site) == "off"
        await site.reload(warmup={"enabled": True})
        await until(lambda: state(site) in {"warm", "saved"})


async def warmup__on_battery(folder: Path) -> None:
    async with attached(folder, prefixes={"@code": "code.txt"}) as (site, _):
        runner = station(site.app).runner
        runner.look_at_battery = lambda: True
        await until(lambda: state(site) in {"warm", "saved"})
        await site.reload(warmup={"on_battery": False})
        await until(lambda: runner.statistics().on_battery)
        assert any("runs on its battery" in note for note in site.app.status().notes)


async def warmup__settle(folder: Path) -> None:
    values = {"prefixes": {"@code": "code.txt"}, "warmup": {"settle": 3600}, "warmup_check_interval": 0.01}
    async with attached(folder, **values) as (site, _):
        (folder / "code.txt").write_text("other rules <{message}>")
        await until(lambda: site.app.catalogue.statistics()[0].pending)
        await site.reload(warmup={"settle": 0})
        await until(lambda: site.app.catalogue.current("@code").parts[0].startswith("other"))


async def warmup__chunk_seconds(folder: Path) -> None:
    values = {"prefixes": {"@code": "code.txt"}, "warmup": {"chunk_seconds": 60}}
    async with attached(folder, **values) as (site, engine):
        await until(lambda: state(site) in {"warm", "saved"})
        before = len(await engine.requests("/completion"))
        await engine.forget()
        await site.reload(warmup={"chunk_seconds": 0.001})
        (folder / "code.txt").write_text("other things " * 400 + "<{message}>")
        await station(site.app).runner.warm("@code")
        await until(lambda: site.app.catalogue.current("@code").parts[0].startswith("other"))
        await until(lambda: state(site) in {"warm", "saved"})
        assert len(await engine.requests("/completion")) > 2 * before


async def warmup__heads(folder: Path) -> None:
    async with attached(folder, prefixes={"@code": "code.txt"}) as (site, _):
        for words in ("one", "two"):
            said = [{"role": "system", "content": "be brief"}, {"role": "user", "content": f"@code {words}"}]
            assert (await chat(site, messages=said)).status == 200
        await until(lambda: [one.head for one in station(site.app).runner.statistics().targets] not in ([], ["bare"]))
        await site.reload(warmup={"heads": 0})
        await until(lambda: [one.head for one in station(site.app).runner.statistics().targets] == ["bare"])


# many models


@asynccontextmanager
async def many(folder: Path, models: Json, **config: Json) -> AsyncIterator[tuple[Site, Client]]:
    """The program in this process with fake models, and a client of it."""
    ports, path = Ports(), folder / "config.json"

    def read(ports: Mapping[str, int] | None = None) -> Loaded:
        return load(path=str(path), environment={"HOME": str(folder)}, ports=ports)

    text = config_text(models, ports=ports, folder=folder, events=folder / "events", **config)
    path.write_text(json.dumps({**yaml_of(text), "proxy_port": 0, "admin_port": 0, "proxy_host": "127.0.0.1"}))
    app = App(read(), reload=read)
    await app.start()
    client = Client(app.proxy_port)
    try:
        yield Site(app, path), client
    finally:
        await aio.finish(client.asked)
        await app.stop(2.0)
        await app.close_log()
        ports.close()


def yaml_of(text: str) -> Json:
    """A configuration's text as plain values."""
    root = parse_yaml(text).root
    assert root is not None
    return builtins(root)


def fleet(site: Site) -> Fleet:
    """The models of a program that has many."""
    assert isinstance(site.app.fleet, Fleet)
    return site.app.fleet


async def held_back(folder: Path, before: Json, after: Json, **asked: Json) -> None:
    """A swap that `before` holds back for an hour goes on at once with `after`."""
    hour = {"max_wait": 3600, "linger": 0, "min_resident": 0}
    async with many(folder, fakes("a b"), swap=hour | before) as (site, client):
        assert (await client.chat("a", **asked)).status == 200
        task = client.ask("b")
        await until(lambda: fleet(site).supervisor.statistics().waiting == 1)
        await site.reload(swap=after)
        assert server(await task) == "b"


async def swap__max_wait(folder: Path) -> None:
    await held_back(folder, {"min_resident": 3600}, {"max_wait": 0})


async def swap__min_resident(folder: Path) -> None:
    await held_back(folder, {"min_resident": 3600}, {"min_resident": 0})


async def swap__linger(folder: Path) -> None:
    await held_back(folder, {"linger": 3600}, {"linger": 0}, tool_calls=True)


async def default_model(folder: Path) -> None:
    async with many(folder, fakes("a b")) as (site, client):
        for name, status in (("", 404), ("b", 200)):
            await site.reload(default_model=name)
            answer = await client.post("/v1/chat/completions", {"messages": HELLO})
            assert answer.status == status, answer.text
        assert server(answer) == "b"


async def return_to_default(folder: Path) -> None:
    async with many(folder, fakes("a b"), default_model="b", return_to_default=3600) as (site, client):
        assert (await client.chat("a")).status == 200
        await site.reload(return_to_default=0.05)
        await until(lambda: fleet(site).supervisor.schedule.state("b") is State.READY)


async def test_queue_limit_with_models(tmp_path: Path) -> None:
    """Who waits for a model to be loaded counts."""
    async with many(tmp_path, fakes("a", "--health-503-forever")) as (site, client):
        first = client.ask("a")
        await until(lambda: fleet(site).supervisor.statistics().waiting == 1)
        await site.reload(queue_limit=1)
        assert (await client.chat("a")).status == 429
        assert not first.done()


async def test_settle_of_a_models_own_templates(tmp_path: Path) -> None:
    """It is that of all templates."""
    (tmp_path / "code.txt").write_text("rules <{message}>")
    models = fakes("a", prefixes={"@code": "code.txt"})
    async with many(tmp_path, models, warmup={"settle": 3600}) as (site, _):
        own = fleet(site).own["a"]
        (tmp_path / "code.txt").write_text("other rules <{message}>")
        await own.check()
        assert own.statistics()[0].pending
        await site.reload(warmup={"settle": 0})
        await own.check()
        assert own.current("@code").parts[0].startswith("other")


async def test_a_start_port_is_for_models_that_come_later(tmp_path: Path) -> None:
    """Those that are there keep the number that they have."""
    async with many(tmp_path, fakes("a")) as (site, _):
        values = json.loads(site.path.read_text())
        other = values["models"]["a"] | {"aliases": []}
        first = values["startPort"]
        await site.reload(startPort=first - 10, models=values["models"] | {"b": other})
        assert {name: unit.launch.port for name, unit in fleet(site).units.items()} == {"a": first, "b": first - 10}


async def test_the_activity_table_moves(tmp_path: Path) -> None:
    """`metricsMaxInMemory` takes rows out at once; `store.path` has the next ones in a file, and their ids go on."""
    async with many(tmp_path, fakes("a")) as (site, client):

        async def rows() -> list[int]:
            return [row["id"] for row in (await client.get("/api/metrics/activity?order=asc")).json()["data"]]

        for _ in range(3):
            await client.chat("a")
        assert await rows() == [1, 2, 3]
        assert await site.reload(metricsMaxInMemory=2) == ("metricsMaxInMemory",)
        assert await rows() == [2, 3]
        assert await site.reload(store={"path": str(tmp_path / "activity.db")}) == ("store.path",)
        await client.chat("a")
        assert await rows() == [4]


async def test_standard_output_is_given_back(tmp_path: Path) -> None:
    """A program that began with `logToStdout: none` shows its log from the reload on that asks for it."""
    async with many(tmp_path, fakes("a"), logToStdout="none") as (site, client):
        await site.reload(logToStdout="proxy")
        await client.chat("a")
        console = site.app.logbook.console
        assert console is not None
        await until(lambda: console.statistics().written)


async def test_what_a_reload_adds_to_preload_is_loaded(tmp_path: Path) -> None:
    """What is there is not loaded again."""
    models = fakes("a b")
    groups = {"all": {"swap": False, "members": ["a", "b"]}}
    async with many(tmp_path, models, groups=groups, hooks={"on_startup": {"preload": ["a"]}}) as (site, client):

        async def running() -> set[str]:
            return {one["model"] for one in (await client.get("/running")).json()["running"] if one["state"] == "ready"}

        async def are(names: str) -> bool | None:
            return await running() == set(names.split()) or None

        assert await aio.poll(lambda: are("a"), interval=0.01, deadline=30)
        await site.reload(hooks={"on_startup": {"preload": ["a", "b"]}})
        assert await aio.poll(lambda: are("a b"), interval=0.01, deadline=30)


def sockets(made: str | None) -> ssl.SSLContext | None:
    """How to ask a server with this certificate; None for plain HTTP."""
    return None if made is None else ssl.create_default_context(cafile=made)


async def answered(site: Site, made: str | None, *, port: int = 0) -> bool:
    """Whether a question over TLS with this certificate, or in plain HTTP, is answered (not: use the other one)."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port or site.app.proxy_port, ssl=sockets(made))
        writer.write(build("GET", "/health"))
        raw = await asyncio.wait_for(reader.read(), 25)
        writer.close()
    except (OSError, ssl.SSLError):
        return False
    return raw.startswith(b"HTTP/1.1") and b"use https://" not in raw


@needs_openssl
async def test_tls_is_switched_on_renewed_and_off(tmp_path: Path) -> None:
    """`tls_cert_file`, `tls_key_file`: new connections speak what the files say now, and nothing else."""
    one, two = certificate(tmp_path, "one"), certificate(tmp_path, "two")
    async with alone(tmp_path) as site:
        port = site.app.proxy_port
        for made in (one, two):
            await site.reload(tls_cert_file=made.cert, tls_key_file=made.key)
            assert [await answered(site, cert) for cert in (None, one.cert, two.cert)] == [
                False,
                made is one,
                made is two,
            ]
        await site.reload(tls_cert_file="", tls_key_file="")
        assert [await answered(site, None), await answered(site, one.cert)] == [True, False]
        assert site.app.proxy_port == port


@needs_openssl
async def test_the_admin_port_speaks_tls_if_it_is_told_to(tmp_path: Path) -> None:
    """`admin_tls`: with the same pair; without it the port stays plain."""
    made = certificate(tmp_path)
    pair = {"tls_cert_file": made.cert, "tls_key_file": made.key}
    async with alone(tmp_path) as site:
        port = site.app.admin_port
        for on in (False, True, False):
            await site.reload(**pair, admin_tls=on)
            assert [await answered(site, cert, port=port) for cert in (None, made.cert)] == [not on, on]


@needs_openssl
async def test_a_plain_connection_does_not_outlive_the_switch_to_tls(tmp_path: Path) -> None:
    """One that lies idle is closed, and one with a request after its answer."""
    made = certificate(tmp_path)
    async with alone(tmp_path) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.app.proxy_port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1" in await reader.readline()
        await site.reload(tls_cert_file=made.cert, tls_key_file=made.key)
        await asyncio.wait_for(reader.read(), 25)
        writer.close()


async def test_a_broken_certificate_changes_nothing(tmp_path: Path) -> None:
    """The reload is refused as a whole."""
    (tmp_path / "bad.pem").write_text("nothing")
    async with alone(tmp_path) as site:
        bad = str(tmp_path / "bad.pem")
        with pytest.raises(ConfigError, match="holds no certificate"):
            await site.reload(tls_cert_file=bad, tls_key_file=bad, queue_limit=1)
        assert station(site.app).gate.statistics().limit == 1000
        assert await answered(site, None)


async def test_a_configuration_is_judged_beside_the_loop_and_to_its_end(tmp_path: Path) -> None:
    """A request is answered meanwhile, and whoever asked for the reload may leave."""
    async with alone(tmp_path) as site:
        begun, go_on, read = asyncio.Event(), threading.Event(), site.app.read_again
        loop = asyncio.get_running_loop()

        def slow(ports: Mapping[str, int]) -> Loaded:
            loop.call_soon_threadsafe(begun.set)
            assert go_on.wait(10)
            return read(ports)

        site.app.read_again = slow
        asking = aio.spawn(site.reload(queue_limit=7), name="reload")
        await begun.wait()
        assert await answered(site, None)
        asking.cancel()
        go_on.set()
        await until(lambda: station(site.app).gate.statistics().limit == 7)
        await asyncio.wait([asking])


async def test_the_plan_of_many_models_is_made_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As much of a reload as can be."""
    threads: list[threading.Thread] = []

    def noted(*given: Any, **named: Any) -> Plan:
        threads.append(threading.current_thread())
        return make_plan(*given, **named)

    async with many(tmp_path, fakes("a")) as (site, _):
        monkeypatch.setattr("bioproxy.models.fleet.make_plan", noted)
        await site.reload(swap={"linger": 1})
    assert [thread is threading.main_thread() for thread in threads] == [False]


async def test_the_profile_of_the_start_is_active_after_a_reload_too(tmp_path: Path) -> None:
    """`hooks.on_startup.profile`, whatever was chosen by hand meanwhile; one that is not there refuses the file."""
    profiles = {name: {"pins": {"x": "a"}} for name in ("work", "play")}
    hooks = {"on_startup": {"profile": "work"}}
    async with many(tmp_path, fakes("a"), profiles=profiles, hooks=hooks) as (site, client):

        async def active() -> str | None:
            found: str | None = (await client.get("/api/profiles")).json()["active"]
            return found

        assert await active() == "work"
        await site.proxy("PUT", "/api/profiles/active", data={"name": "play"})
        assert await active() == "play"
        await site.reload(swap={"linger": 1})
        assert await active() == "work"
        await site.reload(hooks={"on_startup": {}})
        assert await active() is None
        with pytest.raises(ConfigError, match='references unknown profile "gone"'):
            await site.reload(hooks={"on_startup": {"profile": "gone"}})


async def test_a_model_that_changed_leaves_nothing_behind(tmp_path: Path) -> None:
    """Five times another command, each process used: what belonged to those before is let go of."""
    async with many(tmp_path, fakes("a b")) as (site, client):
        model = json.loads(site.path.read_text())["models"]["a"]
        known: weakref.WeakSet[Station] = weakref.WeakSet()
        heard: list[dict[type[Event], int]] = []
        for turn in range(5):
            await site.reload(models={"a": model | {"env": [f"TURN={turn}"]}})
            assert server(await client.chat("a")) == "a"
            known.update(fleet(site).stations.values())
            heard.append({kind: len(callbacks) for kind, callbacks in site.app.bus.subscribers.items()})
        await site.reload()
        assert fleet(site).retired.stations == []
        await until(lambda: gc.collect() >= 0 and set(known) == set(fleet(site).stations.values()))
        assert heard[1:] == heard[:-1]


async def test_a_pause_says_whose_it_is_and_lasts_as_long_as_that_of_any_model(tmp_path: Path) -> None:
    """Two models share one folder; one of them saves again, the other does not."""
    async with many(tmp_path, fakes("a b")) as (site, _):
        heard: list[SavingPaused] = []
        site.app.bus.subscribe(SavingPaused, heard.append)
        pauses = [station.keeper.pause for station in fleet(site).stations.values()]

        async def paused() -> bool:
            return 'bioproxy_saving_paused{kind="disk"} 1.0' in (await site.admin("/metrics")).text

        for pause in pauses:
            pause.enter("disk", "the disk is full")
        pauses[0].leave(proved=True)
        assert await paused()
        pauses[1].leave(proved=True)
        assert not await paused()
    assert [(event.model, event.paused) for event in heard] == [("a", True), ("b", True), ("a", False), ("b", False)]
