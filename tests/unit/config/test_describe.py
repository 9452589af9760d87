"""What is shown of a Config can be read back, and what changed between two is known by key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from bioproxy.config.check import find_problems
from bioproxy.config.describe import describe
from bioproxy.config.describe import write as write_value
from bioproxy.config.json_schema import own_schema
from bioproxy.config.keys import KEYS, SECTIONS, Kind, build, value_of
from bioproxy.config.load import load
from bioproxy.config.masking import MASK
from bioproxy.config.schema import App, Config, Key, Kv, Prefix, SideRule, StabilizeRule
from bioproxy.config.settings import difference
from support.config_files import loaded, write, yaml_text

WORD = st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters="-_@"), min_size=1, max_size=12)
PATHS = WORD.map(lambda word: f"/srv/{word}")
WORDS = st.lists(WORD, max_size=2).map(tuple)
SHAPE: dict[str, st.SearchStrategy[Any]] = {
    "name": WORD, "why": WORD, "agents": WORDS, "headers": WORDS.map(lambda words: tuple(f"{one}: *" for one in words)),
    "stream": st.sampled_from(["any", "true", "false"]), "max_tokens": st.integers(0, 5), "system": WORDS,
}  # fmt: skip
BY_KEY: dict[str, st.SearchStrategy[Any]] = {  # what the schema's types do not tell
    "proxy_host": st.sampled_from(["localhost", "0.0.0.0", "::1", "box.lan"]),
    "admin_host": st.sampled_from(["localhost", "127.0.0.1", "10.0.0.1"]),
    "backend_url": st.sampled_from(["http://localhost:8081", "https://gpu.lan/base", "http://[::1]:9"]),
    "prefixes": st.dictionaries(WORD, st.builds(Prefix, template=PATHS, as_model=st.booleans()), max_size=3),
    "model": st.just(""),
    "engine_arguments": st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"))).map(tuple),
    "api_keys": st.lists(st.builds(Key, key=WORD, name=st.text(max_size=5).filter(lambda t: "\0" not in t)))
    .filter(lambda keys: len({key.key for key in keys}) == len(keys))
    .map(tuple),
    "admin_hosts": st.lists(st.sampled_from(["a.lan", "::1"])).map(tuple),
    "trusted_proxies": st.lists(st.sampled_from(["10.0.0.0/8", "fd00::/8"])).map(tuple),
    "cors_origins": st.lists(st.sampled_from(["*", "https://a.lan"])).map(tuple),
    "socket_mode": st.sampled_from(["0660", "0666"]),
    "proxy.base_path": st.sampled_from(["", "/llm"]),
    "ollama.listen": st.sampled_from(["", "127.0.0.1:11434", ":11434", "[::1]:1"]),
    "kv.model_budgets": st.dictionaries(WORD, st.integers(0, 1 << 60), max_size=3),
    "kv.key_budgets": st.dictionaries(st.just("*"), st.integers(0, 1 << 60)),
    "clients.apps": st.lists(st.builds(App, **SHAPE), max_size=2).map(tuple),
    "clients.side": st.lists(st.builds(SideRule, **SHAPE, side=st.sampled_from(["off", "wait"])), max_size=2).map(
        tuple
    ),
    "clients.stabilize": st.lists(
        st.builds(StabilizeRule, **SHAPE, line=st.just("Count: *"), mode=st.sampled_from(["off", "on"])), max_size=2
    ).map(tuple),
    "kv.fingerprint": st.text(st.characters(codec="utf-8", exclude_characters="\0")),
}


def values_of(kind: Kind) -> st.SearchStrategy[Any]:
    """Any value that a type and its bounds allow."""
    match kind.type:
        case inspect.BoolType():
            return st.booleans()
        case inspect.LiteralType(values=values):
            return st.sampled_from(list(values))
        case inspect.IntType() as number:
            return st.integers(number.ge, number.le)
        case inspect.FloatType() as number:
            low = number.ge if number.gt is None else number.gt
            return st.floats(low, number.le, exclude_min=number.gt is not None)
        case inspect.UnionType():
            return st.one_of([values_of(each) for each in kind.choices])
        case _:
            return PATHS if kind.path else WORD


CONFIGS = st.fixed_dictionaries({path: BY_KEY.get(path, values_of(option.kind)) for path, option in KEYS.items()}).map(
    build
)


@given(config=CONFIGS, name=st.sampled_from(["conf.json", "conf.yaml"]))
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], deadline=None)
def test_every_config_that_is_encoded_is_loaded_again_as_it_was(config: Config, name: str, tmp_path: Path) -> None:
    """As JSON and as YAML, to the last bit."""
    assume(not find_problems(config, {}))
    text = msgspec.json.encode(config).decode()
    if name.endswith("yaml"):
        text = yaml_text(json.loads(text))
    assert loaded(tmp_path, text, name=name).config == config


@given(config=CONFIGS)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], deadline=None)
def test_every_value_that_is_written_is_taken_back_by_flag_and_environment(config: Config, tmp_path: Path) -> None:
    """The text that `bioproxy config` prints may be pasted after a flag or into a variable."""
    assume(not find_problems(config, {}))
    texts = {path: write_value(option, value_of(config, path)) for path, option in KEYS.items()}
    assert load(texts, environment={"HOME": str(tmp_path)}).config == config
    environment = {KEYS[path].environment: text for path, text in texts.items() if "\0" not in text}
    found = load(environment={**environment, "HOME": str(tmp_path)}).config
    emptied = {path for path, text in texts.items() if not text}  # an empty variable counts as not set
    assert {path for path in KEYS if value_of(found, path) != value_of(config, path)} <= emptied


@given(config=CONFIGS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_msgspec_agrees_with_every_config_that_we_accept(config: Config) -> None:
    """Its own validation knows the same bounds."""
    assert msgspec.json.decode(msgspec.json.encode(config), type=Config) == config


def test_what_is_described_is_the_effective_value_and_its_origin(tmp_path: Path) -> None:
    """Every key of the table stands in it once; prefixes have a row each."""
    text = 'proxy_port: 1\nprefixes:\n  "@a": /a\n  "@b": /b\nkv: {min_free: 1GiB}\nadmin_key: s3cret\n'
    rows = {row.key: row for row in describe(loaded(tmp_path, text, arguments={"queue_timeout": "90"}))}
    assert set(rows) == {*KEYS, "prefixes.@a", "prefixes.@b"} - {"prefixes"}
    shown = {key: (rows[key].value, rows[key].text, rows[key].origin.replace(f"{tmp_path}/", "")) for key in rows}
    assert shown["proxy_port"] == (1, "1", "conf.yaml:1")
    assert shown["prefixes.@b"] == ("/b", "/b", "conf.yaml:4")
    assert shown["kv.min_free"] == (1 << 30, "1GiB", "conf.yaml:5")
    assert shown["queue_timeout"] == (90.0, "1m30s", "flag -queue-timeout")
    assert shown["admin_key"] == (MASK, MASK, "conf.yaml:6")
    assert shown["metrics_key"] == ("", "", "default")
    assert shown["warmup.enabled"] == (True, "true", "default")
    assert shown["admin_hosts"] == ([], "[]", "default")


def test_a_prefix_that_is_a_model_too_is_described_so(tmp_path: Path) -> None:
    """A plain path where the path is all there is to say."""
    found = loaded(tmp_path, 'prefixes: {"@a": {template: /a, as_model: true}, "@b": {template: /b}}')
    rows = {row.key: row.value for row in describe(found)}
    assert (rows["prefixes.@a"], rows["prefixes.@b"]) == ({"template": "/a", "as_model": True}, "/b")


def test_what_is_described_is_json(tmp_path: Path) -> None:
    """For `bioproxy config --json` and /status."""
    assert json.loads(msgspec.json.encode(describe(loaded(tmp_path, 'prefixes: {"@a": {template: /a}}'))))


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--api-key", "s3cret", "-c", "1"], ["--api-key", MASK, "-c", "1"]),
        (["--api-key=s3cret"], [f"--api-key={MASK}"]),
        (["--hf-token", "s3cret"], ["--hf-token", MASK]),
        (["--api-key", "--api-key"], ["--api-key", MASK]),
        (["-c", "--api-key"], ["-c", "--api-key"]),
    ],
)
def test_keys_among_the_engines_arguments_are_masked(arguments: list[str], shown: list[str], tmp_path: Path) -> None:
    """They are shown at start-up."""
    write(tmp_path, "x", name="m.gguf")
    found = loaded(tmp_path, json.dumps({"model": "m.gguf", "engine_arguments": arguments}))
    assert next(row.value for row in describe(found) if row.key == "engine_arguments") == shown


def test_difference_names_the_keys_that_changed() -> None:
    """In the table's order; nothing for equal ones."""
    old = Config(prefixes={"@a": Prefix(template="/a")})
    new = Config(proxy_port=1, kv=Kv(policy="off"), prefixes={"@b": Prefix(template="/a")})
    assert difference(old, new) == ("proxy_port", "prefixes", "kv.policy")
    assert difference(old, old) == ()


@given(CONFIGS, CONFIGS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=30)
def test_configs_without_difference_are_equal(one: Config, other: Config) -> None:
    """A reload that looks at the difference misses nothing."""
    assert (difference(one, other) == ()) == (one == other)
    assert set(difference(one, other)) == set(difference(other, one))


def test_the_json_schema_knows_every_key_and_allows_units() -> None:
    """And nothing else: editors mark what is unknown."""
    schema = own_schema()
    definitions = schema["$defs"]
    top = definitions["Config"]["properties"]
    assert set(top) == {*Config.__struct_fields__, "$schema"}
    assert definitions["Config"]["additionalProperties"] is False
    assert top["queue_timeout"]["anyOf"][1]["type"] == "string"
    assert top["queue_timeout"]["default"] == 600.0
    for struct in SECTIONS.values():
        assert set(definitions[struct.__name__]["properties"]) == set(struct.__struct_fields__)
    assert json.loads(json.dumps(schema)) == schema
