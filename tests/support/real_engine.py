"""The whole line on the real engine: llama.cpp as a child process, and what a test wants to know of it.

The engine itself is `fakes.real_engine.RealEngine`; here is what end-to-end tests add. `evaluated` asks the engine's
own counter, which no mistake of ours can embellish. The generated models lie in one folder for all test processes: they
are written under another name and renamed, so two that write the same one do not disturb each other.
"""

from __future__ import annotations

import importlib
import re
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bioproxy.app import App
from bioproxy.embedded.model import SHAPES
from fakes.fake_engine import FakeEngine
from fakes.real_engine import RealEngine, needs_real_engine
from support.apps import MS, running_app, station
from support.leaks import until

Json = Any
CONTEXT = 8192
KEEN: Json = {"min_seconds": 1 * MS, "save_after": 20 * MS}  # everything pays, and is saved as soon as nobody asks
real_engine = pytest.mark.real_engine


def llama_server(folder: Path, **flags: Json) -> RealEngine:
    """An engine as a person starts it by hand, with its slot folder and metrics; `flags` are llama-server's."""
    return RealEngine(**{"slot_folder": folder / "slots", "ctx_size": CONTEXT, "metrics": True, **flags})


async def evaluated(engine: RealEngine) -> int:
    """Prompt tokens that this engine process computed so far, by its own count."""
    metrics = (await engine.get("/metrics")).body.decode()
    found = re.search(r"^llamacpp:prompt_tokens_total (\d+)", metrics, re.MULTILINE)
    assert found is not None
    return int(found[1])


def quicken(app: App) -> None:
    """Look at the engine and at the folder every few milliseconds, so that a test does not wait for what it did."""
    station(app).attachment.interval = 50 * MS
    station(app).keeper.moments.tick = 50 * MS


@asynccontextmanager
async def line(
    engine: RealEngine | FakeEngine,
    folder: Path,
    template: str = "",
    *,
    adjust: Callable[[App], object] = quicken,
    **values: Json,
) -> AsyncIterator[App]:
    """A quick App before `engine`, ready; `template` is the text behind the prefix @code."""
    if template:
        (folder / "code.txt").write_text(template)
        values["prefixes"] = {"@code": str(folder / "code.txt")}
    before = {"backend_url": engine.url, "stall_timeout": 0, "kv": KEEN}
    async with running_app(folder, adjust=adjust, **before | values) as app:
        await ready(app)
        yield app


async def ready(app: App, *, generation: int = 1) -> None:
    """Wait until the engine's `generation`-th process is ready."""
    await until(lambda: station(app).attachment.state == "ready" and station(app).attachment.generation >= generation)


async def crash(engine: RealEngine | FakeEngine, app: App, **flags: Json) -> None:
    """Kill the engine with SIGKILL and start it again on the same port, as another model if `flags` say so."""
    generation = station(app).attachment.generation + 1
    engine.flags.update(flags)
    await engine.restart()
    await ready(app, generation=generation)


async def warmed(app: App) -> None:
    """Wait until nothing is left to warm, and what was saved is on disk."""
    await until(lambda: (states := phases(app)) and not {"waiting", "warming"} & set(states))
    await station(app).keeper.saver.settle(10)


def phases(app: App) -> list[str]:
    """The states of all warm-ups."""
    return [target.state for target in station(app).runner.statistics().targets]


async def conversations_saved(app: App, count: int = 1) -> None:
    """Wait until so many conversations are on disk."""
    await until(lambda: sum(not one.template for one in station(app).keeper.list()) >= count)


async def idle_saved(app: App) -> None:
    """Wait until nothing that is resident is worth a save any more."""
    await until(lambda: station(app).gate.idle and not station(app).keeper.moments.growing())
    await station(app).keeper.saver.settle(10)


def lora_adapter(path: Path) -> str:
    """Write a LoRA adapter for the `tiny` model that changes all it says; its path."""
    needs_real_engine()
    gguf, numpy = importlib.import_module("gguf"), importlib.import_module("numpy")
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    random, shape = numpy.random.default_rng(1), SHAPES["tiny"]
    for layer in range(shape.layers):
        for name in ("attn_q", "attn_k", "attn_v"):
            for part, size in (("a", (4, shape.width)), ("b", (shape.width, 4))):
                weights = random.standard_normal(size, dtype=numpy.float32)
                writer.add_tensor(f"blk.{layer}.{name}.weight.lora_{part}", weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def header(*tensors: bytes, **keys: int | str) -> bytes:
    """A GGUF header with these keys and the names of tensors of one number each."""
    body = b""
    for name, value in keys.items():
        text = name.replace("__", ".").encode()
        body += struct.pack("<Q", len(text)) + text
        if isinstance(value, str):
            body += struct.pack("<IQ", 8, len(value)) + value.encode()
        else:
            body += struct.pack("<II", 4, value)
    for tensor in tensors:
        body += struct.pack("<Q", len(tensor)) + tensor + struct.pack("<IQIQ", 1, 1, 0, 0)
    return b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + body
