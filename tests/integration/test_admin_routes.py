"""The admin port's routes over a real socket: each answers what it says it does, and refuses what it must."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bioproxy import events
from bioproxy.admin.config_api import ConfigApi
from bioproxy.admin.contexts_api import ContextsApi
from bioproxy.admin.doctor_api import DoctorApi
from bioproxy.admin.keys_api import KeysApi
from bioproxy.admin.live import Live
from bioproxy.admin.management import Management
from bioproxy.admin.page import WebPage
from bioproxy.admin.pause_api import PauseApi
from bioproxy.admin.requests_api import Requests
from bioproxy.admin.snapshots_api import SnapshotsApi
from bioproxy.admin.status import snapshots_of
from bioproxy.admin.templates_api import TemplatesApi
from bioproxy.config.load import load
from bioproxy.config.settings import Settings
from bioproxy.doctor.doctor import Doctor
from bioproxy.errors import Problem
from bioproxy.events import Bus, Event
from bioproxy.front.allowance import Allowances
from bioproxy.kv.shelves import Shelves
from bioproxy.logbook import Logbook
from bioproxy.metrics import Metrics
from bioproxy.models.fleet import Fleet
from bioproxy.models.pause import Pause
from bioproxy.templates.catalogue import Catalogue
from bioproxy.templates.pins import Pins
from support.admin import AdminPort, Backstage, admin_port, metered, record, system_changed
from support.config_files import config

ROUTES = AdminPort().admin.entries
DOCS = (Path(__file__).parents[2] / "docs" / "admin.md").read_text(encoding="utf-8")


async def test_the_index_lists_every_route() -> None:
    """Who opens the port with a browser or curl sees what there is."""
    async with admin_port() as port:
        answer = await port.ask("GET", "/")
    listed = [(route["method"], route["path"]) for route in answer.json()["routes"]]
    assert listed == [(route.method, route.path) for route in ROUTES]
    assert all(route["about"] for route in answer.json()["routes"])


def documented(text: str) -> list[tuple[str, str]]:
    """Method and path of every row of a table of routes."""
    return re.findall(r"^\| `(GET|POST|PUT|PATCH|DELETE) (\S+)` \|", text, re.MULTILINE)


def test_every_route_and_event_stands_in_the_docs() -> None:
    """docs/admin.md has a row for each route, no row for anything else, and names every event."""
    first, _, _ = DOCS.partition("\n## ")
    assert documented(first) == [(route.method, route.path) for route in AdminPort().admin.own()]
    assert all(f"`{kind.__name__}`" in DOCS for kind in Event.__subclasses__() if kind.__module__ == events.__name__)


def test_every_route_of_many_models_stands_in_the_docs(tmp_path: Path) -> None:
    """In a table of their own, and nothing else there."""
    (tmp_path / "c.yaml").write_text("models: {a: {cmd: 'x ${PORT}'}}")
    loaded = load(path=str(tmp_path / "c.yaml"), environment={"HOME": str(tmp_path)})
    bus, settings = Bus(), Settings(loaded.config, loaded.dialect)
    shelves = Shelves(config=loaded.config.kv, bus=bus)
    fleet = Fleet(
        settings,
        bus=bus,
        catalogue=Catalogue({}, folder=str(tmp_path), settings=settings, bus=bus),
        pins=Pins(None),
        state=tmp_path,
        shelves=shelves,
        logbook=Logbook(),
    )
    configuration = ConfigApi(lambda: loaded, trial=Backstage().trial, reload=Backstage().reload)
    page, live = (
        WebPage(AdminPort().admin.handle),
        Live(bus, status=Backstage().status, inflight=list, settings=settings, proxy=str),
    )
    templates = TemplatesApi(fleet.stations.values, warm=fleet.warm)
    snapshots = SnapshotsApi(fleet.stations.values, snapshots=partial(snapshots_of, fleet))
    contexts = ContextsApi(fleet.stations.values, settings=settings, shelves=shelves, requests=Requests(), folder=str)
    doctor, pause = DoctorApi(Doctor(settings, bus)), PauseApi(Pause(fleet, bus=bus), settings)
    keys = KeysApi(Allowances(settings))
    parts = (page, live, Requests(), pause, keys, doctor, templates, snapshots, contexts, configuration)
    more = [entry for part in parts for entry in part.entries()]
    management = Management(
        settings, fleet, bus=bus, metrics=Metrics(bus), logbook=Logbook(), state=tmp_path, more=more
    )
    mounted = [(entry.method, entry.path) for entry in management.entries]
    _, _, rest = DOCS.partition("\n## ")
    assert sorted(documented(rest)) == sorted(mounted)


@pytest.mark.parametrize(
    ("reason", "path", "status", "body"),
    [
        ("", "/health", 200, {"status": "ok", "ready": True, "reason": ""}),
        ("loading", "/health", 200, {"status": "ok", "ready": False, "reason": "loading"}),
        ("", "/livez", 200, {"status": "ok"}),
        ("loading", "/livez", 200, {"status": "ok"}),
        ("", "/readyz", 200, {"status": "ready"}),
        ("loading", "/readyz", 503, {"status": "unready", "reason": "loading"}),
    ],
)
async def test_probes_tell_alive_from_ready(reason: str, path: str, status: int, body: dict[str, Any]) -> None:
    """An engine that loads makes us unready, not unwell: nobody should restart us for it."""
    async with admin_port() as port:
        port.backstage.reason = reason
        answer = await port.ask("GET", path)
    assert (answer.status, answer.json()) == (status, body)


async def test_metrics_are_prometheus_text() -> None:
    """A scraper gets its own content type and the samples."""
    async with admin_port() as port:
        answer = await port.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "bioproxy_build_info{" in answer.text


async def test_status_is_what_the_app_says() -> None:
    """The struct that app assembles, as JSON that people can read."""
    async with admin_port() as port:
        answer = await port.ask("GET", "/status")
    assert answer.json() == {"engine": "ready"}
    assert answer.text.endswith("}\n")
    assert "\n  " in answer.text


async def test_requests_are_the_newest_first() -> None:
    """With where a prompt differed, which only the operator may see."""
    async with admin_port() as port:
        port.records.append(record(1))
        port.records.append(record(2, finding=system_changed("new")))
        found = (await port.ask("GET", "/requests")).json()["requests"]
    assert [one["id"] for one in found] == ["r2", "r1"]
    assert (found[0]["finding"]["cause"], found[0]["finding"]["place"]["now"]) == ("system_changed", "new")


async def test_requests_say_why_they_took_so_long() -> None:
    """The sentence is made when it is asked for."""
    async with admin_port() as port:
        port.records.append(metered(queue=0.75, error="the engine is gone"))
        [found] = (await port.ask("GET", "/requests")).json()["requests"]
    assert found["why"] == "waited 0.75 s in the queue; the engine is gone"


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("limit=1", ["r3"]),
        ("outcome=timeout", ["r2"]),
        ("outcome=ok&limit=1", ["r3"]),
        ("outcome=error", []),
        ("limit=99", ["r3", "r2", "r1"]),
    ],
)
async def test_requests_can_be_narrowed(query: str, ids: list[str]) -> None:
    """`limit` counts what is shown, not what is looked at."""
    async with admin_port() as port:
        port.records.append(record(1))
        port.records.append(record(2, outcome="timeout"))
        port.records.append(record(3))
        answer = await port.ask("GET", f"/requests?{query}")
    assert [one["id"] for one in answer.json()["requests"]] == ids


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=many", "outcome=strange"])
async def test_a_query_that_makes_no_sense_is_named(query: str) -> None:
    """400, and the sentence names the parameter."""
    async with admin_port() as port:
        answer = await port.ask("GET", f"/requests?{query}")
    assert answer.status == 400
    assert query.split("=", maxsplit=1)[0] in answer.json()["error"]["message"]


@pytest.mark.parametrize("target", ["/warmup/@code", "/warmup/%40code"])
async def test_a_warm_up_is_asked_for(target: str) -> None:
    """202: it runs when no user waits; the answer says how it stands."""
    async with admin_port() as port:
        answer = await port.ask("POST", target)
        assert port.backstage.warmed == ["@code"]
    assert (answer.status, answer.json()) == (202, {"prefix": "@code", "warmup": [{"state": "waiting"}]})


async def test_an_unknown_prefix_is_not_found() -> None:
    """What the app says about it reaches the client."""
    async with admin_port() as port:
        answer = await port.ask("POST", "/warmup/@other")
    assert answer.status == 404
    assert answer.json()["error"] == {"message": "there is no prefix @other", "type": "not_found_error", "code": 404}


async def test_a_reload_tells_what_changed() -> None:
    """The keys that are different now."""
    async with admin_port() as port:
        answer = await port.ask("POST", "/reload")
        assert port.backstage.reloads == 1
    assert (answer.status, answer.json()) == (200, {"changed": ["prefixes"]})


async def test_a_broken_configuration_is_told_with_all_its_problems() -> None:
    """422, with the place of each."""
    async with admin_port() as port:
        port.backstage.problems = [Problem("no such file", where="conf.yaml:3", key="prefixes.@code"), Problem("b")]
        answer = await port.ask("POST", "/reload")
    assert answer.status == 422
    assert [one["where"] for one in answer.json()["error"]["problems"]] == ["conf.yaml:3", ""]
    assert "conf.yaml:3: prefixes.@code: no such file" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/status", "GET, HEAD"),
        ("DELETE", "/requests", "GET, HEAD"),
        ("GET", "/reload", "POST"),
        ("HEAD", "/reload", "POST"),
        ("GET", "/warmup/@code", "POST"),
        ("OPTIONS", "/health", "GET, HEAD"),
    ],
)
async def test_another_method_is_told_which_one(method: str, path: str, allow: str) -> None:
    """405 with Allow, and nothing was done."""
    async with admin_port() as port:
        answer = await port.ask(method, path)
        assert port.backstage.reloads == 0
    assert (answer.status, answer.headers["allow"]) == (405, allow)


@pytest.mark.parametrize("path", ["/nothing", "/warmup", "/reload/a", "/status/", "/v1/models"])
async def test_an_unknown_path_is_not_found(path: str) -> None:
    """404 with a sentence that says where the list is."""
    async with admin_port() as port:
        answer = await port.ask("GET", path)
    assert answer.status == 404
    assert "GET /" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", [route.path for route in ROUTES if route.method == "GET"])
async def test_head_answers_as_get_without_a_body(path: str) -> None:
    """Probes that send HEAD see status and type, and the event stream does not begin for them."""
    async with admin_port() as port:
        answer = await port.ask("HEAD", path)
        assert not port.listening
    assert (answer.status, answer.body) == (200, b"")
    assert "content-type" in answer.headers


@pytest.mark.parametrize("path", [route.path for route in ROUTES if route.method == "GET"] + ["/nothing"])
async def test_nothing_may_be_cached(path: str) -> None:
    """Everything here is about now."""
    async with admin_port() as port:
        answer = await port.ask("HEAD", path)
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_a_foreign_host_is_refused_where_there_is_private_text(route: Any) -> None:
    """Every route but the four without private text, reading ones too; the refusal says what to set."""
    async with admin_port() as port:
        path = route.path.replace("{prefix...}", "@code")
        answer = await port.ask("HEAD" if route.path == "/events" else route.method, path, Host="evil.example")
        assert not port.backstage.warmed
        assert not port.backstage.reloads
    if route.path in {"/health", "/livez", "/readyz", "/metrics"}:
        assert answer.status == 200
    else:
        assert answer.status == 403
        assert route.path == "/events" or "admin_hosts" in answer.json()["error"]["message"]


async def test_a_foreign_page_cannot_reload() -> None:
    """A blind POST from a page of another site changes nothing."""
    async with admin_port() as port:
        answer = await port.ask("POST", "/reload", Origin="https://evil.example")
        assert port.backstage.reloads == 0
    assert answer.status == 403


async def test_with_a_key_set_only_probes_and_metrics_are_open() -> None:
    """Without the key even the list of routes is shut, and a browser is asked for a password."""
    async with admin_port(admin_key="secret") as port:
        answers = {path: await port.ask("GET", path) for path in ("/", "/status", "/nothing", "/health", "/metrics")}
        opened = await port.ask("GET", "/status", Authorization="Bearer secret")
    assert {path: answer.status for path, answer in answers.items()} == {
        "/": 401,
        "/status": 401,
        "/nothing": 401,
        "/health": 200,
        "/metrics": 200,
    }
    assert re.match(r"Basic realm=", answers["/"].headers["www-authenticate"])
    assert opened.status == 200


async def test_a_changed_key_counts_after_a_reload() -> None:
    """The old key opens nothing any more."""
    async with admin_port(admin_key="old") as port:
        port.settings.take(config(admin_key="new"))
        old = await port.ask("GET", "/status", x_api_key="old")
        new = await port.ask("GET", "/status", x_api_key="new")
    assert (old.status, new.status) == (401, 200)
