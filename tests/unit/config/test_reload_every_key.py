"""A reload leaves a program as a start with that configuration would have made it: for every key of both dialects.

Each key is changed alone. What the two programs hold is compared value by value, so that a copy that was forgotten is
found wherever it is. A key that a reload cannot change must say so, and change nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec import inspect

from bioproxy.app import App
from bioproxy.config.keys import KEYS, Option
from bioproxy.config.load import Loaded, load
from fakes.real_engine import reason_to_skip
from support.apps import log_put_back
from support.graph import held
from support.swap_models import every_key

Json = Any
# The file as it is, keys that wait for a restart, what is made when needed, what a line of the log moves, where `serve`
# has it go, when and how often a template was read, how far the machine's two clocks were apart.
APART = re.compile(
    r"^\.(loaded|late)\b|\.known\b|\.dialect\.own\b|\.read_again|^\.console\.|^\.logbook\.(console|mux|proxy)\."
    r"|^\.logbook\.(console|as_json)$|\.change(d_at|s)$|\.cache$|\.asleep$"
)

# What a key becomes, if its type does not tell.
OWN: dict[str, Json] = {
    "proxy_host": "127.0.0.2",
    "admin_host": "127.0.0.2",
    "backend_url": "http://127.0.0.1:7",
    "model": "m.gguf",
    "prefixes": {"@other": "manual.txt"},
    "engine_arguments": ["-c", "1"],
    "api_keys": ["k1"],
    "admin_hosts": ["x.lan"],
    "trusted_proxies": ["10.0.0.0/8"],
    "cors_origins": ["https://x.lan"],
    "swap.min_resident": 7,
    "clients.apps": [{"name": "mine", "agents": ["mine/*"]}],
    "clients.side": [{"name": "titles", "agents": ["mine/*"], "tools": "none"}],
    "clients.stabilize": [{"name": "date", "line": "Date: *"}],
    "ollama.listen": "127.0.0.1:11434",
    "socket_mode": "0660",
    "proxy.base_path": "/llm",
    "kv.engine_directory": "/seen/by/the/engine",
    "kv.model_budgets": {"m": "3GiB"},
    "kv.key_budgets": {"*": "3GiB"},
    "default_model": "m",
}
BESIDE: dict[str, Json] = {
    "model": {"backend_url": ""}, "kv.engine_directory": {"kv.directory": "slots"},
    "return_to_default": {"default_model": "m"},
}  # fmt: skip
# The context is made at the start: tests/integration/test_reload_effects.py
TLS = {"tls_cert_file", "tls_key_file", "admin_tls"}
SWAP: dict[str, Json] = {
    "logLevel": "error",
    "logTimeFormat": "kitchen",
    "logToStdout": "none",
    "performance.every": "2m",
    "upstream.ignorePaths": [r"\.x$"],
    "apiKeys": ["sk-one", "sk-three"],
    "models.llama.proxy": "http://127.0.0.1:${PORT}/other",
    "models.llama.capabilities.context": 9,
    "models.llama.capabilities.in": ["text"],
    "models.llama.capabilities.out": ["text", "audio"],
    "models.llama.kv.policy": "off",
    "models.llama.kv.disk_budget": "3GiB",
    "models.llama.prefixes.@code": "manual.txt",
    "models.llama.env": ["B=1"],
    "models.qwen.kv": "always",
    "models.embed.proxy": "http://127.0.0.1:9003",
    "models.voice.proxy": "http://127.0.0.1:9004",
    "models.llama.fallback": ["embed"],
    "models.llama.fallbackStatus": [500],
    "models.llama.sleep": 2,
    "routing.router.use": "group",
    "routing.router.settings.groups.chat.members": ["llama"],
    "routing.router.settings.matrix.vars.l": "embed",
    "routing.router.settings.matrix.vars.q": "embed",
    "routing.router.settings.matrix.vars.v": "embed",
    "routing.router.settings.matrix.sets.set10": "+set2 & llama",
    "routing.router.settings.matrix.sets.set2": "(l & q) & v",
    "hooks.on_startup.preload": ["voice"],
    "hooks.on_startup.profile": "",
    "profiles.work.pins.fast": "qwen",
    "profiles.work.pins.any": "qwen",
    "profiles.work.pins.far": "qwen",
    "profiles.work.pins.gone": "qwen",
    "selectors.best.strategy": "pin",
    "selectors.best.targets": ["llama", "qwen"],
    "prefixes.@manual": "code.txt",
}
NO_EFFECT = {
    "x-common.ttl", "x-common.env", "logRequests", "models.llama.healthCheckTimeout",
    "models.llama.filters.strip_params", "peers.box.filters.strip_params", "peers.box.tailcatKey",
}  # fmt: skip
OTHERWISE = {
    "startPort",  # a model keeps the number that it has
    "routing.scheduler.use",  # there is but one
    "proxy_port",  # ours
}


class Site:
    """A folder with a configuration file, and programs of it that are not started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("code.txt", "manual.txt"):
            (folder / name).write_text(f"Some text in {name}.\n<{{message}}>")
        (folder / "m.gguf").write_bytes(b"GGUF" + bytes(64))

    def write(self, values: Json) -> None:
        """The file from now on."""
        (self.folder / "config.json").write_text(json.dumps(values))

    def read(self, ports: Mapping[str, int] | None = None) -> Loaded:
        """What the file says."""
        environment = {"HOME": str(self.folder), "SECOND_KEY": "sk-two"}
        return load(path=str(self.folder / "config.json"), environment=environment, ports=ports)

    def program(self) -> App:
        """A program of the file."""
        return App(self.read(), reload=self.read)

    async def holds(self) -> dict[str, object]:
        """What a program of the file holds."""
        program = self.program()
        found = held(program, leave=APART)
        await let_go(program)
        return found


async def let_go(program: App) -> None:
    """It was never started: its table is closed, and the SDK of spans has its log again."""
    await program.management.store.close()
    await program.close_spans()


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """A reload sets the log up."""
    with log_put_back():
        yield


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """One folder for all."""
    return Site(tmp_path_factory.mktemp("site"))


def unlike(first: dict[str, object], second: dict[str, object]) -> set[str]:
    """The ways at which two programs differ, whatever the names of entries on them."""
    nothing = object()
    ways = {**first, **second}
    return {re.sub(r"\[.*?\]", "[]", way) for way in ways if first.get(way, nothing) != second.get(way, nothing)}


KNOWN: dict[str, tuple[dict[str, object], set[str]]] = {}


async def known(site: Site, base: Json) -> tuple[dict[str, object], set[str]]:
    """What a program of `base` holds, and its clocks and counters.

    These differ between two programs of one file, or by a reload without a change.
    """
    key = json.dumps(base)
    if key not in KNOWN:
        site.write(base)
        program, fresh = site.program(), await site.holds()
        noise = unlike(held(program, leave=APART), fresh)
        assert await program.reload() == ()
        KNOWN[key] = fresh, noise | unlike(held(program, leave=APART), fresh)
        await let_go(program)
    return KNOWN[key]


async def reloaded(site: Site, before: Json, after: Json) -> tuple[tuple[str, ...], set[str], set[str]]:
    """What a reload says; where the program differs from before, and from a start with `after`."""
    same, noise = await known(site, before)
    site.write(before)
    program = site.program()
    site.write(after)
    said = await program.reload()
    now = held(program, leave=APART)
    await let_go(program)
    return said, unlike(same, now) - noise, unlike(await site.holds(), now) - noise


def other(option: Option) -> Json:
    """Another value for a key of bioproxy's own."""
    if option.path in OWN:
        return OWN[option.path]
    match option.kind.type:
        case inspect.BoolType():
            return not option.default
        case inspect.IntType() | inspect.FloatType():
            return option.default + 1
        case inspect.LiteralType(values=values):
            return next(value for value in values if value != option.default)
        case _:
            return "something"


def nested(flat: Mapping[str, Json]) -> Json:
    """Values by dotted key as a file has them."""
    found: Json = {}
    for path, value in flat.items():
        section, _, name = path.rpartition(".")
        (found.setdefault(section, {}) if section else found)[name] = value
    return found


@pytest.mark.parametrize("many", [False, True], ids=["one engine", "models"])
@pytest.mark.parametrize("path", [path for path in KEYS if path not in TLS])
async def test_every_key_of_ours_is_taken_over_or_says_after_a_restart(path: str, many: bool, site: Site) -> None:
    """The schema says which of the two."""
    if many and path in {"backend_url", "model"}:
        pytest.skip("beside models there is neither")
    if path == "model" and reason_to_skip:
        pytest.skip(reason_to_skip)
    option, beside = KEYS[path], BESIDE.get(path, {})
    models = {"models": {"m": {"cmd": "llama-server --port ${PORT}", "prefixes": {"@code": "code.txt"}}}}
    common = {"proxy_port": 0, "admin_port": 0, "warmup.settle": 0, **(models if many else {})}
    before = nested({**common, **{key: KEYS[key].default for key in beside}})
    said, changed, missed = await reloaded(site, before, nested({**common, **beside, path: other(option)}))
    if option.kind.live:
        assert path in said
        assert changed
        assert missed == set()
    else:
        assert f"{path} (after a restart)" in said
        assert changed == set()


def leaves(value: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The place of each value that is no mapping."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path


def changed_at(path: tuple[str, ...]) -> Json:
    """The file with another value at `path`."""
    root = every_key()
    place = root
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = another(place[path[-1]], ".".join(path))
    return root


def another(value: Json, path: str) -> Json:
    """Another value of the same kind."""
    if path in SWAP:
        return SWAP[path]
    kinds: dict[type, Callable[[Json], Json]] = {
        bool: lambda one: not one,
        int: lambda one: one + 1,
        float: lambda one: one + 1,
        str: lambda one: f"{one}x",
        list: lambda one: [*one, "more"],
        type(None): lambda _: "something",
    }
    return kinds[type(value)](value)


@pytest.mark.parametrize(
    "path", [path for path in leaves(every_key()) if ".".join(path) not in OTHERWISE], ids=".".join
)
async def test_every_key_of_the_dialect_is_taken_over(
    path: tuple[str, ...], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a start would take it, and the reload says what changed."""
    monkeypatch.chdir(site.folder)  # for `store.path`
    said, changed, missed = await reloaded(site, every_key(), changed_at(path))
    assert missed == set()
    if ".".join(path) not in NO_EFFECT:
        assert said
        assert changed
