"""The program on sockets that systemd opened."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from bioproxy.cli.client import Client
from support.command import COMMAND, serving
from support.config_files import yaml_text
from support.http import call, free_port
from support.swap_models import engine_words

Json = Any
# What systemd does before it runs a service (sd_listen_fds(3)); the first two words are the sockets' numbers here.
SYSTEMD = """
import os, sys
for number, given in enumerate(sys.argv[1:3], 3):
    os.dup2(int(given), number)
    os.set_inheritable(number, True)
names = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "proxy:admin"}
os.execve(sys.argv[3], sys.argv[3:], {**os.environ, **names})
"""
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="systemd is Linux's")


async def test_both_ports_are_systemds(tmp_path: Path) -> None:
    """They serve, whatever the file says; no engine hears of them, and they are open when the program has gone."""
    path = tmp_path / "admin.sock"
    model = {"cmd": engine_words(tmp_path / "events")}
    (tmp_path / "config.yaml").write_text(yaml_text({"models": {"a": model}, "startPort": free_port(run=10)}))
    with socket.socket() as proxy, socket.socket(socket.AF_UNIX) as admin:
        proxy.bind(("127.0.0.1", 0))
        admin.bind(str(path))
        for one in (proxy, admin):
            one.listen()
            one.set_inheritable(True)
        port = proxy.getsockname()[1]
        command = (sys.executable, "-c", SYSTEMD, str(proxy.fileno()), str(admin.fileno()), *COMMAND)
        words = ("-config", "config.yaml", "-state-directory", str(tmp_path / "state"))
        descriptors = (proxy.fileno(), admin.fileno())
        async with serving(tmp_path, *words, command=command, pass_fds=descriptors) as served:
            await served.line(f"listening on http://127.0.0.1:{port}")
            environment = (await call(port, "GET", "/upstream/a/env")).json()["env"]
            assert [name for name in environment if name.startswith("LISTEN_")] == []
            assert Client(f"unix:{path}").get("/status")["models"][0]["state"] == "ready"
            assert await served.end() == 0
        assert path.exists()
        with socket.create_connection(("127.0.0.1", port)):  # waits in the backlog for the next start
            pass
    os.unlink(path)
