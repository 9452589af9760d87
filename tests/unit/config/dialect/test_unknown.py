"""Unknown keys have no effect, and each is listed with the key that was probably meant."""

from __future__ import annotations

import pytest

from support.swap_models import swap

MODEL = "models: {m: {cmd: 'x ${PORT}'}}\n"


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        (
            "models:\n  m:\n    cmd: x ${PORT}\n    concurencyLimit: 3",
            "models.m.concurencyLimit",
            "is not known and has no effect; did you mean models.m.concurrencyLimit?",
        ),
        (
            "models:\n  m:\n    cmd: x ${PORT}\n    check_endpoint: /x",
            "models.m.check_endpoint",
            "is not known and has no effect; did you mean models.m.checkEndpoint?",
        ),
        (
            "# more\n\ngroups:\n  g: {members: [], preload: true}",
            "groups.g.preload",
            "is not known and has no effect here; did you mean hooks.on_startup.preload?",
        ),
        (
            "\n\n\nhealthchecktimeout: 3",
            "healthchecktimeout",
            "is not known and has no effect; did you mean healthCheckTimeout?",
        ),
        ("\n\n\nproxyport: 3", "proxyport", "is not known and has no effect; did you mean proxy_port?"),
        ("\n\n\nttl: 3", "ttl", "is not known and has no effect here; did you mean models.<id>.ttl?"),
        (
            "\n\n\nzzzzzz: 3",
            "zzzzzz",
            "is not known and has no effect; a block of YAML anchors may be named x-zzzzzz",
        ),
        (
            "peers:\n  p:\n    proxy: http://p\n    models: [a]\n    qqqq: 1\n",
            "peers.p.qqqq",
            "is not known and has no effect",
        ),
    ],
)
def test_an_unknown_key_is_listed(text: str, key: str, message: str) -> None:
    """With its path, its line and what was meant."""
    (unknown,) = swap(text).unknown
    assert (unknown.key, unknown.message) == (key, message)
    assert unknown.where == f"a.yaml:{5 if key.startswith('peers') else 4}"


def test_all_of_them_are_listed_in_all_files() -> None:
    """Each with its own file."""
    config = swap("one: 1\n" + MODEL, "two: 2")
    assert [(each.where, each.key) for each in config.unknown] == [("a.yaml:1", "one"), ("b.yaml:1", "two")]


def test_blocks_of_anchors_are_not_listed() -> None:
    """Names that begin with x- or a point are for the file's author."""
    assert swap("x-base: &b {ttl: 1}\n.more: 1\n" + MODEL).unknown == ()


def test_names_of_the_users_own_are_not_keys() -> None:
    """IDs of models, parameters, metadata, macros."""
    text = """
        macros: {anything: 1}
        models:
          weird/id:
            cmd: x ${PORT}
            metadata: {anything: {at: all}}
            filters: {setParams: {anything: 1}, setParamsByID: {alias: {anything: 1}}}
    """
    assert swap(text).unknown == ()
