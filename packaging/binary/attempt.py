"""Starts a single-file executable as a user would, and asks it: `python packaging/binary/attempt.py FILE`.

It has a home of its own, so that it is unpacked, and a PATH without any Python or engine. `demo --once` measures the
cache on llama.cpp, which it carries, with its own kill -9 in between. Then it serves that demo's model: the time until
its port is open, a chat, the web page, and what the engine's process was given.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

PATIENCE = 120.0
LOOK = 0.005
SOON = 0.5  # seconds that a start may take, once it is unpacked
TRIES = 5
WINDOWS = sys.platform == "win32"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def asked(port: int, path: str, body: Any = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    address = f"http://127.0.0.1:{port}{path}"
    with urlopen(Request(address, data, {"Content-Type": "application/json"}), timeout=PATIENCE) as answer:
        content: bytes = answer.read()
    return content


@contextmanager
def serving(words: Sequence[str], ports: Sequence[int], environment: dict[str, str]) -> Iterator[float]:
    """The program until all of `ports` are open; the seconds that this took. Ended in order."""
    begun = time.monotonic()
    group = {"creationflags": 0x200} if WINDOWS else {}  # CREATE_NEW_PROCESS_GROUP
    program = subprocess.Popen([*words], env=environment, **group)
    try:
        while not all(map(is_open, ports)):
            if program.poll() is not None or time.monotonic() > begun + PATIENCE:
                raise SystemExit(f"{words[0]} did not start")
            time.sleep(LOOK)
        yield time.monotonic() - begun
    finally:
        program.send_signal(signal.CTRL_BREAK_EVENT if WINDOWS else signal.SIGTERM)
        code = program.wait(PATIENCE)
    if code:
        raise SystemExit(f"its orderly end had exit code {code}")


def ask(port: int, admin: int) -> None:
    """A chat, the web page, and the engine that was started for it."""
    while json.loads(asked(admin, "/api/models"))["models"][0]["state"] != "ready":
        time.sleep(LOOK)
    question = {"model": "demo", "max_tokens": 4, "messages": [{"role": "user", "content": "What does a proxy do?"}]}
    answer = json.loads(asked(port, "/v1/chat/completions", question))
    print("a chat:", answer["usage"])
    page = asked(admin, "/ui/")
    assert b"<!doctype html>" in page.lower(), "the web page is missing"
    print(f"the web page: {len(page)} bytes")
    if sys.platform == "linux":
        engine = json.loads(asked(admin, "/api/models"))["models"][0]["pid"]
        given = Path(f"/proc/{engine}/environ").read_bytes().split(b"\0")
        shim = Path(f"/proc/{engine}/stat").read_text().rpartition(")")[2].split()[1]
        given += Path(f"/proc/{shim}/environ").read_bytes().split(b"\0")
        print("the engine's process:", Path(f"/proc/{engine}/cmdline").read_bytes().split(b"\0")[:2])
        assert b"LD_LIBRARY_PATH=/kept" in given, "the user's own libraries are lost"


def main(program: str) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        environment = {"PATH": "/usr/bin:/bin", "HOME": home, "LD_LIBRARY_PATH": "/kept"}
        if WINDOWS:
            environment = {**os.environ, "HOME": home}
        begun = time.monotonic()
        subprocess.run([program, "version"], env=environment, check=True)
        print(f"the first start, unpacking: {time.monotonic() - begun:.2f} s")
        if subprocess.run([program, "demo", "--once"], env=environment, check=False).returncode:
            print("the demo found the cache too slow here; what follows must work all the same")
        model = str(next(Path(home).rglob("*.gguf")))
        starts = []
        for _ in range(TRIES):
            port, admin = free_port(), free_port()
            words = [program, "serve", "-model", model, "-listen", f"127.0.0.1:{port}", "-admin-port", str(admin)]
            with serving(words, (port, admin), environment) as seconds:
                starts.append(seconds)
                if len(starts) == 1:
                    ask(port, admin)
        print("ports open after", ", ".join(f"{seconds:.2f}" for seconds in starts), "s")
        if min(starts) > SOON:
            busy = not WINDOWS and os.getloadavg()[0] > (os.cpu_count() or 1)
            print(f"that is more than {SOON} s{', but this machine is busy' if busy else ''}")
            raise SystemExit(0 if busy else 1)


if __name__ == "__main__":
    main(str(Path(sys.argv[1]).resolve()))
