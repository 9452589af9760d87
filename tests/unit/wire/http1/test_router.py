"""Which entry a path finds."""

from __future__ import annotations

import pytest

from bioproxy.wire.http1.router import NotAllowed, Router


@pytest.fixture
def router() -> Router[str]:
    router: Router[str] = Router()
    router.add("GET", "/upstream/{rest...}", "rest")
    router.add("GET", "/warmup/{prefix}", "list")
    router.add("POST", "/warmup/{prefix}", "warm")
    router.add("POST", "/warmup/all", "warm all")
    router.add("GET", "/v1/models", "models")
    router.add("*", "/any", "any")
    router.add("GET", "/{a}/{b}/c", "two")
    router.add("GET", "/x/{b}/c", "one")
    return router


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/v1/models", ("models", {})),
        ("HEAD", "/v1/models", ("models", {})),
        ("PATCH", "/any", ("any", {})),
        ("POST", "/warmup/@code", ("warm", {"prefix": "@code"})),
        ("POST", "/warmup/all", ("warm all", {})),
        ("GET", "/upstream/m/v1/x", ("rest", {"rest": "m/v1/x"})),
        ("GET", "/upstream/", ("rest", {"rest": ""})),
        ("GET", "/x/2/c", ("one", {"b": "2"})),
        ("GET", "/y/2/c", ("two", {"a": "y", "b": "2"})),
    ],
)
def test_what_serves(router: Router[str], method: str, path: str, found: object) -> None:
    """The most exact entry serves, with its placeholders' values; HEAD goes where GET does."""
    assert router.match(method, path) == found
    assert router.find(method, path) == found


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/models/", "/warmup", "/warmup/", "/warmup/a/b", "/upstream", ""])
def test_unknown_paths(router: Router[str], path: str) -> None:
    """A path is known as a whole or not at all."""
    assert router.match("GET", path) is None


def test_other_methods_are_told(router: Router[str]) -> None:
    """A path known for other methods names them for a 405; `find` calls it unknown."""
    assert router.match("DELETE", "/warmup/@code") == NotAllowed("GET, HEAD, POST")
    assert router.find("DELETE", "/warmup/@code") is None


@pytest.mark.parametrize("pattern", ["/any", "/warmup/{prefix}"])
def test_same_place_twice_is_a_bug(router: Router[str], pattern: str) -> None:
    """Two entries for one method and pattern would hide one of them."""
    method = "*" if pattern == "/any" else "POST"
    with pytest.raises(ValueError, match="served already"):
        router.add(method, pattern, "again")
