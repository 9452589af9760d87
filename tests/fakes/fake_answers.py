"""What the fake engine answers on its inference routes: llama-server's JSON, whole and in events, in each dialect.

One class per dialect with the same four methods: `whole` (the body of an answer that is not streamed), `first`,
`piece` and `last` (lists of events). An event is `(name, value)`; the name is empty where the dialect has none, and the
value `DONE` is the line that ends an OpenAI stream. Where timings and usage stand differs by route, and that is the
point of keeping them apart.
"""

from __future__ import annotations

import time
from typing import Any

from fakes.fake_core import Task
from fakes.fake_text import text_of

Json = Any
Event = tuple[str, Json]
DONE = "[DONE]"


def timings(task: Task) -> Json:
    """The `timings` object of a finished task; times are what really passed, never zero."""
    prompt = len(task.tokens) - task.cached
    prompt_ms = max((task.prompt_end - task.started) * 1e3, 0.001)
    predicted_ms = max((task.ended - task.prompt_end) * 1e3, 0.001)
    count = len(task.words)
    return {
        "cache_n": task.cached,
        "prompt_n": prompt,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_ms / max(1, prompt),
        "prompt_per_second": 1e3 * prompt / prompt_ms,
        "predicted_n": count,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": predicted_ms / max(1, count),
        "predicted_per_second": 1e3 * count / predicted_ms,
    }


def usage(task: Task) -> Json:
    """The `usage` object of the OpenAI dialects."""
    prompt, made = len(task.tokens), len(task.words)
    return {
        "completion_tokens": made,
        "prompt_tokens": prompt,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {"cached_tokens": task.cached},
    }


class Completion:
    """/completion: llama-server's own."""

    def __init__(self, body: Json, *, model: str, build: str) -> None:
        self.body, self.model, self.build = body, model, build
        self.options = body.get("stream_options") or {}
        self.created = int(time.time())

    def whole(self, task: Task) -> Json:
        """The answer, or the last event of a stream."""
        whole = self.all_fields(task)
        wanted = self.body.get("response_fields")
        return {name: whole[name] for name in wanted if name in whole} if wanted else whole

    def all_fields(self, task: Task) -> Json:
        """The answer before `response_fields` chooses from it."""
        stream = bool(self.body.get("stream"))
        return {
            "index": 0,
            "content": "" if stream else "".join(task.words),
            "tokens": task.generated if self.body.get("return_tokens") and not stream else [],
            "id_slot": task.slot_used,
            "stop": True,
            "model": self.model,
            "tokens_predicted": len(task.words),
            "tokens_evaluated": len(task.tokens),
            "generation_settings": {"n_predict": task.limit},
            "prompt": "".join(text_of(token) for token in task.tokens),
            "has_new_line": False,
            "truncated": False,
            "stop_type": "limit",
            "stopping_word": "",
            "tokens_cached": len(task.tokens) + len(task.words) - 1,
            "timings": timings(task),
            **self.probabilities(task),
        }

    def probabilities(self, task: Task) -> Json:
        """Made-up log-probabilities that depend on what a word does: the whole cache and its weights."""
        count = int(self.body.get("n_probs") or 0)
        if not count:
            return {}
        spread = [-(1 + place + (task.checksum >> place) % 97 / 100) for place in range(count)]
        top = [
            {"id": task.generated[0] + place, "token": task.words[0], "bytes": [], "logprob": value}
            for place, value in enumerate(spread)
        ]
        return {"completion_probabilities": [{**top[0], "top_logprobs": top}]}

    def first(self, _task: Task) -> list[Event]:
        """Nothing before the first token."""
        return []

    def progress(self, value: Json) -> list[Event]:
        """`return_progress`."""
        return [
            ("", {"index": 0, "content": "", "tokens": [0], "stop": False, "id_slot": -1, "prompt_progress": value})
        ]

    def piece(self, task: Task, word: str) -> list[Event]:
        """One token."""
        value = {"index": 0, "content": word, "tokens": task.generated[-1:], "stop": False, "id_slot": -1}
        return [("", {**value, "tokens_predicted": len(task.words), "tokens_evaluated": len(task.tokens)})]

    def last(self, task: Task) -> list[Event]:
        """The end of a stream; no [DONE] in this dialect."""
        return [("", self.whole(task))]


class TextCompletion(Completion):
    """/v1/completions."""

    def shell(self, task: Task, choices: list[Json]) -> Json:
        """What every object of this dialect has."""
        return {
            "choices": choices,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.build,
            "object": "text_completion",
            "id": f"chatcmpl-{task.number}",
        }

    def choice(self, text: str, reason: str | None) -> Json:
        """One choice."""
        return {"text": text, "index": 0, "logprobs": None, "finish_reason": reason}

    def whole(self, task: Task) -> Json:
        """The answer."""
        shell = self.shell(task, [self.choice("".join(task.words), "length")])
        return {**shell, "usage": usage(task), "timings": timings(task)}

    def progress(self, value: Json) -> list[Event]:
        """`return_progress`."""
        return [("", {"choices": [self.choice("", None)], "object": "text_completion", "prompt_progress": value})]

    def piece(self, task: Task, word: str) -> list[Event]:
        """One token."""
        return [("", self.shell(task, [self.choice(word, None)]))]

    def last(self, task: Task) -> list[Event]:
        """The end of a stream."""
        end = {**self.shell(task, [self.choice("", "length")]), "usage": usage(task), "timings": timings(task)}
        return [("", end), ("", DONE)]


class Chat(TextCompletion):
    """/v1/chat/completions."""

    def shell(self, task: Task, choices: list[Json]) -> Json:
        """What every object of this dialect has."""
        kind = "chat.completion.chunk" if self.body.get("stream") else "chat.completion"
        return {**super().shell(task, choices), "object": kind}

    def choice(self, text: str | None, reason: str | None) -> Json:
        """One choice, whole or as a delta."""
        if not self.body.get("stream"):
            return {"finish_reason": reason, "index": 0, "message": {"role": "assistant", "content": text}}
        return {"finish_reason": reason, "index": 0, "delta": {} if reason else {"content": text}}

    def first(self, task: Task) -> list[Event]:
        """The role comes first."""
        delta = {"finish_reason": None, "index": 0, "delta": {"role": "assistant", "content": None}}
        return [("", self.shell(task, [delta]))]

    def progress(self, value: Json) -> list[Event]:
        """`return_progress`."""
        delta = {"finish_reason": None, "index": 0, "delta": {"role": "assistant", "content": None}}
        return [("", {"choices": [delta], "object": "chat.completion.chunk", "prompt_progress": value})]

    def last(self, task: Task) -> list[Event]:
        """The end of a stream: with `include_usage` a chunk of its own carries usage and timings."""
        end = self.shell(task, [self.choice("", "length")])
        if not self.options.get("include_usage"):
            return [("", {**end, "timings": timings(task)}), ("", DONE)]
        extra = {**self.shell(task, []), "usage": usage(task), "timings": timings(task)}
        return [("", end), ("", extra), ("", DONE)]


class Responses(Completion):
    """/v1/responses: timings only in the last event of a stream."""

    def whole(self, task: Task) -> Json:
        """The response object."""
        prompt, made = len(task.tokens), len(task.words)
        content = [{"type": "output_text", "annotations": [], "logprobs": [], "text": "".join(task.words)}]
        item = {"type": "message", "role": "assistant", "id": f"msg_{task.number}", "status": "completed"}
        return {
            "id": f"resp_{task.number}",
            "object": "response",
            "created_at": self.created,
            "completed_at": self.created,
            "model": self.model,
            "status": "completed",
            "output": [{**item, "content": content}],
            "usage": {
                "input_tokens": prompt,
                "output_tokens": made,
                "total_tokens": prompt + made,
                "input_tokens_details": {"cached_tokens": task.cached},
            },
        }

    def named(self, name: str, **value: Json) -> Event:
        """An event of this dialect."""
        return name, {"type": name, **value}

    def progress(self, value: Json) -> list[Event]:
        """`return_progress`."""
        return [self.named("response.in_progress", prompt_progress=value)]

    def first(self, task: Task) -> list[Event]:
        """Created, in progress, one item with one part."""
        response = {"id": f"resp_{task.number}", "object": "response", "status": "in_progress"}
        item = {
            "id": f"msg_{task.number}",
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        part = {"type": "output_text", "text": ""}
        return [
            self.named("response.created", response=response),
            self.named("response.in_progress", response=response),
            self.named("response.output_item.added", item=item),
            self.named("response.content_part.added", item_id=item["id"], part=part),
        ]

    def piece(self, task: Task, word: str) -> list[Event]:
        """One token."""
        return [self.named("response.output_text.delta", item_id=f"msg_{task.number}", delta=word)]

    def last(self, task: Task) -> list[Event]:
        """The end of a stream."""
        text, item = "".join(task.words), self.whole(task)["output"][0]
        return [
            self.named("response.output_text.done", item_id=item["id"], text=text),
            self.named("response.content_part.done", item_id=item["id"], part=item["content"][0]),
            self.named("response.output_item.done", item=item),
            self.named("response.completed", response=self.whole(task), timings=timings(task)),
        ]


class Messages(Responses):
    """/v1/messages: no timings at all, `input_tokens` is the part that was not cached."""

    def counts(self, task: Task) -> Json:
        """The prompt's side of `usage`."""
        return {"input_tokens": len(task.tokens) - task.cached, "cache_read_input_tokens": task.cached}

    def whole(self, task: Task) -> Json:
        """The message object."""
        return {
            "id": f"msg_{task.number}",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": "".join(task.words)}],
            "model": self.model,
            "stop_reason": "max_tokens",
            "stop_sequence": None,
            "usage": {**self.counts(task), "output_tokens": len(task.words)},
        }

    def progress(self, _value: Json) -> list[Event]:
        """Not in this dialect."""
        return []

    def first(self, task: Task) -> list[Event]:
        """The message and its block begin."""
        message = {**self.whole(task), "content": [], "stop_reason": None}
        message["usage"] = {**self.counts(task), "output_tokens": 0}
        return [
            self.named("message_start", message=message),
            self.named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        ]

    def piece(self, task: Task, word: str) -> list[Event]:
        """One token."""
        del task
        return [self.named("content_block_delta", index=0, delta={"type": "text_delta", "text": word})]

    def last(self, task: Task) -> list[Event]:
        """Block and message end."""
        delta = {"stop_reason": "max_tokens", "stop_sequence": None}
        return [
            self.named("content_block_stop", index=0),
            self.named("message_delta", delta=delta, usage={"output_tokens": len(task.words)}),
            self.named("message_stop"),
        ]
