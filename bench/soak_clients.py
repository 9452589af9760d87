"""The clients of a soak (soak.py): what they ask, and what became of it.

A client sends one request after another: the next turn of a long conversation, a question to
a template, a short one, and a stream that it leaves. A whole answer is greedy, so the same question to an engine of the
same model that runs alone must get the same answer.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bench.caching import text

Json = Any
CHAT = "/v1/chat/completions"
TIE = 0.01  # nats between two tokens that are equally likely
WORDS = 8  # tokens of an answer
HEAD, QUESTION, LONGEST = 2500, 120, 9000  # characters: about 900 and 45 tokens, and when a conversation begins anew
PATIENCE = 150.0  # seconds for an answer; more means that it never came
NEAR = 0.5  # seconds around the end of a process in which a request may have met it


@dataclasses.dataclass
class Tally:
    """What became of the requests, and of all that was done to the program."""

    outcomes: Counter[str] = dataclasses.field(default_factory=Counter)
    faults: Counter[str] = dataclasses.field(default_factory=Counter)
    wrong: list[str] = dataclasses.field(default_factory=list)
    lost: list[str] = dataclasses.field(default_factory=list)
    deaths: list[tuple[float, float]] = dataclasses.field(default_factory=list)  # of a process, until it was back

    def killed_between(self, start: float, end: float) -> bool:
        """Whether a request of this time may have met the end of a process."""
        return any(start < back + NEAR and gone - NEAR < end for gone, back in list(self.deaths))


class Cut(Exception):
    """The answer came in part, or not at all."""


class Refused(Exception):
    """The answer says why there is none."""


def send(port: int, path: str, body: Json, *, leave_after: int = 0) -> Iterator[bytes]:
    """The lines of an answer; Refused with its reason, Cut if it ends too soon. `leave_after` so many lines, if any."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise Refused(f"{answer.status}: {json.loads(answer.read())['error']}")
        for number, line in enumerate(answer, start=1):
            yield line
            if number == leave_after:
                return
    except (OSError, http.client.HTTPException) as error:
        raise Cut(repr(error)) from error
    finally:
        connection.close()


def asked(model: str, messages: list[Json]) -> Json:
    """The body of a greedy chat."""
    return {"model": model, "messages": messages, "max_tokens": WORDS, "temperature": 0}


def chat(port: int, model: str, messages: list[Json], *, stream: bool = False, leave_after: int = 0) -> str | None:
    """The text of a greedy answer; None if the client left."""
    lines = list(send(port, CHAT, {**asked(model, messages), "stream": stream}, leave_after=leave_after))
    if not stream:
        return str(json.loads(b"".join(lines))["choices"][0]["message"]["content"] or "")
    events = [line[6:].strip() for line in lines if line.startswith(b"data: ")]
    said = [json.loads(event) for event in events if event != b"[DONE]"]
    if failed := [one["error"] for one in said if "error" in one]:
        raise Refused(f"in the stream: {failed[0]}")
    if leave_after:
        return None
    if b"[DONE]" not in events:
        raise Cut("the stream has no end")
    return "".join(choice["delta"].get("content") or "" for one in said for choice in one["choices"])


class Client(threading.Thread):
    """One of those who talk: conversations that grow, questions to a template, streams that somebody leaves."""

    def __init__(self, name: str, port: int, alone: Mapping[str, int], tally: Tally, over: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.port, self.alone, self.tally, self.over = port, alone, tally, over
        self.chance = random.Random(name)
        self.talks: dict[str, list[Json]] = {}

    def run(self) -> None:
        """Until the end of the soak."""
        while not self.over.wait(self.chance.uniform(0, 0.4)):
            model = self.chance.choice(list(self.alone))
            self.one(model, self.chance.choice((self.talk, self.talk, self.rules, self.leave, self.short)))

    def one(self, model: str, kind: Callable[[str], str]) -> None:
        """One request, and what became of it."""
        tally, start = self.tally, time.monotonic()
        try:
            outcome = kind(model)
        except Refused as refusal:
            outcome = "refused with a reason" if len(str(refusal)) > 20 else "refused without a reason"
            if outcome == "refused without a reason":
                tally.lost.append(f"{kind.__name__}: {refusal}")
        except Cut as cut:
            outcome = "cut off by the end of a process"
            self.over.wait(1)  # as who finds nobody does before another attempt
            if not tally.killed_between(start, time.monotonic()):
                outcome = "lost"
                tally.lost.append(f"{kind.__name__} to {model} after {time.monotonic() - start:.1f} s: {cut}")
        except Exception as error:  # a client that has died asks nothing more, and nobody would see it
            outcome = "not understood"
            tally.lost.append(f"{kind.__name__}: {error!r}")
        tally.outcomes[outcome] += 1

    def talk(self, model: str) -> str:
        """The next turn of a long conversation."""
        so_far = self.talks.get(model) or [{"role": "system", "content": self.text(HEAD)}]
        messages = [*so_far, {"role": "user", "content": self.text(QUESTION)}]
        said = chat(self.port, model, messages, stream=self.chance.random() < 0.5)
        grown = [*messages, {"role": "assistant", "content": said}]
        self.talks[model] = grown if sum(len(one["content"]) for one in grown) < LONGEST else []
        return self.compared(model, messages, said)

    def rules(self, model: str) -> str:
        """A question to the template, which may be edited meanwhile: its answer is not compared."""
        chat(self.port, model, [{"role": "user", "content": f"@rules {self.text(QUESTION)}"}])
        return "answered"

    def leave(self, model: str) -> str:
        """A stream that its client leaves."""
        messages = [{"role": "user", "content": self.text(HEAD)}]
        chat(self.port, model, messages, stream=True, leave_after=self.chance.randint(1, 6))
        return "left by its client"

    def short(self, model: str) -> str:
        """A question without a history."""
        messages = [{"role": "user", "content": self.text(QUESTION)}]
        return self.compared(model, messages, chat(self.port, model, messages))

    def text(self, length: int) -> str:
        return text(self.chance.randrange(10**9), length)

    def compared(self, model: str, messages: list[Json], said: str | None) -> str:
        """Ask the engine that runs alone the same."""
        alone = chat(self.alone[model], model, messages)
        if said == alone:
            return "answered as the engine alone"
        gap = self.gap(model, messages, said or "")
        if gap <= TIE:
            return "answered as the engine alone, but for a tie"
        self.tally.wrong.append(f"{model}: {said!r}, alone {alone!r}, {gap:.4f} apart, after {len(messages)} messages")
        return "answered otherwise"

    def gap(self, model: str, messages: list[Json], said: str) -> float:
        """How much likelier the engine alone finds its first token that is another one; 0 if there is none.

        It has no cache for this question: what a cache spares may be off by a rounding, which decides between two
        tokens that are equally likely.
        """
        more = {"cache_prompt": False, "logprobs": True, "top_logprobs": 10}
        [choice] = json.loads(b"".join(send(self.alone[model], CHAT, {**asked(model, messages), **more})))["choices"]
        so_far = ""
        for token in choice["logprobs"]["content"]:
            if not said.startswith(so_far + token["token"]):
                others = (one for one in token["top_logprobs"] if said.startswith(so_far + one["token"]))
                return min((float(token["logprob"] - one["logprob"]) for one in others), default=math.inf)
            so_far += token["token"]
        return 0.0
