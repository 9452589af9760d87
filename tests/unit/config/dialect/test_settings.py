"""The keys at the top: clamps, checks, types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bioproxy.config.dialect.go import compile_pattern
from bioproxy.config.dialect.settle import TIME_FORMATS
from support.swap_models import messages, problems, swap

TOO_MUCH = "it takes more than 2,000 steps, its repetitions written out"
NO_MORE = "this is RE2's language, as in Go: it has no look-ahead, look-behind or back-references"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("healthCheckTimeout: 3", "health_check_timeout", 15),
        ("healthCheckTimeout: 16", "health_check_timeout", 16),
        ("unloadTimeout: 0", "unload_timeout", 10),
        ("metricsMaxInMemory: -1", "metrics_max_in_memory", 1000),
        ("captureBuffer: -1", "capture_buffer", 0),
        ("logLevel: WARN", "log_level", "warn"),
        ("logLevel: loud", "log_level", "info"),
        ("logTimeFormat: RFC3339nano", "log_time_format", "rfc3339nano"),
        ("logTimeFormat: iso", "log_time_format", ""),
        ("logToStdout: none", "log_to_stdout", "none"),
        ("globalTTL:", "global_ttl", 0),
        ("globalTTL: 1.9", "global_ttl", 1),
        ("globalTTL: 0x10", "global_ttl", 16),
        ("logRequests: yes", "log_requests", True),
        ("logRequests: 'off'", "log_requests", False),
        ("sendLoadingState: true", "send_loading_state", True),
        ("apiKeys: [123, true, on]", "api_keys", ("123", "true", "on")),
        ("apiKeys:", "api_keys", ()),
    ],
)
def test_what_a_value_becomes(text: str, key: str, value: Any) -> None:
    """Clamped or converted without an error, as llama-swap does."""
    assert getattr(swap(text), key) == value


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("healthCheckTimeout: 3", "healthCheckTimeout"),
        ("logLevel: loud", "logLevel"),
        ("logTimeFormat: x", "logTimeFormat"),
    ],
)
def test_what_is_clamped_silently_there_is_a_warning_here(text: str, key: str) -> None:
    """The config loads; `bioproxy check` tells."""
    assert [(warning.key, warning.where) for warning in swap(text).warnings] == [(key, "a.yaml:1")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("logToStdout: file", "logToStdout must be one of: proxy, upstream, both, none"),
        ("startPort: 0", "startPort must be greater than 1"),
        ("globalTTL: -1", "globalTTL must be >= 0"),
        ("unloadTimeout: -1", "unloadTimeout must be >= 0"),
        ("performance: {every: 4.9s}", "performance: every must be at least 5s, got 4.9s"),
        ("performance: {every: 0}", "performance: every must be at least 5s, got 0s"),
        ("performance: {every: 1500ms}", "performance: every must be at least 5s, got 1.5s"),
        ("performance: {every: -1m30s}", "performance: every must be at least 5s, got -1m30s"),
        ("performance: {every: 10}", "expected a duration such as 5s or 1m30s, got the number 10"),
        ("apiKeys: ['']", "empty api key found in apiKeys"),
        ("apiKeys: [a, 'b c']", "apiKeys[1]: api key cannot contain spaces"),
        ("store: {path: ''}", "store.path must not be empty"),
        (
            "upstream: {ignorePaths: ['(']}",
            'upstream.ignorePaths: invalid regular expression "(": missing ): (',
        ),
        (
            "upstream: {ignorePaths: ['a(?!b)']}",
            f'upstream.ignorePaths: invalid regular expression "a(?!b)": invalid perl operator: (?! ({NO_MORE})',
        ),
        (
            f"upstream: {{ignorePaths: [{'a' * 10_001}]}}",
            f'upstream.ignorePaths: invalid regular expression "{"a" * 100}…": it is longer than 10,000 characters',
        ),
        (
            "upstream: {ignorePaths: ['a{1000}b{1000}']}",
            f'upstream.ignorePaths: invalid regular expression "a{{1000}}b{{1000}}": {TOO_MUCH}',
        ),
        ("globalTTL: soon", 'expected a whole number, got the text "soon"'),
        ("globalTTL: 1e30", "expected a whole number of 64 bits, got the number 1e30"),
        ("logRequests: 3", "expected true or false, got the number 3"),
        ("apiKeys: sk", "expected a list, got another text"),
        ("apiKeys: [[sk-secret]]", "expected a text, got a list"),
        ("models: []", "expected a mapping, got a list"),
        ("hooks: [a]", "expected a mapping with some of the keys on_startup, got a list"),
    ],
)
def test_what_refuses_a_config(text: str, message: str) -> None:
    """With llama-swap's words where it has some."""
    assert messages(text) == [message]


def test_the_activity_file_must_be_writable(tmp_path: Path) -> None:
    """A folder is none, and one in a folder that does not exist cannot be made."""
    assert swap(f"store: {{path: {tmp_path}/a.db}}").store.path == f"{tmp_path}/a.db"
    assert messages(f"store: {{path: {tmp_path}}}") == [f"store.path: {tmp_path} is a directory, not a file"]
    assert messages(f"store: {{path: {tmp_path}/no/a.db}}") == [f"store.path: directory {tmp_path}/no is not writable"]


def test_everything_wrong_is_told_at_once() -> None:
    """Settings, a model, a group and a peer, each with its line."""
    found = problems("""\
        startPort: 0
        models:
          m: {cmd: 'x ${PORT}', ttl: -2}
        groups:
          g: {members: [n]}
        peers:
          p: {models: [q]}
        """)
    assert [(problem.where, problem.key) for problem in found] == [
        ("a.yaml:1", "startPort"),
        ("a.yaml:3", "models.m.ttl"),
        ("a.yaml:5", "groups.g.members[0]"),
        ("a.yaml:7", "peers.p.proxy"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("groups: {g: {members: ['${x}']}}", "groups.g.members[0]: unknown macro '${x}'"),
        ("groups: {g: {members: ['${env.X}']}}", "environment variable 'X' is not set"),
        ("globalTTL: ${env.X}", "environment variable 'X' is not set"),
        ("models: {m: {cmd: 'x ${PORT}', aliases: ['${x}', '${x}']}}", "model m aliases[0]: unknown macro '${x}'"),
        ("models: {m: text}\ngroups: {g: {members: [m]}}", "expected a mapping with some of the keys cmd, cmdStop"),
    ],
)
def test_consequences_are_not_told(text: str, message: str) -> None:
    """What follows from a mistake that was named would only hide it."""
    assert [found[: len(message)] for found in messages(text) if "aliases[1]" not in found] == [message]


def test_a_key_that_stands_twice_is_refused() -> None:
    """YAML would take one of them."""
    assert messages("models:\n  m: {cmd: 'x ${PORT}'}\n  m: {cmd: 'y ${PORT}'}") == [
        '"m" stands twice: here and in line 2; remove one of the two'
    ]


def test_session_headers_are_trimmed_and_unique() -> None:
    """An empty list switches them off."""
    assert swap("ui: {activity: {session_id: [' A ', a, '', B]}}").ui.activity.session_id == ("A", "B")
    assert swap("ui: {activity: {session_id: []}}").ui.activity.session_id == ()


def test_an_empty_list_of_ignored_paths_is_the_default() -> None:
    """As no list is."""
    assert swap("upstream: {ignorePaths: []}").upstream.ignore_paths == swap("").upstream.ignore_paths


@pytest.mark.parametrize("name", TIME_FORMATS)
def test_every_time_format_is_known(name: str) -> None:
    """The names of Go's time formats."""
    assert swap(f"logTimeFormat: {name}").log_time_format == name


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r".*\.(js|png)$", "/a/b.png", True),
        (r"^/x", "/a/x", False),
        (r"[[:digit:]]{2}\z", "/a12", True),
        (r"[^[:alpha:]]$", "/a", False),
        (r"^/\Qa.b\E$", "/a.b", True),
        (r"^/\Qa.b", "/axb", False),
        (r"(?i)\.PNG$", "/a.png", True),
        (r"\\z$", "/\\z", True),
        ("[[]", "[", True),
        (r"^\pL+$", "ä", True),
    ],
)
def test_patterns_are_those_of_go(pattern: str, text: str, found: bool) -> None:
    """Not anchored, and with the writings that Python has not."""
    assert bool(compile_pattern(pattern)(text)) is found
