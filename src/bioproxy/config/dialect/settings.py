"""The keys at the top: what they are clamped to, and what refuses a config."""

from __future__ import annotations

import os
from collections.abc import Iterable

from msgspec.structs import replace

from bioproxy.config.dialect.notes import Notes
from bioproxy.config.dialect.patterns import compile_pattern
from bioproxy.config.dialect.scalars import write_duration
from bioproxy.config.dialect.schema import IGNORED_PATHS, Activity, File, Ui, Upstream

LEVELS = ("debug", "info", "warn", "error")
OUTPUTS = ("proxy", "upstream", "both", "none")
TIME_FORMATS = (
    "ansic", "unixdate", "rubydate", "rfc822", "rfc822z", "rfc850", "rfc1123", "rfc1123z", "rfc3339", "rfc3339nano",
    "kitchen", "stamp", "stampmilli", "stampmicro", "stampnano",
)  # fmt: skip
LEAST_HEALTH_SECONDS = 15
MOST_PATTERNS = 1000
LEAST_FIGURES_SECONDS = 5.0


def settle_settings(file: File, notes: Notes) -> File:
    """The file with its top-level keys checked and clamped."""
    _bounds(file, notes)
    _store(file.store.path, notes)
    for index, key in enumerate(file.api_keys):
        if not key:
            notes.complain(("apiKeys", index), "empty api key found in apiKeys")
        elif any(character.isspace() for character in key):
            notes.complain(("apiKeys", index), f"apiKeys[{index}]: api key cannot contain spaces")
    if file.health_check_timeout < LEAST_HEALTH_SECONDS:
        notes.warn(("healthCheckTimeout",), f"is less than {LEAST_HEALTH_SECONDS}; {LEAST_HEALTH_SECONDS} is taken")
    return replace(
        file,
        health_check_timeout=max(LEAST_HEALTH_SECONDS, file.health_check_timeout),
        log_level=_word(file.log_level, LEVELS, "info", "logLevel", notes),
        log_time_format=_word(file.log_time_format, TIME_FORMATS, "", "logTimeFormat", notes),
        unload_timeout=file.unload_timeout or 10,
        metrics_max_in_memory=file.metrics_max_in_memory if file.metrics_max_in_memory > 0 else 1000,
        capture_buffer=max(0, file.capture_buffer),
        ui=Ui(activity=Activity(session_id=_headers(file.ui.activity.session_id))),
        upstream=Upstream(ignore_paths=_patterns(file.upstream.ignore_paths, notes)),
    )


def _bounds(file: File, notes: Notes) -> None:
    if file.log_to_stdout not in OUTPUTS:
        notes.complain(("logToStdout",), f"logToStdout must be one of: {', '.join(OUTPUTS)}")
    if file.global_ttl < 0:
        notes.complain(("globalTTL",), "globalTTL must be >= 0")
    if file.unload_timeout < 0:
        notes.complain(("unloadTimeout",), "unloadTimeout must be >= 0")
    if file.performance.every < LEAST_FIGURES_SECONDS:
        said = f"performance: every must be at least 5s, got {write_duration(file.performance.every)}"
        notes.complain(("performance", "every"), said)


def _word(text: str, known: tuple[str, ...], otherwise: str, key: str, notes: Notes) -> str:
    """One of the known words, in lower case; anything else is taken as `otherwise`, with a warning."""
    word = text.strip().lower()
    if word in known:
        return word
    if word:
        notes.warn((key,), f'"{text}" is not known and counts as "{otherwise}"; known are {", ".join(known)}')
    return otherwise


def _headers(names: Iterable[str]) -> tuple[str, ...]:
    """Names of headers, trimmed, each once whatever its case."""
    found: dict[str, str] = {}
    for name in names:
        if name.strip():
            found.setdefault(name.strip().lower(), name.strip())
    return tuple(found.values())


def _patterns(patterns: tuple[str, ...], notes: Notes) -> tuple[str, ...]:
    if len(patterns) > MOST_PATTERNS:
        said = f"upstream.ignorePaths: {len(patterns):,} expressions are too many to try on each path"
        notes.complain(("upstream", "ignorePaths"), said)
        return IGNORED_PATHS
    for index, pattern in enumerate(patterns):
        try:
            compile_pattern(pattern)
        except ValueError as error:
            shown = pattern if len(pattern) <= 100 else f"{pattern[:100]}…"
            said = f'upstream.ignorePaths: invalid regular expression "{shown}": {error}'
            notes.complain(("upstream", "ignorePaths", index), said)
    return patterns or IGNORED_PATHS


def _store(path: str | None, notes: Notes) -> None:
    """Whether the activity file can be written; nothing is created yet."""
    if path is None:
        return
    if fault := store_fault(path):
        notes.complain(("store", "path"), fault)


def store_fault(path: str) -> str:
    """Why a path cannot be the activity file; "" where it can. Looks at the disk."""
    if not path.strip():
        return "store.path must not be empty"
    if "\0" in path:
        return f"store.path: {path!r} is not writable"
    if os.path.isdir(path):
        return f"store.path: {path} is a directory, not a file"
    if os.path.exists(path):
        return "" if os.access(path, os.W_OK) else f"store.path: {path} is not writable"
    folder = os.path.dirname(path) or "."
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"store.path: directory {folder} is not writable"
