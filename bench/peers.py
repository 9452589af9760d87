"""The programs that are measured: each is started, waited for, metered by its own CPU time, and stopped."""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bioproxy.engines.launch import free_port

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log /dev/null crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  client_body_buffer_size 1m; keepalive_requests 1000000;
  upstream engine {{ server 127.0.0.1:{upstream}; keepalive 1100; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


def wait_for(port: int, path: str = "/health", *, seconds: float = 20.0) -> float:
    """Wait until `path` answers 200; the seconds it took."""
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1) as answer,
        ):
            if answer.status == 200:
                return time.perf_counter() - started
        time.sleep(0.005)
    raise TimeoutError(f"nothing answered {path} on port {port} within {seconds} s")


def cpu_seconds(pid: int) -> float:
    """CPU time of one process so far, of all its threads; counted by the scheduler, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def resident_bytes(pid: int) -> int:
    """Resident memory of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that is ended with the block."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


@contextlib.contextmanager
def upstream(slots: int = 64) -> Iterator[int]:
    """The engine that computes nothing, with so many slots; its port."""
    port = free_port()
    with running([sys.executable, "-m", "bench.upstream", str(port), str(slots)]) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield port


@contextlib.contextmanager
def nginx(upstream_port: int) -> Iterator[tuple[int, int]]:
    """Run nginx as a reverse proxy: (port, pid of its one worker); FileNotFoundError where it is not installed."""
    binary = shutil.which("nginx") or ("/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else None)
    if binary is None:
        raise FileNotFoundError("nginx is not installed (apt install nginx)")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(folder) / "nginx.conf"
        conf.write_text(NGINX.format(folder=folder, upstream=upstream_port, port=port))
        with running([binary, "-c", str(conf), "-p", folder, "-e", "/dev/null"]) as child:
            wait_for(port)
            workers = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
            yield port, int(workers[0])


@contextlib.contextmanager
def bioproxy(upstream_port: int, *, python: str = sys.executable, **options: object) -> Iterator[tuple[int, int]]:
    """Run bioproxy in front of the same engine: (port, pid)."""
    port, admin = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(folder) / "conf.json"
        values = {
            "proxy_host": "127.0.0.1",
            "proxy_port": port,
            "admin_port": admin,
            "backend_url": f"http://127.0.0.1:{upstream_port}",
            "state_directory": folder,
            "queue_limit": 100_000,
            **options,
        }
        conf.write_text(json.dumps(values))
        with running([python, "-m", "bioproxy", "serve", "--config", str(conf)]) as child:
            wait_for(admin, "/readyz")
            yield port, child.pid


@contextlib.contextmanager
def models(*names: str, slots: int = 16, python: str = sys.executable, **options: object) -> Iterator[tuple[int, int]]:
    """Run bioproxy with models whose engines compute nothing, all loaded: (port, pid). With our defaults."""
    port = free_port()
    command = f"{sys.executable} -m bench.upstream ${{PORT}} {slots}"
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(folder) / "config.yaml"
        values = {
            "models": {name: {"cmd": command} for name in names},
            "groups": {"all": {"swap": False, "members": names}},
            "hooks": {"on_startup": {"preload": names}},
            "admin_port": 0,
            "startPort": free_port(run=len(names)),
            "state_directory": folder,
            "queue_limit": 100_000,
            **options,
        }
        conf.write_text(json.dumps(values))  # JSON is YAML, too
        words = ["serve", "--config", str(conf), "--listen", f"127.0.0.1:{port}"]
        with running([python, "-m", "bioproxy", *words]) as child:
            wait_for(port)
            for name in names:
                wait_for(port, f"/upstream/{name}/health")
            yield port, child.pid


def load(
    port: int,
    *,
    path: str,
    clients: int,
    each: int,
    size: int = 20,
    events: int = 0,
    rate: float = 0,
    model: str = "a",
    tls: bool = False,
) -> dict[str, float]:
    """Run the load generator and return what it counted."""
    return loading(port, path, clients, each, size, events, rate, model, *(["tls"] if tls else []))()


def loading(*words: object) -> Callable[[], dict[str, float]]:
    """Start the load generator; what is returned waits for its end and tells what it counted."""
    child = subprocess.Popen([sys.executable, "-m", "bench.load", *map(str, words)], stdout=subprocess.PIPE)

    def counted() -> dict[str, float]:
        out, _ = child.communicate(timeout=600)
        return dict(json.loads(out))

    return counted


def metered(pid: int, port: int, **options: object) -> tuple[float, dict[str, float]]:
    """CPU seconds that the process used while the load ran, and what the load counted."""
    before = cpu_seconds(pid)
    counted = load(port, **options)  # type: ignore[arg-type]
    return cpu_seconds(pid) - before, counted


def paired(
    plain: tuple[int, int],
    other: tuple[int, int],
    *,
    rounds: int = 15,
    more: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> tuple[float, float]:
    """Microseconds of CPU of a request through `plain`, and how many more `other` takes; its load has `more` besides.

    Both are (port, pid). Each round measures both, there and back; its difference is what counts, because neighbours
    disturb both.
    """
    without, added = [], []
    for number in range(rounds):
        spent = {}
        for which in (plain, other) if number % 2 else (other, plain):
            cpu, counted = metered(which[1], which[0], **options, **(more if which is other else {}))
            if counted["lost"]:
                raise AssertionError(f"{counted['lost']:.0f} requests were lost")
            spent[which] = cpu / counted["requests"] * 1e6
        without.append(spent[plain])
        added.append(spent[other] - spent[plain])
    return statistics.median(without), statistics.median(added)


def peak_bytes(pid: int) -> int:
    """The most memory that the process ever had resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def metered_peak(pid: int, port: int, **options: object) -> tuple[float, dict[str, float], int]:
    """The same, and the most memory that was resident meanwhile, in bytes."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets the peak
    cpu, counted = metered(pid, port, **options)
    return cpu, counted, peak_bytes(pid)


def start_seconds(upstream_port: int) -> float:
    """From exec to the first 200 of /readyz."""
    started = time.perf_counter()
    with bioproxy(upstream_port):
        return time.perf_counter() - started
