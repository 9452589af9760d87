"""Ollama's routes for clients with keys, where models are many: what each may ask, load and unload."""

from __future__ import annotations

from typing import Any

import pytest

from support.http import Answer, call
from support.swap_api import HELLO, program
from support.swap_models import apart, fake
from support.swap_rig import Inside, Rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
KEYS: Json = ["all", {"key": "only-a", "name": "ann", "models": ["a"]}]
rig = program({"a": fake(), "b": fake()}, api_keys=KEYS, groups=apart("a b"), ollama={"listen": "127.0.0.1:0"})


def ollamas(rig: Rig) -> int:
    """The port that is like Ollama's."""
    assert isinstance(rig.program, Inside)
    assert rig.program.app is not None
    return rig.program.app.ports.ollama.addresses[0][1]


async def ask(port: int, method: str, path: str, key: str, **data: Json) -> Answer:
    """One request with a key."""
    fields = {"Authorization": f"Bearer {key}"}
    return await call(port, method, path, data=data or None, headers=fields)


@pytest.mark.parametrize(
    ("path", "data", "status"),
    [
        ("/api/chat", {"model": "a:latest", "messages": HELLO, "stream": False}, 200),
        ("/api/chat", {"model": "b:latest", "messages": HELLO, "stream": False}, 403),
        ("/api/generate", {"model": "a"}, 200),
        ("/api/generate", {"model": "b"}, 403),
        ("/api/generate", {"model": "a", "keep_alive": 0}, 403),
        ("/api/embed", {"model": "b", "input": "x"}, 403),
    ],
)
async def test_a_key_for_one_model(path: str, data: Json, status: int, rig: Rig) -> None:
    """It asks and loads its own, and unloads none: others may use it."""
    answer = await ask(rig.port, "POST", path, "only-a", **data)
    assert answer.status == status
    assert (list(answer.json()) == ["error"]) is (status != 200)


async def test_a_key_for_all(rig: Rig) -> None:
    """It unloads what it loaded."""
    for keep, reason in (("5m", "load"), (0, "unload")):
        answer = await ask(rig.port, "POST", "/api/generate", "all", model="b:latest", keep_alive=keep)
        assert (answer.status, answer.json()["done_reason"]) == (200, reason)
    running = (await ask(rig.port, "GET", "/api/ps", "all")).json()["models"]
    assert "b:latest" not in {one["name"] for one in running}


async def test_nobody_without_a_key(rig: Rig) -> None:
    """On both ports, in Ollama's form."""
    for port in (rig.port, ollamas(rig)):
        for path in ("/api/tags", "/api/ps"):
            answer = await call(port, "GET", path)
            assert answer.status == 401
            assert list(answer.json()) == ["error"]


async def test_ollamas_port_before_many_models(rig: Rig) -> None:
    """Its version and first page are Ollama's; llama-swap's stand on the proxy port."""
    port = ollamas(rig)
    assert list((await ask(port, "GET", "/api/version", "all")).json()) == ["version"]
    assert "commit" in (await ask(rig.port, "GET", "/api/version", "all")).json()
    assert (await call(port, "GET", "/")).text == "Ollama is running"
    answer = await ask(port, "POST", "/v1/chat/completions", "all", model="a", messages=HELLO)
    assert answer.status == 200
