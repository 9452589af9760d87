"""What serves models on this machine already, for `init`: engines that answer, and a llama-swap configuration.

Servers are known by what they answer, on the ports that they use by default and on those that processes of their name
were given. A bioproxy, the engines that it started and a llama-swap are left out: what they serve is what `init` is
about. Blocking; loopback only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeAlias

import msgspec

from bioproxy.cli.client import Client
from bioproxy.cli.find import program
from bioproxy.config.dialect.read import read_dialect
from bioproxy.config.files import Source, home, read_text
from bioproxy.engines import listener
from bioproxy.engines.commands import is_server, option
from bioproxy.errors import BioproxyError, ConfigError

Json: TypeAlias = Any
Kind = Literal["llama-server", "Ollama", "vLLM", "LM Studio", "server"]

LOOPBACK = "127.0.0.1"
USUAL = (8080, 8081, 8000, 1234, 11434, 30000)  # llama-server, bioproxy's backend, vLLM, LM Studio, Ollama, SGLang
OWNERS: dict[str, Kind] = {"library": "Ollama", "vllm": "vLLM", "organization_owner": "LM Studio"}
SWAPS = "llama-swap"  # also what we call the owner of our models
QUICK = 2.0
UNKEPT = "its KV cache is lost when it stops: start it with --slot-save-path FOLDER"
SHARES = "it has several slots: -np 1 gives one conversation the whole context, and the disk keeps the others"


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """A server that answers. `remarks`: what its flags lack."""

    kind: Kind
    url: str
    models: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class Swap(msgspec.Struct, frozen=True, kw_only=True):
    """A llama-swap configuration and the models in it."""

    path: str
    text: str
    models: tuple[str, ...]


def processes() -> list[tuple[str, ...]]:
    """The command lines of this machine's processes, as far as they can be seen; a llama-swap's with a whole path."""
    import psutil

    seen = [one.info for one in psutil.process_iter(["cmdline", "cwd"])]
    return [whole(tuple(one["cmdline"] or ()), one["cwd"] or "") for one in seen]


def whole(words: tuple[str, ...], folder: str) -> tuple[str, ...]:
    """A command that runs in `folder`. A llama-swap's names its file with the whole path, also that of the default."""
    if not is_swap(words) or not folder:
        return words
    return (*words, "-config", os.path.join(folder, option(words, "-config", "--config") or "config.yaml"))


def is_swap(words: Sequence[str]) -> bool:
    return bool(words) and os.path.basename(words[0]).startswith(SWAPS)


def engines(commands: Sequence[Sequence[str]]) -> list[Engine]:
    """Every server that answers, by its port."""
    told = [option(words, "--port") or listener.USUAL_PORT for words in commands if is_server(words)]
    asked = sorted({*USUAL, *(int(port) for port in told if port.isdecimal() and 0 < int(port) < 1 << 16)})
    with ThreadPoolExecutor(max_workers=len(asked) or 1) as pool:
        return [found for found in pool.map(engine_at, asked) if found is not None]


def engine_at(port: int) -> Engine | None:
    """The server on a port of the loopback; None if nothing answers there, or something else does."""
    client = Client(f"http://{LOOPBACK}:{port}", timeout=QUICK)
    try:
        listed = client.get("/v1/models")
    except BioproxyError:
        return None
    entries = listed.get("data") if isinstance(listed, dict) else None
    entries = [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
    owners = {str(one.get("owned_by")) for one in entries}
    if SWAPS in owners or not entries or is_of_bioproxy(port):
        return None
    names = tuple(name for name in (str(one.get("id")) for one in entries) if name.isprintable())
    slots = slots_of(client)
    if slots is None:
        kind: Kind = next((OWNERS[one] for one in owners if one in OWNERS), "server")
        return Engine(kind=kind, url=client.url, models=names)
    if is_ours(client):
        return None
    return Engine(kind="llama-server", url=client.url, models=names, remarks=remarks(port, slots))


def slots_of(client: Client) -> int | None:
    """How many slots a llama-server has; None for anything else."""
    try:
        props = client.get("/props")
    except BioproxyError:
        return None
    slots = props.get("total_slots") if isinstance(props, dict) and "build_info" in props else None
    return slots if isinstance(slots, int) else None


def is_ours(client: Client) -> bool:
    """Whether a bioproxy answers: one with many models says so, the other is as its engine, but knows Ollama's API."""
    if program(client) is not None:
        return True
    try:
        return "version" in (client.get("/api/version") or ())
    except BioproxyError:
        return False


def is_of_bioproxy(port: int) -> bool:
    """Whether a bioproxy started what listens there: it will stop it again. False if the process cannot be seen."""
    import psutil

    try:
        pid = listens_at(port)
        return pid is not None and any(is_bioproxy(one.cmdline()) for one in psutil.Process(pid).parents())
    except psutil.Error:
        return False


def listens_at(port: int) -> int | None:
    """The process that listens on a port of this machine; None if it cannot be seen. psutil.Error."""
    import psutil

    if listener.LINUX:
        found = listener.holder(LOOPBACK, port)
        return found.pid if found is not None else None
    sockets = psutil.net_connections("tcp")
    return next((one.pid for one in sockets if one.status == psutil.CONN_LISTEN and one.laddr.port == port), None)


def is_bioproxy(words: Sequence[str]) -> bool:
    """Whether a command line is the program's, or that of the shim between it and an engine."""
    interpreted = bool(words) and os.path.basename(words[0]).startswith("python")
    rest = [one for one in words[1:] if not one.startswith("-")] if interpreted else words
    first = rest[0].replace("\\", "/") if rest else ""
    return os.path.basename(first).removesuffix(".exe") == "bioproxy" or first.endswith("bioproxy/engines/shim.py")


def remarks(port: int, slots: int) -> tuple[str, ...]:
    """What a llama-server's own flags lack, if its process can be seen."""
    process = listener.find(LOOPBACK, port)
    command = process.command if process is not None else ()
    unkept = bool(command) and not option(command, "--slot-save-path")
    return tuple(said for said, holds in ((UNKEPT, unkept), (SHARES, slots > 1)) if holds)


def swap(
    commands: Sequence[Sequence[str]], environment: Mapping[str, str], *, folder: str
) -> tuple[Swap | None, list[str]]:
    """The configuration of the llama-swap that runs, else one at a place where people keep it.

    Also what keeps others from being read; a file of that name in the working folder may be another program's.
    """
    notes = []
    for path in swap_places(commands, environment, folder=folder):
        if not os.path.isfile(path):
            continue
        try:
            text = read_text(path)
            found = read_dialect([Source(path, text)], environment=environment)
        except (ValueError, BioproxyError) as error:
            if path not in in_folder(folder):
                first = error.problems[0] if isinstance(error, ConfigError) else error
                notes.append(str(first) if path in str(first) else f"{path}: {first}")
            continue
        if found.models and "`bioproxy init`" not in text:
            return Swap(path=path, text=text, models=tuple(found.models)), notes
    return None, notes


def swap_places(commands: Sequence[Sequence[str]], environment: Mapping[str, str], *, folder: str) -> list[str]:
    user = home(environment)
    places = [
        os.path.abspath(option(words, "-config", "--config") or f"{folder}/config.yaml")
        for words in commands
        if is_swap(words)
    ]
    places += in_folder(folder)
    places += (f"{user}/{name}" for name in ("llama-swap/config.yaml", ".config/llama-swap/config.yaml"))
    places += (f"{place}/llama-swap/config.yaml" for place in ("/etc", "/opt", f"{user}/.config"))
    return list(dict.fromkeys(places))


def in_folder(folder: str) -> tuple[str, str]:
    return f"{folder}/config.yaml", f"{folder}/llama-swap.yaml"
