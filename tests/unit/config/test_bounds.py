"""Whatever stands in a configuration, judging it costs work that grows with the file and has an end, or a sentence.

Work is counted in calls of Python's functions: no clock decides.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bioproxy.config.load import load
from bioproxy.config.tree import NODE_LIMIT
from bioproxy.config.yaml_tree import parse_yaml
from bioproxy.errors import ConfigError
from bioproxy.models.command import split
from bioproxy.models.plan import make_plan
from support.steps import calls

Json = Any
MODELS: Json = {f"m{n}": {"cmd": "x ${PORT}"} for n in range(3)}
BIG = "x" * 900_000
VARIABLES = {"BIG": "y" * 100_000, "TWICE": "${env.BIG}"}


def judge(folder: Path, values: Json) -> str:
    """What refuses a configuration, with its place; "" if nothing does. A text is YAML, anything else is written so."""
    path = folder / "config.yaml"
    path.write_text(values if isinstance(values, str) else json.dumps(values))

    def work() -> None:
        found = load(path=str(path), environment={"HOME": str(folder), **VARIABLES})
        if found.dialect is not None:
            make_plan(found.config, found.dialect, slot_folder="/slots")

    try:
        calls(work)
    except ConfigError as error:
        return str(error.problems[0]).replace(f"{folder}/", "")
    return ""


def aliases(value: str, each: str, count: int = 12) -> str:
    """Lines of which each names the one before ten times."""
    lines = [f"x{n}: &a{n} {each.format(', '.join([f'*a{n - 1}'] * 10))}" for n in range(1, count)]
    return "\n".join([f"x0: &a0 {value}", *lines, "models: {}", ""])


def sets(**expressions: str) -> Json:
    """A configuration with a matrix."""
    return {"models": MODELS, "matrix": {"sets": expressions}}


REFUSED: dict[str, tuple[Json, str]] = {
    "aliases": (aliases("[x]", "[{}]"), "more than 100,000 keys and values"),
    "merge keys": (aliases("{}", "{{<<: [{}]}}"), "more than 100,000 keys and values"),
    "merge keys with something in them": (aliases("{k: 1}", "{{<<: [{}]}}"), "more than 100,000 keys and values"),
    "merge keys in our own dialect": (aliases("{}", "{{<<: [{}]}}").replace("models: {}\n", ""), "more than 100,000"),
    "a chain of merges": (
        "x0: &a0 {k0: 1}\n" + "".join(f"x{n}: &a{n} {{<<: *a{n - 1}, k{n}: 1}}\n" for n in range(1, 1000)),
        "more than 100,000 keys and values",
    ),
    "aliases that nest": (
        "x0: &a0 {k: 1}\n" + "".join(f"x{n}: &a{n} {{k: *a{n - 1}}}\n" for n in range(1, 60)),
        "nested deeper than 50 levels",
    ),
    "merges that nest": (
        "x0: &a0 {k: 1}\n" + "".join(f"x{n}: &a{n} {{<<: [{{k: *a{n - 1}}}]}}\n" for n in range(1, 60)),
        "nested deeper than 50 levels",
    ),
    "JSON keys": ("{" + ",\n".join(f'"k{n}": 1' for n in range(60_000)) + "}", "more than 100,000 keys and values"),
    "a list": ("models: {}\nx:\n" + "- a\n" * 101_000, "more than 100,000 keys and values"),
    "deep JSON": ('{"models":' + '{"a":' * 2000 + "1" + "}" * 2000 + "}", "nested deeper than 50 levels"),
    "parentheses": (sets(s="(" * 3000 + "m0" + ")" * 3000), "more than 50 parentheses in one another at position 50"),
    "parentheses that never close": (sets(s="(" * 60_000), "more than 50 parentheses in one another at position 50"),
    "a long set": (sets(s=" | ".join(["m0"] * 20_000)), "too many to look at for each swap"),
    "many sets": (sets(**{f"s{n}": "m0" for n in range(1001)}), "too many to look at for each swap"),
    "a port below all": ({"startPort": -5, "models": MODELS}, "startPort must be greater than 1"),
    "a port above all": ({"startPort": 70_000, "models": MODELS}, "startPort must be at most 65535"),
    "a macro in every model": (
        {"macros": {"big": BIG}, "models": {f"m{n}": {"cmd": "x ${PORT} ${big}"} for n in range(200)}},
        "models.m9.cmd: macros and variables make the configuration longer by more than 8,388,608 characters",
    ),
    "a macro alone": ({"macros": {"big": BIG}, "models": {}, "apiKeys": ["${big}"] * 20}, "apiKeys[9]: macros and var"),
    "a macro in keys": (
        {
            "macros": {"big": BIG},
            "models": {
                "m": {"cmd": "x ${PORT}", "filters": {"setParamsByID": {f"{n}${{big}}": {} for n in range(20)}}}
            },
        },
        "macros and variables make the configuration longer",
    ),
    "a variable": ({"models": {}, "x": ["${env.BIG}"] * 100}, "macros and variables make the configuration longer"),
    "a variable in a variable": ({"models": {}, "x": ["${env.TWICE}"] * 100}, "macros and variables make the config"),
    "macros in macros": (
        {
            "macros": {
                "m0": "",
                **{f"m{n}": f"${{m{n - 1}}}y" for n in range(1, 100)},
                "all": "${m99}" + "x" * 100_000,
            },
            "models": {f"m{n}": {"cmd": "x ${PORT} ${all}"} for n in range(30)},
        },
        "macros that use macros that use macros",
    ),
    "prefixes": ({"prefixes": {f"@p{n}": "x" for n in range(1001)}}, "1,001 prefixes are too many"),
    "expressions": ({"models": {}, "upstream": {"ignorePaths": ["a"] * 1001}}, "1,001 expressions are too many"),
    "names": (
        {
            "prefixes": {f"@p{n}": {"template": "x", "as_model": True} for n in range(500)},
            "models": {f"m{n}": {"cmd": "x ${PORT}"} for n in range(300)},
        },
        "make 150,000 names, too many for a list",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_never_end_is_refused_with_a_sentence(name: str, tmp_path: Path) -> None:
    """Before the work is done, not after it."""
    values, sentence = REFUSED[name]
    said = judge(tmp_path, values)
    assert sentence in said
    assert len(said) < 400


ACCEPTED: dict[str, Json] = {
    "sets that mention each other": sets(s0="m0", **{f"s{n}": f"+s{n - 1} & +s{n - 1}" for n in range(1, 40)}),
    "a chain of sets": sets(s0="m0", **{f"s{n}": f"+s{n - 1} | m1" for n in range(1, 1000)}),
    "macros for models": {
        "macros": {f"m{n}": f"v{n}" for n in range(400)},
        "models": {f"m{n}": {"cmd": f"x ${{PORT}} ${{m{n % 400}}}"} for n in range(1000)},
    },
    "a long command": {"models": {"m": {"cmd": "x ${PORT} " + "a 'b c' " * 40_000}}},
    "a command of quotes": {"models": {"m": {"cmd": "x ${PORT} " + "'\"a" * 100_000}}},
    "fifty merges in a row": "".join(f"x{n}: &a{n} {{<<: *a{n - 1}}}\n" if n else "x0: &a0 {k: 1}\n" for n in range(60))
    + "models: {}\n",
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_only_large_is_judged(name: str, tmp_path: Path) -> None:
    """Nobody need write it, and it is fine."""
    assert judge(tmp_path, ACCEPTED[name]) == ""


@pytest.mark.parametrize("dialect", [{}, {"models": {}}], ids=["ours", "llama-swap's"])
def test_two_thousand_unknown_keys_are_counted(dialect: Json, tmp_path: Path) -> None:
    """The first hundred are compared with what there is, and named."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**dialect, **{f"kex{n}": 1 for n in range(2_000)}}))

    def work() -> list[str]:
        try:
            return [one.message for one in load(path=str(path), environment={"HOME": str(tmp_path)}).warnings]
        except ConfigError as error:
            return [one.message for one in error.problems]

    found: list[str] = []
    assert calls(lambda: found.extend(work())) < 400_000
    assert len(found) == 101
    assert any("1,900 more" in message for message in found)


@pytest.mark.parametrize("what", ["models", "keys", "sets"])
def test_twice_as_much_costs_twice_as_much(what: str, tmp_path: Path) -> None:
    """Nothing is looked up by going through everything."""

    def cost(count: int) -> int:
        models = {f"m{n}": {"cmd": "x ${PORT} ${tag}", "aliases": [f"a{n}"]} for n in range(count)}
        values: Json = {
            "models": {
                "macros": {"tag": "t"},
                "models": models,
                "groups": {"g": {"members": list(models), "swap": False}},
                "selectors": {"s": {"strategy": "spillover", "targets": list(models)}},
            },
            "keys": {"api_keys": [f"k{n}" for n in range(count)]},
            "sets": {
                "macros": {"tag": "t"},
                "models": models,
                "matrix": {"sets": {f"s{n}": f"m{n} & m0" for n in range(count)}},
            },
        }[what]
        said: list[str] = []
        spent = calls(lambda: said.append(judge(tmp_path, values)))
        assert said == [""]
        return spent

    judge(tmp_path, {"models": {"m": {"cmd": "x ${PORT}"}}})  # what is asked once is known
    assert cost(400) < 2.2 * cost(200)


@pytest.mark.parametrize("values", [{"x" * 100_000: 1}, {"models": {"m" * 100_000: {"cmd": "x", "proxy": "ftp://x"}}}])
def test_a_sentence_about_a_long_key_is_short(values: Json, tmp_path: Path) -> None:
    """It goes to the log and to whoever asked for the reload."""
    assert 0 < len(judge(tmp_path, values)) < 10_000


def test_the_tree_is_never_larger_than_its_limit() -> None:
    """An alias counts with all that it stands for."""
    parsed = parse_yaml("a: &a [1, 2, 3]\nb: [*a, *a]\nc: {<<: {k: 1}}\n")
    assert parsed.size == 21 < NODE_LIMIT


def test_a_command_is_split_in_one_pass() -> None:
    """One that is a single word of a megabyte, too."""
    word = 'a\'b\'"c\\"d"' * 100_000
    assert split(word) == ['abc"d' * 100_000]
