"""`bioproxy serve --model FILE [-- arguments]`: which program, with which arguments, and where it will answer.

`llama-server` from PATH comes first: an operator who installed one chose a build for this machine. Else the embedded
engine (embedded/). To what the user wrote we add what the KV cache on disk needs, each unless the user gave it: one
slot (several share a buffer that empties idle ones), a batch of 512 (a cancelled prompt stops after one), a folder for
slot files that no other user can read, `--metrics`, and a loopback port that is free. llama-server's own page is turned
off by an environment variable, because its flag has changed its name once, and an unknown flag would be fatal.

The graphics card: the wheel on PyPI computes on processors only. An operator with a card who does not know that would
wonder for days, so it is said loudly.
"""

from __future__ import annotations

import errno
import importlib.util
import logging
import mmap
import os
import random
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from bioproxy import files
from bioproxy.config.addresses import authority, host_of, is_any
from bioproxy.config.schema import Config
from bioproxy.embedded import flags
from bioproxy.engines import gguf
from bioproxy.errors import ConfigError, Problem

log = logging.getLogger(__name__)

SERVER = "llama-server"
WHEEL = "xllamacpp"
LOOPBACK = "127.0.0.1"
LOWEST, HIGHEST = 10_000, 20_000  # ports: no privileged ones, and few that a well-known service has
ATTEMPTS = 100
CARDS = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg")
CARD_CODE = (
    b"libcuda",
    b"libvulkan",
    b"libamdhip",
    b"ggml_cuda",
    b"ggml_vulkan",
    b"ggml_metal",
)  # needed or named in it
WITHOUT_PAGE = {"LLAMA_ARG_UI": "0", "LLAMA_ARG_WEBUI": "0"}  # the variable's two names; a strange one is not read
KEY_VARIABLE = "LLAMA_API_KEY"
NOTHING_THERE = (
    "there is no engine to serve it: no llama-server on PATH, and no llama.cpp in this Python; "
    "install one (https://github.com/ggml-org/llama.cpp) or: pip install 'bioproxy[llama]'"
)
HINT = (
    "this machine has a graphics card ({card}), but the engine that bioproxy brings along computes on the processor "
    "only: it will be many times slower than it could be. Install llama.cpp's llama-server for your card and put it on "
    "PATH, or a build of the wheel for it (https://github.com/xorbitsai/xllamacpp#installation)"
)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What will be started, and where it will answer."""

    command: tuple[str, ...]
    environment: dict[str, str]
    url: str
    embedded: bool
    slot_folder: str  # empty if the user's own arguments name it
    hint: str = ""  # what the operator should know, loudly

    @property
    def name(self) -> str:
        """What messages call its process."""
        return "the embedded engine" if self.embedded else SERVER


def launch(config: Config, *, folder: str) -> Plan:
    """Decide how `config.model` is served, with slot files in `folder`. ConfigError says what is missing."""
    check_model(config.model)
    plan = make_plan(
        config.model,
        config.engine_arguments,
        slot_folder=folder,
        key=config.backend_key,
        environment=os.environ,
        strict=config.kv.isolate == "strict",
    )
    if plan.hint:
        log.warning("%s", plan.hint)
    if plan.slot_folder:
        make_private(plan.slot_folder)
    return plan


def check_model(path: str) -> None:
    """ConfigError for what no engine can load: an engine would be started for ever, and only its log say so."""
    try:
        magic = files.patiently(files.read, path, most=len(gguf.MAGIC))[: len(gguf.MAGIC)]
    except OSError as error:
        raise ConfigError([Problem(f"{path} cannot be read: {error.strerror or error}", key="model")]) from error
    if magic != gguf.MAGIC:
        raise ConfigError([Problem(f"{path} is no GGUF file: it begins with {magic!r}", key="model")])


def make_plan(
    model: str,
    arguments: Sequence[str],
    *,
    slot_folder: str,
    key: str,
    environment: Mapping[str, str],
    strict: bool = False,
) -> Plan:
    """The command for `model` with the user's `arguments`. ConfigError if no engine can be found for it.

    `strict`: what a slot held must be gone once it was erased.
    """
    program, embedded = find_program(environment.get("PATH", ""))
    if embedded:
        check_arguments(arguments)
    check_key(arguments, key)
    given = options(arguments)
    port = given.get("--port") or str(free_port(given.get("--host", LOOPBACK)))
    host = given.get("--host", LOOPBACK)
    additions = {
        "--host": (host,),
        "--port": (port,),
        "--parallel": ("1",),
        "--batch-size": ("512",),
        "--slot-save-path": (slot_folder,),
        "--metrics": (),
        **({"--cache-ram": ("0",)} if strict else {}),
    }
    added = [word for flag, values in additions.items() if flag not in given for word in (flag, *values)]
    return Plan(
        command=(*program, "--model", model, *added, *arguments),
        environment={**WITHOUT_PAGE, **environment, **({KEY_VARIABLE: key} if key else {})},
        url=url_of(host, port, given),
        embedded=embedded,
        slot_folder="" if "--slot-save-path" in given else slot_folder,
        hint=card_hint(environment.get("PATH", "")) if embedded else "",
    )


def find_program(path: str) -> tuple[tuple[str, ...], bool]:
    """The program's words, and whether it is the embedded engine; ConfigError if neither is there."""
    found = shutil.which(SERVER, path=path)
    if found is not None:
        return (found,), False
    if getattr(sys, "frozen", False):
        return (sys.executable, "engine"), True
    if importlib.util.find_spec(WHEEL) is None:
        raise ConfigError([Problem(NOTHING_THERE, key="model")])
    return (sys.executable, "-m", "bioproxy.embedded"), True


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse now what the embedded engine would refuse at each start; ConfigError names the flags."""
    try:
        flags.parse(arguments)
    except ConfigError as error:
        problems = [Problem(problem.message, key="engine_arguments") for problem in error.problems]
        raise ConfigError(problems) from error


def check_key(arguments: Sequence[str], key: str) -> None:
    """An engine with a key that we do not know would answer 401 to everything."""
    if not key and {"--api-key", "--api-key-file"} & options(arguments).keys():
        sentence = (
            "hold an API key that bioproxy must know to talk to its engine: set backend_key instead, it is passed on"
        )
        raise ConfigError([Problem(sentence, key="engine_arguments")])


def options(arguments: Sequence[str]) -> dict[str, str]:
    """The long names of the flags that were given, with the word that follows (or stands after `=`)."""
    found = {}
    following = (*arguments[1:], "")
    for argument, after in zip(arguments, following, strict=True) if arguments else ():
        name, equals, value = flags.spelling(argument)
        if name.startswith("-"):
            found[long_name(name)] = value if equals else after
    return found


def long_name(name: str) -> str:
    """`-np` is `--parallel`; a flag that we do not know is itself."""
    known = flags.BY_NAME.get(name)
    return next((spelled for spelled in known.names if spelled.startswith("--")), name) if known else name


def url_of(host: str, port: str, given: Mapping[str, str]) -> str:
    """Where an engine that listens on `host` is reached from here."""
    if is_any(host):
        host = "::1" if host_of(host) == "::" else LOOPBACK
    scheme = "https" if "--ssl-cert-file" in given else "http"
    prefix = given.get("--api-prefix", "").rstrip("/")
    return f"{scheme}://{authority(host, port)}{prefix}"


def free_port(host: str = "127.0.0.1", *, run: int = 1) -> int:
    """The first of `run` ports in a row that are free on `host` now, for a program that will listen there later.

    The kernel chooses the ports for port 0 from the range that it also takes the local ends of connections from. Such a
    port may be taken when the engine is started, or started again: "Address already in use", once in a few hundred
    starts of a busy machine. So one below that range is chosen (Linux: `net.ipv4.ip_local_port_range`, 32768 and up;
    elsewhere from 49152), at random, for two programs may choose at the same time.

    ConfigError if `host` is no address of this machine, or if no attempt found one.
    """
    for _ in range(ATTEMPTS):
        first = random.randrange(LOWEST, HIGHEST)  # noqa: S311 - no secret
        try:
            if all(is_free(host, port) for port in range(first, first + run)):
                return first
        except OSError as error:
            problem = Problem(f"--host {host} cannot be listened on: {error.strerror}", key="engine_arguments")
            raise ConfigError([problem]) from error
    sought = f"{ATTEMPTS} attempts between {LOWEST} and {HIGHEST} found no free port on {host}"
    raise ConfigError([Problem(f"{sought}; name one with --port", key="engine_arguments")])


def is_free(host: str, port: int) -> bool:
    """Whether one could listen there now; OSError if that has nothing to do with the port."""
    family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE or (sys.platform == "win32" and error.errno == errno.EACCES):
                return False  # there the second says that it is taken by one who shares with nobody, or kept back
            raise
    return True


def make_private(folder: str) -> None:
    """Make the folder for slot files, for us alone; one that is there keeps its mode. ConfigError if that fails."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        problem = Problem(f"the folder for slot files, {folder}, cannot be made: {error.strerror}", key="kv.directory")
        raise ConfigError([problem]) from error


async def make_again(folder: str) -> None:
    """Make the folder for slot files, if somebody has removed it: llama-server does not start without it."""
    try:
        await files.away(make_private, folder)
    except (ConfigError, files.Stuck) as error:
        log.warning("%s", error.message)


def card_hint(path: str) -> str:
    """What to say if there is a graphics card that the embedded engine does not use; empty if all is well."""
    card = next((name for name in CARDS if Path(name).exists()), None) or shutil.which("nvidia-smi", path=path)
    return HINT.format(card=card) if card and not wheel_knows_cards() else ""


def wheel_knows_cards() -> bool:
    """Whether the installed wheel was built for graphics cards: their drivers and backends are named in its library."""
    from importlib import metadata  # 40 ms

    try:
        files = metadata.files(WHEEL) or []
    except metadata.PackageNotFoundError:
        return True  # not a wheel: built here, for this machine
    libraries = [Path(str(file.locate())) for file in files if file.suffix in {".so", ".dylib", ".pyd"}]
    return any(mentions(library, CARD_CODE) for library in libraries if library.exists())


def mentions(path: Path, words: Sequence[bytes]) -> bool:
    """Whether one of `words` stands in the file (100 MB take a tenth of a second)."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(word) >= 0 for word in words)
