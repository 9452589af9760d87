"""Kill -9 at every step of a save: afterwards each snapshot is whole or absent, and the next request is served."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from bioproxy.kv import files
from bioproxy.kv.folder import examine_all
from fakes.fake_engine import FakeEngine
from support.kv_child import LONG
from support.kv_rig import rig

ROOT = Path(__file__).parent.parent
WHOLE_FROM = files.STEPS.index("renamed")


async def killed_at(step: str, engine: FakeEngine, folder: Path) -> None:
    """Run a bioproxy that ends itself after `step`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT.parent / "src")])}
    command = [sys.executable, "-m", "support.kv_child", str(engine.port), str(folder), step]
    child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stderr=asyncio.subprocess.PIPE)
    _, errors = await child.communicate()
    assert child.returncode == -signal.SIGKILL, errors.decode()


@pytest.mark.parametrize("step", files.STEPS)
async def test_a_kill_at_any_step_leaves_a_snapshot_whole_or_absent(tmp_path: Path, step: str) -> None:
    """Ours was killed: a new one finds the folder free, takes what is whole, removes the rest, and serves."""
    async with FakeEngine(slot_folder=tmp_path, tokens_per_second=5000) as engine:
        await killed_at(step, engine, tmp_path)
        await engine.restart()
        async with rig(engine, tmp_path) as one:
            assert list(tmp_path.glob("bp-tmp-*")) == []
            assert len(one.keeper.list()) == (files.STEPS.index(step) >= WHOLE_FROM)
            names = {path.stem for path in tmp_path.glob("bp-????????????????-*")}
            assert all((tmp_path / f"{name}{end}").exists() for name in names for end in (".kv", ".json"))
            for found in examine_all(tmp_path):
                assert found.fault == ""
            asked = await one.ask(LONG, " more")
            assert (asked.prepared.status == "restored") == (files.STEPS.index(step) >= WHOLE_FROM)


async def test_a_kill_while_the_engine_writes_leaves_nothing(tmp_path: Path) -> None:
    """Ours was killed under a slot action: the engine finishes a file that nobody asks for any more."""
    async with FakeEngine(slot_folder=tmp_path, tokens_per_second=5000) as engine:
        async with rig(engine, tmp_path):
            pass  # leaves the build's reference, so that the child saves nothing but the conversation
        await engine.faults(save_seconds=0.3)
        await killed_at("engine", engine, tmp_path)
        await engine.restart()
        async with rig(engine, tmp_path) as one:
            assert one.keeper.list() == ()
            assert list(tmp_path.glob("bp-tmp-*")) == []
            assert (await one.ask(LONG, " more")).evaluated > 400
