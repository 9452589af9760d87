"""What the KV cache needs of an engine's client, as a Protocol, and its slot actions with a time limit.

Every slot action here runs under an exclusive grant (kv-rule 4); that is the caller's promise. A time limit is needed
all the same: a hung engine must not hold a user's request for ever. After one that was hit nobody knows what the slot
holds, so it is an error of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeVar

import msgspec

from bioproxy.engines.llama import Probe, Restored, Saved, SlotView, Timings
from bioproxy.engines.pace import Look
from bioproxy.errors import EngineUnavailable
from bioproxy.kv.policy import Speeds

T = TypeVar("T")
POKE = (1,)  # the prompt that makes the server move what is resident into its RAM cache
PATIENCE = 10.0  # times the expected duration
AT_LEAST = 5.0  # seconds


class EngineClient(Protocol):
    """The part of engines.llama.Llama that is used here."""

    async def save(self, slot: int, filename: str) -> Saved:
        """Write slot `slot` to a file."""

    async def restore(self, slot: int, filename: str) -> Restored:
        """Read a file into slot `slot`."""

    async def erase(self, slot: int) -> object:
        """Empty slot `slot`."""

    async def slots(self) -> list[SlotView]:
        """What `/slots` says."""

    async def ask(self, target: bytes) -> Look:
        """`GET /slots` at once, past the pace that `slots` keeps."""

    async def prefill(self, tokens: Sequence[int], *, cache_prompt: bool = True) -> Timings:
        """Evaluate tokens, generate nothing."""

    async def again(self, path: str, body: bytes) -> Timings:
        """Ask a request once more, for what it leaves in the slot and not for an answer."""

    async def apply_template(self, body: bytes) -> str:
        """The prompt that a chat body becomes."""

    async def tokenize(self, text: str) -> list[int]:
        """Token ids of a text."""

    async def probe(self, tokens: Sequence[int], *, cache_prompt: bool = True) -> Probe:
        """The first token after `tokens`, with log-probabilities."""


class SlotActionTimeout(EngineUnavailable):
    """A slot action did not end in time; what the slot holds is unknown (kv-rule 4)."""

    code = "slot_action_timeout"


async def limited(work: Awaitable[T], *, seconds: float, what: str) -> T:
    """Await `work` for `seconds` at most. Raises SlotActionTimeout."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        raise SlotActionTimeout(f"{what} did not end within {seconds:.0f} s") from error


def time_limit(size: int, rate: float) -> float:
    """Seconds that moving `size` bytes may take at a measured `rate`."""
    return max(AT_LEAST, PATIENCE * size / rate)


async def poke(engine: EngineClient, speeds: Speeds) -> float:
    """Make the server move what is resident into its RAM cache (kv-rule 16); the seconds it took."""
    clock = asyncio.get_running_loop().time
    started = clock()
    await limited(engine.prefill(POKE), seconds=max(AT_LEAST, PATIENCE * speeds.poke), what="a one-token request")
    return clock() - started


async def slots_now(engine: EngineClient) -> list[SlotView]:
    """What `/slots` says at this moment; [] where it does not say.

    Under an exclusive grant, so the engine may be asked at once: kv-rule 5 is there for the cancellation of running
    requests, and none runs. An answer of the usual pace may be older than the request that just ended.
    """
    look = await engine.ask(b"/slots")
    if look.status != 200:
        return []
    try:
        return msgspec.json.decode(look.body, type=list[SlotView])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
