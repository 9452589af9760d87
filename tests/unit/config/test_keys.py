"""The table of keys: every field of the schema is in it, and no two names collide."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from bioproxy.config.keys import (
    CONFIG_FLAG,
    CONFIG_VARIABLE,
    FLAGS,
    KEYS,
    SECTIONS,
    VARIABLES,
    value_of,
)
from bioproxy.config.nearest import unknown_flag, unknown_key, unknown_variable
from bioproxy.config.schema import Config, Key, Prefix


def test_every_field_of_the_schema_is_a_key() -> None:
    """Sections count by their fields."""
    flat = [name for name in Config.__struct_fields__ if name not in SECTIONS]
    nested = [f"{section}.{name}" for section, struct in SECTIONS.items() for name in struct.__struct_fields__]
    assert sorted(KEYS) == sorted([*flat, *nested])


def test_no_two_keys_share_an_environment_variable() -> None:
    """kv.max_age and kv_max.age would."""
    names = Counter(option.environment for option in KEYS.values())
    assert [name for name, count in names.items() if count > 1] == []
    assert len(VARIABLES) == len(KEYS)
    assert CONFIG_VARIABLE not in VARIABLES


def test_no_two_keys_share_a_flag() -> None:
    """The seed's names among them."""
    names = Counter(flag for option in KEYS.values() for flag in option.flags)
    assert [name for name, count in names.items() if count > 1] == []
    assert CONFIG_FLAG not in FLAGS


def test_every_key_is_described_by_a_sentence() -> None:
    """The page, the JSON Schema and editors show it."""
    assert [path for path, option in KEYS.items() if not option.description.endswith((".", "`."))] == []


def test_defaults_of_the_table_are_those_of_the_config() -> None:
    """Both are made from the same fields."""
    assert all(value_of(Config(), path) == option.default for path, option in KEYS.items())


@pytest.mark.parametrize("name", ["-config", "-host", "-port", "-admin-host", "-admin-port", "-backend"])
def test_the_flags_of_the_seed_exist(name: str) -> None:
    """Who comes from it changes nothing."""
    assert name in {*FLAGS, CONFIG_FLAG}


def test_the_seeds_keys_and_defaults() -> None:
    """Engine on 8081, proxy on 8088, admin on 8089, a look every 30 s."""
    seed = {
        "proxy_host": "localhost",
        "proxy_port": 8088,
        "admin_host": "localhost",
        "admin_port": 8089,
        "backend_url": "http://localhost:8081",
        "warmup_check_interval": 30.0,
        "prefixes": {},
    }
    assert {path: KEYS[path].default for path in seed} == seed


@pytest.mark.parametrize("path", ["backend_key", "admin_key", "metrics_key", "api_keys"])
def test_what_is_secret_says_so(path: str) -> None:
    """It is masked wherever a Config is shown."""
    assert KEYS[path].kind.secret


def test_whatever_is_called_a_key_is_secret() -> None:
    """A key added later must not be forgotten."""
    assert all(
        option.kind.secret for path, option in KEYS.items() if path.endswith(("_key", "_keys", "token", "password"))
    )


def test_environment_and_flag_are_made_from_the_path() -> None:
    """Levels joined, capitals or dashes."""
    assert (KEYS["kv.max_age"].environment, KEYS["kv.max_age"].flags) == ("BIOPROXY_KV_MAX_AGE", ("-kv-max-age",))


@pytest.mark.parametrize("struct", [Config, Key, Prefix, *SECTIONS.values()])
def test_structs_are_frozen_and_strict(struct: type[msgspec.Struct]) -> None:
    """A running part can never change what another one reads."""
    assert struct.__struct_config__.frozen
    assert struct.__struct_config__.forbid_unknown_fields


@pytest.mark.parametrize(
    ("section", "name", "part"),
    [
        ("", "proxy_prot", "did you mean proxy_port?"),
        ("", "proxyPort", "did you mean proxy_port?"),
        ("", "Admin-Key", "did you mean admin_key?"),
        ("", "prefix", "did you mean prefixes?"),
        ("", "port", "did you mean proxy_port?"),
        ("", "backend", "did you mean backend_url?"),
        ("", "loging", "did you mean log?"),
        ("", "policy", "unknown key here; did you mean kv.policy?"),
        ("", "kv.policy", "write policy inside of kv"),
        ("", "kv_policy", "write policy inside of kv"),
        ("", "zzz", "`bioproxy config` lists every key there is"),
        ("kv", "polcy", "did you mean kv.policy?"),
        ("kv", "settle", "unknown key here; did you mean warmup.settle?"),
        ("kv", "proxy_port", "unknown key here; did you mean proxy_port?"),
        ("log", "zzz", "what may stand here: level, format"),
    ],
)
def test_an_unknown_key_leads_to_the_one_that_was_meant(section: str, name: str, part: str) -> None:
    """Misspelt, in other capitals, at another level, by its flag's name."""
    known = list((SECTIONS[section] if section else Config).__struct_fields__)
    assert part in unknown_key(section, name, known)


def test_an_unknown_variable_leads_to_the_nearest() -> None:
    """And to none where none is near."""
    assert "did you mean BIOPROXY_PROXY_PORT?" in unknown_variable("BIOPROXY_PROXY_PRT")
    assert unknown_variable("BIOPROXY_ZZZZZZZZZ") == "is not known and has no effect"


def test_an_unknown_flag_leads_to_the_nearest() -> None:
    """Those of the command line itself count, too."""
    assert unknown_flag("-prot") == "unknown flag; did you mean -port?"
    assert unknown_flag("--jsn", ["--json"]) == "unknown flag; did you mean --json?"
    assert unknown_flag("--zzzzzzz") == "unknown flag; -help lists the flags there are"
