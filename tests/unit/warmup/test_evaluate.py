"""One prompt prefix, chunk by chunk: users first, nothing twice, saved alone. The gate is the real one."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple, cast

import pytest

from bioproxy import aio
from bioproxy.engines.llama import Llama
from bioproxy.errors import EngineUnavailable
from bioproxy.events import Bus, Event, WarmupStarted, WarmupYielded
from bioproxy.gate.gate import Gate
from bioproxy.kv.keeper import Keeper
from bioproxy.kv.resident import Want
from bioproxy.prompt import Head
from bioproxy.templates.expand import template_pieces
from bioproxy.warmup.evaluate import Evaluator, Job
from bioproxy.warmup.prefix import PromptPrefix
from support.config_files import settings
from support.leaks import until
from support.warm_rig import Memory, Slot, Texts, open_gate

LENGTH = 3000
TOKENS = tuple(range(LENGTH))
FOREIGN = [-1] * 50  # somebody else's prompt


class Outcome(NamedTuple):
    """How a job ended, and what it cost in tokens."""

    status: str
    evaluated: int


class Shop:
    """An evaluator with everything it needs, and what happened."""

    def __init__(self, slot: Slot, *, gate: Gate | None = None, saves: bool = True, remembers: bool = True) -> None:
        self.slot = slot
        self.gate = gate or open_gate()
        self.keeper = Memory(slot, saves=saves)
        self.bus = Bus()
        self.events: list[Event] = []
        self.bus.subscribe(Event, self.events.append)
        self.evaluator = Evaluator(
            gate=self.gate,
            keeper=cast("Keeper", self.keeper),
            engine=cast("Llama", slot),
            bus=self.bus,
            settings=settings(),
            clock=slot.clock,
        )
        self.evaluator.attached(remembers=remembers)
        self.done: list[int] = []
        self.wanted = True
        self.users: list[asyncio.Task[None]] = []

    def want(self, text: str) -> Want:
        """The bare template with this text."""
        pieces = template_pieces(Head(), Texts(code=text).current("@code"))
        return self.keeper.want(pieces, prefix="@code", version="1")

    def job(self, prompt: PromptPrefix | None = None, *, before: tuple[int, ...] = ()) -> Job:
        return Job(
            prefix="@code",
            want=self.want("template"),
            prompt=prompt or prompt_of(TOKENS),
            older=self.want("older") if before else None,
            before=before,
            progress=lambda done, _evaluated: self.done.append(done),
            current=lambda: self.wanted,
        )

    async def run(self, job: Job | None = None) -> Outcome:
        job = job or self.job()
        return Outcome(await self.evaluator.run(job), job.evaluated)

    def user_now(self) -> None:
        """A user's request arrives."""

        async def ask() -> None:
            with await self.gate.acquire():
                self.slot.run(FOREIGN)
                self.keeper.resident = b""

        self.users.append(aio.spawn(ask(), name="user"))

    def user(self, *, after: int) -> None:
        """Let a user's request arrive while chunk number `after` runs."""
        self.slot.before = lambda: self.user_now() if len(self.slot.prompts) == after else None


def prompt_of(tokens: tuple[int, ...]) -> PromptPrefix:
    """One whose tokens are known."""
    return PromptPrefix(kind="tokens", tokens=tokens, length=len(tokens))


def older_text(shared: int, *, own: int = 100) -> tuple[int, ...]:
    """Tokens that are like TOKENS up to there, and as many of its own."""
    return (*TOKENS[:shared], *range(10_000, 10_000 + own))


def sizes_of(shop: Shop) -> list[int]:
    """By how many tokens each prompt was longer than the one before."""
    ends = [len(prompt) for prompt in shop.slot.prompts]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


async def test_every_token_is_evaluated_once_and_saved() -> None:
    """A cold prompt prefix costs its tokens, and is on disk at the end."""
    shop = Shop(Slot())
    outcome = await shop.run()
    assert (outcome.status, outcome.evaluated, shop.slot.evaluated) == ("saved", LENGTH, LENGTH)
    assert list(shop.keeper.snapshots.values()) == [list(TOKENS)]
    assert shop.gate.idle


async def test_chunks_take_at_most_their_seconds() -> None:
    """At 1000 tokens a second no chunk exceeds a quarter of a second, and all are beginnings of the prompt."""
    shop = Shop(Slot(speed=1000.0))
    await shop.run()
    assert max(sizes_of(shop)) <= 250
    assert shop.done == [len(prompt) for prompt in shop.slot.prompts]
    assert all(prompt == list(TOKENS[: len(prompt)]) for prompt in shop.slot.prompts)


async def test_a_user_goes_first_and_the_warm_up_resumes() -> None:
    """A request that arrives in a chunk is served after it; the rest of the prompt follows, nothing twice."""
    shop = Shop(Slot())
    shop.user(after=5)
    outcome = await shop.run()
    order = [len(prompt) for prompt in shop.slot.prompts]
    assert order == sorted(order)
    assert outcome.status == "saved"
    assert outcome.evaluated <= LENGTH + 1
    assert [type(event) for event in shop.events] == [WarmupStarted, WarmupYielded, WarmupStarted]


async def test_what_the_slot_holds_is_noted_before_a_user_gets_the_engine() -> None:
    """Between two turns no slot counts as being changed by the warm-up."""
    shop = Shop(Slot())
    shop.user(after=5)
    noted: list[tuple[int, bool]] = []
    served = shop.keeper.served

    def note(*arguments: Any, **more: Any) -> None:
        noted.append((shop.gate.running, shop.gate.user_waiting))
        served(*arguments, **more)

    shop.keeper.served = note  # type: ignore[method-assign]
    await shop.run()
    assert noted == [(1, True), (1, False)]


async def test_an_engine_that_forgets_is_warmed_in_short_chunks_again() -> None:
    """Without a RAM cache what was done is lost, but no user ever waits for more than one chunk."""
    shop = Shop(Slot(ram=False), remembers=False)
    shop.user(after=5)
    outcome = await shop.run()
    ends = [len(prompt) for prompt in shop.slot.prompts]
    again = ends.index(min(ends[6:]))
    assert ends[again] <= 250
    assert outcome.status == "saved"


async def test_forgetting_is_learned() -> None:
    """Where the command line could not be read, the first loss teaches that the engine has no RAM cache."""
    shop = Shop(Slot(ram=False), remembers=True)
    shop.user(after=5)
    await shop.run()
    assert shop.evaluator.remembers is False


async def test_what_is_resident_is_not_evaluated_again() -> None:
    """A user's request brought the template in: one token, the conversation is saved first, then the template."""
    shop = Shop(Slot())
    job = shop.job()
    shop.slot.tokens = [*TOKENS, *FOREIGN]
    shop.keeper.resident = job.want.cuts[-1].digest
    outcome = await shop.run(job)
    assert (outcome.status, outcome.evaluated) == ("saved", 1)
    assert shop.keeper.log == ["save conversation", "prepare", "served", "keep", "fork"]
    assert list(shop.keeper.snapshots.values()) == [list(TOKENS)]


async def test_an_older_text_gives_back_what_it_shares() -> None:
    """A template that changed at 60 % evaluates the last 40 % only, to the token where its old tokens are known."""
    shop = Shop(Slot())
    older = older_text(1800)
    job = shop.job(before=older)
    assert job.older is not None
    shop.keeper.restores[job.want.cuts[-1].digest] = job.older, list(older)
    outcome = await shop.run(job)
    assert (outcome.status, outcome.evaluated) == ("saved", LENGTH - 1800)


async def test_an_older_text_in_the_slot_gives_back_what_it_shares() -> None:
    """The first chunk ends where the slot and the new text part, however far that is."""
    shop = Shop(Slot())
    older = older_text(1800)
    job = shop.job(before=older)
    assert job.older is not None
    shop.slot.tokens, shop.keeper.resident, shop.keeper.beginning = list(older), job.older.cuts[-1].digest, 5
    assert (await shop.run(job)).evaluated == LENGTH - 1800


async def test_an_older_text_in_the_ram_cache_gives_back_what_it_shares() -> None:
    """A user displaced it: the engine returns no more of it than the first chunk asks for, so that asks for all."""
    shop = Shop(Slot(speed=1000.0))
    shop.evaluator.speed = 1000.0
    older = older_text(300)
    shop.slot.tokens, shop.slot.kept = [-1] * LENGTH, [list(older)]
    assert (await shop.run(shop.job(before=older))).evaluated == LENGTH - 300


async def test_a_chunk_that_counts_on_the_ram_cache_in_vain_takes_two_at_most() -> None:
    """The RAM cache may have dropped the older text long ago, and a user may come; the engine is not blamed for it."""
    for shared in (300, 1800):
        shop = Shop(Slot(speed=1000.0))
        shop.evaluator.speed = 1000.0
        assert (await shop.run(shop.job(before=older_text(shared)))).evaluated == LENGTH
        assert max(sizes_of(shop)) <= 500
        assert shop.evaluator.remembers


async def test_another_prompt_behind_the_same_head_is_not_taken_for_the_older_text() -> None:
    """The slot shares a few tokens with the new text: no chunk evaluates all that the older text would have shared."""
    shop = Shop(Slot(speed=1000.0))
    shop.slot.tokens, shop.keeper.beginning = [*TOKENS[:5], *FOREIGN], 5
    await shop.run(shop.job(before=older_text(1800)))
    assert max(sizes_of(shop)) <= 250


async def test_a_text_that_replaces_one_under_way_goes_on_where_they_part() -> None:
    """What was evaluated of a text that changed meanwhile is not lost."""
    shop = Shop(Slot())

    def change() -> None:
        shop.wanted = len(shop.slot.prompts) < 8

    shop.slot.before = change
    assert (await shop.run(shop.job(prompt_of(older_text(900, own=1000))))).status == "dropped"
    shop.slot.before, shop.wanted = lambda: None, True
    done = len(shop.slot.tokens)
    assert done > 900
    assert (await shop.run()).evaluated == LENGTH - 900


async def test_the_next_attempt_goes_on_where_the_last_one_failed() -> None:
    """One broken answer costs no token that was evaluated before it."""
    shop = Shop(Slot())

    def refuse() -> None:
        if len(shop.slot.prompts) == 8:
            shop.slot.before = lambda: None
            raise EngineUnavailable("not now")

    shop.slot.before = refuse
    with pytest.raises(EngineUnavailable):
        await shop.run()
    done = shop.slot.evaluated
    assert (await shop.run()).evaluated == LENGTH - done


async def test_a_user_in_the_last_chunk_does_not_wait_for_the_save_as_well() -> None:
    """One chunk or one save is the longest wait; the save follows the user's request and costs one token."""
    shop = Shop(Slot())
    measure = Shop(Slot())
    await measure.run()
    shop.user(after=len(measure.slot.prompts) - 1)
    outcome = await shop.run()
    assert outcome.status == "saved"
    assert outcome.evaluated <= LENGTH + 1
    assert shop.keeper.log == ["prepare", "served", "prepare", "served", "keep", "fork"]


async def test_a_busy_engine_gets_its_snapshot_all_the_same() -> None:
    """The save is put off once; with users at every moment it would never come otherwise."""
    shop = Shop(Slot())

    def another() -> None:
        if shop.keeper.log.count("prepare") < 20:
            shop.user_now()

    shop.slot.before = another
    outcome = await shop.run()
    assert outcome.status == "saved"
    assert shop.keeper.log[-4:] == ["prepare", "served", "keep", "fork"]
    await asyncio.gather(*shop.users)
    assert shop.gate.idle


async def test_where_nothing_can_be_saved_it_is_warm() -> None:
    """Without a slot folder a warm-up ends with the prompt prefix in memory."""
    shop = Shop(Slot(), saves=False)
    assert (await shop.run()).status == "warm"
    assert shop.gate.idle


async def test_the_save_waits_until_it_is_alone() -> None:
    """On two slots a running request keeps the save away, and is not disturbed; then the save comes."""
    shop = Shop(Slot(), gate=open_gate(2))
    user = await shop.gate.acquire()
    task = aio.spawn(shop.run(), name="warm-up")
    await until(lambda: "served" in shop.keeper.log)
    assert "keep" not in shop.keeper.log
    user.release()
    assert (await task).status == "saved"


async def test_a_text_that_is_not_wanted_any_more_is_dropped() -> None:
    """Between two chunks a changed template ends the evaluation of the old text."""
    shop = Shop(Slot())

    def change() -> None:
        shop.wanted = len(shop.slot.prompts) < 3

    shop.slot.before = change
    outcome = await shop.run()
    assert outcome.status == "dropped"
    assert len(shop.slot.prompts) == 4
    assert shop.gate.idle


async def test_a_grant_under_which_nothing_was_sent_does_not_end_draining() -> None:
    """A request that was left may still run in the engine; a dropped job proves nothing about that."""
    shop = Shop(Slot())
    (await shop.gate.acquire()).release(cut=True)
    shop.wanted = False
    assert (await shop.run()).status == "dropped"
    assert shop.gate.draining


async def test_a_dead_engine_gives_the_grant_back() -> None:
    """A fault in a chunk goes up, and leaves neither a grant nor an account open."""
    shop = Shop(Slot())
    shop.slot.faults = [EngineUnavailable("it is gone")]
    with pytest.raises(EngineUnavailable):
        await shop.run()
    assert shop.gate.idle
    assert shop.keeper.log == ["prepare", "served in part"]


async def test_cancelling_in_a_chunk_gives_the_grant_back_as_cut() -> None:
    """The engine may still be at the chunk, so slot actions stay away until it is seen idle."""
    shop = Shop(Slot())
    reached, never = asyncio.Event(), asyncio.Event()
    work = shop.slot.prefill

    async def hang(tokens: object, *, lora: bytes = b"") -> object:
        reached.set()
        await never.wait()
        return work

    shop.slot.prefill = hang  # type: ignore[method-assign, assignment]
    task = aio.spawn(shop.run(), name="warm-up")
    await reached.wait()
    await aio.finish([task])
    assert shop.gate.idle
    assert shop.gate.draining
    assert shop.keeper.log == ["prepare", "served in part"]


async def test_cancelling_while_users_are_served_leaves_the_queue() -> None:
    """A warm-up that waits for its turn can be ended at any time."""
    shop = Shop(Slot())
    user = await shop.gate.acquire()
    task = aio.spawn(shop.run(), name="warm-up")
    await until(lambda: shop.gate.statistics().waiting["background"])
    await aio.finish([task])
    user.release()
    assert shop.gate.idle


async def test_a_text_is_evaluated_in_chunks_and_not_saved() -> None:
    """Where tokens cannot be counted, the text is sent; its end is not exact, so no snapshot is made of it."""
    text = "some words " * 300
    prompt = PromptPrefix(kind="text", text=text, length=len(text) // 4)
    shop = Shop(Slot())
    outcome = await shop.run(shop.job(prompt))
    assert outcome.status == "warm"
    assert len(shop.slot.prompts) > 1
    assert shop.slot.prompts[-1] == [ord(letter) for letter in text]


async def test_another_kind_of_server_gets_one_chat_request() -> None:
    """What cannot be cut into chunks is sent once, under a background grant."""
    shop = Shop(Slot())
    outcome = await shop.run(shop.job(PromptPrefix(kind="chat", body=b"{}", length=40)))
    assert (outcome.status, len(shop.slot.prompts)) == ("warm", 1)
