"""API keys: how a request shows one, and that only the right one is found."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.check import find_problems
from bioproxy.config.schema import Config, Key
from bioproxy.errors import ConfigError
from bioproxy.keys import Keyring, bounds, everyone, presented


def shown(**headers: str) -> str | None:
    """What is presented by a request with these headers (underscores are dashes)."""
    raw = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return presented(raw.get)


def basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"authorization": "Bearer sk-1"}, "sk-1"),
        ({"authorization": "bearer  sk-1 "}, "sk-1"),
        ({"x_api_key": "sk-1"}, "sk-1"),
        ({"authorization": basic("anyone:sk-1")}, "sk-1"),
        ({"authorization": basic("anyone:with:colons")}, "with:colons"),
        ({"authorization": "Negotiate abc", "x_api_key": "sk-1"}, "sk-1"),
        ({"api_key": "sk-1"}, "sk-1"),
        ({"authorization": "Bearer sk-1", "x_api_key": "sk-2", "api_key": "sk-3"}, "sk-1"),
        ({"x_api_key": "sk-2", "api_key": "sk-3"}, "sk-2"),
        ({"authorization": "Bearer", "x_api_key": "sk-1"}, "sk-1"),
        ({"authorization": "Bearer  ", "x_api_key": " ", "api_key": "sk-1"}, "sk-1"),
        ({"authorization": "", "x_api_key": "sk-1"}, "sk-1"),
        ({"authorization": basic("anyone:"), "x_api_key": "sk-1"}, "sk-1"),
        ({"authorization": "Basic !!!", "x_api_key": "sk-1"}, "sk-1"),
        ({"authorization": "Bearer ", "x_api_key": ""}, None),
        ({"authorization": "Basic !!!"}, None),
        ({"authorization": basic("no colon")}, None),
        ({}, None),
    ],
)
def test_a_key_comes_as_bearer_password_or_in_a_header_of_its_own(headers: dict[str, str], key: str | None) -> None:
    """Every way in which OpenAI, Anthropic, Azure and curl clients send it; one that is empty hides no other."""
    assert shown(**headers) == key


def test_a_known_key_leads_to_its_principal() -> None:
    """What the config says about a key is what its requests get."""
    ring = Keyring([Key(key="sk-1", name="ann", group="team", priority=2, max_running=3, forwards_users=True)])
    found = ring.find("sk-1")
    assert found is not None
    assert (found.name, found.group, found.priority, found.max_running) == ("ann", "team", 2, 3)
    assert found.forwards_users


@given(key=st.text(), other=st.text())
def test_only_the_key_itself_is_found(key: str, other: str) -> None:
    """No other text, however close, is taken for a key; and nothing is taken for a missing one."""
    ring = Keyring(["sk-secret"])
    assert ring.find(key) is None or key == "sk-secret"
    assert ring.find("sk-secret" + other) is None or not other
    assert ring.find(None) is None


def test_bytes_that_are_no_text_are_no_key() -> None:
    """A header of any bytes is looked up without a fault."""
    assert Keyring(["sk-1"]).find(presented({b"authorization": b"Bearer \xff\xfe"}.get)) is None


def test_a_key_beyond_ascii_is_found_as_clients_send_it() -> None:
    """Clients send UTF-8 bytes in the header; the config holds the digest of the same letters."""
    key = Key(sha256=hashlib.sha256("schlüssel".encode()).hexdigest())
    assert Keyring([key]).find(presented({b"x-api-key": "schlüssel".encode()}.get)) is not None


def test_a_digest_stands_for_its_key() -> None:
    """A config may hold the SHA-256 only; the key itself then stands nowhere."""
    digest = hashlib.sha256(b"sk-1").hexdigest()
    assert Keyring([Key(sha256=digest.upper())]).find("sk-1") is not None


def test_each_key_is_a_group_of_its_own() -> None:
    """Without `group` two keys share nothing, and a key keeps its group when the list is sorted anew."""
    first, second = Keyring(["sk-1", "sk-2"]), Keyring(["sk-2", "sk-1"])
    groups = {key: ring.find(key).group for ring in (first, second) for key in ("sk-1", "sk-2")}  # type: ignore[union-attr]
    assert len(set(groups.values())) == 2
    assert first.find("sk-1").group == second.find("sk-1").group  # type: ignore[union-attr]
    assert all("sk-" not in group for group in groups.values())


def test_every_unusable_entry_is_named() -> None:
    """All entries that are wrong are told at once, each by its place, and no key is shown."""
    with pytest.raises(ConfigError) as refused:
        Keyring(["", "sk-1", "sk-1", Key(), Key(key="a", sha256="b"), Key(sha256="12")])
    assert [problem.key for problem in refused.value.problems] == [f"api_keys[{n}]" for n in (0, 2, 3, 4, 5)]
    assert "sk-1" not in str(refused.value)


@pytest.mark.parametrize(
    "entry", ["a b", "a\u00a0b", "pä55", "a\x1b", "", Key(), Key(key="a", sha256="b" * 64), Key(sha256="z")]
)
def test_a_file_and_a_program_are_judged_by_one_rule(entry: str | Key) -> None:
    """What a file may not hold as a key is none in a Config that was made by hand, in the same words."""
    [found] = find_problems(Config(api_keys=(entry,)), {})
    with pytest.raises(ConfigError) as refused:
        Keyring([entry])
    assert refused.value.problems == (found,)


def test_a_key_with_a_line_end_is_refused() -> None:
    """No header can carry it, so nobody could ever use it."""
    with pytest.raises(ConfigError, match="line ends"):
        Keyring(["sk-1\n"])


def test_users_of_one_key_are_told_apart_in_all_that_is_kept() -> None:
    """Cache group and pins differ by user and by key; whom they belong to cannot be read from them."""
    ring = Keyring([Key(key="one", name="web", group="team"), Key(key="two", name="other", group="team")])
    one, two = ring.find("one"), ring.find("two")
    assert one is not None
    assert two is not None
    everybody = [one, two, one.of_user(b"ann"), one.of_user(b"bob"), two.of_user(b"ann")]
    assert len({principal.scope for principal in everybody}) == 5
    assert len({one.group, one.of_user(b"ann").group, one.of_user(b"bob").group}) == 3
    assert one.of_user(b"ann").name == "web"
    assert "ann" not in one.of_user(b"ann").group


def test_users_who_begin_alike_are_not_the_same() -> None:
    """Nothing is cut off, however long the name that a client sends."""
    principal = Keyring([Key(key="one")]).find("one")
    assert principal is not None
    assert principal.of_user(b"u" * 500).group != principal.of_user(b"u" * 501).group


@pytest.mark.parametrize(
    ("keys", "group"),
    [
        ((), ""),
        (("sk-1", "sk-2"), None),
        ((Key(key="sk-1", group="team"), Key(key="sk-2", group="team")), "team"),
        ((Key(key="sk-1", group="team"), Key(key="sk-2", group="team", forwards_users=True)), None),
        ((Key(key="sk-1", group="team"), Key(key="sk-2")), None),
    ],
)
def test_who_may_ask_is_one_group_or_several(keys: tuple[str | Key, ...], group: str | None) -> None:
    """What is restored for nobody in particular may only be what everybody may have."""
    assert everyone(keys) == group


def test_a_single_key_is_everybody() -> None:
    """Its group is that of its requests."""
    key = Keyring(("sk-1",)).find("sk-1")
    assert key is not None
    assert everyone(("sk-1",)) == key.group


def test_keys_of_one_name_have_one_bound_or_none_that_is_told() -> None:
    """Whose `max_running` is which, for requests that wait while it changes."""
    keys = [Key(key="1", name="ann", max_running=2), Key(key="2", name="bob", max_running=1), Key(key="3", name="bob")]
    assert bounds([*keys, "4"]) == {"ann": 2, "key 4": 0}
