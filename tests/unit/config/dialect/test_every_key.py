"""A config with every key of llama-swap loads, and each key that is not given has its default."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from bioproxy.config.dialect.read import is_dialect, read_dialect
from bioproxy.config.dialect.schema import (
    IGNORED_PATHS,
    SESSION_HEADERS,
    Capabilities,
    DialectConfig,
    File,
    Group,
    Matrix,
    Model,
    Selector,
)
from bioproxy.config.files import Source, parse
from bioproxy.config.keys import fields, unfold
from bioproxy.config.tree import Node
from bioproxy.config.yaml_tree import parse_yaml
from support.config_files import loaded
from support.swap_models import EVERY_KEY, swap

OLDER = {"groups", "matrix"}  # the older places of routing.router; a test of their own


@pytest.fixture(scope="module")
def config() -> DialectConfig:
    """The config with every key."""
    return read_dialect([Source(str(EVERY_KEY), EVERY_KEY.read_text())], environment={"SECOND_KEY": "sk-two"})


def schema_keys(type_: inspect.Type, path: str) -> Iterator[str]:
    """The paths of every key that the Structs declare, `*` for a name of the user's own."""
    if isinstance(type_, inspect.Metadata):
        yield from schema_keys(type_.type, path)
    elif isinstance(type_, inspect.UnionType):
        for each in type_.types:
            yield from schema_keys(each, path)
    elif isinstance(type_, inspect.DictType):
        yield from schema_keys(type_.value_type, f"{path}.*")
    elif isinstance(type_, inspect.StructType) and type_.cls.__module__.startswith("bioproxy.config.dialect"):
        for field in fields(type_.cls):
            if path or field.encode_name not in OLDER:
                place = f"{path}.{field.encode_name}"
                yield place
                yield from schema_keys(field.type, place)


def file_keys(node: Node, path: str) -> Iterator[str]:
    """The paths of every key of a file, with each name in it as itself and as `*`."""
    for key, child in node.value.items() if isinstance(node.value, dict) else ():
        for place in (f"{path}.{key}", f"{path}.*"):
            yield place
            yield from file_keys(child, place)


def test_the_file_has_every_key() -> None:
    """A key that is added to a Struct must be added to the file, or this test names it."""
    root = parse_yaml(EVERY_KEY.read_text()).root
    assert root is not None
    wanted = set(schema_keys(inspect.type_info(File), ""))
    assert len(wanted) > 100
    assert wanted - set(file_keys(root, "")) == set()


def test_nothing_in_it_is_unknown(config: DialectConfig) -> None:
    """Neither an unknown key nor more doubt than the one that it shows on purpose."""
    assert config.unknown == ()
    assert [warning.key for warning in config.warnings] == [
        "tailcat",
        "peers.box.tailcatKey",
        "hooks.on_startup.preload[1]",
    ]


def test_every_global_key_is_taken(config: DialectConfig) -> None:
    """No scalar key at the top has its default."""
    default = File()
    for field in fields(File):
        if isinstance(unfold(field.type).type, inspect.BoolType | inspect.IntType | inspect.StrType):
            assert getattr(config, field.name) != getattr(default, field.name), field.name
    assert config.performance.every == 90.0
    assert config.api_keys == ("sk-one", "sk-two")
    assert config.ui.activity.session_id == ("X-Session-ID", "X-Chat")
    assert config.hooks.on_startup.preload == ("llama",)


def test_every_model_key_is_taken(config: DialectConfig) -> None:
    """No key of its first model has its default."""
    default, model = Model(), config.models["llama"]
    taken = {field.name for field in fields(Model) if getattr(model, field.name) != getattr(default, field.name)}
    assert {field.name for field in fields(Model)} - taken == set()
    assert model.capabilities == Capabilities(
        inputs=("text", "image", "video"), outputs=("text",), tools=True, reranker=True, context=8192
    )


def test_it_survives_json(config: DialectConfig) -> None:
    """What was read can be written and read back: for `bioproxy config`, and to compare at a reload."""
    assert msgspec.json.decode(msgspec.json.encode(config), type=DialectConfig) == config


GLOBALS: dict[str, Any] = {
    "health_check_timeout": 120,
    "log_level": "info",
    "log_time_format": "",
    "log_to_stdout": "proxy",
    "log_requests": False,
    "start_port": 5800,
    "global_ttl": 0,
    "unload_timeout": 10,
    "send_loading_state": False,
    "include_aliases_in_list": False,
    "metrics_max_in_memory": 1000,
    "capture_buffer": 5,
    "macros": {},
    "api_keys": (),
    "models": {},
    "profiles": {},
    "selectors": {},
    "peers": {},
    "aliases": {},
}


@pytest.mark.parametrize("text", ["", "# nothing\n", "models:\n", "{}", "~"])
def test_an_empty_config_is_all_defaults(text: str) -> None:
    """A file without models is legal, and so is one without anything."""
    config = swap(text)
    for name, value in GLOBALS.items():
        assert getattr(config, name) == value, name
    assert config.ui.activity.session_id == SESSION_HEADERS
    assert config.upstream.ignore_paths == IGNORED_PATHS
    assert (config.performance.disabled, config.performance.every) == (False, 5.0)
    assert (config.store.path, config.hooks.on_startup.preload) == (None, ())
    assert (config.routing.router.use, config.routing.scheduler.use) == ("group", "fifo")
    assert config.routing.scheduler.settings.fifo.priority == {}
    assert (config.routing.router.settings.groups, config.routing.router.settings.matrix) == ({}, None)


def test_a_model_has_its_defaults() -> None:
    """A command with ${PORT} is all that a model needs."""
    model = swap("models: {m: {cmd: 'run ${PORT}'}}").models["m"]
    assert model == Model(
        cmd="run 5800",
        proxy="http://localhost:5800",
        ttl=0,
        unload_timeout=10,
        send_loading_state=False,
        health_check_timeout=120,
    )
    assert (model.check_endpoint, model.concurrency_limit, model.unlisted) == ("/health", 0, False)
    times = model.timeouts
    assert (times.connect, times.keepalive, times.response_header) == (30, 30, 0)
    assert (times.tls_handshake, times.expect_continue, times.idle_conn) == (10, 1, 90)


def test_group_selector_and_peer_have_their_defaults() -> None:
    """The answer of a peer is waited for 60 s, even where another of its time-outs is given."""
    config = swap(
        "models: {m: {cmd: 'x ${PORT}'}}\ngroups: {g: {members: [m]}}\nselectors: {s: {strategy: pin, targets: [m]}}\n"
        "peers: {p: {proxy: 'http://p', models: [q], timeouts: {connect: 1}}}"
    )
    assert config.routing.router.settings.groups["g"] == Group(swap=True, exclusive=True, members=("m",))
    assert config.selectors["s"] == Selector(strategy="pin", targets=("m",))
    assert config.selectors["s"].settings.spillover == 1
    assert config.peers["p"].timeouts.response_header == 60
    assert config.peers["p"].api_key == ""


def test_the_older_places_of_routing_work() -> None:
    """`groups` and `matrix` at the top mean what routing.router.settings means."""
    models = "models: {a: {cmd: 'x ${PORT}'}, b: {cmd: 'x ${PORT}'}}\n"
    grouped = swap(models + "groups: {g: {swap: false, members: [a, b]}}").routing.router
    assert (grouped.use, grouped.settings.groups["g"].members) == ("group", ("a", "b"))
    matrix = swap(models + "matrix: {vars: {v: a}, evict_costs: {b: 3}, sets: {s: v & b}}").routing.router
    assert matrix.use == "matrix"
    assert matrix.settings.matrix == Matrix(vars={"v": "a"}, evict_costs={"b": 3}, sets={"s": "v & b"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models:\n  m: {}\n", True),
        ("a: 1\npeers:\n", True),
        ('{"models": {}}', True),
        ('\ufeff  {"models": {}}', True),
        ('"models": {}\n', True),
        ("model: a.gguf\n", False),
        ("prefixes:\n  models: a.txt\n", False),
        ('{"prefixes": {"models": "a"}}', False),
        ("# models:\n", False),
        ("{broken", False),
        ("", False),
        ("  models: {}\n  logLevel: info\n", True),
        ("---\n{models: {}}\n", True),
        ("# a comment\n{models: {}}\n", True),
        ("? models\n: {}\n", True),
        ("&all\npeers: {}\n", True),
        ("x: &x {models: {}}\n<<: *x\n", True),
        ('prefixes:\n  "@code": "a\nmodels: y\nb"\n', False),
        ("log: |\n  x\n# models: y\n", False),
        ("[models]\n", False),
    ],
)
def test_the_dialect_is_known_by_its_keys(text: str, expected: bool) -> None:
    """`models` or `peers` at the top, however YAML or JSON write it; text that looks so is none."""
    assert is_dialect(parse(text, "")) is expected


def test_variables_may_be_what_makes_a_file_yaml(tmp_path: Path) -> None:
    """The file is llama-swap's, though nothing can be read before they are filled in."""
    text = "models: {m: {cmd: x, proxy: 'http://h', ttl: ${env.TTL}}}\n"
    found = loaded(tmp_path, text, environment={"TTL": "7"})
    assert found.dialect is not None
    assert found.dialect.models["m"].ttl == 7


def test_two_hundred_models_load() -> None:
    """Each with its port, its macros and its aliases; `make bench` measures how long it takes."""
    models = "".join(
        f'  "org/m{index}:q4": {{cmd: "run ${{PORT}} ${{tag}}", aliases: [a{index}], macros: {{tag: {index}}}}}\n'
        for index in range(200)
    )
    config = swap("macros: {tag: none}\nmodels:\n" + models)
    assert len({model.cmd for model in config.models.values()}) == 200
    assert config.models["org/m7:q4"].cmd.endswith(" 7")
    assert config.aliases["a199"] == "org/m199:q4"
