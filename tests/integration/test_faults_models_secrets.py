"""What a start that failed says to clients: the reason and the engine's last words, and no key that stands in them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from support.swap_client import message
from support.swap_models import fake
from support.swap_rig import swap_rig

Json = Any
SECRET = "s3cret-of-the-operator"


def says(text: str, **keys: Json) -> Json:
    """A program that says something and ends."""
    return {
        "cmd": f"{shlex.join([sys.executable, '-I', '-c', f'print({text!r}); raise SystemExit(3)'])} ${{PORT}}",
        **keys,
    }


async def test_a_command_that_cannot_be_run(tmp_path: Path) -> None:
    """The sentence names the command, and not what is behind `--api-key`."""
    async with swap_rig(tmp_path, {"a": {"cmd": f"/no/such --api-key {SECRET} --port ${{PORT}}"}}) as rig:
        answer = await rig.chat("a")
        again = await rig.chat("a")
        overview = await rig.get("/api/models")
        log = await rig.get("/logs")
    assert "/no/such --api-key" in message(answer)
    for text in (answer.text, again.text, overview.text, log.text, "\n".join(rig.program.lines)):
        assert SECRET not in text


@pytest.mark.parametrize(
    "said",
    [
        f"args: --api-key {SECRET} --port 1",
        f"HF_TOKEN={SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"https://user:{SECRET}@host/model",
    ],
)
async def test_last_words_that_look_like_a_secret(said: str, tmp_path: Path) -> None:
    """By what stands before it, as in commands that are shown."""
    async with swap_rig(tmp_path, {"a": says(said)}) as rig:
        answer = await rig.chat("a")
        overview = await rig.get("/api/models")
    assert "last lines of its log" in message(answer)
    assert SECRET not in answer.text + overview.text


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "text/html"])
async def test_last_words_that_hold_a_known_secret(kind: str, tmp_path: Path) -> None:
    """Whatever stands around it: vLLM writes all its arguments as `Namespace(api_key=['…'])`."""
    models = {
        "command": says(f"Namespace(api_key=['{SECRET}'])", env=[f"HF_TOKEN=other-{SECRET}"]),
        "environment": says(f"the token '{SECRET}' is not valid", env=[f"HF_TOKEN={SECRET}", "COLOUR=valid"]),
    }
    models["command"]["cmd"] += f" --api-key {SECRET}"
    async with swap_rig(tmp_path, models) as rig:
        answers = [await rig.chat(name, headers={"Accept": kind}) for name in models]
        log = await rig.get("/logs")
    assert "Namespace(api_key=" in answers[0].text
    assert "is not valid" in answers[1].text
    for text in (log.text, "\n".join(rig.program.lines), *(answer.text for answer in answers)):
        assert SECRET not in text


async def test_short_values_are_words(tmp_path: Path) -> None:
    """`--api-key x` must not hide every x of a log."""
    model = says("axes of the matrix are next")
    model["cmd"] += " --api-key x"
    async with swap_rig(tmp_path, {"a": model}) as rig:
        assert "axes of the matrix are next" in message(await rig.chat("a"))


async def test_a_stream_that_has_begun(tmp_path: Path) -> None:
    """The error is an event then, of the same words."""
    models = {"a": says(f"--api-key {SECRET}", sendLoadingState=True), "b": fake()}
    async with swap_rig(tmp_path, models) as rig:
        answer = await rig.chat("a", stream=True)
    assert "exited prematurely" in answer.text
    assert SECRET not in answer.text
