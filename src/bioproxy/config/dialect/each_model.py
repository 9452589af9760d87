"""Each model on its own: checks, clamps, and what it takes from the top-level keys."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from bioproxy.config.dialect.models import Capabilities, Compat, Filters, Model, Timeouts
from bioproxy.config.dialect.notes import Notes, Path
from bioproxy.config.dialect.schema import File
from bioproxy.config.dialect.urls import engine_fault, url_doubt, url_fault

MODALITIES = ("text", "audio", "image", "video")
COMFYUI = "comfyui_auto"  # an ID with a meaning: its page holds a websocket open and asks for many things at once
COMFYUI_LIMIT = 50


def settle_model(name: str, model: Model, file: File, notes: Notes) -> Model:
    """The model with its effective values; `file` was settled before."""
    _check(name, model, notes)
    model = replace(
        model,
        name=model.name.strip(),
        description=model.description.strip(),
        ttl=file.global_ttl if model.ttl == -1 else model.ttl,
        unload_timeout=model.unload_timeout or file.unload_timeout,
        health_check_timeout=file.health_check_timeout,
        concurrency_limit=max(0, model.concurrency_limit),
        filters=settle_filters(model.filters),
        send_loading_state=file.send_loading_state if model.send_loading_state is None else model.send_loading_state,
        timeouts=settle_timeouts(model.timeouts, ("models", name, "timeouts"), notes),
    )
    return _comfyui(model) if name == COMFYUI else model


def _comfyui(model: Model) -> Model:
    limit = model.concurrency_limit and max(COMFYUI_LIMIT, model.concurrency_limit)
    return replace(model, concurrency_limit=limit, compat=Compat(ignore_websockets=True))


def settle_filters(filters: Filters) -> Filters:
    """Filters whose older spelling was moved to where it belongs."""
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
    if fault := url_fault(model.proxy) or engine_fault(model.proxy):
        notes.complain((*place, "proxy"), f"model {name}: invalid proxy URL: {fault}")
    elif doubt := url_doubt(model.proxy):
        notes.warn((*place, "proxy"), doubt)
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
