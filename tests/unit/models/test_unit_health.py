"""Health checks that never come to an end, one way or another: each has its time, and no process is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioproxy.errors import ModelFailed
from support.unit_rig import unit_rig

SERVER = """
import socket, threading, time
s = socket.create_server(("127.0.0.1", PORT))
def one(c):
    ACT
while True:
    threading.Thread(target=one, args=(s.accept()[0],), daemon=True).start()
"""
SHORT = r"c.recv(999); c.sendall(b'HTTP/1.1 {status} x\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n')"
ENDLESS = r"c.sendall(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'); {more}time.sleep(60)"
NO_HEALTH = {
    "says nothing": "time.sleep(60)",
    "no body": r"c.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n'); time.sleep(60)",
    "half a head": r"c.sendall(b'HTTP/1.1 200 OK\r\nX: '); time.sleep(60)",
    "no end": ENDLESS.format(more=r"[c.sendall(b'1\r\nx\r\n') for _ in range(9)]; "),
    "no http": r"c.sendall(b'SSH-2.0-OpenSSH\r\n'); time.sleep(60)",
    "closes": "c.close()",
    "loads for ever": SHORT.format(status=503, more=""),
    "redirects": SHORT.format(status=302, more=r"Location: /\r\n"),
    "another 2xx": SHORT.format(status=204, more=""),
}


@pytest.mark.parametrize("act", NO_HEALTH.values(), ids=NO_HEALTH.keys())
async def test_it_is_given_up(act: str, tmp_path: Path) -> None:
    """With what was seen last in the sentence."""
    async with unit_rig(tmp_path, program=SERVER.replace("ACT", act), health_timeout=0.4) as rig:
        with pytest.raises(ModelFailed, match="health check timed out after"):
            await rig.unit.start(list)
        assert rig.unit.pid is None
        assert not rig.gear.open
        assert not rig.gear.pool.statistics().open


async def test_a_strange_health_path(tmp_path: Path) -> None:
    """It is asked as it stands in the configuration, and what asks is not confused by what answers there."""
    async with unit_rig(tmp_path, check="/v1/models?x=1", health_timeout=5.0) as rig:
        await rig.unit.start(list)
        assert rig.gear.open
        await rig.unit.stop(grace=1.0, save=0.0)
    assert [told.path for told in rig.log.of("looked")] == ["/v1/models"]


async def test_an_engine_that_dies_while_it_is_asked(tmp_path: Path) -> None:
    """Its end is what is told, at once, and not that its health timed out."""
    program = "import os, sys, time\nprint('out of memory', flush=True)\ntime.sleep(0.05)\nos._exit(9)"
    async with unit_rig(tmp_path, program=program, health_timeout=60.0) as rig:
        with pytest.raises(ModelFailed, match=r"exit code 9(.|\n)*out of memory"):
            await rig.unit.start(list)
        assert rig.pids[-1] == 0
