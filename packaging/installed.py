"""Installs each package in an empty environment and starts it there: `python packaging/installed.py FILE...`.

What a user gets is what is in the file, and not what lies in the tree beside it: a module that was forgotten, a page
that was not built, or a dependency that is only there because a developer has it, shows here and nowhere else.
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
import venv
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

PATIENCE = 60.0  # seconds
LOOK = 0.05
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def install(package: Path, folder: Path) -> Path:
    """The command `bioproxy` of a new environment in `folder` that has `package` and what it asks for."""
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    quiet = ("--quiet", "--disable-pip-version-check", "-c", str(CONSTRAINTS))
    subprocess.run([scripts / "python", "-m", "pip", "install", *quiet, str(package)], check=True)
    subprocess.run([scripts / "python", "-m", "pip", "check"], check=True, stdout=subprocess.DEVNULL)
    return scripts / "bioproxy"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def page(port: int) -> str:
    """The web page's start, once the program answers."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/ui/", timeout=PATIENCE) as answer:
                return str(answer.read().decode())
        except URLError:
            if time.monotonic() > end:
                raise
            time.sleep(LOOK)


def start(command: Path, folder: Path) -> None:
    """Let it serve before no engine, in an empty home, and ask for its page."""
    port = free_port()
    config = folder / "config.json"
    config.write_text(json.dumps({"proxy_port": free_port(), "admin_port": port, "backend_url": "http://127.0.0.1:1"}))
    environment = {**os.environ, "HOME": str(folder), "PYTHONPATH": ""}
    subprocess.run([command, "check", "-config", config], check=True, env=environment, cwd=folder)
    group = {"creationflags": 0x200} if os.name == "nt" else {}  # CREATE_NEW_PROCESS_GROUP
    program = subprocess.Popen([command, "-config", config], env=environment, cwd=folder, **group)
    try:
        assert "<script" in page(port), "it shows no web page"
    finally:
        program.send_signal(signal.CTRL_BREAK_EVENT if os.name == "nt" else signal.SIGTERM)
        code = program.wait(PATIENCE)
    assert code == 0, f"its orderly end had exit code {code}"


def main(packages: list[str]) -> None:
    for package in map(Path, packages):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            command = install(package.resolve(), Path(folder) / "environment")
            subprocess.run([command, "version"], check=True, cwd=folder)
            start(command, Path(folder))
        print(f"{package.name}: installed, started, its page shown")


if __name__ == "__main__":
    main(sys.argv[1:])
