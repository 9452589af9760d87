"""The keys at the top and each model on its own: checks, clamps, and what a model takes from the top."""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from bioproxy.config.dialect.go import compile_pattern, engine_fault, url_doubt, url_fault, write_duration
from bioproxy.config.dialect.schema import (
    IGNORED_PATHS,
    Activity,
    Capabilities,
    Compat,
    DialectConfig,
    Filters,
    Model,
    Timeouts,
    Ui,
    Upstream,
)
from bioproxy.config.notes import Notes
from bioproxy.config.tree import Path

LEVELS = ("debug", "info", "warn", "error")
OUTPUTS = ("proxy", "upstream", "both", "none")
TIME_FORMATS = (
    "ansic", "unixdate", "rubydate", "rfc822", "rfc822z", "rfc850", "rfc1123", "rfc1123z", "rfc3339", "rfc3339nano",
    "kitchen", "stamp", "stampmilli", "stampmicro", "stampnano",
)  # fmt: skip
LEAST_HEALTH_SECONDS = 15
MOST_PATTERNS = 1000
LEAST_FIGURES_SECONDS = 5.0
MODALITIES = ("text", "audio", "image", "video")
COMFYUI = "comfyui_auto"  # an ID with a meaning: its page holds a websocket open and asks for many things at once
COMFYUI_LIMIT = 50


def settle_settings(config: DialectConfig, notes: Notes) -> DialectConfig:
    """The config with its top-level keys checked and clamped."""
    _bounds(config, notes)
    _store(config.store.path, notes)
    for index, key in enumerate(config.api_keys):
        if not key:
            notes.complain(("apiKeys", index), "empty api key found in apiKeys")
        elif any(character.isspace() for character in key):
            notes.complain(("apiKeys", index), f"apiKeys[{index}]: api key cannot contain spaces")
    if config.health_check_timeout < LEAST_HEALTH_SECONDS:
        notes.warn(("healthCheckTimeout",), f"is less than {LEAST_HEALTH_SECONDS}; {LEAST_HEALTH_SECONDS} is taken")
    return replace(
        config,
        health_check_timeout=max(LEAST_HEALTH_SECONDS, config.health_check_timeout),
        log_level=_word(config.log_level, LEVELS, "info", "logLevel", notes),
        log_time_format=_word(config.log_time_format, TIME_FORMATS, "", "logTimeFormat", notes),
        unload_timeout=config.unload_timeout or 10,
        metrics_max_in_memory=config.metrics_max_in_memory if config.metrics_max_in_memory > 0 else 1000,
        capture_buffer=max(0, config.capture_buffer),
        ui=Ui(activity=Activity(session_id=_headers(config.ui.activity.session_id))),
        upstream=Upstream(ignore_paths=_patterns(config.upstream.ignore_paths, notes)),
    )


def _bounds(config: DialectConfig, notes: Notes) -> None:
    if config.log_to_stdout not in OUTPUTS:
        notes.complain(("logToStdout",), f"logToStdout must be one of: {', '.join(OUTPUTS)}")
    if config.global_ttl < 0:
        notes.complain(("globalTTL",), "globalTTL must be >= 0")
    if config.unload_timeout < 0:
        notes.complain(("unloadTimeout",), "unloadTimeout must be >= 0")
    if config.performance.every < LEAST_FIGURES_SECONDS:
        said = f"performance: every must be at least 5s, got {write_duration(config.performance.every)}"
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
    """Why a path cannot be the activity file, by what the disk says now; "" if it can."""
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


def settle_model(name: str, model: Model, config: DialectConfig, notes: Notes) -> Model:
    """The model with its effective values, once the top-level keys are settled."""
    _check(name, model, notes)
    model = replace(
        model,
        name=model.name.strip(),
        description=model.description.strip(),
        ttl=config.global_ttl if model.ttl == -1 else model.ttl,
        unload_timeout=model.unload_timeout or config.unload_timeout,
        health_check_timeout=config.health_check_timeout,
        concurrency_limit=max(0, model.concurrency_limit),
        filters=settle_filters(model.filters),
        send_loading_state=config.send_loading_state if model.send_loading_state is None else model.send_loading_state,
        timeouts=settle_timeouts(model.timeouts, ("models", name, "timeouts"), notes),
    )
    return _comfyui(model) if name == COMFYUI else model


def _comfyui(model: Model) -> Model:
    limit = model.concurrency_limit and max(COMFYUI_LIMIT, model.concurrency_limit)
    return replace(model, concurrency_limit=limit, compat=Compat(ignore_websockets=True))


def check_url(url: str, path: Path, notes: Notes) -> str:
    """Why a URL cannot be used, "" if it can; what is doubtful about it is noted."""
    fault = url_fault(url) or engine_fault(url)
    if not fault and (doubt := url_doubt(url)):
        notes.warn(path, doubt)
    return fault


def settle_filters(filters: Filters) -> Filters:
    """Filters with the older spelling of a key moved to the newer one."""
    return replace(filters, strip_params=filters.strip_params or filters.legacy_strip_params, legacy_strip_params="")


def settle_timeouts(timeouts: Timeouts, path: Path, notes: Notes) -> Timeouts:
    """Time-outs of at least nought."""
    below = {key: 0 for key, value in msgspec.structs.asdict(timeouts).items() if value < 0}
    if not below:
        return timeouts
    for field in msgspec.structs.fields(timeouts):
        if field.name in below:
            notes.warn((*path, field.encode_name), "is less than 0; 0 is taken: no limit")
    return replace(timeouts, **below)


def _check(name: str, model: Model, notes: Notes) -> None:
    place = ("models", name)
    if fault := check_url(model.proxy, (*place, "proxy"), notes):
        notes.complain((*place, "proxy"), f"model {name}: invalid proxy URL: {fault}")
    if model.ttl < -1:
        notes.complain((*place, "ttl"), f"model {name}: invalid TTL value {model.ttl}")
    if model.unload_timeout < 0:
        notes.complain((*place, "unloadTimeout"), f"model {name}: invalid unloadTimeout value {model.unload_timeout}")
    if not model.cmd.strip():
        notes.warn((*place, "cmd"), f"model {name} has no command and cannot be started")
    for index, entry in enumerate(model.env):
        if entry.find("=") < 1:
            notes.warn((*place, "env", index), "has no effect; write it as NAME=value")
    if model.capabilities is not None:
        _check_capabilities(name, model.capabilities, notes)


def _check_capabilities(name: str, capabilities: Capabilities, notes: Notes) -> None:
    for key, modalities in (("in", capabilities.inputs), ("out", capabilities.outputs)):
        for index, modality in enumerate(modalities):
            if modality not in MODALITIES:
                said = f'capabilities.{key}: invalid modality "{modality}", must be one of: {", ".join(MODALITIES)}'
                notes.complain(("models", name, "capabilities", key, index), f"model {name}: {said}")
    if capabilities.context < 0:
        notes.complain(("models", name, "capabilities", "context"), f"model {name}: capabilities.context: must be >= 0")
