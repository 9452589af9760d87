"""Engines at unix sockets: one that runs already, and one of ours."""

from __future__ import annotations

import shlex
import socket
import sys
from pathlib import Path
from typing import Any

from fakes.fake_engine import PROGRAM
from support.apps import running_app
from support.http import call
from support.sockets import needs_unix, short_folder

Json = Any
HELLO: Json = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
short = short_folder()
pytestmark = needs_unix


async def test_an_engine_of_ours_and_a_second_program_before_it(tmp_path: Path, short: Path) -> None:
    """It starts although one that was killed left its socket, and is seen as any other; another attaches to it."""
    path, other = short / "a.sock", tmp_path / "other"
    other.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    own = {"cmd": shlex.join([sys.executable, str(PROGRAM), "--host", str(path)]), "proxy": f"unix:{path}"}
    async with running_app(tmp_path, models={"own": own}) as app:
        answer = await call(app.proxy_port, "POST", "/v1/chat/completions", data={**HELLO, "model": "own"})
        assert (answer.status, answer.json()["usage"]["completion_tokens"]) == (200, 4)
        (model,) = (await call(app.admin_port, "GET", "/status")).json()["models"]
        facts = model["engine"]["facts"]
        assert (facts["url"], facts["pid"], model["kv"]["hidden"]) == (f"unix:{path}", model["pid"], [])
        async with running_app(other, backend_url=f"unix:{path}") as second:
            answer = await call(second.proxy_port, "POST", "/v1/chat/completions", data=HELLO)
            assert answer.status == 200
            seen = (await call(second.admin_port, "GET", "/status")).json()["engine"]["facts"]
            assert (seen["url"], seen["pid"]) == (facts["url"], facts["pid"])
