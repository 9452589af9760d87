"""Models that stand in for others: what a configuration may say, and what follows from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioproxy.config.dialect.fallbacks import chain
from bioproxy.config.dialect.names import Names
from bioproxy.config.dialect.schema import DialectConfig
from bioproxy.errors import ConfigError
from support.config_files import loaded

PEERS = "peers: {far: {proxy: 'http://far', models: [x, y]}, near: {proxy: 'http://near', models: [y]}}\n"


def read(folder: Path, *, top: str = "", **models: str) -> DialectConfig:
    """A config with these models; each value is what stands in it besides its command."""
    lines = "".join(f"  {name}: {{cmd: 'x ${{PORT}}', {keys}}}\n" for name, keys in models.items())
    found = loaded(folder, f"{top}{PEERS}models:\n{lines}").dialect
    assert found is not None
    return found


def tried(config: DialectConfig, name: str) -> tuple[str, ...]:
    """What is tried instead of a model."""
    peers = {peer: one.models for peer, one in config.peers.items()}
    return chain(name, config.models, Names(ids=config.models, aliases=config.aliases, peers=peers))


def refused(folder: Path, *, top: str = "", **models: str) -> str:
    """Why a config is refused."""
    with pytest.raises(ConfigError) as caught:
        read(folder, top=top, **models)
    return caught.value.message


def test_each_models_own_ones_follow_it(tmp_path: Path) -> None:
    """By any of their names, a peer's among them; each once."""
    config = read(
        tmp_path, a="fallback: [bee, d, far/y]", b="aliases: [bee], fallback: [c, x]", c="fallback: [d]", d="ttl: 1"
    )  # fmt: skip
    assert tried(config, "a") == ("bee", "c", "d", "x", "far/y")
    assert tried(config, "c") == ("d",)
    assert tried(config, "d") == ()


@pytest.mark.parametrize(
    ("models", "way"),
    [
        ({"a": "fallback: [a]"}, "a -> a"),
        ({"a": "fallback: [b]", "b": "fallback: [see]", "c": "aliases: [see], fallback: [a]"}, "a -> b -> c -> a"),
        ({"z": "fallback: [a]", "a": "fallback: [x, b]", "b": "fallback: [a]"}, "a -> b -> a"),
    ],
)
def test_a_loop_is_refused(models: dict[str, str], way: str, tmp_path: Path) -> None:
    """With the way on which it comes back."""
    assert f"fallback comes back to where it began: {way}" in refused(tmp_path, **models)


def test_a_long_chain_is_none(tmp_path: Path) -> None:
    """However many models stand in for one another."""
    names = [f"m{number}" for number in range(400)]
    models = {name: f"fallback: [{', '.join(names[at + 1 : at + 4])}]" for at, name in enumerate(names)}
    models[names[-1]] = "ttl: 1"
    assert tried(read(tmp_path, **models), "m0") == tuple(names[1:])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("fallback: [none]", 'models.a.fallback references unknown model "none"'),
        ("fallback: [y]", 'peer model name "y" is ambiguous'),
        ("fallbackStatus: [200]", "200 is no status of an error"),
        ("fallbackAfter: -1", "models.a.fallbackAfter must be >= 0"),
        ("sleep: 3", "models.a.sleep must be 0, 1 or 2"),
    ],
)
def test_what_is_wrong(keys: str, said: str, tmp_path: Path) -> None:
    """A sentence with the place."""
    found = refused(tmp_path, a=keys)
    assert said in found
    assert "conf.yaml:" in found or ".yaml:" in found


@pytest.mark.parametrize(
    ("top", "said"),
    [
        ("default_model: none\n", "default_model: there is no model 'none'"),
        ("return_to_default: 1m\n", "return_to_default: needs a default_model that is one of `models`"),
        ("default_model: far/x\nreturn_to_default: 1m\n", "return_to_default: needs a default_model"),
    ],
)
def test_the_default_model_must_be_there(top: str, said: str, tmp_path: Path) -> None:
    """And be ours, if it is to come back by itself."""
    assert said in refused(tmp_path, top=top, a="ttl: 1")


def test_a_default_model_by_any_name(tmp_path: Path) -> None:
    """An alias, or a peer's."""
    read(tmp_path, top="default_model: bee\nreturn_to_default: 1m\n", a="aliases: [bee]")
    read(tmp_path, top="default_model: far/x\n", a="ttl: 1")
