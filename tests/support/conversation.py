"""A client's conversation through the official openai package: it sends back what was said, as chat programs do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from openai import AsyncOpenAI

Json = Any


class Turn(msgspec.Struct, frozen=True):
    """One answer, with the prompt tokens that the engine had and those that it computed for it."""

    answer: str
    cached: int
    evaluated: int

    @property
    def prompt(self) -> int:
        """The prompt's length in tokens."""
        return self.cached + self.evaluated


class Conversation:
    """What was said so far. `say` sends all of it with a new question."""

    def __init__(self, client: AsyncOpenAI, *, system: str = "") -> None:
        self.client = client
        self.messages: list[Json] = [{"role": "system", "content": system}] if system else []
        self.turns: list[Turn] = []

    async def say(self, words: str, *, tokens: int = 4) -> Turn:
        """The next turn."""
        self.messages.append({"role": "user", "content": words})
        answer = await self.client.chat.completions.create(
            model="any", messages=self.messages, max_tokens=tokens, temperature=0
        )
        said = answer.choices[0].message.content or ""
        self.messages.append({"role": "assistant", "content": said})
        timings: Json = (answer.model_extra or {})["timings"]
        self.turns.append(Turn(said, timings["cache_n"], timings["prompt_n"]))
        return self.turns[-1]

    def resumed(self, client: AsyncOpenAI) -> Conversation:
        """The same conversation through another client, as after a restart of everything."""
        other = Conversation(client)
        other.messages = [*self.messages]
        return other


@asynccontextmanager
async def openai_client(port: int, *, key: str = "none", retries: int = 0) -> AsyncIterator[AsyncOpenAI]:
    """The official client before the proxy on `port`, closed afterwards."""
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=retries) as client:
        yield client
