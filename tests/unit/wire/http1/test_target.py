"""Which targets are read, how, and which are refused."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.errors import RequestError
from bioproxy.wire.http1.target import check_slashes, hides_slash, query_of, read_target, shown, valid_host


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", "/"),
        (b"/v1/models", "/v1/models"),
        (b"/v1/models?a=/../b//c", "/v1/models"),
        (b"/a%20b", "/a b"),
        (b"/a%25b", "/a%b"),
        (b"/a%252fb", "/a%2fb"),
        (b"/%c3%a4", "/ä"),
        (b"/%ff", "/�"),
        (b"/a%2fb%2Fc", "/a/b/c"),
        (b"/a.b/..c/c../.d", "/a.b/..c/c../.d"),
        (b"/trailing/", "/trailing/"),
        (b"/" + b"a" * 1000, "/" + "a" * 1000),
    ],
)
def test_path_is_decoded_once(target: bytes, path: str) -> None:
    """The path is what the target names, decoded one time; the target itself stays as it came."""
    assert read_target(target, b"GET") == (target, path, None)


@pytest.mark.parametrize(
    "target",
    [
        b"//",
        b"/a//b",
        b"/a/./b",
        b"/a/../b",
        b"/..",
        b"/a/.",
        b"/a/%2e%2e/b",
        b"/a/.%2E/b",
        b"/a%2f/b",
        b"/%2F",
        b"/a%2F..%2fb",
        b"/a%00b",
        b"/a%0ab",
        b"/a%7f",
        b"/a%5cb",
        b"/a\\..\\b",
        b"/a%",
        b"/a%2",
        b"/a%zz",
        b"/a#b",
        b"/a?b#c",
        b"/a\x01b",
        b"/a\x7fb",
        b"/a b",
        b"*",
        b"",
        b"a/b",
        b"http://",
        b"http:///a",
        b"http://u@h/a",
        b"http://h /a",
        b"ftp://h/a",
        b"http://h/a/../b",
        b"/" + b"a/../" * 100,
    ],
)
def test_disguised_targets_are_refused(target: bytes) -> None:
    """A target that two readers could take for two different paths is answered 400."""
    with pytest.raises(RequestError) as caught:
        read_target(target, b"GET")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("target", "rest", "path", "authority"),
    [
        (b"http://h/a?b", b"/a?b", "/a", b"h"),
        (b"HTTP://h:81", b"/", "/", b"h:81"),
        (b"https://h?x=1", b"/?x=1", "/", b"h"),
        (b"http://[::1]:8088/a", b"/a", "/a", b"[::1]:8088"),
    ],
)
def test_absolute_form_is_rewritten(target: bytes, rest: bytes, path: str, authority: bytes) -> None:
    """A target with a host becomes the plain form, and the host is told."""
    assert read_target(target, b"GET") == (rest, path, authority)


def test_asterisk_is_for_options_only() -> None:
    """`OPTIONS *` asks about the server; no other method may."""
    assert read_target(b"*", b"OPTIONS") == (b"*", "*", None)


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1, max_size=4))
def test_quoted_paths_come_back(segments: list[str]) -> None:
    """Whatever a client quotes is what we read, as long as no segment has a slash, a backslash or is made of dots."""
    path = "/" + "/".join(segment.replace("/", "-").replace("\\", "-") for segment in segments)
    if {".", ".."} & set(path.split("/")):
        return
    assert read_target(quote(path).encode(), b"GET")[1] == path


@given(st.binary(max_size=40))
def test_any_bytes_give_a_path_or_a_sentence(tail: bytes) -> None:
    """No bytes make it fail in another way, and an accepted path has no second reading."""
    try:
        _, path, _ = read_target(b"/" + tail, b"GET")
    except RequestError:
        return
    assert not {".", ".."} & set(path.split("/"))
    assert "//" not in path
    assert not any(ord(letter) < 32 for letter in path)


@pytest.mark.parametrize(
    ("target", "pairs"),
    [
        (b"/a", []),
        (b"/a?", []),
        (b"/a?b=c&d=&e&b=%20+", [("b", "c"), ("d", ""), ("e", ""), ("b", "  ")]),
        (b"/a?%ff=%c3%a4", [("�", "ä")]),
    ],
)
def test_query_is_decoded_in_order(target: bytes, pairs: list[tuple[str, str]]) -> None:
    """Names and values come decoded, in their order, repeated ones too."""
    assert query_of(target) == pairs


@pytest.mark.parametrize("target", [b"/upstream/org%2Fm/x%2fy", b"/v1/models/org%2fm", b"/comfyui/a%2Fb", b"/a?x=%2F"])
def test_a_name_may_have_an_escaped_slash(target: bytes) -> None:
    """Of a model or of a file; a query any."""
    check_slashes(target)


@pytest.mark.parametrize("target", [b"/a%2fb", b"/slots%2F0?action=save", b"/v1%2Fmodels/a", b"/%75pstream/a%2fb"])
def test_elsewhere_an_escaped_slash_is_refused(target: bytes) -> None:
    """What one reader takes for a name, another takes for two."""
    assert hides_slash(target)
    with pytest.raises(RequestError, match="hides a '/' behind an escape"):
        check_slashes(target)


@pytest.mark.parametrize("host", [b"", b"a", b"a:1", b"127.0.0.1:80", b"[::1]", b"[::1]:80", b"a_b.c-d"])
def test_hosts_that_name_a_host(host: bytes) -> None:
    """Names and addresses, with or without a port."""
    assert valid_host(host)


@pytest.mark.parametrize("host", [b"a b", b"a/b", b"u@h", b"a:b", b"a,b", b"[", b"\xff", b"a\x00", b"a:1:2", b'"a"'])
def test_hosts_that_name_none(host: bytes) -> None:
    """What is no authority without user is refused; a comma would be two hosts in one line."""
    assert not valid_host(host)


def test_shown_text_is_short() -> None:
    """A sentence about bytes from outside shows a few of them, escaped."""
    assert shown(b"a\x00") == r"'a\x00'"
    assert len(shown(b"x" * 5000)) < 100
