"""Values that are right alone and wrong together, and texts that are no URL, host, network, page or key."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.addresses import arrives, is_any, is_loopback, overlap, url_fault
from bioproxy.config.check import digest, entry_fault, find_problems, find_warnings, key_fault
from bioproxy.config.schema import Captures, Config, Key, Kv, Ollama, Prefix, Proxy
from bioproxy.config.tree import Origin
from bioproxy.errors import ConfigError
from support.sockets import needs_unix


def check(config: Config) -> None:
    """Raise every problem of a Config."""
    if problems := find_problems(config, {}):
        raise ConfigError(problems)


def keys_of(**values: Any) -> list[str]:
    """The keys that a Config's problems are about."""
    return [problem.key for problem in find_problems(Config(**values), {})]


def test_the_defaults_have_no_problem_and_no_warning() -> None:
    """Else nobody could start."""
    check(Config())
    assert find_warnings(Config(), {}) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gpu.lan", "", "*"])
def test_a_public_admin_port_needs_a_key(host: str) -> None:
    """Start-up refuses it, naming both ways out."""
    with pytest.raises(ConfigError, match="set admin_key, or let admin_host be localhost"):
        check(Config(admin_host=host))
    check(Config(admin_host=host, admin_key="secret"))


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "a.localhost"])
def test_a_local_admin_port_needs_none(host: str) -> None:
    """Only who is on the machine reaches it."""
    check(Config(admin_host=host))


def test_a_problem_names_the_place_where_its_key_was_written() -> None:
    """With the origins that `load` collects."""
    (found,) = find_problems(Config(admin_host="::"), {"admin_host": Origin("file", "conf.yaml:7")})
    assert found.where == "conf.yaml:7"


@pytest.mark.parametrize(("proxy", "admin"), [("localhost", "127.0.0.1"), ("0.0.0.0", "localhost"), ("a.lan", "A.lan")])
def test_one_port_cannot_serve_two(proxy: str, admin: str) -> None:
    """As far as the texts tell; the rest the system will say."""
    hosts = {"proxy_host": proxy, "admin_host": admin, "admin_key": "k"}
    assert keys_of(proxy_port=9, admin_port=9, **hosts) == ["admin_port"]


def test_ports_that_the_system_chooses_are_never_alike() -> None:
    """0 twice is two ports; two addresses may share a number."""
    check(Config(proxy_port=0, admin_port=0))
    check(Config(proxy_host="10.0.0.1", proxy_port=9, admin_port=9))


@pytest.mark.parametrize(
    "url", ["http://localhost:8088", "http://127.0.0.1:8088/v1", "http://[::1]:8089", "http://LOCALHOST:8089"]
)
def test_the_engine_cannot_be_bioproxy_itself(url: str) -> None:
    """A request would come back to us for ever."""
    (found,) = find_problems(Config(backend_url=url), {})
    assert "port of bioproxy itself" in found.message


def test_another_machines_port_may_have_the_same_number() -> None:
    """Only what arrives here is a loop."""
    check(Config(backend_url="http://gpu.lan:8088"))
    check(Config(backend_url="http://gpu.lan:8088", proxy_host="0.0.0.0"))


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("localhost:8081", "is no http or https URL; write it as http://localhost:8081"),
        ("8081", "is no http or https URL"),
        ("ftp://x", "is no http or https URL"),
        ("http://", "is no http or https URL"),
        ("http://x:port", "has no valid address or port"),
        ("http://x:99999", "has no valid address or port"),
        ("http://[::1", "has no valid address or port"),
        ("http://x:0", "has more or less than scheme, host, port and path"),
        ("http://x/?a=1", "has more or less than"),
        ("http://x y", "has more or less than"),
        ("http://user:word@x", "give the engine's key as backend_key"),
    ],
)
def test_what_is_no_url_of_an_engine(url: str, part: str) -> None:
    """With the form that is one."""
    (found,) = find_problems(Config(backend_url=url), {})
    assert part in found.message
    assert "word" not in found.message or "password" in found.message


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("unix:/run/a.sock", marks=needs_unix),
        "http://localhost:8081",
        "https://gpu.lan",
        "http://[::1]:1/base/path",
        "http://x/",
    ],
)
def test_what_is_one(url: str) -> None:
    """A path is a base, as behind another proxy."""
    assert url_fault(url) == ""


@pytest.mark.parametrize("name", ["@a ", "@a\t", " @a", "@a\n", "a\u00a0b", "a\tb", "a\nb", ""])
def test_a_prefix_is_one_word(name: str) -> None:
    """It ends at the first blank, so it could never match."""
    assert len(keys_of(prefixes={name: Prefix(template="/a")})) == 1


@pytest.mark.parametrize("name", ["@code", "/code", "ünïcode", "!", "a.b", "@@"])
def test_any_other_word_may_be_a_prefix(name: str) -> None:
    """Whatever its first character."""
    assert keys_of(prefixes={name: Prefix(template="/a")}) == []


@pytest.mark.parametrize("value", ["", Prefix(template="")])
def test_a_prefix_needs_a_path(value: str | Prefix) -> None:
    """Empty is as good as forgotten."""
    assert keys_of(prefixes={"@a": value}) == ["prefixes.@a"]


def test_two_equal_api_keys_are_an_error_whichever_way_they_are_given() -> None:
    """Who would it be? The key itself is not told."""
    hashed = hashlib.sha256(b"s3cret").hexdigest().upper()
    config = Config(api_keys=("s3cret", Key(key="other"), Key(sha256=hashed, name="x")))
    (found,) = find_problems(config, {})
    assert str(found) == "api_keys[2]: is the same key as api_keys[0]; each key must be another"


@pytest.mark.parametrize(
    ("key", "part"),
    [
        (Key(), "none is given, or it is empty"),
        (Key(key="a", sha256="b"), "key and sha256 are given"),
        (Key(key="a", key_file="b", sha256="c"), "key and key_file and sha256 are given"),
        (Key(sha256="abc"), "must be the 64 hex digits"),
        (Key(key="a b"), "must not contain blanks"),
        (Key(key="ä"), "must be made of ASCII"),
        (Key(key="a\x1b"), "must be made of ASCII"),
    ],
)
def test_what_is_no_api_key(key: Key, part: str) -> None:
    """Exactly one of three, and one that can travel in a header."""
    assert part in entry_fault(key)


@pytest.mark.parametrize("key", [Key(key="a"), Key(key_file="/a"), Key(sha256="0" * 64)])
def test_what_is_one_of_three(key: Key) -> None:
    """A file's content is judged when it has been read."""
    assert entry_fault(key) == ""


@pytest.mark.parametrize("name", ["admin_key", "metrics_key", "backend_key"])
def test_other_keys_travel_in_headers_too(name: str) -> None:
    """The same rule."""
    assert keys_of(**{name: "two words"}) == [name]


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("trusted_proxies", ["10.0.0.0/33", "x", ""], ["10.0.0.0/8", "10.0.0.1/8", "::1", "fd00::/8", "unix"]),
        ("admin_hosts", ["http://a", "a b", "a/b", "a:80"], ["gpu-box.lan", "10.0.0.1", "::1", "[::1]"]),
        ("cors_origins", ["a.lan", "https://", "https://a/", "http://a b"], ["*", "null", "https://a:8080"]),
    ],
)
def test_lists_of_networks_hosts_and_pages(name: str, wrong: list[str], right: list[str]) -> None:
    """Each wrong item is a problem of its own."""
    assert keys_of(**{name: (*wrong, *right)}) == [f"{name}[{index}]" for index in range(len(wrong))]


@pytest.mark.parametrize(
    "host", ["http://localhost", "a b", "localhost:8088", "a/b", "unix:s.sock", "unix:", "unix:/" + "a" * 103]
)
def test_what_is_no_host_to_listen_on(host: str) -> None:
    """A port has a key of its own."""
    assert keys_of(proxy_host=host) == ["proxy_host"]


@needs_unix
@pytest.mark.parametrize("key", ["proxy_host", "admin_host", "backend_url"])
@pytest.mark.parametrize(
    ("place", "lacks"),
    [
        ("unix:", "has no path"),
        ("unix:a.sock", "has a relative path"),
        ("unix:~/a.sock", "has a relative path"),
        ("unix:8081", "has a relative path"),
        ("unix:/run/", "names a folder"),
        ("unix://", "names a folder"),
    ],
)
def test_what_is_no_unix_socket_says_what_it_lacks(key: str, place: str, lacks: str) -> None:
    """One sentence with an example, and none about who could reach it."""
    values: dict[str, Any] = {key: place}
    [found] = [*find_problems(Config(**values), {}), *find_warnings(Config(**values), {})]
    said = f'"{place}" {lacks}; write the absolute path of a unix socket, as in unix:/run/'
    assert (found.key, found.message.startswith(said)) == (key, True)


def test_a_path_where_a_host_should_be() -> None:
    """What it lacks is told, with the path in it."""
    [found] = find_problems(Config(proxy_host="/run/a.sock"), {})
    assert found.message == '"/run/a.sock" is no host; write unix:/run/a.sock for a unix socket'


@needs_unix
@pytest.mark.parametrize(
    ("values", "keys"),
    [
        ({"proxy_host": "unix:/s"}, []),
        ({"proxy_host": "unix:/s", "admin_host": "unix:/t", "admin_port": 8088}, []),
        ({"proxy_host": "unix:/s", "admin_host": "unix:///s"}, ["admin_host"]),
        ({"proxy_host": "unix:/s", "backend_url": "unix:/s"}, ["backend_url"]),
        ({"socket_mode": "0660"}, []),
        ({"socket_mode": "660"}, []),
        ({"socket_mode": "rw"}, ["socket_mode"]),
        ({"socket_mode": "7777"}, ["socket_mode"]),
    ],
)
def test_unix_sockets(values: dict[str, Any], keys: list[str]) -> None:
    """Each listener has one of its own; other machines reach none, so no key is asked for."""
    assert keys_of(**values) == keys


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("", False), ("/llm", False), ("/a/b.c/", False), ("/v1x", False),
        ("llm", True), ("/", True), ("//evil.example", True), ("/a//b", True), ("/a/../b", True), ("/..", True),
        ("/a b", True), ("/a%2f", True), ("/v1", True), ("/api/x", True), ("/slots", True),
    ],
)  # fmt: skip
def test_the_path_of_a_reverse_proxy(path: str, wrong: bool) -> None:
    """A plain one, with which no path of ours begins."""
    assert keys_of(proxy=Proxy(base_path=path)) == (["proxy.base_path"] if wrong else [])


@pytest.mark.parametrize(
    ("listen", "wrong"),
    [
        ("", False), ("127.0.0.1:11434", False), (":11434", False), ("[::1]:11434", False), ("box.lan:0", False),
        ("11434", True), ("localhost", True), ("localhost:", True), ("::1:11434", True), ("a b:1", True),
        ("localhost:99999", True), ("http://localhost:11434", True), ("localhost:8088", True), (":8089", True),
    ],
)  # fmt: skip
def test_where_ollamas_clients_connect(listen: str, wrong: bool) -> None:
    """Host and port in one text; neither the proxy port nor the admin port, which are there already."""
    assert keys_of(ollama=Ollama(listen=listen)) == (["ollama.listen"] if wrong else [])


def test_ollamas_port_is_open_to_others() -> None:
    """Without keys that is told, as it is of the proxy port."""
    [found] = find_warnings(Config(ollama=Ollama(listen="0.0.0.0:11434")), {})
    assert (found.key, "no api_keys" in found.message) == ("ollama.listen", True)
    assert find_warnings(Config(ollama=Ollama(listen="127.0.0.1:11434")), {}) == []


def test_the_engines_view_of_a_folder_needs_ours() -> None:
    """One without the other finds nothing."""
    assert keys_of(kv=Kv(engine_directory="/slots")) == ["kv.engine_directory"]
    assert keys_of(kv=Kv(engine_directory="/slots", directory="/srv/slots")) == []


def test_what_works_and_is_probably_not_meant_is_a_warning() -> None:
    """An open proxy, arguments for nobody, one key for everything."""
    config = Config(proxy_host="0.0.0.0", engine_arguments=("-c", "1"))
    assert [warning.key for warning in find_warnings(config, {})] == ["proxy_host", "engine_arguments"]
    config = Config(proxy_host="0.0.0.0", admin_key="k", metrics_key="k", api_keys=(Key(key="k"),))
    assert [warning.key for warning in find_warnings(config, {})] == ["admin_key", "metrics_key"]


@pytest.mark.parametrize(("keys", "admin", "warned"), [("ab", "", True), ("ab", "c", False), ("a", "", False)])
def test_captures_that_nobody_may_keep_are_a_warning(keys: str, admin: str, warned: bool) -> None:
    """With several keys and no admin there is none who may see them."""
    several = tuple(Key(key=key, name=key) for key in keys)
    found = find_warnings(Config(api_keys=several, admin_key=admin, captures=Captures(disk=1)), {})
    assert [warning.key for warning in found] == ["captures.disk"] * warned


@pytest.mark.parametrize("names", [("ann", "ann"), ("key 2", ""), ("", "key 1")])
def test_keys_of_one_name_are_a_warning(names: tuple[str, str]) -> None:
    """They may be two keys of one person; if not, each sees what the other asked."""
    keys = tuple(Key(key=f"k{number}", name=name) for number, name in enumerate(names))
    [found] = find_warnings(Config(api_keys=keys), {})
    assert (found.key, "count as one" in found.message) == ("api_keys[1]", True)


def test_problems_of_broken_keys_are_left_out() -> None:
    """What rests on a default that nobody wanted would be wrong to say."""
    config = Config(admin_host="0.0.0.0")
    assert find_problems(config, {}, broken={"admin_key"}) == []
    assert find_problems(config, {}, broken={"admin_host"}) == []
    assert len(find_problems(config, {}, broken={"proxy_host"})) == 1


@given(st.text(max_size=12), st.text(max_size=12))
def test_no_text_breaks_the_judges_of_addresses(one: str, other: str) -> None:
    """And being in each other's way is mutual."""
    assert overlap(one, other) == overlap(other, one)
    assert not (is_loopback(one) and is_any(one))
    assert arrives(one, one)
    assert isinstance(url_fault(f"http://{one}"), str)


@given(st.text(max_size=20))
def test_a_key_without_fault_can_be_sent_in_a_header(text: str) -> None:
    """And compared as bytes."""
    if not key_fault(text):
        assert text.encode("ascii").split() in ([], [text.encode("ascii")])
    assert len(digest(text)) == 64
