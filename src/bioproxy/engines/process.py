"""An engine of ours: a child process that is started, watched, ended for certain, and started again.

The child runs under the shim (shim.py), which ends it and everything it started when we are gone. What the two say to
each other goes over a socket pair, and its end is the one sign that nothing of the child is left: nobody here asks the
system about a pid that may belong to somebody else by now, and no event loop's way of watching children matters.

`Process.run` is the owner: it starts the child, waits for its end, and starts it again with back-off until `stop`.
An end has a reason in one sentence, with the last thing that the child said; its last 200 lines are kept.

What does not live here: how one life is begun and buried (child.py), whether the engine answers (attach.py), and what
its command line must be (launch.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from bioproxy import aio
from bioproxy.config.masking import MaskedOutput, masked_text, secrets_in
from bioproxy.engines import child
from bioproxy.engines.child import LogTail
from bioproxy.errors import EngineUnavailable

log = logging.getLogger(__name__)

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
SLACK = 3.0  # seconds that the shim gets beyond that, before it is killed itself
FIRST_DELAY, LONGEST_DELAY, HEALTHY = 0.5, 30.0, 60.0  # back-off in seconds; who lived longer than HEALTHY begins anew

State = Literal["stopped", "running", "stopping", "waiting"]
HINTS = {
    "SIGKILL": " (if nobody did that by hand, the system ran out of memory)",
    "SIGILL": " (this build needs another processor)",
}


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How one life of the child ended. `code` is negative for a signal, None if nobody can tell any more."""

    pid: int
    code: int | None
    reason: str  # one sentence, with the last line of output if we did not ask for the end
    expected: bool  # we asked for it
    lived: float  # seconds
    log: tuple[str, ...]


class ProcessStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """`started` is unix time; `starts` counts lives; `output` is bytes of all lives; `last_exit` a sentence."""

    name: str
    state: State  # waiting: it died, and starts again after a pause
    pid: int | None
    started: float | None
    starts: int
    output: int
    last_exit: str


class Process:
    """A child, one at a time. `command` is found on PATH; `environment` None is ours; `on_exit` hears of each end.

    `output` gets what the child writes, in the pieces in which it was read, without the keys that it was given.
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
        first_delay: float = FIRST_DELAY,
    ) -> None:
        self.command = tuple(command)
        self.name = name
        self.environment = environment
        self.folder = folder
        self.on_exit = on_exit
        self.output = output
        self.first_delay = first_delay
        self.tail = LogTail()
        self.shown = MaskedOutput(())
        self.life: child.Life | None = None
        self.beginning: child.Life | None = None  # its shim has not told a pid yet
        self.watcher: asyncio.Task[Exit] | None = None  # its result is how the newest life ended
        self.last_exit: Exit | None = None
        self.starts = 0
        self.waiting = False
        self.stopping = asyncio.Event()
        self.turn = asyncio.Lock()  # held while a life begins, so that none can begin behind the back of `stop`

    def said(self) -> tuple[str, ...]:
        """The newest lines of its output, without the keys that it was given: engines like to print them."""
        return tuple(self.masked(line) for line in self.tail.lines())

    def masked(self, text: str) -> str:
        """A text without the secrets of its command and its environment."""
        return masked_text(text, self.secrets())

    def secrets(self) -> list[str]:
        """The keys that it is given."""
        variables = [f"{name}={value}" for name, value in (self.environment or os.environ).items()]
        return secrets_in(self.command, variables)

    def tell(self, output: bytes) -> None:
        """Hand on what it wrote."""
        if self.output is not None and output:
            self.output(output)

    @property
    def pid(self) -> int | None:
        """The engine's pid (not the shim's); None while none runs."""
        return self.life.pid if self.life else None

    @property
    def started(self) -> float | None:
        """Unix time just before the engine was started; None while none runs."""
        return self.life.started if self.life else None

    @property
    def state(self) -> State:
        """One word."""
        if self.life is None:
            return "waiting" if self.waiting else "stopped"
        return "stopping" if self.life.expected else "running"

    def statistics(self) -> ProcessStatistics:
        """What is known now."""
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
        """Wait before the next life, unless `stop` comes first."""
        if self.stopping.is_set():
            return
        log.warning("%s starts again in %.1f s", self.name, seconds)
        self.waiting = True
        try:
            await aio.wait_first(self.stopping, timeout=seconds)
        finally:
            self.waiting = False

    async def wait(self) -> Exit:
        """How the current life (or else the last one) ended, once it has. EngineUnavailable where there was none."""
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

    async def end(self, grace: float) -> Exit | None:
        """End the current life, if there is one; a shim that does not bring it about in time is killed as well.

        Every wait has a bound: what not even SIGKILL ends (the system waits for its disk or card) is left behind.
        """
        hanging = asyncio.get_running_loop().call_later(SLACK, self.kill_beginning)
        try:
            async with asyncio.timeout(2 * SLACK):
                await self.turn.acquire()
        except TimeoutError:
            log.error("%s hangs in its start (is its disk there?) and is left behind", self.name)  # noqa: TRY400 - ours
            return None
        finally:
            hanging.cancel()
        life, watcher = self.life, self.watcher
        self.turn.release()
        if life is None or watcher is None:
            return None
        life.expected = True
        life.channel.ask_to_stop(grace)
        done, _ = await asyncio.wait([watcher], timeout=grace + SLACK)
        if not done:
            log.warning("%s did not end in %.0f s and is killed", self.name, grace + SLACK)
            life.kill()
            done, _ = await asyncio.wait([watcher], timeout=SLACK)
        if not done:
            log.error("%s (pid %d) cannot be killed, the system holds it: it is left behind", self.name, life.pid)
            return None
        return watcher.result()

    def kill_beginning(self) -> None:
        """A shim that has not said a word for so long, with a stop waiting for it, hangs in its start."""
        if self.beginning is not None:
            self.beginning.kill()

    async def begin(self) -> int:
        """Start the child, if none runs and nobody wants it stopped."""
        async with self.turn:
            if self.life is not None:
                return self.life.pid
            if self.stopping.is_set():
                raise EngineUnavailable(f"{self.name} was stopped")
            shown = self.shown = MaskedOutput(self.secrets())
            life = await child.begin(
                self.command,
                tail=self.tail,
                sink=lambda data: self.tell(shown.feed(data)),
                environment=self.environment,
                folder=self.folder,
            )
            self.starts += 1
            self.beginning = life
            try:
                life.pid = await life.channel.pid
            except BaseException as error:
                await aio.shielded(abandon(life))
                if isinstance(error, EngineUnavailable):
                    sentence = f"cannot start {self.name}: {error.message}: {self.command[0]}"
                    raise EngineUnavailable(sentence) from error
                raise
            finally:
                self.beginning = None
            self.life = life
            self.watcher = aio.spawn(self.watch(life), name=f"{self.name} {life.pid}")
            log.info("%s started, pid %d", self.name, life.pid)
            return life.pid

    async def watch(self, life: child.Life) -> Exit:
        """See one life to its end, and tell how it ended."""
        code = await life.bury()
        self.tell(self.shown.rest())
        lived = time.time() - life.started
        ended = Exit(
            pid=life.pid,
            code=code,
            reason=f"{self.name} (pid {life.pid}) {'' if life.expected else last_words(self.masked(self.tail.last()))}"
            f"{how(code, expected=life.expected)} after {lived:.1f} s",
            expected=life.expected,
            lived=lived,
            log=self.said(),
        )
        self.life, self.last_exit = None, ended
        log.log(logging.INFO if ended.expected else logging.ERROR, "%s", ended.reason)
        try:
            if self.on_exit is not None:
                self.on_exit(ended)
        except Exception:
            log.exception("what hears of the end of %s failed", self.name)
        return ended


async def abandon(life: child.Life) -> None:
    """End a life that nobody will own; a shim that hangs in a start (on a disk that is away) is killed."""
    life.channel.ask_to_stop(0.0)
    burying = aio.spawn(life.bury(), name="burial")
    done, _ = await asyncio.wait([burying], timeout=SLACK)
    if not done:
        life.kill()
        done, _ = await asyncio.wait([burying], timeout=SLACK)
    if not done:
        log.error("a start that hangs cannot be killed, the system holds it: process %d is left behind", life.popen.pid)


def how(code: int | None, *, expected: bool) -> str:
    """The verb of the sentence on an end."""
    if code is None:
        return "was killed together with the process that watched it"
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
