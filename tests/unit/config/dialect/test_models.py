"""Each model: what it takes from the top, what refuses it, and the names it has."""

from __future__ import annotations

from typing import Any

import pytest

from bioproxy.config.dialect.go import engine_fault, url_fault
from bioproxy.config.dialect.names import Meaning, Names
from bioproxy.config.dialect.schema import DialectConfig
from support.sockets import needs_unix
from support.swap_models import messages, problems, swap


def names_of(config: DialectConfig) -> Names:
    """The names of a loaded config."""
    peers = {name: peer.models for name, peer in config.peers.items()}
    return Names(ids=config.models, aliases=config.aliases, peers=peers)


def model(text: str, *, top: str = "") -> Any:
    """The model m with the keys of a flow mapping."""
    return swap(f"{top}\nmodels: {{m: {{cmd: 'x ${{PORT}}', {text}}}}}").models["m"]


def warnings(text: str) -> list[str]:
    """What is doubtful in a config."""
    return [warning.message for warning in swap(text).warnings]


@pytest.mark.parametrize(
    ("own", "top", "key", "value"),
    [
        ("", "globalTTL: 9", "ttl", 9),
        ("ttl: -1", "globalTTL: 9", "ttl", 9),
        ("ttl: 0", "globalTTL: 9", "ttl", 0),
        ("ttl: 5", "globalTTL: 9", "ttl", 5),
        ("", "unloadTimeout: 9", "unload_timeout", 9),
        ("unloadTimeout: 0", "unloadTimeout: 9", "unload_timeout", 9),
        ("unloadTimeout: 3", "unloadTimeout: 9", "unload_timeout", 3),
        ("", "sendLoadingState: true", "send_loading_state", True),
        ("sendLoadingState: false", "sendLoadingState: true", "send_loading_state", False),
        ("healthCheckTimeout: 99", "healthCheckTimeout: 20", "health_check_timeout", 20),
        ("healthCheckTimeout: 99", "", "health_check_timeout", 120),
    ],
)
def test_a_model_takes_what_it_has_not(own: str, top: str, key: str, value: Any) -> None:
    """Its own value first, where llama-swap looks at it at all."""
    assert getattr(model(own, top=top), key) == value


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("name: ' a b '", "name", "a b"),
        ("description: 5", "description", "5"),
        ("concurrencyLimit: -3", "concurrency_limit", 0),
        ("checkEndpoint: none", "check_endpoint", "none"),
        ("proxy: ", "proxy", "http://localhost:5800"),
        ("env: [A=1, 'B=x y']", "env", ("A=1", "B=x y")),
        ("aliases: [1, a]", "aliases", ("1", "a")),
        ("unlisted: on", "unlisted", True),
        ("metadata: {a: [1, {b: no}], c: ~}", "metadata", {"a": [1, {"b": "no"}], "c": None}),
    ],
)
def test_what_a_value_becomes(text: str, key: str, value: Any) -> None:
    """Trimmed, clamped, converted."""
    assert getattr(model(text), key) == value


def test_the_older_spelling_of_strip_params() -> None:
    """It counts where the newer one is empty."""
    assert model("filters: {strip_params: a}").filters.strip_params == "a"
    assert model("filters: {strip_params: a, stripParams: b}").filters.strip_params == "b"
    assert model("filters: {strip_params: a}").filters.legacy_strip_params == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ttl: -2", "model m: invalid TTL value -2"),
        ("unloadTimeout: -1", "model m: invalid unloadTimeout value -1"),
        (
            "proxy: 'http://host:abc'",
            'model m: invalid proxy URL: parse "http://host:abc": invalid port ":abc" after host',
        ),
        (
            "capabilities: {in: [text, smell]}",
            'model m: capabilities.in: invalid modality "smell", must be one of: text, audio, image, video',
        ),
        (
            "capabilities: {out: [x]}",
            'model m: capabilities.out: invalid modality "x", must be one of: text, audio, image, video',
        ),
        ("capabilities: {context: -1}", "model m: capabilities.context: must be >= 0"),
        ("aliases: [a, a]", "duplicate alias a found in model: m"),
        ("cmd: [a]", '"cmd" stands twice: here and in line 2; remove one of the two'),
        ("env: A=1", 'expected a list, got the text "A=1"'),
    ],
)
def test_what_refuses_a_model(text: str, message: str) -> None:
    """With llama-swap's words where it has some."""
    with_model = f"\nmodels: {{m: {{cmd: 'x ${{PORT}}', {text}}}}}"
    assert messages(with_model) == [message]


def test_a_model_of_another_kind() -> None:
    """A model is a mapping."""
    (message,) = messages("models: {m: llama-server}")
    assert message.startswith("expected a mapping with some of the keys cmd, cmdStop, ")


def test_what_cannot_work_is_a_warning() -> None:
    """llama-swap starts with it, so we do."""
    assert warnings("models: {m: {cmd: x, proxy: 'localhost:8080'}}") == ["it has no scheme; http:// is taken"]
    assert warnings("models: {m: {proxy: 'http://h'}}") == ["model m has no command and cannot be started"]
    assert warnings("models: {m: {cmd: 'x ${PORT}', env: [A]}}") == ["has no effect; write it as NAME=value"]
    assert warnings("models: {m: {cmd: 'x ${PORT}', timeouts: {connect: -1}}}") == [
        "is less than 0; 0 is taken: no limit"
    ]
    assert model("timeouts: {connect: -1}").timeouts.connect == 0


def test_comfyui_is_an_id_with_a_meaning() -> None:
    """Fifty requests at least, and websockets do not count."""
    models = "models: {{comfyui_auto: {{cmd: 'x ${{PORT}}', concurrencyLimit: {}}}}}"
    comfyui = swap(models.format(3)).models["comfyui_auto"]
    assert (comfyui.concurrency_limit, comfyui.compat.ignore_websockets) == (50, True)
    assert swap(models.format(80)).models["comfyui_auto"].concurrency_limit == 80
    assert swap(models.format(0)).models["comfyui_auto"].concurrency_limit == 0


TWO = "models: {{a: {{cmd: 'x ${{PORT}}', {}}}, b: {{cmd: 'x ${{PORT}}', {}}}}}"


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("aliases: [x]", "aliases: [x]", "duplicate alias x found in model: b"),
        (
            "filters: {setParamsByID: {b: {}}}",
            "",
            "model a filters.setParamsByID: key 'b' conflicts with an existing model ID",
        ),
        (
            "filters: {setParamsByID: {x: {}}}",
            "aliases: [x]",
            "duplicate alias 'x' in model a filters.setParamsByID, already used by model b",
        ),
        (
            "filters: {setParamsByID: {x: {}}}",
            "filters: {setParamsByID: {x: {}}}",
            "duplicate alias 'x' in model b filters.setParamsByID, already used by model a",
        ),
    ],
)
def test_names_that_two_models_claim(first: str, second: str, message: str) -> None:
    """An alias belongs to one model."""
    assert messages(TWO.format(first, second)) == [message]


def test_the_id_wins_over_another_models_alias() -> None:
    """Such an alias is accepted, and never found."""
    config = swap(TWO.format("aliases: [b, c]", ""))
    names = names_of(config)
    assert (names.find("b"), names.find("c"), names.find("B")) == (Meaning("b"), Meaning("a"), None)


def test_ids_with_parameters_are_aliases() -> None:
    """All but the model's own; one that is an alias already stays one."""
    config = swap(TWO.format("aliases: [x], filters: {setParamsByID: {a: {}, x: {}, y: {t: 1}, z: }}", ""))
    assert config.models["a"].aliases == ("x", "y", "z")
    assert config.models["a"].filters.set_params_by_id == {"a": {}, "x": {}, "y": {"t": 1}, "z": {}}
    assert config.aliases == {"x": "a", "y": "a", "z": "a"}


PEERS = "peers: {p: {proxy: 'http://p', models: [one, both, b]}, q: {proxy: 'http://q', models: [both, p/one]}}"


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("one", Meaning("one", "p")),
        ("q/both", Meaning("both", "q")),
        ("p/one", Meaning("one", "p")),
        ("q/p/one", Meaning("p/one", "q")),
        ("both", None),
        ("b", Meaning("b")),
        ("p/b", Meaning("b", "p")),
        ("none", None),
        ("", None),
    ],
)
def test_models_of_peers_are_found(name: str, meaning: Meaning | None) -> None:
    """By their full name always, by the bare one if only one peer has it and no model of ours."""
    names = names_of(swap(f"{TWO.format('', '')}\n{PEERS}"))
    assert names.find(name) == meaning
    assert bool(names.ambiguous(name)) is (name == "both")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {p/one: {cmd: 'x ${PORT}'}}", 'model ID "p/one" conflicts with fully qualified peer model name'),
        (
            "models: {m: {cmd: 'x ${PORT}', aliases: [p/one]}}",
            'model m alias "p/one" conflicts with fully qualified peer model name',
        ),
        (
            "selectors: {p/one: {strategy: pin, targets: [one]}}",
            'selector ID "p/one" conflicts with fully qualified peer model name',
        ),
        (
            "profiles: {w: {pins: {p/one: one}}}",
            'profile w pin "p/one" conflicts with fully qualified peer model name',
        ),
    ],
)
def test_full_names_belong_to_the_peers(text: str, message: str) -> None:
    """Nothing else may have one."""
    assert messages(f"{text}\n{PEERS}") == [message]


def test_two_peers_cannot_make_one_full_name() -> None:
    """a/b of c, and a of b/c."""
    text = "peers: {a: {proxy: 'http://a', models: [b/c]}, a/b: {proxy: 'http://b', models: [c]}}"
    assert messages(text) == ['peer model name "a/b/c" is ambiguous between peers a and a/b']


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://localhost:8080/base", ""),
        ("http://[::1]:80", ""),
        ("http://user:pass@host:1/", ""),
        ("", ""),
        ("localhost:8080", ""),
        ("/path:with/colon", ""),
        ("a b", ""),
        ("http://[::1", "missing ']' in host"),
        ("http://[::1]x", 'invalid port "x" after host'),
        ("http://a b/", 'invalid character " " in host name'),
        ("127.0.0.1:80", "first path segment in URL cannot contain colon"),
        (":x", "missing protocol scheme"),
        ("http://h/%zz", 'invalid URL escape "%zz"'),
        ("http://h%41/", 'invalid URL escape "%41"'),
        ("http://a\tb", "net/url: invalid control character in URL"),
    ],
)
def test_urls_are_judged_as_go_judges_them(url: str, fault: str) -> None:
    """Its parser said each of these sentences."""
    assert url_fault(url).partition('": ')[2] == fault


@needs_unix
def test_an_engines_socket_has_an_absolute_path() -> None:
    """A relative one has a sentence of its own; digits are the port of a host that is called so."""
    assert "has a relative path; write the absolute path of a unix socket" in engine_fault("unix:a.sock")
    assert "has no path" in engine_fault("unix:")
    assert [engine_fault(one) for one in ("unix:/run/a.sock", "unix:8080")] == ["", ""]


@pytest.mark.parametrize(
    "url",
    ["http://h", "HTTPS://h:1/x", "http://[::1]", "h:80", "http://[fe80::1%25eth0]", "http://ü.lan", "http://u:p@h"],
)
def test_what_can_be_connected_to(url: str) -> None:
    """An http URL with a host, whose scheme may be missing."""
    assert engine_fault(url) == ""


@pytest.mark.parametrize(
    "url",
    ["http://", "http:///x", "ftp://h", "http://:80", "http://h:99999", "http://[zz]:5", "http://h?x", "http://h#x",
     "/", "http://ü..lan", "http://user:secret@h?x"],
)  # fmt: skip
def test_a_proxy_that_nobody_could_connect_to_is_a_problem_with_its_line(url: str) -> None:
    """Of a model and of a peer; a password in it is not told."""
    text = f"models:\n  m:\n    cmd: x\n    proxy: {url}\npeers:\n  p:\n    models: [x]\n    proxy: {url}\n"
    found = problems(text)
    assert [(one.where, one.key) for one in found] == [("a.yaml:4", "models.m.proxy"), ("a.yaml:8", "peers.p.proxy")]
    assert not any("secret" in one.message for one in found)
