"""From a configuration to launches and settings: what counts as another process, and values that nobody expects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.dialect.schema import Model
from bioproxy.errors import ConfigError
from bioproxy.models.plan import Plan, check_path, make_plan, slug
from support.config_files import loaded
from tools.reference import rows

Json = Any
FOLDER = "/var/slots"


def planned(folder: Path, models: Json, **config: Json) -> Plan:
    """The plan of a file with these models."""
    found = loaded(folder, json.dumps({**config, "models": models}))
    assert found.dialect is not None
    return make_plan(found.config, found.dialect, slot_folder=FOLDER)


def one(folder: Path, **keys: Json) -> Plan:
    """The plan of a file with one llama-server, `a`, and a peer."""
    peers = {"far": {"proxy": "http://far", "models": ["x"]}}
    return planned(folder, {"a": {"cmd": "llama-server --port ${PORT}", **keys}}, peers=peers)


CHANGES: dict[str, Json] = {
    "cmd": "llama-server --port ${PORT} -c 1",
    "cmdStop": "kill ${PID}",
    "proxy": "http://127.0.0.1:7777",
    "aliases": ["b"],
    "env": ["A=b"],
    "checkEndpoint": "/other",
    "ttl": 5,
    "unloadTimeout": 33,
    "unlisted": True,
    "useModelName": "x",
    "name": "A",
    "description": "text",
    "concurrencyLimit": 3,
    "filters": {"stripParams": "top_p"},
    "macros": {"x": "y"},
    "metadata": {"a": 1},
    "sendLoadingState": True,
    "timeouts": {"responseHeader": 3},
    "compat": {"ignoreWebsockets": True},
    "capabilities": {"tools": True},
    "healthCheckTimeout": 99,
    "fallback": ["far/x"],
    "fallbackStatus": [500],
    "fallbackAfter": 3,
    "pin": True,
    "sleep": 1,
    "kv": {"policy": "off"},
    "prefixes": {"@x": "x.txt"},
}
RELOAD = {row[0].strip("`").split(".")[0]: row[2] for row in rows(Model)}


@pytest.mark.parametrize("key", RELOAD)
def test_which_keys_make_another_process(key: str, tmp_path: Path) -> None:
    """Those that the docs say; the others are taken over while the process runs."""
    before, after = one(tmp_path), one(tmp_path, **{key: CHANGES[key]})
    changed = before.models["a"].settings.launch != after.models["a"].settings.launch
    assert changed == RELOAD[key]


def test_nothing_changes_without_a_change(tmp_path: Path) -> None:
    """Two readings of one file are the same, whatever order a set or a dictionary has."""
    models = {name: {"cmd": "llama-server --port ${PORT}", "env": ["B=1", "A=2"]} for name in "cab"}
    first, second = planned(tmp_path, models).models, planned(tmp_path, models).models
    assert first == second


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("/health", "/health"),
        ("health", "/health"),
        ("none", ""),
        (" none ", ""),
        ("/none", "/none"),
        ("http://else.where:1/ready?x=1", "/ready?x=1"),
        ("http://else.where", "/"),
        ("/", "/"),
    ],
)
def test_where_health_is_asked_for(endpoint: str, path: str) -> None:
    """Path and query; of a whole URL only these, for the engine is where `proxy` says."""
    assert check_path(endpoint) == path


def test_kv_off_touches_no_command(tmp_path: Path) -> None:
    """Nothing is added, and it is asked only where its name says what it is."""
    plan = planned(
        tmp_path,
        {
            "llama": {"cmd": "llama-server --port ${PORT}", "kv": "off"},
            "other": {"cmd": "vllm --port ${PORT}", "kv": "off"},
            "on": {"cmd": "vllm --port ${PORT}"},
        },
    )
    assert FOLDER not in plan.models["llama"].launch.words
    assert {name: model.asks for name, model in plan.models.items()} == {"llama": True, "other": False, "on": True}


def test_a_folder_that_a_container_shares(tmp_path: Path) -> None:
    """Ours and the engine's name of it; what the operator says of it counts more."""
    command = "docker run -v /host:/slots -p ${PORT}:1 image --slot-save-path /slots"
    plan = planned(
        tmp_path, {"a": {"cmd": command}, "b": {"cmd": command, "kv": {"directory": "/d", "engine_directory": "/e"}}}
    )
    kv = {name: model.kv for name, model in plan.models.items()}
    assert (kv["a"].directory, kv["a"].engine_directory) == ("/host", "/slots")
    assert (kv["b"].directory, kv["b"].engine_directory) == ("/d", "/e")


@given(st.lists(st.text(), unique=True, max_size=20))
def test_files_of_models(names: list[str]) -> None:
    """A name of letters for any ID, none for two of them, and none that leads elsewhere."""
    found = [slug(name) for name in names]
    assert len(set(found)) == len(names)
    assert all(name not in {".", ".."} and "/" not in name and "\0" not in name and len(name) < 80 for name in found)


def planned_or_refused(folder: Path, models: Json) -> Plan | None:
    """The plan, or None if the file is refused with a sentence; whatever else is raised fails the test."""
    try:
        return planned(folder, models)
    except ConfigError as error:
        said = str(error)
    assert said
    return None


@pytest.mark.parametrize("name", ["\ud800", "a\ud800b", "\x00", "a" * 5000, "../../etc", "a b", "ä", "a/b/c"])
def test_ids_that_nobody_expects(name: str, tmp_path: Path) -> None:
    """Either refused, or planned; never a trace."""
    plan = planned_or_refused(tmp_path, {name: {"cmd": "x ${PORT}"}})
    assert plan is None or (slug(name) and plan.models[name].settings.launch)


@pytest.mark.parametrize("value", ["\ud800", "\x00", "a\nb", "=", "=x", "A", "A=", "A==b"])
def test_variables_that_nobody_expects(value: str, tmp_path: Path) -> None:
    """The same for what stands in `env`, `cmd` and `cmdStop`."""
    for keys in ({"env": [value]}, {"cmd": f"x {value} ${{PORT}}"}, {"cmdStop": value}):
        plan = planned_or_refused(tmp_path, {"a": {"cmd": "x ${PORT}", **keys}})
        assert plan is None or plan.models["a"].settings.launch
