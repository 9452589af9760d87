"""Flags: one dash or two, blank or equals sign, for every key; everything else is handed back untouched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.flags import parse_flags
from bioproxy.config.keys import KEYS, Option
from bioproxy.errors import ConfigError


def fault(words: list[str], *, others: list[str] | None = None) -> str:
    """What is wrong with a command line."""
    with pytest.raises(ConfigError) as raised:
        parse_flags(words, others=others)
    return str(raised.value)


@pytest.mark.parametrize(
    "words",
    [
        ["-port", "8090"],
        ["-port=8090"],
        ["--port", "8090"],
        ["--port=8090"],
        ["-proxy-port", "8090"],
        ["--proxy-port=8090"],
        ["--proxy_port", "8090"],
    ],
)
def test_all_ways_to_write_a_flag(words: list[str]) -> None:
    """As Go programs take them, and as others do."""
    flags = parse_flags(words)
    assert (flags.values, flags.rest) == ({"proxy_port": "8090"}, [])


@pytest.mark.parametrize(
    ("flag", "path"),
    [
        ("-host", "proxy_host"),
        ("-port", "proxy_port"),
        ("-admin-host", "admin_host"),
        ("-admin-port", "admin_port"),
        ("-backend", "backend_url"),
    ],
)
def test_the_seeds_flags(flag: str, path: str) -> None:
    """Each stands for its key."""
    assert parse_flags([flag, "x"]).values == {path: "x"}


@pytest.mark.parametrize("words", [["-config", "x.yaml"], ["--config=x.yaml"], ["-config=x.yaml"]])
def test_config_names_the_file_and_is_no_key(words: list[str]) -> None:
    """It is handed to `load` as `path`."""
    flags = parse_flags(words)
    assert (flags.path, flags.values, flags.names) == ("x.yaml", {}, {})


@pytest.mark.parametrize("words", [["-config-dir", "d"], ["--config-dir=d"], ["--config_dir", "d"]])
def test_config_dir_names_a_folder(words: list[str]) -> None:
    """It may stand beside -config."""
    flags = parse_flags([*words, "-config", "x.yaml"])
    assert (flags.directory, flags.path, flags.values) == ("d", "x.yaml", {})


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        (":8080", "", "8080"),
        ("localhost:8080", "localhost", "8080"),
        ("0.0.0.0:80", "0.0.0.0", "80"),
        ("[::1]:8080", "::1", "8080"),
        ("[::]:8080", "::", "8080"),
        ("box.lan:", "box.lan", "0"),
    ],
)
def test_listen_is_host_and_port_as_go_has_them(address: str, host: str, port: str) -> None:
    """Nothing before the colon means all addresses, nothing behind it any port."""
    flags = parse_flags(["-listen", address])
    assert flags.values == {"proxy_host": host, "proxy_port": port}
    assert flags.names == {"proxy_host": "-listen", "proxy_port": "-listen"}


def test_of_listen_and_port_the_last_counts() -> None:
    """As of any flag that is given twice."""
    assert parse_flags(["-listen", ":1", "-port", "2"]).values == {"proxy_host": "", "proxy_port": "2"}
    assert parse_flags(["-port", "2", "-listen", ":1"]).values == {"proxy_host": "", "proxy_port": "1"}


def test_listen_at_a_unix_socket() -> None:
    """There is no port then."""
    assert parse_flags(["-listen", "unix:/run/a:b.sock"]).values == {"proxy_host": "unix:/run/a:b.sock"}


@pytest.mark.parametrize("place", ["unix:", "unix:a.sock", "unix:./a.sock:80", "unix:~/a.sock", "unix:8080"])
def test_what_begins_as_a_unix_socket_is_never_a_host_and_a_port(place: str) -> None:
    """Whether it is a socket is judged where `proxy_host` is, in whatever place that was written."""
    assert parse_flags(["-listen", place]).values == {"proxy_host": place}


def test_an_empty_listen_is_none() -> None:
    """As its default is in llama-swap: scripts pass variables that may be empty."""
    assert parse_flags(["-listen", ""]).values == {}


@pytest.mark.parametrize("address", ["8080", "localhost", "::1:8080", "fe80::1"])
def test_an_address_without_its_port_is_a_sentence(address: str) -> None:
    """And an IPv6 address stands in brackets, or nobody knows where the port begins."""
    forms = "localhost:8080, :8080 (all hosts) or unix:/path"
    said = f'flag -listen: expected an address such as {forms}, got "{address}"'
    assert fault(["-listen", address]) == said


@pytest.mark.parametrize(
    ("words", "watch"),
    [([], False), (["-watch-config"], True), (["--watch-config=true"], True), (["-watch-config=0"], False)],
)
def test_watch_config_is_true_or_false(words: list[str], watch: bool) -> None:
    """Alone it is true, and takes no word after it."""
    flags = parse_flags([*words, "serve"])
    assert (flags.watch, flags.rest) == (watch, ["serve"])


def test_watch_config_takes_nothing_else() -> None:
    """As in Go."""
    assert fault(["-watch-config=yes"]) == 'flag -watch-config: expected true or false, got "yes"'


@pytest.mark.parametrize("option", KEYS.values(), ids=list(KEYS))
def test_every_key_has_a_flag_in_both_styles(option: Option) -> None:
    """Made from the table, so that none is forgotten."""
    for flag in option.flags:
        for written in (flag, f"-{flag}"):
            assert parse_flags([f"{written}=text"]).values == {option.path: "text"}


def test_flags_are_remembered_as_they_were_written() -> None:
    """An error names what stands on the command line."""
    assert parse_flags(["--kv.policy", "off", "-port=1"]).names == {"kv.policy": "--kv.policy", "proxy_port": "-port"}


def test_a_boolean_needs_no_value_and_takes_none_after_a_blank() -> None:
    """As in Go: what follows it is another word."""
    flags = parse_flags(["-warmup-enabled", "serve"])
    assert (flags.values, flags.rest) == ({"warmup.enabled": "true"}, ["serve"])
    assert parse_flags(["-warmup-enabled=false"]).values == {"warmup.enabled": "false"}


def test_of_a_flag_given_twice_the_last_counts() -> None:
    """As in Go; scripts append."""
    assert parse_flags(["-port", "1", "--proxy-port", "2"]).values == {"proxy_port": "2"}


def test_everything_else_is_handed_back_in_order() -> None:
    """Verbs, other flags with their values, and all that follows after two dashes."""
    words = ["serve", "--json", "-port", "1", "--out", "file", "--", "-port", "2"]
    flags = parse_flags(words)
    assert (flags.values, flags.rest) == ({"proxy_port": "1"}, ["serve", "--json", "--out", "file", "--", "-port", "2"])


@pytest.mark.parametrize("value", ["", "-5", "a=b", '{"@code": "x"}', "--strange"])
def test_a_value_may_look_like_anything(value: str) -> None:
    """Also like a flag, as long as it is none of ours."""
    assert parse_flags(["-admin-key", value]).values == {"admin_key": value}
    assert parse_flags([f"-admin-key={value}"]).values == {"admin_key": value}


@pytest.mark.parametrize("words", [["-port"], ["-port", "--"], ["-port", "-config", "x"], ["-port", "--host=x"]])
def test_a_flag_without_its_value_is_a_sentence(words: list[str]) -> None:
    """At the end, or where the next flag follows."""
    assert fault(words) == "flag -port: needs a value, as in -port 8088"


@pytest.mark.parametrize(
    ("flag", "example"),
    [
        ("-config", "~/bioproxy.yaml"),
        ("-queue-timeout", "30s"),
        ("-kv-min-free", "20GiB"),
        ("-prefixes", """'{"@code": "code.txt"}'"""),
        ("-admin-hosts", """'["one", "two"]'"""),
        ("-model", "VALUE"),
        ("-config-dir", "~/bioproxy.d"),
        ("-listen", "localhost:8080"),
        ("-swap-min-resident", "auto"),
        ("-log-level", "info"),
    ],
)
def test_the_sentence_shows_a_value_that_would_do(flag: str, example: str) -> None:
    """For each type of key."""
    assert fault([flag]) == f"flag {flag}: needs a value, as in {flag} {example}"


def test_an_unknown_flag_is_an_error_once_the_others_are_known() -> None:
    """With the nearest one, and all of them at once."""
    assert fault(["--lisen=:1"], others=[]) == "flag --lisen: unknown flag; did you mean -listen?"
    text = fault(["-prot", "1", "--jsn", "--json"], others=["--json"])
    assert text == "flag -prot: unknown flag; did you mean -port?\nflag --jsn: unknown flag; did you mean --json?"


def test_words_and_numbers_are_no_flags() -> None:
    """A lone dash stands for standard input; three dashes stand for nothing."""
    words = ["status", "-", "---", "x-port"]
    assert parse_flags(words, others=[]).rest == words


@given(
    st.lists(
        st.sampled_from(
            [
                "-port",
                "--host=x",
                "serve",
                "--",
                "-config",
                "--json",
                "",
                "-",
                "=",
                "-x=1",
                "1",
                "-listen",
                ":1",
                "-watch-config",
                "-config-dir=d",
            ]
        )
    )
)
def test_no_command_line_breaks_it(words: list[str]) -> None:
    """Every word is a flag, a value or in the rest; or there is a ConfigError."""
    try:
        flags = parse_flags(words)
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - both outcomes are right
    else:
        assert [word for word in flags.rest if word not in words] == []


@pytest.mark.parametrize(
    ("words", "rest"),
    [
        (["-listen-tailcat", "-port", "1"], []),
        (["-listen-tailcat=:7", "-port", "1"], []),
        (["--listen-tailcat", ":7", "-port", "1"], []),
        (["-listen-tailcat", "serve", "-port", "1"], ["serve"]),
        (["-port", "1", "-listen-tailcat"], []),
    ],
)
def test_a_flag_for_a_tunnel_that_is_not_there_is_a_warning(words: list[str], rest: list[str]) -> None:
    """llama-swap's `-listen-tailcat`, with its value or without one."""
    found = parse_flags(words, others=())
    assert (found.values, found.rest) == ({"proxy_port": "1"}, rest)
    assert [warning.message.partition(":")[0] for warning in found.warnings] == ["has no effect"]
