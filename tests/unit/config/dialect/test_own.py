"""bioproxy's own keys in a llama-swap config: at the top, and in a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioproxy.config.dialect.go import builtins
from bioproxy.config.dialect.read import read
from bioproxy.config.files import Source
from bioproxy.config.schema import Prefix
from support.swap_models import problems, sources, swap


def test_own_keys_are_split_off() -> None:
    """As plain values, for the loader that knows them; several files are merged first."""
    files = sources(
        "proxy_port: 8090\nkv: {policy: off, disk_budget: 2GiB}\nprefixes: {'@a': a.txt}\nmodels:\n",
        "prefixes: {'@b': b.txt}\n$schema: x\napi_keys: [one]",
    )
    found = read(files)
    assert {key: builtins(node) for key, node in found.own.items()} == {
        "proxy_port": 8090,
        "kv": {"policy": "off", "disk_budget": "2GiB"},
        "prefixes": {"@a": "a.txt", "@b": "b.txt"},
        "$schema": "x",
        "api_keys": ["one"],
    }
    assert found.config.unknown == ()


def test_the_loader_can_ask_for_their_lines() -> None:
    """Nodes carry their file, too."""
    found = read([Source("a.yaml", "models:\n"), Source("b.yaml", "\nkv:\n  policy: off\n")])
    kv = found.own["kv"]
    assert isinstance(kv.value, dict)
    assert found.notes.where(kv.value["policy"].line) == "b.yaml:3"


def test_a_models_prefixes_start_at_their_file() -> None:
    """Relative paths, `~`, and prefixes that are written as objects."""
    text = "models: {m: {cmd: 'x ${PORT}', prefixes: {'@a': a.txt, '@b': {template: ~/b.txt}, '@c': /c.txt}}}"
    found = read([Source("/one/a.yaml", ""), Source("/two/b.yaml", text)], environment={"HOME": "/home/me"})
    assert found.config.models["m"].prefixes == {
        "@a": Prefix(template="/two/a.txt"),
        "@b": Prefix(template="/home/me/b.txt"),
        "@c": Prefix(template="/c.txt"),
    }


@pytest.mark.parametrize(
    ("kv", "expected"),
    [
        ("off", {"policy": "off"}),
        ("always", {"policy": "always"}),
        ("{policy: auto, save_after: 1m, min_free: 1GiB}", {"policy": "auto", "save_after": 60.0, "min_free": 1 << 30}),
        ("{directory: slots}", {"directory": str(Path("slots").absolute())}),
        ("{}", {}),
        ("", {}),
    ],
)
def test_a_model_has_a_kv_of_its_own(kv: str, expected: dict[str, object]) -> None:
    """Only what it says; everything else is the top level's."""
    assert swap(f"models: {{m: {{cmd: 'x ${{PORT}}', kv: {kv}}}}}").models["m"].kv == expected


@pytest.mark.parametrize(
    ("keys", "key", "message"),
    [
        ("kv: sometimes", "kv", 'expected one of always, auto, off, got the text "sometimes"'),
        ("kv: [off]", "kv", "expected auto, always, off or a mapping of kv keys, got a list"),
        ("kv: {polcy: off}", "kv.polcy", "unknown key; did you mean models.m.kv.policy?"),
        ("kv: {save_after: -1s}", "kv.save_after", "expected a duration such as"),
        ("prefixes: [a]", "prefixes", "expected a mapping of prefixes to template files, got a list"),
        (
            "prefixes: {'a ': x}",
            "prefixes.a ",
            '"a " begins or ends with a blank; a prefix may have blanks inside only',
        ),
        ("prefixes: {'@a': ''}", "prefixes.@a", "the path of its template is empty"),
    ],
)
def test_mistakes_in_own_keys_refuse_the_config(keys: str, key: str, message: str) -> None:
    """They are written for us, so a typing error has an effect."""
    (problem,) = problems(f"models:\n  m:\n    cmd: x ${{PORT}}\n    {keys}\n")
    assert (problem.where, problem.key) == ("a.yaml:4", f"models.m.{key}")
    assert problem.message.startswith(message)
