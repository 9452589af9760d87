"""From a llama-swap configuration to what the parts are made of: launches, settings, rules, names. Values only.

Everything that a start would refuse is refused here, so that `check` can ask without starting anything.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from bioproxy.config.dialect.fallbacks import chain
from bioproxy.config.dialect.per_model import as_models_of, kv_of, prefixes_of
from bioproxy.config.dialect.schema import DialectConfig, Model
from bioproxy.config.schema import Config, Kv
from bioproxy.models import command
from bioproxy.models.book import ModelSettings
from bioproxy.models.groups import Groups
from bioproxy.models.matrix import Matrix
from bioproxy.models.names import Registry
from bioproxy.models.rules import Rules
from bioproxy.models.unit import Launch
from bioproxy.wire.upstream import parse_origin

NAMELESS = re.compile(r"[^A-Za-z0-9._-]+")


class ModelPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One model. `asks`: a process that may be a llama-server is asked whether it is one.

    `prefixes` are its templates if it has some of its own, those for every model among them; else empty. `fallback` are
    all names that are tried instead, in order.
    """

    id: str
    model: Model
    launch: Launch
    settings: ModelSettings
    kv: Kv
    prefixes: dict[str, str]
    asks: bool
    fallback: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All models of a configuration, and how they go together."""

    models: dict[str, ModelPlan]
    rules: Rules
    registry: Registry
    as_models: dict[str, tuple[str, ...]]


def make_plan(config: Config, dialect: DialectConfig, *, slot_folder: str) -> Plan:
    """The plan; ConfigError with every wrong set of a matrix. `slot_folder`: what a llama-server gets."""
    as_models = as_models_of(config, dialect.models)
    registry = Registry(dialect, prefixes=as_models, profile=dialect.hooks.on_startup.profile)
    default = registry.known.real(config.default_model)
    models = {
        name: plan_model(name, model, config, dialect, slot_folder=slot_folder, default=default)
        for name, model in dialect.models.items()
    }
    for name, model in dialect.models.items():
        if model.fallback:
            models[name] = replace(models[name], fallback=chain(name, dialect.models, registry.known))
    return Plan(models=models, rules=rules_of(dialect), registry=registry, as_models=as_models)


def plan_model(
    name: str, model: Model, config: Config, dialect: DialectConfig, *, slot_folder: str, default: str = ""
) -> ModelPlan:
    """One model; `default` is the ID of the default model."""
    kv = kv_of(config, model)
    words = command.split(model.cmd)
    prepared = command.prepare(words, folder="" if kv.policy == "off" else slot_folder, environment=model.env)
    if prepared.folders.ours and not prepared.added and not kv.directory:
        kv = replace(
            kv, directory=prepared.folders.ours, engine_directory=kv.engine_directory or prepared.folders.engine
        )
    launch = launch_of(name, model, prepared)
    limit = model.concurrency_limit
    stay = config.swap.min_resident
    return ModelPlan(
        id=name,
        model=model,
        launch=launch,
        kv=kv,
        prefixes=prefixes_of(config, model) if model.prefixes else {},
        asks=kv.policy != "off" or command.program_at(words) is not None,
        settings=ModelSettings(
            id=name,
            launch=launch.text + repr((kv, sorted(model.prefixes))),
            ttl=float(model.ttl),
            limit=limit,
            priority=dialect.routing.scheduler.settings.fifo.priority.get(name, 0),
            linger=config.swap.linger,
            min_resident=None if stay == "auto" else float(stay),
            unload_timeout=float(model.unload_timeout),
            swap_grace=float(model.unload_timeout),
            home=config.return_to_default if name == default else 0.0,
            pin=model.pin,
        ),
    )


def launch_of(name: str, model: Model, prepared: command.Prepared) -> Launch:
    """How its process is started, stopped and asked for its health."""
    origin = parse_origin(model.proxy)
    return Launch(
        model=name,
        words=prepared.words,
        stop_words=tuple(command.split(model.cmd_stop)),
        environment=(*model.env, *command.keeps_idle_slots(prepared.words, model.env)),
        url=model.proxy,
        host=origin.host,
        port=origin.port,
        check=check_path(model.check_endpoint),
        health_timeout=float(model.health_check_timeout),
        added=prepared.added,
        sleep=model.sleep,
    )


def check_path(endpoint: str) -> str:
    """Path and query of the health check; "" for `none`. Of a whole URL only these count."""
    endpoint = endpoint.strip()
    if endpoint == "none":
        return ""
    if "://" in endpoint:
        parts = urlsplit(endpoint)
        endpoint = parts.path + (f"?{parts.query}" if parts.query else "")
    return endpoint if endpoint.startswith("/") else f"/{endpoint}"


def rules_of(dialect: DialectConfig) -> Rules:
    router = dialect.routing.router
    if router.use == "matrix" and router.settings.matrix is not None:
        pinned = [name for name, model in dialect.models.items() if model.pin]
        return Matrix(router.settings.matrix, dialect.models, pinned=pinned)
    return Groups(router.settings.groups)


def slug(name: str) -> str:
    """A file name for a model's ID: readable, and no two IDs have the same."""
    return f"{NAMELESS.sub('-', name)[:60]}-{blake2b(name.encode(), digest_size=4).hexdigest()}"
