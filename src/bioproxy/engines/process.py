"""An engine of ours: a child process that is started, watched, ended for certain, and started again.

The child runs under the shim (shim.py), which ends it and everything it started when we are gone. What the two say to
each other goes over a socket pair, and its end is the one sign that nothing of the child is left: the system is never
asked about a pid that may belong to another process by now, and no event loop's way of watching children matters.

`Process.run` is the owner: it starts the child, waits for its end, and starts it again with back-off until `stop`.
An end has a reason in one sentence, with the last thing that the child said; its last 200 lines are kept.

    stopped ──► starting ──► running ──► stopping ──► stopped
       ▲           │  │         └── it died ──► stopped
       │           │  └── `stop` came first ──► stopping
    waiting ◄── it could not be run, or died: the next life begins after a pause

A stop is polite, then hard, then gives up, each after its time: SIGTERM, SIGKILL, and what the system itself holds is
left behind. It is the same for a child that runs and for one whose shim has not said a word yet.

On Windows a job object does the shim's work (job.py), and Ctrl-Break stands for SIGTERM.

What does not live here: how one life is begun and buried (child.py), whether the engine answers (attach.py), and what
its command line must be (launch.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum

import msgspec

from bioproxy import aio
from bioproxy.config.masking import MaskedOutput, masked_text, secrets_in
from bioproxy.engines.output import LogTail
from bioproxy.errors import EngineUnavailable

if sys.platform == "win32":
    from bioproxy.engines import job as child
else:
    from bioproxy.engines import child

log = logging.getLogger(__name__)

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
SLACK = 3.0  # seconds that the shim gets beyond that, before it is killed itself
FIRST_DELAY, LONGEST_DELAY, HEALTHY = 0.5, 30.0, 60.0  # back-off in seconds; a life longer than HEALTHY begins anew


class State(StrEnum):
    """Where a child is between two lives, or in one."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    WAITING = "waiting"  # it died, and starts again after a pause


NEXT: dict[State, frozenset[State]] = {
    State.STOPPED: frozenset({State.STARTING, State.WAITING}),
    State.STARTING: frozenset({State.RUNNING, State.STOPPING, State.STOPPED}),
    State.RUNNING: frozenset({State.STOPPING, State.STOPPED}),
    State.STOPPING: frozenset({State.STOPPED}),
    State.WAITING: frozenset({State.STARTING, State.STOPPED}),
}
HINTS = {
    "SIGKILL": " (if no operator did that, the system ran out of memory)",
    "SIGILL": " (this build needs another processor)",
}
FAULTS = {  # what Windows makes of them: exit codes (ntstatus.h)
    0xC0000005: "it touched memory that is not its own",
    0xC000001D: "this build needs another processor",
    0xC0000017: "the system ran out of memory",
    0xC000012D: "the system ran out of memory",
    0xC0000135: "a DLL that it needs was not found",
    0xC0000139: "a DLL that it needs is of another version",
    0xC000013A: "Ctrl-C or Ctrl-Break",
    0xC0000409: "it gave up by itself",
}


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How one life of the child ended. `code` is negative for a signal, None if it is not known."""

    pid: int
    code: int | None
    reason: str  # one sentence, with the last line of output if we did not ask for the end
    expected: bool  # we asked for it
    lived: float  # seconds


class ProcessStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """`started` is unix time; `starts` counts lives; `output` is bytes of all lives; `last_exit` a sentence."""

    name: str
    state: State
    pid: int | None
    started: float | None
    starts: int
    output: int
    last_exit: str


class Process:
    """A child, one at a time. `command` is found on PATH; `environment` None is ours; `on_exit` hears of each end.

    `output` gets what the child writes, in the pieces in which it was read, without the keys that it was given.
    `before` is awaited before each start. `brief`: it ends by itself, which is no fault.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str,
        environment: Mapping[str, str] | None = None,
        folder: str | None = None,
        on_exit: Callable[[Exit], None] | None = None,
        output: Callable[[bytes], None] | None = None,
        before: Callable[[], Awaitable[object]] | None = None,
        brief: bool = False,
        first_delay: float = FIRST_DELAY,
    ) -> None:
        self.command = tuple(command)
        self.name = name
        self.environment = environment
        self.folder = folder
        self.on_exit = on_exit
        self.output = output
        self.before = before
        self.brief = brief
        self.first_delay = first_delay
        self.tail = LogTail()
        self.shown = MaskedOutput(())
        self.state = State.STOPPED
        self.life: child.Life | None = None
        self.watcher: asyncio.Task[Exit] | None = None  # its result is how the newest life ended
        self.last_exit: Exit | None = None
        self.starts = 0
        self.stopping = asyncio.Event()  # no life may begin
        self.turn = asyncio.Lock()  # held while a process is made, so that `stop` misses none

    def said(self) -> tuple[str, ...]:
        """The newest lines of its output, without the keys that it was given: engines like to print them."""
        secrets = self.secrets()
        return tuple(masked_text(line, secrets) for line in self.tail.lines())

    def masked(self, text: str) -> str:
        """A text without the secrets of its command and its environment."""
        return masked_text(text, self.secrets())

    def secrets(self) -> list[str]:
        variables = [f"{name}={value}" for name, value in (self.environment or os.environ).items()]
        return secrets_in(self.command, variables)

    def tell(self, output: bytes) -> None:
        if self.output is not None and output:
            self.output(output)

    @property
    def pid(self) -> int | None:
        """The engine's pid (not the shim's); None while none runs."""
        return (self.life.pid or None) if self.life else None

    @property
    def started(self) -> float | None:
        """Unix time just before the engine was started; None while none runs."""
        return self.life.started if self.life else None

    def become(self, state: State) -> None:
        """Take over another state; RuntimeError for one that cannot follow."""
        if state not in NEXT[self.state]:
            raise RuntimeError(f"{self.name} cannot be {state} after it was {self.state}")
        self.state = state

    def statistics(self) -> ProcessStatistics:
        return ProcessStatistics(
            name=self.name,
            state=self.state,
            pid=self.pid,
            started=self.started,
            starts=self.starts,
            output=self.tail.bytes_in,
            last_exit=self.last_exit.reason if self.last_exit else "",
        )

    async def start(self) -> int:
        """Start the child; its pid. EngineUnavailable says why it could not be run. One that runs goes on."""
        self.stopping.clear()
        return await self.begin()

    async def run(self) -> None:
        """Keep the child running until `stop`; one that `start` started is taken over. The guarded service."""
        delay = self.first_delay
        try:
            while not self.stopping.is_set():
                ended = await self.live()
                if ended is not None and ended.expected:
                    continue  # stopped for good, or restarted without a pause
                if ended is not None and ended.lived > HEALTHY:
                    delay = self.first_delay
                await self.pause(delay)
                delay = min(2 * delay, LONGEST_DELAY)
        finally:
            await self.stop()

    async def live(self) -> Exit | None:
        """One life, to its end; None if it did not even begin."""
        try:
            await self.begin()
        except EngineUnavailable as error:
            if not self.stopping.is_set():
                log.error("%s", error.message)  # noqa: TRY400 - the sentence says it; the trace would be ours
            return None
        return await self.wait()

    async def pause(self, seconds: float) -> None:
        """Wait before the next life, unless `stop` or `start` comes first."""
        if self.stopping.is_set() or self.life is not None:
            return
        log.warning("%s starts again in %.1f s", self.name, seconds)
        self.become(State.WAITING)
        try:
            await aio.wait_first(self.stopping, timeout=seconds)
        finally:
            if self.state is State.WAITING:
                self.become(State.STOPPED)

    async def wait(self) -> Exit:
        """How the current life (or else the last one) ended, once it has. EngineUnavailable if there was none."""
        if self.watcher is None:
            raise EngineUnavailable(f"{self.name} was never started")
        return await asyncio.shield(self.watcher)

    async def stop(self, *, grace: float = GRACE) -> Exit | None:
        """End the child for good: SIGTERM to all of it, SIGKILL after `grace` seconds. How it ended; None: none ran.

        May be called again with less grace. A cancelled caller is cancelled when the child is gone.
        """
        self.stopping.set()
        return await aio.shielded(self.end(grace))

    async def restart(self, *, grace: float = GRACE) -> Exit | None:
        """End the current life; `run` begins the next one without a pause."""
        return await aio.shielded(self.end(grace))

    def expect_end(self) -> None:
        """A command is about to end the child for us, so its end is no fault."""
        if self.state in {State.STARTING, State.RUNNING}:
            self.become(State.STOPPING)

    async def end(self, grace: float) -> Exit | None:
        """End the current life, if there is one. Every wait has a bound: what not even SIGKILL ends is left behind."""
        async with self.turn:
            life, watcher = self.life, self.watcher
        if life is None or watcher is None:
            return None
        self.expect_end()
        life.channel.ask_to_stop(grace)
        await asyncio.wait([life.channel.pid], timeout=SLACK)
        hangs = not life.channel.pid.done()  # in its start: there is no engine to be patient with
        done, _ = await asyncio.wait([watcher], timeout=0.0 if hangs else grace + SLACK)
        if not done:
            log.warning("%s did not end in %.0f s and is killed", self.name, SLACK if hangs else grace + SLACK)
            life.kill()
            done, _ = await asyncio.wait([watcher], timeout=SLACK)
        if not done:
            self.leave_behind(life)
            return None
        return watcher.result() if life.pid else None

    def leave_behind(self, life: child.Life) -> None:
        """The system holds it, in a call to a disk or a card: not even SIGKILL ends that."""
        if life.pid:
            log.error("%s (pid %d) cannot be killed, the system holds it: it is left behind", self.name, life.pid)
            return
        sentence = "%s hangs in its start (is its disk there?) and cannot be killed: process %d is left behind"
        log.error(sentence, self.name, life.popen.pid)
        self.life = None
        self.become(State.STOPPED)

    async def begin(self) -> int:
        """Start the child, unless one runs or it was stopped; its pid."""
        async with self.turn:
            made = self.life is None
            life = await self.make() if self.life is None else self.life
        try:
            pid = await asyncio.shield(life.channel.pid)
        except BaseException as error:
            if made:
                await aio.shielded(self.end(0.0))
            if isinstance(error, EngineUnavailable):
                sentence = f"cannot start {self.name}: {error.message}: {self.command[0]}"
                raise EngineUnavailable(sentence) from error
            raise
        if self.state is State.STARTING:
            self.become(State.RUNNING)
            log.info("%s started, pid %d", self.name, pid)
        return pid

    async def make(self) -> child.Life:
        """Make the process, and what watches it from then on; whether the command runs is not known yet."""
        if self.stopping.is_set():
            raise EngineUnavailable(f"{self.name} was stopped")
        shown = self.shown = MaskedOutput(self.secrets())
        self.become(State.STARTING)
        try:
            if self.before is not None:
                await self.before()
            life = await child.begin(
                self.command,
                tail=self.tail,
                sink=lambda data: self.tell(shown.feed(data)),
                environment=self.environment,
                folder=self.folder,
            )
        except BaseException:
            self.become(State.STOPPED)
            raise
        self.starts += 1
        self.life = life
        self.watcher = aio.spawn(self.watch(life), name=f"{self.name} {life.popen.pid}")
        return life

    async def watch(self, life: child.Life) -> Exit:
        """See one life to its end, and tell how it ended, if it ever began."""
        code = await life.bury()
        self.tell(self.shown.rest())
        expected, lived = self.brief or self.state is State.STOPPING, time.time() - life.started
        said = "" if expected else last_words(self.masked(self.tail.last()))
        ended = Exit(
            pid=life.pid,
            code=code,
            reason=f"{self.name} (pid {life.pid}) {said}{how(code, expected=expected)} after {lived:.1f} s",
            expected=expected,
            lived=lived,
        )
        if self.life is life:
            self.life = None
            self.become(State.STOPPED)
        if not life.pid:
            return ended
        self.last_exit = ended
        log.log(logging.INFO if ended.expected else logging.ERROR, "%s", ended.reason)
        try:
            if self.on_exit is not None:
                self.on_exit(ended)
        except Exception:
            log.exception("what hears of the end of %s failed", self.name)
        return ended


def how(code: int | None, *, expected: bool) -> str:
    """The verb of the sentence on an end."""
    if code is None:
        return "was killed together with the process that watched it"
    if code in FAULTS:
        return f"ended with exit code {code:#x} ({FAULTS[code]})"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was ended by {name}" + ("" if expected else HINTS.get(name, ""))


def last_words(line: str) -> str:
    """What the child said last: most likely the cause, so it stands first, where a narrow table still shows it."""
    return f'said "{line}" and ' if line else ""
