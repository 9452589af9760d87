"""Peers, selectors and profiles."""

from __future__ import annotations

import pytest

from support.swap_models import messages, problems, swap

MODELS = """\
models:
  a: {cmd: 'x ${PORT}', aliases: [alias]}
  b: {cmd: 'x ${PORT}'}
  c: {cmd: 'x ${PORT}', filters: {setParamsByID: {c-high: {}}}}
peers:
  p: {proxy: 'http://p', models: [far, both]}
  q: {proxy: 'http://q', models: [both]}
"""


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        ("models: [m]", "proxy is required"),
        ("proxy: 'http://p'", "peer models can not be empty"),
        ("proxy: 'http://p', models: []", "peer models can not be empty"),
        (
            "proxy: 'http://p:x', models: [m]",
            'invalid peer proxy URL (parse "http://p:x": invalid port ":x" after host)',
        ),
    ],
)
def test_what_refuses_a_peer(peer: str, message: str) -> None:
    """It needs a URL and models."""
    assert messages(f"peers: {{p: {{{peer}}}}}") == [message]


def test_a_peer_that_cannot_be_reached_is_a_warning() -> None:
    """llama-swap starts with it."""
    (warning,) = swap("peers: {p: {proxy: 'p:80', models: [m]}}").warnings
    assert warning.key == "peers.p.proxy"


def test_filters_of_a_peer_make_no_aliases() -> None:
    """Their names are those that requests come with."""
    config = swap("peers: {p: {proxy: 'http://p', models: [m], filters: {strip_params: a, setParamsByID: {x: {}}}}}")
    assert config.aliases == {}
    assert config.peers["p"].filters.strip_params == "a"


CHAINED = 'selectors.s.targets[0] references selector "t"; selector chaining is not supported'


@pytest.mark.parametrize(
    ("selectors", "message"),
    [
        ("a: {strategy: pin, targets: [b]}", "selectors.a: name conflicts with model ID"),
        ("alias: {strategy: pin, targets: [b]}", "selectors.alias: name conflicts with model alias"),
        ("s: {targets: [b]}", "selectors.s.strategy is required"),
        (
            "s: {strategy: best, targets: [b]}",
            'selectors.s.strategy: unknown strategy "best" (valid: warm, pin, spillover)',
        ),
        ("s: {strategy: pin}", "selectors.s.targets must contain at least one entry"),
        ("s: {strategy: pin, targets: [x]}", 'selectors.s.targets[0] references unknown model "x"'),
        ("s: {strategy: pin, targets: [t]}, t: {strategy: pin, targets: [a]}", CHAINED),
        ("s: {strategy: pin, targets: [both]}", 'peer model name "both" is ambiguous between p/both and q/both'),
        (
            "s: {strategy: warm, targets: [a, far]}",
            'selectors.s.targets[1] must resolve to a local model for strategy "warm"',
        ),
        (
            "s: {strategy: spillover, targets: [a, alias]}",
            'selectors.s.targets[1] contains duplicate resolved model "alias"',
        ),
        (
            "s: {strategy: pin, targets: [a], settings: {spillover: 0}}",
            "selectors.s.settings.spillover must be >= 1",
        ),
        (
            "s: {strategy: spillover, targets: [a, b]}",
            "selectors.s: spillover targets must share a group with swap: false",
        ),
    ],
)
def test_what_refuses_a_selector(selectors: str, message: str) -> None:
    """With llama-swap's words."""
    assert messages(f"{MODELS}selectors: {{{selectors}}}") == [message]


SPILL = "selectors: {s: {strategy: spillover, targets: [a, b, far]}}\n"


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("g: {swap: false, members: [a, b]}", ""),
        ("g: {members: [a, b]}", "selectors.s: spillover targets must share a group with swap: false"),
        ("g: {swap: false, members: [a]}", "selectors.s: spillover targets must share one routing group"),
        (
            "g: {swap: false, members: [a]}, h: {swap: false, members: [b]}",
            "selectors.s: spillover targets must share one routing group",
        ),
    ],
)
def test_spillover_needs_models_that_run_together(groups: str, message: str) -> None:
    """Models of peers run elsewhere and do not count."""
    text = f"{MODELS}{SPILL}groups: {{{groups}}}"
    if message:
        assert messages(text) == [message]
    else:
        assert swap(text).selectors["s"].targets == ("a", "b", "far")


def test_spillover_with_one_local_model_needs_no_group() -> None:
    """There is nothing to run beside it."""
    assert swap(MODELS + "selectors: {s: {strategy: spillover, targets: [a, far]}}").selectors


def test_spillover_with_a_matrix_is_left_to_the_matrix() -> None:
    """Which sets there are is known where its expressions are read."""
    assert swap(MODELS + SPILL + "matrix: {sets: {s: a & b}}").selectors


LIST = "profile must be a mapping with description and pins; the legacy list syntax is no longer supported"


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ("w: [a, b]", LIST),
        ("w: text", LIST),
        ("w: {}", "profiles.w.pins must contain at least one entry"),
        ("w: ", "profiles.w.pins must contain at least one entry"),
        ("w: {pins: {x: y}}", 'profiles.w.pins.x references unknown model "y"'),
        ("w: {pins: {x: both}}", 'peer model name "both" is ambiguous between p/both and q/both'),
        ("w: {pins: {'': a}}", "profiles.w.pins: the name of a pin must not be empty"),
        ("'': {pins: {x: a}}", "profiles: the name of a profile must not be empty"),
    ],
)
def test_what_refuses_a_profile(profiles: str, message: str) -> None:
    """With llama-swap's words where it has some."""
    assert messages(f"{MODELS}profiles: {{{profiles}}}") == [message]


def test_what_a_pin_may_mean() -> None:
    """A model, its alias, a name with parameters, models of peers, a selector, and nothing at all."""
    text = f"""{MODELS}selectors: {{s: {{strategy: pin, targets: [a]}}}}
profiles: {{w: {{pins: {{1: a, 2: alias, 3: c-high, 4: p/far, 5: far, 6: s, 7: ' b ', 8: '', 9: ~}}}}}}
"""
    pins = swap(text).profiles["w"].pins
    assert list(pins.values()) == ["a", "alias", "c-high", "p/far", "far", "s", "b", "", ""]


def test_problems_of_targets_have_lines() -> None:
    """Of the entry, not of the section."""
    text = "selectors:\n  s:\n    strategy: pin\n    targets:\n      - x\nprofiles:\n  w:\n    pins:\n      n: y\n"
    assert [problem.where for problem in problems(text)] == ["a.yaml:5", "a.yaml:9"]


TUNNEL = """
    tailcat: {allow: [me], models: [m], admin: true, debug: false}
    models: {m: {cmd: "x ${PORT}", capabilities: {in: [video], out: [video]}}}
    peers:
      away: {proxy: "tailcat://somewhere", tailcatKey: secret, models: [far, m]}
      near: {proxy: "http://near", tailcatKey: secret, models: [close]}
    selectors:
      some: {strategy: warm, targets: [m, away/far]}
      none: {strategy: pin, targets: [far]}
    profiles: {p: {pins: {a: far, b: none, c: m, d: some}}}
"""


def test_a_tunnel_of_llama_swaps_loads_and_counts_as_absent() -> None:
    """Its peer and what only that one has are left out, with a warning each; no key of it is told."""
    config = swap(TUNNEL)
    assert list(config.peers) == ["near"]
    assert {name: selector.targets for name, selector in config.selectors.items()} == {"some": ("m",)}
    assert config.profiles["p"].pins == {"a": "", "b": "", "c": "m", "d": "some"}
    assert [warning.key for warning in config.warnings] == [
        "tailcat", "peers.away", "peers.near.tailcatKey", "selectors.some.targets", "selectors.none.targets",
        "profiles.p.pins.a", "profiles.p.pins.b",
    ]  # fmt: skip
    assert "secret" not in str(config.warnings)
