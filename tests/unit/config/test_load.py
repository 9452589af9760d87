"""How a Config comes about: which source wins, how values are converted, and that every problem is told at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.load import load
from bioproxy.config.schema import Config, Prefix
from bioproxy.config.tree import Origin
from bioproxy.errors import ConfigError, Problem
from support.config_files import loaded, problems, sentences, write


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    """Only the folder for state is filled in."""
    found = loaded(tmp_path)
    assert found.config == Config(state_directory=str(tmp_path / ".local" / "state" / "bioproxy"))
    assert (found.path, found.folder, found.warnings) == (None, str(Path.cwd()), ())
    assert set(found.origins.values()) == {Origin("default")}


def test_the_example_of_the_mission(tmp_path: Path) -> None:
    """The code says 8088, the file says 8083, -port 8090 wins."""
    text = "proxy_port: 8083"
    assert loaded(tmp_path).config.proxy_port == 8088
    assert loaded(tmp_path, text).config.proxy_port == 8083
    found = loaded(tmp_path, text, arguments={"proxy_port": "8090"})
    assert (found.config.proxy_port, str(found.origins["proxy_port"])) == (8090, "flag -port")


def test_the_environment_stands_between_file_and_flags(tmp_path: Path) -> None:
    """Each key on its own."""
    text = "proxy_port: 1\nadmin_port: 2\nqueue_limit: 3"
    environment = {"BIOPROXY_PROXY_PORT": "4", "BIOPROXY_ADMIN_PORT": "5"}
    found = loaded(tmp_path, text, environment=environment, arguments={"proxy_port": "6"})
    config = found.config
    assert (config.proxy_port, config.admin_port, config.queue_limit) == (6, 5, 3)
    places = [str(found.origins[key]) for key in ("proxy_port", "admin_port", "queue_limit", "proxy_host")]
    assert places == ["flag -port", "BIOPROXY_ADMIN_PORT", f"{tmp_path / 'conf.yaml'}:3", "default"]


def test_a_flag_is_named_as_it_was_written(tmp_path: Path) -> None:
    """In origins and in errors."""
    environment = {"HOME": str(tmp_path)}
    found = load({"proxy_port": "1"}, environment=environment, names={"proxy_port": "--proxy-port"})
    assert str(found.origins["proxy_port"]) == "flag --proxy-port"


def test_a_value_of_every_type_from_a_file(tmp_path: Path) -> None:
    """Numbers, words, durations, sizes, booleans, lists and sections."""
    text = """
queue_timeout: 10m
stream_keepalive: 5
engine_arguments: ["-c", "4096"]
model: model.gguf
kv: {policy: off, min_free: 1GiB, disk_budget: 1000, max_age: 2d}
warmup: {enabled: no, heads: 0}
log: {level: debug, format: json}
"""
    write(tmp_path, "x", name="model.gguf")
    config = loaded(tmp_path, text).config
    assert (config.queue_timeout, config.stream_keepalive, config.engine_arguments) == (600.0, 5.0, ("-c", "4096"))
    assert (config.kv.policy, config.kv.min_free, config.kv.disk_budget) == ("off", 1 << 30, 1000)
    assert (config.kv.max_age, config.warmup.enabled, config.warmup.heads) == (172800.0, False, 0)
    assert (config.log.level, config.log.format) == ("debug", "json")


def test_a_value_of_every_type_from_the_environment(tmp_path: Path) -> None:
    """Lists and mappings are JSON."""
    environment = {
        "BIOPROXY_PROXY_PORT": " 1 ",
        "BIOPROXY_QUEUE_TIMEOUT": "10m",
        "BIOPROXY_STREAM_KEEPALIVE": "0",
        "BIOPROXY_KV_MIN_FREE": "1GiB",
        "BIOPROXY_KV_POLICY": "off",
        "BIOPROXY_WARMUP_ENABLED": "0",
        "BIOPROXY_ADMIN_KEY": "12345",
        "BIOPROXY_ADMIN_HOSTS": '["a.lan", "b.lan"]',
        "BIOPROXY_PREFIXES": '{"@code": "/code.txt"}',
        "BIOPROXY_API_KEYS": '["k", {"key": "l", "name": "lena"}]',
    }
    config = loaded(tmp_path, environment=environment).config
    assert (config.proxy_port, config.queue_timeout, config.stream_keepalive) == (1, 600.0, 0.0)
    assert (config.kv.min_free, config.kv.policy, config.warmup.enabled) == (1 << 30, "off", False)
    assert (config.admin_key, config.admin_hosts) == ("12345", ("a.lan", "b.lan"))
    assert config.prefixes == {"@code": Prefix(template="/code.txt")}
    assert [(key.key, key.name) for key in config.api_keys if not isinstance(key, str)] == [("k", ""), ("l", "lena")]


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    """Compose files write them so."""
    assert loaded(tmp_path, environment={"BIOPROXY_PROXY_PORT": "", "BIOPROXY_PREFIXES": ""}).config.proxy_port == 8088


def test_an_unknown_variable_is_a_warning(tmp_path: Path) -> None:
    """Others may set such names; a misspelt one is told with the nearest."""
    found = loaded(tmp_path, environment={"BIOPROXY_PROXY_PRT": "1"})
    (warning,) = map(str, found.warnings)
    assert warning.startswith("environment variable BIOPROXY_PROXY_PRT: is not known and has no effect; did you mean")


@pytest.mark.parametrize(
    "name",
    ["BIOPROXY_SERVICE_HOST", "BIOPROXY_SERVICE_PORT_HTTP", "BIOPROXY_PORT", "BIOPROXY_PORT_8088_TCP_ADDR"],
)
def test_what_kubernetes_sets_for_a_service_is_passed_over(name: str, tmp_path: Path) -> None:
    """In every container beside a service that is called bioproxy."""
    assert loaded(tmp_path, environment={name: "tcp://10.0.0.1:8088"}).warnings == ()


def test_a_later_list_or_mapping_replaces_the_whole_earlier_one(tmp_path: Path) -> None:
    """And its items' origins go with it."""
    text = 'prefixes: {"@a": /a, "@b": /b}\nadmin_hosts: [x, y]'
    found = loaded(tmp_path, text, arguments={"prefixes": '{"@c": "/c"}', "admin_hosts": '["z"]'})
    assert list(found.config.prefixes) == ["@c"]
    assert found.config.admin_hosts == ("z",)
    assert {key for key in found.origins if key.startswith("prefixes.")} == {"prefixes.@c"}
    assert str(found.origins["admin_hosts[0]"]) == "flag -admin-hosts"


def test_prefixes_and_items_know_their_line(tmp_path: Path) -> None:
    """So that a template's error can name the line in which it is configured."""
    found = loaded(tmp_path, 'prefixes:\n  "@a": /a\n  "@b.c": {template: /b}\napi_keys:\n  - k\n')
    assert str(found.origins["prefixes.@b.c"]) == f"{tmp_path / 'conf.yaml'}:3"
    assert str(found.origins["api_keys[0]"]) == f"{tmp_path / 'conf.yaml'}:5"


def test_both_ways_to_write_a_prefix(tmp_path: Path) -> None:
    """A loaded Config holds Prefix structs only."""
    config = loaded(tmp_path, '{"prefixes": {"@a": "/a", "@b": {"template": "/b"}}}', name="conf.json").config
    assert config.prefixes == {"@a": Prefix(template="/a"), "@b": Prefix(template="/b")}


def test_paths_in_a_file_start_at_its_folder(tmp_path: Path) -> None:
    """`~` is home, absolute ones stay."""
    folder = tmp_path / "etc"
    folder.mkdir()
    text = 'prefixes: {"@a": a.txt, "@b": ../b.txt, "@c": ~/c.txt, "@d": /d.txt}\nkv: {directory: slots}'
    path = write(folder, text)
    found = load(path=path, environment={"HOME": str(tmp_path)})
    paths = [prefix.template for prefix in found.config.prefixes.values() if isinstance(prefix, Prefix)]
    assert paths == [f"{folder / 'a.txt'}", f"{tmp_path / 'b.txt'}", f"{tmp_path / 'c.txt'}", "/d.txt"]
    assert (found.config.kv.directory, found.folder) == (f"{folder}/slots", str(folder))


def test_paths_in_flags_start_at_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the shell completed them."""
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, "proxy_port: 1")
    monkeypatch.chdir("/")
    found = load({"kv.directory": "tmp/slots"}, path=path, environment={"HOME": "/h"})
    assert found.config.kv.directory == "/tmp/slots"


def test_the_engines_view_of_its_folder_is_left_as_it_is(tmp_path: Path) -> None:
    """It is a path in another file system."""
    config = loaded(tmp_path, "kv: {directory: /a, engine_directory: ~/slots}").config
    assert config.kv.engine_directory == "~/slots"


@pytest.mark.parametrize("section", ["kv:", "kv: {}", "kv: ~", "prefixes:", "api_keys:"])
def test_a_section_without_content_is_as_good_as_none(section: str, tmp_path: Path) -> None:
    """Who comments out the last prefix leaves its heading."""
    found = loaded(tmp_path, f"proxy_port: 1\n{section}\n").config
    assert found == Config(proxy_port=1, state_directory=found.state_directory)


def test_editors_may_keep_their_key(tmp_path: Path) -> None:
    """`$schema` says nothing to us."""
    assert loaded(tmp_path, '{"$schema": "x.json", "proxy_port": 1}', name="conf.json").config.proxy_port == 1


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("proxy_port: eighty", 'proxy_port: expected a whole number from 0 to 65535, got the text "eighty"'),
        ('proxy_port: "80"', 'expected a whole number from 0 to 65535, got the text "80"; without quotes it would do'),
        ("proxy_port: 65536", "expected a whole number from 0 to 65535, got the number 65536"),
        ("proxy_port: 80.5", "expected a whole number from 0 to 65535, got the number 80.5"),
        ("proxy_port: true", "expected a whole number from 0 to 65535, got true"),
        ("proxy_port:", "expected a whole number from 0 to 65535, got nothing"),
        ("proxy_port: " + "9" * 300, "got the number 999999"),
        ("queue_timeout: " + "9" * 300, "at most 3650d, got the number 999999"),
        ("kv: {min_free: 1e300}", "at most 1048576TiB, got the number 1e300"),
        ("queue_limit: 0", "expected a whole number from 1 to 1000000000, got the number 0"),
        ("proxy_host: 5", "expected a text, got the number 5; a text like this must stand in quotes"),
        ("proxy_host: off", "expected a text, got off; a text like this must stand in quotes"),
        ("proxy_host: [a]", "expected a text, got a list"),
        ("queue_timeout: -1", "(a bare number is seconds), at least 0, at most 3650d, got the number -1"),
        ("warmup_check_interval: 0", "(a bare number is seconds), more than 0, at most 3650d, got the number 0"),
        ("queue_timeout: soon", "expected a duration such as 500ms, 30s, 10m or 1h30m"),
        ("queue_timeout: .inf", "expected a duration such as"),
        ("limits: {body: 5G}", 'write "GiB" (powers of 1024) or "GB" (of 1000), got the text "5G"'),
        ("kv: {policy: sometimes}", 'kv.policy: expected one of always, auto, off, got the text "sometimes"'),
        ("kv: {policy: on}", "kv.policy: expected one of always, auto, off, got on"),
        ("warmup: {enabled: 1}", "expected true or false, got the number 1"),
        ("warmup: [x]", "warmup: expected a mapping with some of the keys enabled, on_battery, settle"),
        ("prefixes: [a]", "prefixes: expected a mapping of prefixes to template files, got a list"),
        ("prefixes: {a: 5}", "prefixes.a: expected a path, got the number 5"),
        ("prefixes: {a: {}}", "prefixes.a: the key template is missing"),
        ("prefixes: {a: {template: /a, extra: 1}}", "prefixes.a.extra: unknown key"),
        ("admin_hosts: a.lan", 'admin_hosts: expected a list, as in ["one", "two"], got the text "a.lan"'),
        ("admin_hosts: [1]", "admin_hosts[0]: expected a text, got the number 1"),
        ("api_keys: [{key: a, priority: high}]", "api_keys[0].priority: expected a whole number from -1000 to 1000"),
        ("api_keys: [{kye: a}]", "api_keys[0].kye: unknown key; did you mean api_keys[0].key?"),
        ("[1, 2]", "the file must be a mapping of keys to values"),
        ('proxy_host: "a\\0b"', "expected a text, got bytes that are none"),
    ],
)
def test_a_value_that_does_not_fit_is_a_sentence(line: str, sentence: str, tmp_path: Path) -> None:
    """File, line, key, what was expected, what was found."""
    (found,) = sentences(tmp_path, f"# first\n{line}\n")
    assert found.startswith("conf.yaml:2: ")
    assert sentence in found


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("admin_key: 7777", "7777"),
        ("api_keys: [7777]", "7777"),
        ('api_keys: [{key: a, priority: "s3cret"}]', "s3cret"),
        ('api_keys: ["with blank"]', "with blank"),
        ("metrics_key: [s3cret]", "s3cret"),
    ],
)
def test_no_secret_stands_in_an_error(line: str, secret: str, tmp_path: Path) -> None:
    """Errors are copied into bug reports."""
    assert all(secret not in sentence for sentence in sentences(tmp_path, line))


def test_every_problem_is_told_at_once_and_in_order(tmp_path: Path) -> None:
    """Syntax of keys, types, contradictions, then environment and flags."""
    text = """proxy_prot: 1
admin_host: 0.0.0.0
kv:
  policy: never
prefixes:
  "@a": /a
  "@b ": /b
  "@a": /c
api_keys: [x, x]
"""
    found = problems(tmp_path, text, environment={"BIOPROXY_QUEUE_LIMIT": "few"}, arguments={"limits.body": "huge"})
    assert [(problem.where.replace(f"{tmp_path / 'conf.yaml'}:", ""), problem.key) for problem in found] == [
        ("1", "proxy_prot"),
        ("2", "admin_host"),
        ("4", "kv.policy"),
        ("7", "prefixes.@b "),
        ("8", "prefixes.@a"),
        ("9", "api_keys[1]"),
        ("environment variable BIOPROXY_QUEUE_LIMIT", "queue_limit"),
        ("flag -limits-body", "limits.body"),
    ]


def test_a_broken_value_is_told_even_where_a_flag_overrides_it(tmp_path: Path) -> None:
    """The flag will be gone tomorrow."""
    (found,) = problems(tmp_path, "proxy_port: x", arguments={"proxy_port": "1"})
    assert found.where == f"{tmp_path / 'conf.yaml'}:1"


def test_what_rests_on_a_broken_value_is_not_told(tmp_path: Path) -> None:
    """The admin key is there; it only has the wrong type."""
    assert [each.key for each in problems(tmp_path, "admin_host: 0.0.0.0\nadmin_key: 5")] == ["admin_key"]


@pytest.mark.parametrize("name", ["conf.json", "conf.yaml"])
def test_the_same_prefix_twice_is_an_error_with_both_lines(name: str, tmp_path: Path) -> None:
    """In both formats."""
    text = '{"prefixes": {\n  "@code": "/a",\n  "@code": "/b"\n}}'
    (found,) = sentences(tmp_path, text, name=name)
    assert found == f'{name}:3: prefixes.@code: "@code" stands twice: here and in line 2; remove one of the two'


@pytest.mark.parametrize(
    ("key", "text", "part"),
    [
        ("prefixes", "@code=x", 'expected JSON such as {"@code": "code.txt"}; not valid JSON'),
        ("admin_hosts", "a,b", 'expected JSON such as ["one", "two"]; not valid JSON'),
        ("admin_hosts", "", "nothing is given"),
        ("admin_hosts", '{"a": 1}', "expected a list"),
        ("prefixes", '{"@a": "/a", "@a": "/b"}', "stands twice"),
        ("proxy_port", "", "expected a whole number from 0 to 65535"),
        ("warmup.enabled", "perhaps", "expected true or false"),
        ("proxy_host", "\udcff", "expected a text"),
    ],
)
def test_values_of_flags_that_do_not_fit(key: str, text: str, part: str, tmp_path: Path) -> None:
    """The sentence says how a list or mapping is given."""
    (found,) = problems(tmp_path, arguments={key: text})
    assert found.where.startswith("flag -")
    assert part in found.message


def test_backend_url_and_model_in_one_place_are_an_error_that_says_so(tmp_path: Path) -> None:
    """Both lines are named."""
    write(tmp_path, "x", name="m.gguf")
    (found,) = problems(tmp_path, "backend_url: http://gpu:8081\nmodel: m.gguf")
    assert str(found) == (
        f"{tmp_path / 'conf.yaml'}:2: model: is set, and so is backend_url ({tmp_path / 'conf.yaml'}:1): "
        "a request can go to one engine only; remove one of the two"
    )


def test_a_model_on_the_command_line_beats_the_files_backend_url(tmp_path: Path) -> None:
    """As a flag beats the file for every other key."""
    write(tmp_path, "x", name="m.gguf")
    found = loaded(tmp_path, "backend_url: http://gpu:8081", arguments={"model": f"{tmp_path}/m.gguf"}).config
    assert (found.model, found.backend_url) == (f"{tmp_path / 'm.gguf'}", "")


def test_a_backend_url_on_the_command_line_beats_the_files_model(tmp_path: Path) -> None:
    """The other way round."""
    write(tmp_path, "x", name="m.gguf")
    found = loaded(tmp_path, "model: m.gguf", arguments={"backend_url": "http://gpu:8081"}).config
    assert (found.model, found.backend_url) == ("", "http://gpu:8081")


def test_an_empty_backend_url_makes_way_for_a_model(tmp_path: Path) -> None:
    """So that a command line can do without changing the file."""
    write(tmp_path, "x", name="m.gguf")
    found = loaded(tmp_path, "backend_url: http://gpu:8081\nmodel: m.gguf", arguments={"backend_url": ""}).config
    assert (found.model, found.backend_url) == (f"{tmp_path / 'm.gguf'}", "")


def test_with_a_model_there_is_no_backend_url(tmp_path: Path) -> None:
    """Only one of the two decides where requests go, in the Config, too."""
    write(tmp_path, "x", name="m.gguf")
    assert loaded(tmp_path, "model: m.gguf").config.backend_url == ""


def test_without_any_engine_there_is_nothing_to_do(tmp_path: Path) -> None:
    """The sentence names both keys."""
    (found,) = sentences(tmp_path, 'backend_url: ""')
    assert found.startswith("conf.yaml:1: backend_url: is empty, and no model is set")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("gone.gguf", "cannot be used: No such file"),
        (".", "is no file"),
        ("x" * 300, "cannot be used: File name too long"),
    ],
)
def test_a_model_must_be_a_file(name: str, part: str, tmp_path: Path) -> None:
    """Before anything is started."""
    (found,) = sentences(tmp_path, f"model: {name}")
    assert part in found


@given(text=st.text(max_size=60), name=st.sampled_from(["conf.json", "conf.yaml", "conf"]))
def test_no_file_breaks_it(text: str, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any text is a Config or a ConfigError with sentences."""
    folder = tmp_path_factory.mktemp("any")
    try:
        loaded(folder, text, name=name)
    except ConfigError as error:
        assert all(problem.message for problem in error.problems)  # noqa: PT017 - both outcomes are right


def test_a_configuration_has_one_place_for_its_state(tmp_path: Path) -> None:
    """Whatever port it serves on; another file has another, and so has another model if there is no file."""
    base = os.path.join(tmp_path, ".local", "state", "bioproxy", "")
    one = loaded(tmp_path, "proxy_port: 1")
    same = loaded(tmp_path, "proxy_port: 2", arguments={"proxy_port": "3"})
    assert one.state == same.state
    assert one.state.startswith(f"{base}conf.yaml-")
    assert one.slot_folder == f"{one.state}/slots"
    assert loaded(tmp_path, "kv: {directory: /somewhere}").slot_folder == "/somewhere"
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    served = [{}, {"model": f"{tmp_path}/a.gguf"}, {"model": f"{tmp_path}/b.gguf"}, {"backend_url": "http://box:8080"}]
    states = [load(arguments, environment={"HOME": str(tmp_path)}).state for arguments in served]
    assert len({one.state, *states}) == 5
    assert states[1].startswith(f"{base}a.gguf-")


def test_a_link_turned_to_another_file_is_the_same_configuration(tmp_path: Path) -> None:
    """A store that keeps each version of a file under a name of its own changes the link, not the configuration."""
    states = []
    for version in ("one", "two"):
        (tmp_path / version).write_text("proxy_port: 1")
        link = tmp_path / "conf.yaml"
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / version)
        states.append(load(path=str(link), environment={"HOME": str(tmp_path)}).state)
    assert states[0] == states[1]


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("startPort must be greater than 1", "c:1", "startPort"), "c:1: startPort must be greater than 1"),
        (Problem("profiles.p.pins.x references y", "", "profiles.p.pins.x"), "profiles.p.pins.x references y"),
        (Problem("apiKeys[0]: no blanks", "c:1", "apiKeys[0]"), "c:1: apiKeys[0]: no blanks"),
        (
            Problem("performance: every must be more", "c:1", "performance.every"),
            "c:1: performance: every must be more",
        ),
        (Problem("upstream.x: bad", "c:1", "upstream.x[3]"), "c:1: upstream.x: bad"),
        (Problem("is empty", "c:1", "model"), "c:1: model: is empty"),
        (Problem("model m: bad", "c:1", "models.m.ttl"), "c:1: models.m.ttl: model m: bad"),
        (Problem("kvx is bad", "c:1", "kv"), "c:1: kv: kvx is bad"),
    ],
)
def test_a_problem_names_its_key_once(problem: Problem, text: str) -> None:
    """llama-swap's sentences begin with it."""
    assert str(problem) == text


def test_the_section_that_both_dialects_have_keeps_the_keys_of_both(tmp_path: Path) -> None:
    """`ui` is llama-swap's too, and what is of neither is told as unknown."""
    ui = "ui:\n  edit_config: true\n  activity: {session_id: [X-Mine]}\n  colour: red\n"
    (tmp_path / "c.yaml").write_text("models: {a: {cmd: 'x ${PORT}'}}\n" + ui)
    loaded = load(path=str(tmp_path / "c.yaml"), environment={"HOME": str(tmp_path)})
    assert loaded.config.ui.edit_config
    assert loaded.dialect is not None
    assert loaded.dialect.ui.activity.session_id == ("X-Mine",)
    assert loaded.origins["ui.edit_config"].place.endswith(":3")
    assert any("ui.colour" in str(warning) for warning in loaded.warnings)
