"""Paths that name an engine."""

from __future__ import annotations

import pytest

from bioproxy.config.dialect.schema import IGNORED_PATHS, DialectConfig, Model, Peer, Profile, Selector
from bioproxy.errors import NotFound, RequestError
from bioproxy.front.upstream_path import Ignored, Redirect, Split, behind, split_comfyui, split_upstream
from bioproxy.models.names import Registry

NAMES = DialectConfig(
    models=dict.fromkeys(("m", "org/m", "org", "comfyui_auto"), Model()),
    aliases={"a": "m"},
    peers={"p": Peer(models=("big",))},
    selectors={"s": Selector(strategy="pin", targets=("m",))},
    profiles={"day": Profile(pins={"m": "org/m", "a": "", "m/deep": "org"})},
)


def first(_identity: str, selector: Selector) -> str:
    return selector.targets[0]


def split(
    path: str, *, target: bytes = b"", method: str = "GET", profile: str = "", ignored: tuple[str, ...] = IGNORED_PATHS
) -> Split | Redirect:
    registry = Registry(NAMES)
    registry.profile = profile
    raw = target or path.encode()
    return split_upstream(
        method, raw, path=path.partition("?")[0], registry=registry, choose=first, ignored=Ignored(ignored)
    )


def parts(path: str, profile: str = "") -> tuple[str, str, bytes]:
    found = split(path, profile=profile)
    assert isinstance(found, Split)
    return found.asked.model, found.rest, found.target


@pytest.mark.parametrize(
    ("path", "model", "rest"),
    [
        ("/upstream/m/v1/models", "m", "/v1/models"),
        ("/upstream/m/", "m", "/"),
        ("/upstream/a/x", "m", "/x"),
        ("/upstream/org/m/x", "org/m", "/x"),
        ("/upstream/org/other/x", "org", "/other/x"),
        ("/upstream/p/big/x", "big", "/x"),
        ("/upstream/big/x/", "big", "/x/"),
    ],
)
def test_the_longest_name_counts(path: str, model: str, rest: str) -> None:
    """IDs have slashes; aliases and peers are names, too."""
    assert parts(path) == (model, rest, rest.encode())


def test_escapes_and_query_go_out_as_they_came() -> None:
    """Only the name's own part is taken away, however it is written."""
    found = split("/upstream/org/m/a b/c", target=b"/upstream/o%72g/m/a%20b/c?x=%2F/")
    assert isinstance(found, Split)
    assert (found.rest, found.target) == ("/a b/c", b"/a%20b/c?x=%2F/")


def test_a_names_slash_may_be_an_escape() -> None:
    """Where the server lets such a target through."""
    assert behind(b"/upstream/org%2Fm/x?y", "/upstream/org/m") == b"/x?y"


def test_the_slash_behind_a_name_is_no_escape() -> None:
    """Nobody could say where the engine's own path begins."""
    with pytest.raises(RequestError, match="hides a '/' behind an escape"):
        split("/upstream/m/x", target=b"/upstream/m%2Fx")


@pytest.mark.parametrize("path", ["/upstream/nobody/x", "/upstream/s/x", "/upstream/", "/upstream/M/x"])
def test_what_names_no_model(path: str) -> None:
    """Selectors do not: a path means one engine."""
    with pytest.raises(NotFound, match=r"^model not found$"):
        split(path)


def test_a_profile_counts() -> None:
    """The longest pin; a disabled name is none."""
    assert parts("/upstream/m/x", "day") == ("org/m", "/x", b"/x")
    assert parts("/upstream/m/deep/x", "day") == ("org", "/x", b"/x")
    with pytest.raises(NotFound, match=r"^model not found$"):
        split("/upstream/a/x", profile="day")


@pytest.mark.parametrize(("method", "status"), [("GET", 301), ("HEAD", 301), ("POST", 308)])
def test_a_bare_model_is_sent_to_itself_with_a_slash(method: str, status: int) -> None:
    """Or an engine's page could not find what it links to; the query is kept, and the method where it matters."""
    found = split("/upstream/org/m", target=b"/upstream/org/m?a=b", method=method)
    assert found == Redirect(status, b"/upstream/org/m/?a=b")
    assert (b"Location", b"/upstream/org/m/?a=b") in found.headers(b"")
    assert (b"Location", b"/llm/upstream/org/m/?a=b") in found.headers(b"/llm")


@pytest.mark.parametrize(("path", "starts"), [("/x.css", False), ("/a/b.JS", True), ("/css", True), ("/i.png/x", True)])
def test_ignored_paths_start_nothing(path: str, starts: bool) -> None:
    """A forgotten tab must not swap models."""
    found = split(f"/upstream/m{path}")
    assert isinstance(found, Split)
    assert (not found.reason) is starts
    if not starts:
        refused = found.refused()
        assert refused.message == "model m is not loaded; path matches upstream.ignorePaths"
        assert refused.status == 409


def test_an_expression_is_searched_for_anywhere() -> None:
    """It sees the path behind the model's name, with its slash."""
    assert Ignored(["^/health"]).reason("/healthz")
    assert not Ignored(["^health", r"(?i)\.CSS\z"]).reason("/x/health")
    assert Ignored(["^health", r"(?i)\.CSS\z"]).reason("/x.css")


def test_a_peers_model_needs_no_start_of_ours() -> None:
    """So nothing is ignored there."""
    found = split("/upstream/p/big/x.css")
    assert isinstance(found, Split)
    assert not found.reason


def test_a_long_path_is_searched_in_one_pass() -> None:
    """Whatever the expression is: this one would take Python's `re` longer than the machine will live."""
    ignored = Ignored([*IGNORED_PATHS, "(a+)+$"])
    assert not ignored.reason("/" + ".j" * 1_000 + "a" * 2_000 + "!")


def test_expressions_are_tried_on_paths_of_a_sane_length() -> None:
    """A step for each letter and each part of an expression is too much for a request's whole head."""
    assert not Ignored(IGNORED_PATHS).reason("/" + "a" * 4_095)
    refused = split("/upstream/m/" + "a" * 4_096)
    assert isinstance(refused, Split)
    assert refused.reason == "a path of more than 4,096 characters starts nothing"


def test_comfyui_is_a_model_of_its_own() -> None:
    """Only its page starts it."""
    registry = Registry(NAMES)
    page = split_comfyui("GET", b"/comfyui/?a", path="/comfyui/", registry=registry)
    assert isinstance(page, Split)
    assert (page.asked.model, page.target, page.reason) == ("comfyui_auto", b"/?a", "")
    other = split_comfyui("GET", b"/comfyui/ws%20a?b", path="/comfyui/ws a", registry=registry)
    assert isinstance(other, Split)
    assert (other.rest, other.target) == ("/ws a", b"/ws%20a?b")
    assert other.refused().message == "model comfyui_auto is not loaded; only /comfyui/ can start it"


def test_comfyui_without_its_slash_is_sent_there() -> None:
    """With its query."""
    found = split_comfyui("POST", b"/comfyui?a", path="/comfyui", registry=Registry(NAMES))
    assert found == Redirect(308, b"/comfyui/?a")


def test_comfyui_without_its_model() -> None:
    """The message says which one."""
    with pytest.raises(NotFound, match=r"^local model comfyui_auto not found$"):
        split_comfyui("GET", b"/comfyui/", path="/comfyui/", registry=Registry(DialectConfig()))
