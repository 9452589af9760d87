"""Half an hour of what a year brings: `make soak`, or `ARGS="--minutes 3 --seed 7"`.

Clients of several kinds talk to three models on the real llama.cpp, of which two take turns. Meanwhile engines are
killed and stopped, bioproxy is killed, stopped and restarted, templates are edited, the configuration is reloaded, and
the disk for snapshots fills up and becomes empty again. In the end nothing may be lost:

- each request was answered, refused with a sentence, or cut off by the death of a process while it ran;
- each whole answer is what the same engine says that runs alone;
- each snapshot on disk is whole; no request holds a model; no descriptor, task or process is left over;
- memory, in the last two thirds, in which bioproxy is not killed, stays within 1.2 times that of its first minute.

What happens when is drawn from the seed, but not what meets what: a run that finds something prints the seed, and its
log stays (`--keep FOLDER`). The figures are written to bench/kept/soak.md, which `make bench` puts into results.md.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from bench import peers
from bench.caching import text
from bench.report import KEPT, Row, machine, verdict
from bench.soak_clients import HEAD, PATIENCE, Client, Tally
from bioproxy.cli.demo_program import Program
from bioproxy.embedded.model import ensure_model
from bioproxy.engines.launch import free_port
from bioproxy.errors import BioproxyError

Json = Any
MODELS = ("first", "second", "beside")  # the first two take turns
CLIENTS = 5
DISK = 48 << 20  # bytes for snapshots
PAUSES = 1.0, 5.0  # seconds between two faults
GROWTH = 1.2
RULES = "The rules of house {number}.\n" + text(1, HEAD) + "\n<{message}>"
FLAGS = "-c 8192 -b 512 -t 1 -np 1"


def command(model: str, port: str) -> str:
    """The engine of a model: all of one shape, with weights of their own."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bioproxy"
    weights = shlex.quote(str(ensure_model(folder, shape="tiny", seed=40 + MODELS.index(model))))
    return f"{shlex.quote(sys.executable)} -m bioproxy.embedded --model {weights} --port {port} {FLAGS}"


class Soak:
    """The program, its clients, and what is done to it."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.chance = random.Random(f"{seed} faults")
        self.tally, self.over = Tally(), threading.Event()
        self.alone: dict[str, int] = {}
        self.slots = folder / "slots"
        self.rules = folder / "rules.txt"
        self.rules.write_text(RULES.replace("{number}", "0"))
        self.program = Program(folder, self.config())
        self.port = self.program.port
        self.edits = 0

    def config(self, **changes: Json) -> Json:
        """As a household has it, but that everything is worth a snapshot."""
        return {
            "models": {model: {"cmd": command(model, "${PORT}"), "ttl": 60} for model in MODELS},
            "groups": {
                "turns": {"swap": True, "exclusive": False, "members": list(MODELS[:2])},
                "apart": {"swap": False, "exclusive": False, "persistent": True, "members": list(MODELS[2:])},
            },
            "startPort": free_port(run=20),
            "prefixes": {"@rules": "rules.txt"},
            "state_directory": str(self.folder / "state"),
            "swap": {"min_resident": 0},
            "warmup": {"settle": 0.5},
            "warmup_check_interval": 1,
            "kv": {"directory": str(self.slots), "min_seconds": 0.001, "min_free": 0, "save_after": 0.5},
            "doctor": {"memory": "1MiB"},  # what is bounded is full within the first minute, so that the rest shows
            "captureBuffer": 1,
            "metricsMaxInMemory": 100,
            **changes,
        }

    # what is done to it

    def engines(self) -> list[psutil.Process]:
        """The engines that run under bioproxy."""
        assert self.program.process is not None
        with contextlib.suppress(psutil.Error):
            found = psutil.Process(self.program.process.pid).children(recursive=True)
            return [one for one in found if "bioproxy.embedded" in words(one) and "shim.py" not in " ".join(words(one))]
        return []

    def kill_engine(self) -> None:
        """As the out-of-memory killer does."""
        for engine in self.engines()[:1]:
            with self.gone(), contextlib.suppress(psutil.Error):
                engine.kill()

    def hang_engine(self) -> None:
        """An engine stands still for a while."""
        for engine in self.engines()[-1:]:
            self.halt(engine.pid)

    def hang_ours(self) -> None:
        """So does bioproxy."""
        assert self.program.process is not None
        self.halt(self.program.process.pid)

    def halt(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self.chance.uniform(0.2, 2))
            os.kill(pid, signal.SIGCONT)

    def kill_ours(self) -> None:
        """Kill -9 of bioproxy; then it is started again."""
        with self.gone():
            self.program.kill()
            self.program.start()

    def restart_ours(self) -> None:
        """In order, as systemd does: only who comes meanwhile finds nobody."""
        with self.gone():
            self.program.stop()
            self.program.start()

    @contextlib.contextmanager
    def gone(self) -> Iterator[None]:
        """Until the end of the block, a process is not there."""
        now = time.monotonic()
        self.tally.deaths.append((now, math.inf))
        yield
        self.tally.deaths[-1] = now, time.monotonic()

    def edit_template(self) -> None:
        """Another text under the same prefix."""
        self.edits += 1
        self.rules.write_text(RULES.replace("{number}", str(self.edits)))

    def reload(self) -> None:
        """A key that changes nothing of the engines, or one that restarts one of them."""
        restarts = self.chance.random() < 0.3
        models = {**self.program.config["models"]}
        models["second"] = {**models["second"], **({"env": [f"SOAK={self.chance.random()}"]} if restarts else {})}
        self.program.reload(queue_limit=self.chance.randint(900, 1100), models=models)

    def unload(self) -> None:
        """All models, as `bioproxy unload` does; nobody is cut off by it."""
        self.program.client.post("/api/models/unload")

    def fill_disk(self) -> None:
        """Until a few kilobytes are left, or as if it were so; then it is emptied again."""
        ballast = self.slots / "ballast"
        if not self.slots.is_mount():
            self.program.reload(kv={**self.program.config["kv"], "min_free": 1 << 50})
            time.sleep(self.chance.uniform(1, 4))
            self.program.reload(kv={**self.program.config["kv"], "min_free": 0})
            return
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        time.sleep(self.chance.uniform(1, 4))
        ballast.unlink()

    def disturb(self, until: float, *, ours: bool) -> None:
        """One fault after another."""
        faults = [
            self.kill_engine, self.kill_engine, self.hang_engine, self.hang_ours, self.edit_template, self.reload,
            self.unload, self.fill_disk, *((self.kill_ours, self.restart_ours) if ours else ()),
        ]  # fmt: skip
        while (now := time.monotonic()) < until:
            time.sleep(min(self.chance.uniform(*PAUSES), until - now))
            fault = self.chance.choice(faults)
            try:
                fault()
                self.tally.faults[fault.__name__.replace("_", " ")] += 1
            except BioproxyError as error:
                self.tally.lost.append(f"{fault.__name__}: {error}")

    # its course

    def run(self, minutes: float) -> list[Row]:
        """Everything; the rows of the table."""
        with contextlib.ExitStack() as stack:
            self.begin(stack)
            names = [f"client {number} of {self.seed}" for number in range(CLIENTS)]
            clients = [Client(name, self.port, self.alone, self.tally, self.over) for name in names]
            for client in clients:
                client.start()
            start = time.monotonic()
            self.disturb(start + 20 * minutes, ours=True)
            self.restart_ours()
            began = time.monotonic()
            self.disturb(began + min(60, 20 * minutes), ours=False)
            early = self.size()
            self.disturb(start + 60 * minutes, ours=False)
            self.over.set()
            for client in clients:
                client.join(PATIENCE)
                if client.is_alive():
                    self.tally.lost.append(f"{client.name} waits for an answer that does not come")
            return [*self.requests(minutes), *self.left(early), self.whole()]

    def begin(self, stack: contextlib.ExitStack) -> None:
        """A disk of its own if the system lets us, the engines that run alone, and the program."""
        self.slots.mkdir(mode=0o700)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "tmpfs", str(self.slots)]
        if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
            stack.callback(subprocess.run, ["umount", "-l", str(self.slots)], check=False)
        for model in MODELS:
            port = self.alone[model] = free_port()
            stack.enter_context(peers.running([*shlex.split(command(model, str(port))), "--cache-ram", "0"]))
            peers.wait_for(port)
        stack.enter_context(self.program)
        self.program.start()

    def size(self) -> int:
        assert self.program.process is not None
        return peers.resident_bytes(self.program.process.pid)

    def requests(self, minutes: float) -> list[Row]:
        """What became of them."""
        tally = self.tally
        outcomes, faults = (
            ", ".join(f"{n} {what}" for what, n in c.most_common()) for c in (tally.outcomes, tally.faults)
        )
        compared = sum(n for what, n in tally.outcomes.items() if what.startswith("answered as"))
        return [
            Row(
                f"{tally.outcomes.total()} requests in {minutes:g} minutes: without an answer or a reason",
                f"{len(tally.lost)} ({outcomes})",
                f"{tally.faults.total()} faults: {faults}",
                "0",
                not tally.lost,
            ),
            Row(
                "answers that are not those of the engine alone",
                f"{len(tally.wrong)} of {compared + len(tally.wrong)}",
                "the same engine without bioproxy",
                "0, of 1 or more",
                not tally.wrong and compared > 0,
            ),
        ]

    def left(self, early: int) -> list[Row]:
        """What the program still holds, once nobody asks and no model is loaded."""
        self.program.client.post("/api/models/unload")
        late = self.size()
        models = self.program.client.get("/api/models")["models"]
        held = sum(one["running"] + one["waiting"] for one in models)
        assert self.program.process is not None
        ours = psutil.Process(self.program.process.pid)
        descriptors, processes = ours.num_fds(), ours.children(recursive=True)
        self.program.stop()
        self.program.start()
        fresh = psutil.Process(self.program.process.pid).num_fds()
        ended = time.monotonic()
        self.program.stop()
        took = f"a stop takes {time.monotonic() - ended:.1f} s"
        errors = self.program.errors()
        allowed = fresh + 8
        return [
            Row("requests that hold a model in the end, or wait", f"{held}", "", "0", held == 0),
            Row("processes left once all is unloaded", f"{len(processes)}", "", "0", not processes),
            Row("descriptors then", f"{descriptors}", f"{fresh} after a start", f"≤ {allowed}", descriptors <= allowed),
            Row("errors in the log, tasks that a stop gave up included", f"{len(errors)}", took, "0", not errors),
            Row(
                "memory",
                f"{late / 1e6:.1f} MB",
                f"{early / 1e6:.1f} MB after its first minute",
                f"≤ {GROWTH} times",
                late <= GROWTH * early,
            ),
        ]

    def whole(self) -> Row:
        """Each snapshot, byte by byte, by the command that users have."""
        words = [sys.executable, "-m", "bioproxy", "snapshots", "verify", "--config", str(self.program.file)]
        ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE)
        lines = (ended.stdout + ended.stderr).strip().splitlines() or ["it said nothing"]
        size = sum(file.stat().st_size for file in self.slots.iterdir())
        return Row("snapshots verify", lines[-1], f"{size / 1e6:.1f} MB on disk", "exit code 0", ended.returncode == 0)


def listed(counts: Counter[str]) -> str:
    """Most first."""
    return ", ".join(f"{count} {what}" for what, count in counts.most_common())


def words(process: psutil.Process) -> list[str]:
    """Its command line; nothing if it has ended."""
    with contextlib.suppress(psutil.Error):
        return list(process.cmdline())
    return []


def main() -> int:
    """Exit 0 if everything holds, else 1."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, help="a new folder for configuration, log and snapshots")
    parser.add_argument("--write", action="store_true", help="keep the figures in bench/kept/soak.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.keep:
            given.keep.mkdir()
        soak = Soak((given.keep or Path(folder)).resolve(), seed=given.seed)
        rows = soak.run(given.minutes)
        table = verdict(f"A soak of {given.minutes:g} minutes", rows) + f"\n{machine()}; seed {given.seed}.\n"
        for line in (*soak.tally.lost[:20], *soak.tally.wrong[:20], *soak.program.errors()[:20]):
            print(line)
    print(table)
    if given.write:
        KEPT.mkdir(exist_ok=True)
        (KEPT / "soak.md").write_text(table)
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
