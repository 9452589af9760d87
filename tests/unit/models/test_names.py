"""What the name in a request means."""

from __future__ import annotations

import pytest

from bioproxy.config.dialect.schema import DialectConfig, Model, Peer, Profile, Selector
from bioproxy.models.names import NoTarget, Registry, Target

NAMES = DialectConfig(
    models=dict.fromkeys(("org/qwen", "gemma", "gemma/deep", "a+b"), Model()),
    aliases={"small": "gemma", "gemma:fast": "gemma", "org/qwen": "gemma"},
    peers={"p": Peer(models=("big", "gemma", "both")), "q": Peer(models=("both", "org/x"))},
    selectors={"best": Selector(strategy="pin", targets=("small", "p/big"))},
    profiles={"night": Profile(pins={"gemma": "org/qwen", "small": "best", "big": "", "best": "", "new": "p/big"})},
)
PREFIXES = dict.fromkeys(NAMES.models, ("@code",))


def first(_identity: str, selector: Selector) -> str | None:
    return selector.targets[0]


def resolve(name: str, profile: str = "") -> Target | NoTarget:
    registry = Registry(NAMES, prefixes=PREFIXES)
    registry.profile = profile
    return registry.resolve(name, first)


@pytest.mark.parametrize(
    ("name", "model", "peer", "body"),
    [
        ("gemma", "gemma", "", ""),
        ("small", "gemma", "", ""),
        ("org/qwen", "org/qwen", "", ""),
        ("big", "big", "p", ""),
        ("p/big", "big", "p", "big"),
        ("p/gemma", "gemma", "p", "gemma"),
        ("q/org/x", "org/x", "q", "org/x"),
        ("p/both", "both", "p", "both"),
    ],
)
def test_a_name_leads_to_a_model(name: str, model: str, peer: str, body: str) -> None:
    """ID, alias, peer's model with and without its peer; a local name wins, an ID beats an alias."""
    target = resolve(name)
    assert isinstance(target, Target)
    assert (target.model, target.peer, target.body) == (model, peer, body)
    assert target.requested == target.name == name


@pytest.mark.parametrize("name", ["", "nobody", "both", "p/nobody", "Gemma", "gemma+nothing", "+code", "best+code"])
def test_what_means_nothing(name: str) -> None:
    """Unknown names, a bare name that two peers have, another case, a template that is none."""
    assert resolve(name) == NoTarget("unknown", name)


def test_a_selector_chooses_and_writes_the_name() -> None:
    """The body gets the target's name as the selector has it; filters by ID see that name, too."""
    target = resolve("best")
    assert isinstance(target, Target)
    assert (target.model, target.name, target.body, target.selector) == ("gemma", "small", "small", "best")


def test_a_selector_without_a_target() -> None:
    """All targets are stopping: the answer names the selector."""
    assert Registry(NAMES, prefixes=PREFIXES).resolve("best", lambda _name, _selector: None) == NoTarget(
        "unavailable", "best"
    )


def test_no_profile_is_active_at_first() -> None:
    """A pin counts only while its profile is active."""
    assert resolve("new") == NoTarget("unknown", "new")


@pytest.mark.parametrize(
    ("name", "model", "body"),
    [("gemma", "org/qwen", "org/qwen"), ("new", "big", "big"), ("small", "gemma", ""), ("p/big", "big", "big")],
)
def test_a_pin_means_another_model(name: str, model: str, body: str) -> None:
    """A pin leads to a model, a peer's, or a selector, and never to another pin."""
    target = resolve(name, "night")
    assert isinstance(target, Target)
    assert (target.model, target.body, target.requested) == (model, body, name)


@pytest.mark.parametrize("name", ["big", "best"])
def test_an_empty_pin_switches_a_name_off(name: str) -> None:
    """Empty or null: the name means nothing while the profile is active."""
    assert resolve(name, "night") == NoTarget("disabled", name)


@pytest.mark.parametrize(
    ("name", "model", "plain"),
    [("gemma+code", "gemma", "gemma"), ("small+code", "gemma", "small"), ("a+b+code", "a+b", "a+b")],
)
def test_a_template_as_a_model(name: str, model: str, plain: str) -> None:
    """`<name>+prefix` is the model with the template, and the engine is told the plain name."""
    target = resolve(name)
    assert isinstance(target, Target)
    assert (target.model, target.prefix, target.body, target.name) == (model, "@code", plain, plain)


def test_a_plus_may_belong_to_an_id() -> None:
    """What is a model's own name is no template."""
    target = resolve("a+b")
    assert isinstance(target, Target)
    assert (target.model, target.prefix) == ("a+b", "")


@pytest.mark.parametrize(
    ("path", "model", "rest"),
    [
        ("gemma", "gemma", ""),
        ("gemma/", "gemma", ""),
        ("gemma/v1/models", "gemma", "v1/models"),
        ("gemma/deep/v1", "gemma/deep", "v1"),
        ("org/qwen/props", "org/qwen", "props"),
        ("p/big/health", "big", "health"),
        ("small//x", "gemma", "/x"),
    ],
)
def test_the_longest_name_in_a_path(path: str, model: str, rest: str) -> None:
    """IDs have slashes: the longest beginning that is a name counts."""
    found = Registry(NAMES, prefixes=PREFIXES).in_path(path, first)
    assert found is not None
    target, left = found
    assert isinstance(target, Target)
    assert (target.model, left) == (model, rest)


@pytest.mark.parametrize("path", ["", "/", "nobody/x", "org", "best/x"])
def test_a_path_without_a_name(path: str) -> None:
    """Nothing there, or a selector, which a path cannot mean."""
    assert Registry(NAMES, prefixes=PREFIXES).in_path(path, first) is None


def test_a_pin_counts_in_a_path() -> None:
    """An active profile changes what a path means, and switches names off."""
    registry = Registry(NAMES, prefixes=PREFIXES)
    registry.profile = "night"
    found = registry.in_path("gemma/x", first)
    assert found is not None
    assert isinstance(found[0], Target)
    assert found[0].model == "org/qwen"
    assert registry.in_path("big/x", first) == (NoTarget("disabled", "big"), "x")
