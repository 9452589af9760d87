"""Kill -9 while something is pinned: afterwards it is kept for the key or not, and never half."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from bioproxy.kv.snapshot import Pin
from support.shelf_bench import SIZE, Bench

ROOT = Path(__file__).parent.parent
CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from bioproxy import files
from bioproxy.kv import keeping
from support.shelf_bench import Bench

async def main(folder, step):
    bench = Bench()
    tenant = await bench.open(Path(folder))
    [kept] = tenant.shelf.index.snapshots.values()
    replace = os.replace

    def killed(*names, **more):
        if step == "renamed":
            replace(*names, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    os.replace = os.rename = Path.replace = Path.rename = killed
    await keeping.keep(tenant.shelf, kept, group="g1", until=2e9, name="repo")

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("step", ["written", "renamed"])
async def test_a_kill_leaves_a_snapshot_kept_or_not(tmp_path: Path, step: str) -> None:
    """Its description is the old one or the new one; the snapshot is there in any case, and nothing is left over."""
    bench = Bench()
    await bench.open(tmp_path)
    kept = await bench.save("a")
    assert kept is not None
    await bench.tenant.close()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT.parent / "src")])}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(tmp_path), step, env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await child.communicate()
    assert child.returncode == -signal.SIGKILL, errors.decode()
    again = await Bench().open(tmp_path)
    [found] = again.shelf.index.snapshots.values()
    assert (found.id, found.size) == (kept.id, SIZE)
    assert found.pins == ((Pin("g1", 2e9, "repo"),) if step == "renamed" else ())
    assert not list(tmp_path.glob("bp-tmp-*"))
    await again.close()
