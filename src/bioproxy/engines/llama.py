"""A typed client of llama-server's own routes.

Everything that bioproxy itself asks an engine goes through here: the relay of clients' requests does not. Answers
become frozen Structs at once; what the engine refuses becomes `EngineRefused` with the engine's own status and
sentence; what answers nothing becomes `EngineUnavailable`. Names and shapes of the routes: llama-server README.

Quick questions have a deadline of their own. Those that compute or move a slot (`prefill`, `chat`, `save`, `restore`)
have none: how long they may take is known only to the caller, who cancels; cancelling closes the connection, and that
makes the engine stop.

Two rules are kept here and nowhere else: `/slots` is asked at most once in two seconds (kv-rule 5, pace.py), and what
we send carries neither `id_slot` nor `X-Conversation-Id` (kv-rules 3 and 8).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import msgspec

from bioproxy.engines.answers import Timings, read_answer
from bioproxy.engines.facts import Probe, Restored, Saved, SlotView
from bioproxy.engines.pace import Look, Pace
from bioproxy.engines.refused import error_words
from bioproxy.errors import NOT_JSON, BioproxyError, EngineProtocolError, EngineRefused, EngineUnavailable
from bioproxy.wire.upstream import Pool

Json = Any
T = TypeVar("T")
QUICK = 6.0  # seconds for a question that the engine answers beside its work
PROMPT = 60.0  # seconds for rendering or tokenizing a prompt of any size
POKE = [1]  # one token, the beginning of most texts
TOP = 10  # log-probabilities that a probe compares


class Llama:
    """A client of one engine. `key` is the engine's own API key."""

    def __init__(self, pool: Pool, *, key: str = "") -> None:
        self.pool = pool
        self.key = key
        self.pace = Pace(self.ask)

    # what it is

    async def health(self) -> Literal["ok", "loading"]:
        """Whether it is ready; EngineUnavailable when nothing answers, EngineRefused for any other status."""
        status, body = await self.call("GET", "/health", limit=QUICK)
        if status == 503:
            return "loading"
        check("GET /health", status, body)
        return "ok"

    async def well(self) -> bool | None:
        """Whether its health is good, or it has no such route, as programs of other kinds; None if not."""
        try:
            return await self.health() == "ok" or None
        except EngineRefused as error:
            return error.status < 500 or None
        except BioproxyError:
            return None

    async def props(self) -> dict[str, Json]:
        """`GET /props`. EngineRefused with status 503 while it loads, with 404 for what is no llama-server."""
        return decode("GET /props", await self.good("GET", "/props", limit=QUICK), dict[str, Json])

    async def models(self) -> tuple[str, ...]:
        """The names that `GET /v1/models` lists."""
        return tuple(str(card["id"]) for card in await self.cards())

    async def cards(self) -> list[dict[str, Json]]:
        """What `GET /v1/models` tells of each model that it names."""
        answer = decode("GET /v1/models", await self.good("GET", "/v1/models", limit=QUICK), dict[str, Json])
        data = answer.get("data")
        return [each for each in data if isinstance(each, dict) and "id" in each] if isinstance(data, list) else []

    async def slots(self) -> list[SlotView]:
        """`GET /slots`, an answer that may be two seconds old (kv-rule 5)."""
        return (await self.slots_at())[0]

    async def slots_at(self) -> tuple[list[SlotView], float]:
        """The same, and when the engine said so (the loop's time)."""
        look = await self.look(b"/slots")
        check("GET /slots", look.status, look.body)
        return decode("GET /slots", look.body, list[SlotView]), look.at

    async def look(self, target: bytes) -> Look:
        """`GET /slots` or `GET /metrics`, shared by all who ask within two seconds; status, headers and body."""
        return await self.pace.get(target)

    async def close(self) -> None:
        """End the questions that are under way; the client can be used again afterwards."""
        await self.pace.close()

    async def ask(self, target: bytes) -> Look:
        """One question that went past the pace."""
        async with deadline(f"GET {target.decode('latin-1')}", QUICK):
            response = await self.pool.request("GET", target, self.headers(), b"")
            body = await response.read()
        return Look(response.status, response.headers, body, asyncio.get_running_loop().time())

    # prompts

    async def tokenize(self, text: str) -> list[int]:
        """The token ids of `text` as a chat request would get them (special tokens added and parsed)."""
        body = {"content": text, "add_special": True, "parse_special": True}
        answer = await self.good("POST", "/tokenize", body, limit=PROMPT)
        return decode("POST /tokenize", answer, dict[str, list[int]]).get("tokens", [])

    async def apply_template(self, body: bytes) -> str:
        """The text into which the engine's chat template renders a chat body."""
        answer = await self.good("POST", "/apply-template", body, limit=PROMPT)
        prompt = decode("POST /apply-template", answer, dict[str, Json]).get("prompt")
        if not isinstance(prompt, str):
            raise EngineProtocolError("the engine's answer to POST /apply-template has no text under `prompt`")
        return prompt

    # work

    async def prefill(self, tokens: Sequence[int] | str, *, cache_prompt: bool = True, lora: bytes = b"") -> Timings:
        """Make `tokens` resident and generate nothing worth having: `/completion` with `n_predict` 0.

        `lora` is the raw JSON array of a head, if it has one.
        """
        body: dict[str, Json] = {"prompt": tokens, "n_predict": 0, "cache_prompt": cache_prompt}
        if lora:
            body["lora"] = msgspec.Raw(lora)
        # without this the answer repeats the whole prompt as text
        body["response_fields"] = ["timings", "tokens_evaluated", "id_slot"]
        answer = await self.good("POST", "/completion", body)
        found = read_answer(answer, path="/completion").timings
        slot = decode("POST /completion", answer, dict[str, Json]).get("id_slot")
        return msgspec.structs.replace(found, slot=slot if isinstance(slot, int) and slot >= 0 else None)

    async def one_token(self, seconds: float) -> None:
        """Have it compute one token, to see whether it computes at all; EngineUnavailable if it does not in time."""
        try:
            async with asyncio.timeout(seconds):
                await self.prefill(POKE)
        except TimeoutError:
            raise EngineUnavailable(f"it answers, but computed no token within {seconds:.0f} s") from None

    async def chat(self, body: bytes) -> Timings:
        """One chat request as it stands; only what it cost is returned."""
        answer = await self.good("POST", "/v1/chat/completions", body)
        return read_answer(answer, path="/v1/chat/completions").timings

    async def again(self, path: str, body: bytes) -> Timings:
        """Ask a client's request once more, for the prompt that it leaves in the slot: one token is generated."""
        fields = decode("the request", body, dict[str, msgspec.Raw])
        fields.pop("stream_options", None)
        short = {"stream": False, "n_predict": 0, "max_tokens": 1}
        return read_answer(await self.good("POST", path, {**fields, **short}), path=path).timings

    async def probe(self, tokens: Sequence[int], *, cache_prompt: bool = True) -> Probe:
        """What the engine would say after `tokens`; `cache_prompt` False computes it from nothing (kv-rule 2)."""
        body = {
            "prompt": tokens,
            "n_predict": 1,
            "n_probs": TOP,
            "temperature": 0,
            "cache_prompt": cache_prompt,
            "return_tokens": True,
            "response_fields": ["timings", "tokens", "completion_probabilities"],
        }
        answer = await self.good("POST", "/completion", body)
        found = decode("POST /completion", answer, dict[str, Json])
        try:
            first = found["completion_probabilities"][0]
            likeliest = tuple((int(each["id"]), float(each["logprob"])) for each in first["top_logprobs"])
            return Probe(int(first["id"]), likeliest, read_answer(answer, path="/completion").timings)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise EngineProtocolError("the engine's answer to a probe has no completion_probabilities") from error

    # slots

    async def save(self, slot: int, filename: str) -> Saved:
        """Write what `slot` holds to `filename` in the slot folder. Believe the size only after a stat (kv-rule 1)."""
        found, seconds = await self.action(slot, "save", filename)
        return Saved(count(found, "n_saved"), count(found, "n_written"), seconds)

    async def restore(self, slot: int, filename: str) -> Restored:
        """Read `filename` into `slot`. A failure leaves the slot empty, a cut file kills the engine (kv-rule 1)."""
        found, seconds = await self.action(slot, "restore", filename)
        return Restored(count(found, "n_restored"), count(found, "n_read"), seconds)

    async def erase(self, slot: int) -> int:
        """Empty `slot`; the number of tokens that it held."""
        found, _ = await self.action(slot, "erase", "")
        return count(found, "n_erased")

    async def action(self, slot: int, name: str, filename: str) -> tuple[dict[str, Json], float]:
        """One slot action and the seconds that it took. The caller holds an exclusive grant (kv-rule 4)."""
        started = asyncio.get_running_loop().time()
        path = f"/slots/{slot}?action={quote(name)}"
        answer = await self.good("POST", path, {"filename": filename})
        return decode(f"POST {path}", answer, dict[str, Json]), asyncio.get_running_loop().time() - started

    # the wire

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What every request of ours carries."""
        found = [(b"Accept", b"application/json"), (b"Content-Type", b"application/json")]
        return [*found, (b"Authorization", b"Bearer " + self.key.encode())] if self.key else found

    async def good(self, method: str, path: str, body: Json = b"", *, limit: float | None = None) -> bytes:
        """The body of an answer with a good status; EngineRefused for any other."""
        status, answer = await self.call(method, path, body, limit=limit)
        check(f"{method} {path}", status, answer)
        return answer

    async def call(self, method: str, path: str, body: Json = b"", *, limit: float | None = None) -> tuple[int, bytes]:
        """Status and whole body of one request; `body` is bytes or a value for JSON, `limit` seconds for all of it."""
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        async with deadline(f"{method} {path}", limit):
            response = await self.pool.request(method, path.encode(), self.headers(), data)
            try:
                return response.status, await response.read()
            except BaseException:
                response.abort()
                raise


@asynccontextmanager
async def deadline(what: str, seconds: float | None) -> AsyncIterator[None]:
    """Bound a question to `seconds` (None: unbounded); EngineUnavailable says what was not answered in time."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise EngineUnavailable(f"the engine did not answer {what} within {seconds:g} s", status=504) from None


def check(what: str, status: int, body: bytes) -> None:
    """Raise EngineRefused with the engine's status and sentence unless `status` is a good one."""
    if not 200 <= status < 300:
        words = error_words(body) or body[:200].decode("utf-8", "replace") or "no body"
        raise EngineRefused(f"the engine answered {status} to {what}: {words}", status=status)


def decode(what: str, body: bytes, kind: type[T]) -> T:
    """JSON of the type `kind`; EngineProtocolError if the engine sent something else."""
    try:
        return msgspec.json.decode(body, type=kind)
    except NOT_JSON as error:
        raise EngineProtocolError(f"the engine's answer to {what} is not what llama-server sends: {error}") from error


def count(found: dict[str, Json], name: str) -> int:
    """A count out of a slot action's answer; EngineProtocolError if it is missing."""
    value = found.get(name)
    if not isinstance(value, int):
        raise EngineProtocolError(f"the engine's answer to a slot action has no number under {name!r}")
    return value
