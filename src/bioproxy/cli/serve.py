"""`bioproxy serve`: the program that stays.

What belongs to a process and to no part of it lives here: signals, the event loop, the limit of open files, the log,
the banner. The first SIGTERM or SIGINT begins the orderly end (no new connections, streams finish up to
`shutdown_timeout`, what pays is saved, exit 0); the second one ends at once: an operator who presses Ctrl-C twice means
it. An engine of ours does not outlive that: its shim sees our end of a pipe close. SIGHUP reads the configuration
again, and so does a change of its files with `-watch-config` (reload.py). On Windows Ctrl-Break stands for SIGTERM,
which no program can send there, and nothing for SIGHUP.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Self

from bioproxy import __version__, aio, files
from bioproxy import log as logs
from bioproxy.app import App
from bioproxy.cli import activation
from bioproxy.cli import reload as reloading
from bioproxy.cli.command import Command
from bioproxy.cli.notify import READY, STOPPING, notify, watchdog
from bioproxy.config.addresses import UNIX, authority, socket_path, stays_here, url_of
from bioproxy.config.keys import KEYS, Option, value_of
from bioproxy.config.load import Loaded
from bioproxy.config.schema import Config
from bioproxy.config.tree import DEFAULT
from bioproxy.events import ModelChanged
from bioproxy.wire.server import files_for_clients, open_files

log = logging.getLogger("bioproxy")

OPEN_FILES = 65_536  # enough for `limits.connections`, both sides of each
PLENTY = 4096  # connections; no room for more is only worth a warning if the configuration asks for more
MALLOC = (-8, 1), (-3, 1 << 20), (-1, 4 << 20)  # malloc.h: M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
NAMED = 10  # models that the banner names


def run(main: Callable[[], Awaitable[int]]) -> int:
    """Run a program on uvloop if it is installed, else on asyncio's own loop; returns its exit code."""

    async def program() -> int:
        return await main()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.get_loop().set_default_executor(aio.Threads())
        return runner.run(program())


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop's loop, or None if there is no uvloop (Windows)."""
    try:
        import uvloop  # optional at run time
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def raise_file_limit() -> None:
    """Allow as many open files as the system lets us have: every stream is two sockets."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, max(soft, OPEN_FILES))
    if soft not in (resource.RLIM_INFINITY, wanted):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def share_one_heap() -> None:
    """Let all threads allocate from one heap, before the first of them starts, and large blocks from none.

    glibc gives each thread its own, in which the blocks stay that it read files with: 40 of 100 MB after some hours. A
    heap's lock costs nothing here, for one thread runs at a time. Another C library has no `mallopt`.
    """
    for option, value in MALLOC:
        of_libc("mallopt")(option, value)


def give_back(change: ModelChanged) -> None:
    """A model has gone: give the system what is free in the heap, also between what is not. 1 ms for 20 MB of it."""
    if change.new == "stopped":
        of_libc("malloc_trim")(0)


@cache
def of_libc(name: str) -> Callable[..., object]:
    """A function of the C library; one that does nothing if it has none of this name."""
    if sys.platform != "linux":
        return lambda *_: None
    import ctypes  # 5 ms

    function: Callable[..., object] = getattr(ctypes.CDLL(None), name, lambda *_: None)
    return function


def verb(command: Command) -> int:
    share_one_heap()
    systemd = activation.taken(os.environ)
    sockets = activation.opened(systemd)
    command = activation.listens_at(command, sockets)
    loaded = command.load()
    return run(lambda: serve(loaded, command.load, watch=command.flags.watch, systemd=systemd, sockets=sockets))


async def serve(
    loaded: Loaded,
    reload: Callable[..., Loaded],
    *,
    watch: bool = False,
    systemd: Mapping[str, str] = MappingProxyType({}),
    sockets: activation.Sockets = MappingProxyType({}),
) -> int:
    """Serve until a signal comes; returns the exit code. ConfigError if it cannot start (a port is taken).

    `watch`: a change of the configuration's files is a reload, too. `systemd`: its variables; `sockets`: open already.
    """
    config = loaded.config
    logs.setup(level=config.log.level, style=config.log.format)
    raise_file_limit()
    sources = reloading.sources(loaded) if watch else ()
    seen = files.patiently(reloading.look, sources)  # before anything slow: a change from here on is one
    app = App(loaded, reload=reload, sockets=sockets)
    app.set_up_log(loaded)
    stop = asyncio.Event()
    watching: list[asyncio.Task[None]] = []
    is_up = False
    async with watchdog(systemd), Signals(stop, app.reload) as signals:
        try:
            is_up = await has_started(app, stop)
            if is_up:
                notify(READY, systemd)
                say_hello(loaded, app)
                settle_memory()
                app.bus.subscribe(ModelChanged, give_back)
                if sources:
                    log.info("watching configuration for changes (poll-based, %.0fs interval)", reloading.INTERVAL)
                    work = reloading.watch(lambda: reloading.sources(app.loaded), seen, signals.reloader.ask)
                    watching.append(aio.spawn(work, name="watch"))
                elif watch:
                    log.warning("there is no configuration file to watch")
                await stop.wait()
        finally:
            notify(STOPPING, systemd)
            if is_up:
                log.info("stopping; streams have %.0f s, a second signal ends at once", config.shutdown_timeout)
            await aio.finish(watching)
            await app.stop(config.shutdown_timeout)
            if is_up:
                log.info("stopped")
            await app.close_log()
    return 0


async def has_started(app: App, stop: asyncio.Event) -> bool:
    """Start, unless a signal comes first: whether it is up. ConfigError if it cannot be."""
    starting, ending = aio.spawn(app.start(), name="start"), aio.spawn(stop.wait(), name="signal")
    try:
        await asyncio.wait([starting, ending], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
        return starting.done()
    finally:
        await aio.finish([starting, ending])


class Signals:
    """Signals as events while the program runs; a context manager of the main thread's loop."""

    def __init__(self, stop: asyncio.Event, reload: Callable[[], Awaitable[object]]) -> None:
        self.stop = stop
        self.loop = asyncio.get_running_loop()
        self.reloader = reloading.Reloader(reload)
        self.taken: list[Callable[[], object]] = []  # how each signal gets back what it did before

    async def __aenter__(self) -> Self:
        self.task = aio.spawn(self.reloader.run(), name="reload")
        for number in (signal.SIGTERM, signal.SIGINT):
            self.listen(number, partial(self.end, number))
        if sys.platform == "win32":
            self.listen(signal.SIGBREAK, partial(self.end, signal.SIGBREAK))
        else:
            self.listen(signal.SIGHUP, self.reloader.ask)
        return self

    async def __aexit__(self, *_: object) -> None:
        await aio.finish([self.task])
        for give_back in self.taken:
            give_back()

    def listen(self, number: int, callback: Callable[[], None]) -> None:
        """Call `callback` on the loop when the signal comes, also on loops that have no signals (Windows)."""
        try:
            self.loop.add_signal_handler(number, callback)
            self.taken.append(partial(self.loop.remove_signal_handler, number))
        except (NotImplementedError, RuntimeError):
            before = signal.signal(number, lambda *_: self.loop.call_soon_threadsafe(callback))
            self.taken.append(partial(signal.signal, number, before))

    def end(self, number: int) -> None:
        """First time: stop in order. Second time: end now, with the code that shells expect."""
        if self.stop.is_set():
            log.warning("second signal: ending at once")
            sys.stderr.flush()
            os._exit(128 + number)
        self.stop.set()


def settle_memory() -> None:
    """Let the garbage collector pass over what was built for good, and look less often at the rest.

    A request makes some hundred small objects that are gone when it ends; by default the collector would go through
    everything that lives after every few of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def say_hello(loaded: Loaded, app: App) -> None:
    """Log where clients find us, and what runs with which configuration."""
    for line in banner(loaded, proxy_port=app.proxy_port, admin_port=app.admin_port):
        log.info("%s", line)
    for warning in loaded.warnings:
        log.warning("%s", warning)
    config = loaded.config
    address = authority(config.proxy_host, app.proxy_port)
    if path := socket_path(config.proxy_host):
        log.info("listening on %s", UNIX + path)
    elif config.tls_cert_file:
        log.info("listening with TLS on https://%s", address)
    else:
        log.info("listening on http://%s", address)
    if app.ports.ollama.addresses:
        log.info("Ollama's API on http://%s, too", config.ollama.listen)
    say_room(loaded)
    if not stays_here(config.proxy_host):
        said = "reachable by all hosts on the network, use -listen localhost:%d to let only this machine in"
        log.warning(said, app.proxy_port)


def say_room(loaded: Loaded) -> None:
    """Log that there are fewer connections than asked for, or than many, because files are lacking."""
    wanted, files = loaded.config.limits.connections, open_files()
    asked = loaded.origins.get("limits.connections", DEFAULT) is not DEFAULT
    if (room := files_for_clients(files)) < (wanted if asked else min(PLENTY, wanted)):
        said = "%d open files are room for %d connections, not for %d (limits.connections); %s raises the limit"
        log.warning(said, files, room, wanted, "`ulimit -n`, or LimitNOFILE= of systemd,")


def banner(loaded: Loaded, *, proxy_port: int, admin_port: int) -> list[str]:
    """What runs, in a few lines: addresses, engine, templates, cache, files.

    An `admin_port` of 0 is one that could not be had, or a unix socket.
    """
    config = loaded.config
    templates, keys = ", ".join(config.prefixes) or "none", len(config.api_keys) or "none"
    warm_up = f"on, files looked at every {config.warmup_check_interval:g} s" if config.warmup.enabled else "off"
    admin = url_of(config.admin_host, admin_port, tls=config.admin_tls)
    scheme = "https" if config.tls_cert_file else "http"
    proxy = (
        UNIX + path
        if (path := socket_path(config.proxy_host))
        else f"{scheme}://{authority(config.proxy_host, proxy_port)}"
    )
    changed = [f"{key} ({loaded.origins[key]})" for key, option in KEYS.items() if is_changed(option, loaded)]
    return [
        f"bioproxy {__version__}, configuration: {', '.join(loaded.paths) or 'defaults, there is no file'}",
        f"proxy on {proxy}, {f'admin on {admin}' if admin_port or admin.startswith(UNIX) else 'no admin port'}",
        engines_text(loaded),
        f"templates: {templates}; warm-up {warm_up}",
        f"KV cache: policy {config.kv.policy}; state in {loaded.state}",
        f"queue: {config.queue_limit} requests, {config.queue_timeout:g} s each; API keys: {keys}",
        f"not at its default: {', '.join(changed) or 'nothing'}",
    ]


def is_changed(option: Option, loaded: Loaded) -> bool:
    """Whether a key has another value than by default; writing the default out is no change."""
    return loaded.origins[option.path] is not DEFAULT and value_of(loaded.config, option.path) != option.default


def engines_text(loaded: Loaded) -> str:
    if loaded.dialect is None:
        return f"engine: {engine_text(loaded.config)}"
    models, peers = list(loaded.dialect.models), list(loaded.dialect.peers)
    more = f" and {len(models) - NAMED} more" if len(models) > NAMED else ""
    text = f"models: {len(models)} ({', '.join(models[:NAMED])}{more})" if models else "models: none"
    return f"{text}; peers: {', '.join(peers)}" if peers else text


def engine_text(config: Config) -> str:
    return f"our own, {config.model}" if config.model else f"attached to {config.backend_url}"
