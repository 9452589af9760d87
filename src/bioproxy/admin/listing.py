"""What models there are: bodies of `/v1/models` (and one's own), `/models`, `/running`, `/api/profiles`, and events.

Everything is made from two things: the settled config, and a *look* at the processes (`Look`: each model's state, and
what else is known of it). No engine is asked, so a list cannot wait for one that hangs.

Two programs' clients read these lists, and their words clash in one place. llama-swap's `/v1/models` says `loaded` as
soon as a process exists, one that starts or stops included; llama.cpp's router says `loading` in between, and adds
`args`, and `failed` with an `exit_code`. Its clients look at `/models` and llama-swap's nearly all at `/v1/models`, so
each path speaks as its program does; everything else in a record is the same on both.

`unlisted` hides a model and its aliases, nothing more. A record of an alias or of a template's name is the model's,
with the other name.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec

from bioproxy.config.dialect.schema import Capabilities, DialectConfig, Model, Selector
from bioproxy.config.masking import masked_command, masked_url_password, masked_words
from bioproxy.errors import NotFound
from bioproxy.models.fleet import Fleet
from bioproxy.models.state import State

Json: TypeAlias = Any
Record: TypeAlias = dict[str, Json]

MOST_SHOWN = 200  # characters of a name in an error's sentence
OWNER = "llama-swap"
NAMESPACE = "llamaswap"
# what a model's metadata may say only if the config's own `capabilities` do not
DESCRIBED = frozenset({"architecture", "capabilities", "supported_parameters", "context_length"})
ROUTER_WORDS = {State.STARTING: "loading", State.READY: "loaded"}  # everything else is unloaded
PAIRS = {  # capability to what goes in and what comes out
    "audio_transcriptions": ("audio", "text"),
    "audio_speech": ("text", "audio"),
    "image_generation": ("text", "image"),
    "image_to_image": ("image", "image"),
}


class Now(msgspec.Struct, frozen=True, kw_only=True):
    """One process now: its state, its command line, and the exit code of a start that failed, if it is known.

    `since`: unix time at which it came into this state.
    """

    state: State = State.STOPPED
    args: tuple[str, ...] = ()
    since: float = 0.0
    exit_code: int | None = None


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """All processes now, by model ID (missing: stopped); the active profile; and each model's `as_model` prefixes."""

    processes: Mapping[str, Now] = {}
    profile: str = ""
    prefixes: Mapping[str, tuple[str, ...]] = {}

    def state(self, model: str) -> State:
        """The state of a model's process; stopped if there is none, or no such model."""
        now = self.processes.get(model)
        return State.STOPPED if now is None else now.state


STOPPED = Now()


def look_at(fleet: Fleet) -> Look:
    schedule, unix_time = fleet.supervisor.schedule, fleet.supervisor.unix_time
    return Look(
        processes={
            name: Now(
                state=schedule.state(name) or State.STOPPED,
                args=tuple(masked_words(one.launch.words)),
                since=round(unix_time(schedule.since(name)), 3),
                exit_code=fleet.units[name].exit_code,
            )
            for name, one in fleet.plan.models.items()
        },
        profile=fleet.plan.registry.profile,
        prefixes=fleet.plan.as_models,
    )


def list_models(fleet: Fleet, router: bool, name: str) -> bytes:
    """The body of `/v1/models`, of `/models`, or of `/v1/models/{name}` (NotFound if that means nothing)."""
    look, now = look_at(fleet), int(time.time())
    if name:
        return msgspec.json.encode(model(fleet.dialect, look, name, now=now))
    return msgspec.json.encode(models(fleet.dialect, look, now=now, router=router))


def models(config: DialectConfig, look: Look, *, now: int, router: bool = False) -> Record:
    """The body of `/v1/models`, or of `/models` with `router`; `now` is the time in seconds since the epoch."""
    listed = sorted(records(config, look), key=lambda record: str(record["id"]))
    return {"object": "list", "data": [finished(record, look, now=now, router=router) for record in listed]}


def model(config: DialectConfig, look: Look, name: str, *, now: int) -> Record:
    """The body of `/v1/models/{id}`, for any name that means something, listed or not; NotFound for others."""
    for record in records(config, look, every=True):
        if record["id"] == name:
            return finished(record, look, now=now, router=False)
    raise NotFound(f"the model {name[:MOST_SHOWN]!r} does not exist; GET /v1/models lists those that do")


def records(config: DialectConfig, look: Look, *, every: bool = False) -> Iterator[Record]:
    """The records of all that is listed, or of `every` name that there is."""
    for name, one in config.models.items():
        if every or not one.unlisted:
            yield from records_of_model(name, one, config=config, look=look, every=every)
    yield from records_of_peers(config, every=every)
    for name, selector in config.selectors.items():
        if every or not selector.unlisted:
            yield record_of_selector(name, selector, config=config, look=look)
    yield from records_of_profile(config, look)


def finished(record: Record, look: Look, *, now: int, router: bool) -> Record:
    """A record with what all have in common; `status` comes as the model's ID, or as a boolean if that is known."""
    whose = record.pop("status")
    process = look.processes.get(whose, STOPPED) if isinstance(whose, str) else STOPPED
    loaded = process.state.live if isinstance(whose, str) else bool(whose)
    status: Record = {"value": "loaded" if loaded else "unloaded"}
    if router and isinstance(whose, str):
        status = router_status(process)
    common = {"object": "model", "created": now, "owned_by": OWNER, "status": status}
    return {"id": record.pop("id"), **common, **{key: value for key, value in record.items() if value}}


def router_status(now: Now) -> Record:
    """A process in the words of llama.cpp's router (server README, GET /models)."""
    status: Record = {"value": ROUTER_WORDS.get(now.state, "unloaded")}
    if now.args:
        status["args"] = list(now.args)
    if now.state is State.FAILED:
        status["failed"] = True
        if now.exit_code is not None:
            status["exit_code"] = now.exit_code
    return status


def records_of_model(name: str, model: Model, *, config: DialectConfig, look: Look, every: bool) -> Iterator[Record]:
    """The model itself, its aliases if the config wants them listed, and its names with a template."""
    aliases = [alias for alias, owner in config.aliases.items() if owner == name and alias not in config.models]
    yield record_of(name, model, own=name, meta={"type": "model", "aliases": aliases})
    if every or config.include_aliases_in_list:
        for alias in aliases:
            yield record_of(alias, model, own=name, meta={"type": "alias", "modelID": name})
    for prefix in look.prefixes.get(name, ()):
        described = {"type": "template", "modelID": name, "prefix": prefix}
        record = record_of(f"{name}+{prefix.lstrip('@')}", model, own=name, meta=described)
        yield {**record, "name": f"{model.name or name} {prefix}"}


def record_of(name: str, model: Model, *, own: str, meta: Record) -> Record:
    """The record of one name of a model whose ID is `own`."""
    described = describe(model.capabilities) if model.capabilities is not None else {}
    hidden = DESCRIBED if model.capabilities is not None else frozenset()
    further: Record = {key: value for key, value in model.metadata.items() if key not in hidden}
    further |= {key: value for key, value in meta.items() if value}
    whole: Record = {NAMESPACE: further}
    if model.capabilities is not None and model.capabilities.context:
        whole["n_ctx"] = model.capabilities.context
    words = {"name": model.name.strip(), "description": model.description.strip()}
    return {"id": name, "status": own, **words, **described, "meta": whole}


def describe(capabilities: Capabilities) -> Record:
    """What a model can do, in the words of those who list models."""
    into, out = capabilities.inputs, capabilities.outputs
    architecture: Record = {}
    if into:
        architecture["input_modalities"] = list(into)
    if out:
        architecture["output_modalities"] = list(out)
    if into and out:
        architecture["modality"] = f"{'+'.join(into)}->{'+'.join(out)}"
    can = {"vision": "image" in into}
    can |= {name: given in into and made in out for name, (given, made) in PAIRS.items()}
    can |= {"function_calling": capabilities.tools, "reranker": capabilities.reranker}
    return {
        "architecture": architecture,
        "capabilities": {name: True for name, able in can.items() if able},
        "supported_parameters": ["tools", "tool_choice"] if capabilities.tools else [],
        "context_length": capabilities.context,
    }


def records_of_peers(config: DialectConfig, *, every: bool) -> Iterator[Record]:
    """The peers' models by their qualified names, and by bare ones that are clear; of their state nothing is known."""
    shared = Counter(model for settings in config.peers.values() for model in set(settings.models))
    for peer, settings in config.peers.items():
        for model in settings.models:
            meta = {NAMESPACE: {"type": "peer", "peerID": peer}}
            for name in (f"{peer}/{model}", *((model,) if every and shared[model] == 1 else ())):
                yield {"id": name, "status": False, "name": f"{peer}: {model}", "meta": meta}


def record_of_selector(name: str, selector: Selector, *, config: DialectConfig, look: Look) -> Record:
    """A selector: loaded if a target (of `pin`: the first one) takes requests without a start."""
    meta: Record = {**selector.metadata, "type": "selector", "strategy": selector.strategy}
    meta["targets"] = list(selector.targets)
    if selector.strategy == "spillover":
        meta["spillover"] = selector.settings.spillover
    return {
        "id": name,
        "status": selected(selector, config, look),
        "name": selector.name.strip(),
        "description": selector.description.strip(),
        "meta": {NAMESPACE: meta},
    }


def selected(selector: Selector, config: DialectConfig, look: Look) -> bool:
    """Whether a selector has a target that is ready or starting."""
    targets = selector.targets[:1] if selector.strategy == "pin" else selector.targets
    return any(look.state(real(target, config)) in {State.READY, State.STARTING} for target in targets)


def real(name: str, config: DialectConfig) -> str:
    """The ID of a local model by any of its names; empty if it is none."""
    return name if name in config.models else config.aliases.get(name, "")


def records_of_profile(config: DialectConfig, look: Look) -> Iterator[Record]:
    """The active profile's pins that are new names; disabled ones and those that hide a name are none."""
    profile = config.profiles.get(look.profile)
    if profile is None:
        return
    taken = {*config.models, *config.aliases, *config.selectors}
    for peer, settings in config.peers.items():
        taken.update(*((model, f"{peer}/{model}") for model in settings.models))
    for pin, target in profile.pins.items():
        if not target or pin in taken:
            continue
        selector = config.selectors.get(target)
        status: str | bool = real(target, config) if selector is None else selected(selector, config, look)
        yield {"id": pin, "status": status, "meta": {NAMESPACE: {"type": "profile"}}}


def running(config: DialectConfig, look: Look) -> Record:
    """The body of `/running`: the processes there are, sorted by model."""
    alive = sorted(model for model, now in look.processes.items() if now.state.live and model in config.models)
    return {"running": [running_model(name, config.models[name], look) for name in alive]}


def running_model(name: str, model: Model, look: Look) -> Record:
    return {
        "model": name,
        "state": look.state(name).public,
        "cmd": masked_command(model.cmd),
        "proxy": masked_url_password(model.proxy),
        "ttl": model.ttl,
        "name": model.name,
        "description": model.description,
    }


def model_status(config: DialectConfig, look: Look) -> list[Record]:
    """The data of a `modelStatus` event: every model, unlisted ones too, then the peers', whose state is unknown."""
    listed = [status_of(name, config.models[name], config=config, look=look) for name in sorted(config.models)]
    for peer, settings in sorted(config.peers.items()):
        for model in sorted(settings.models):
            own: Record = {"id": f"{peer}/{model}", "name": "", "description": "", "state": ""}
            listed.append({**own, "unlisted": False, "peerID": peer})
    return listed


def status_of(name: str, model: Model, *, config: DialectConfig, look: Look) -> Record:
    """One model of a `modelStatus` event."""
    status: Record = {
        "id": name,
        "name": model.name,
        "description": model.description,
        "state": look.state(name).public,
        "unlisted": model.unlisted,
        "peerID": "",
    }
    aliases = [alias for alias, owner in config.aliases.items() if owner == name]
    described = describe(model.capabilities) if model.capabilities is not None else {}
    further = {"aliases": aliases} | {key: described.get(key) for key in ("capabilities", "context_length")}
    if look.state(name) is State.READY:
        further["readySince"] = datetime.fromtimestamp(look.processes[name].since, UTC).isoformat()
    return status | {key: value for key, value in further.items() if value}


def profiles(config: DialectConfig, active: str) -> Record:
    """The body of `GET /api/profiles`; a disabled name is pinned to an empty text."""
    listed = [
        {"id": name, "description": profile.description, "pins": dict(profile.pins)}
        for name, profile in sorted(config.profiles.items())
    ]
    return {"active": active or None, "profiles": listed}
