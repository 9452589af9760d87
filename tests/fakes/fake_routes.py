"""llama-server's routes on top of the fake's inside: introspection, tokens, inference, slot actions.

`Routes.answer` returns False for a path that it does not know; the program then echoes the request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fakes import fake_text
from fakes.fake_answers import DONE, Chat, Completion, Messages, Responses, TextCompletion
from fakes.fake_core import Core, Slot, Task
from fakes.fake_faults import Faults
from fakes.fake_files import Refused, valid_name
from fakes.plain_http import Call, Reply, dumps

Json = Any
PUBLIC = {"/health", "/v1/health", "/models", "/v1/models", "/"}
BAD = "invalid_request_error"
UNSUPPORTED = "not_supported_error"


class Routes:
    """One method per route."""

    def __init__(self, core: Core, faults: Faults, options: argparse.Namespace) -> None:
        self.core, self.faults, self.options = core, faults, options
        self.polls: list[float] = []
        self.marker = f"<__media_{secrets.token_hex(16)}__>"  # drawn anew by each process, as by the real one
        get: dict[str, Callable[[Call, Reply], None]] = {
            "/health": lambda _c, r: r.send(200, {"status": "ok"}),
            "/v1/health": lambda _c, r: r.send(200, {"status": "ok"}),
            "/props": lambda _c, r: r.send(200, self.props()),
            "/models": lambda _c, r: r.send(200, self.models()),
            "/v1/models": lambda _c, r: r.send(200, self.models()),
            "/lora-adapters": lambda _c, r: r.send(200, self.faults.adapters),
            "/slots": self.slots,
            "/metrics": self.metrics,
        }
        post: dict[str, Callable[[Call, Reply], Awaitable[None] | None]] = {
            "/lora-adapters": self.set_adapters,
            "/tokenize": self.tokenize,
            "/detokenize": self.detokenize,
            "/apply-template": self.apply_template,
            "/completion": lambda c, r: self.infer(c, r, Completion),
            "/completions": lambda c, r: self.infer(c, r, Completion),
            "/v1/completions": lambda c, r: self.infer(c, r, TextCompletion),
            "/chat/completions": lambda c, r: self.infer(c, r, Chat),
            "/v1/chat/completions": lambda c, r: self.infer(c, r, Chat),
            "/v1/responses": lambda c, r: self.infer(c, r, Responses),
            "/v1/messages": lambda c, r: self.infer(c, r, Messages),
            "/v1/messages/count_tokens": self.count_tokens,
            "/v1/chat/completions/input_tokens": self.count_tokens,
        }
        self.table = {
            **{("GET", path): route for path, route in get.items()},
            **{("POST", p): r for p, r in post.items()},
        }

    async def answer(self, call: Call, reply: Reply) -> bool:
        """Answer what llama-server would; False where it has no such route."""
        if slot := re.fullmatch(r"/slots/([^/]*)", call.path):
            await self.slot_action(call, reply, slot[1])
            return True
        route = self.table.get((call.method, call.path))
        if route is None or (self.options.no_tokenize and call.path in ("/tokenize", "/apply-template")):
            return False
        if any(name.lower() == "x-conversation-id" for name, _ in call.headers):
            self.core.violations.append("X-Conversation-Id was sent")
        try:
            if (waiting := route(call, reply)) is not None:
                await waiting
        except Refused as error:
            reply.error(error.status, error.message, error.kind)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reply.error(400, f"[json.exception] {error!r}", BAD)
        return True

    # introspection

    def props(self) -> Json:
        """GET /props."""
        options, faults = self.options, self.faults
        path = faults.model or options.model
        return {
            "default_generation_settings": {"params": {}, "n_ctx": faults.context or options.ctx_size},
            "total_slots": faults.slots or options.parallel,
            "model_alias": faults.alias or options.alias or Path(path).name,
            "model_path": path,
            "model_ftype": "all F32",
            "modalities": {"vision": bool(options.mmproj) or faults.media, "video": False, "audio": False},
            "media_marker": self.marker,
            "endpoint_slots": not options.no_slots,
            "endpoint_props": False,
            "endpoint_metrics": options.metrics,
            "chat_template": faults.chat_template or self.template(),
            "chat_template_caps": {"supports_system_role": True, "supports_tools": True},
            "bos_token": "<s>",
            "eos_token": "</s>",
            "build_info": faults.build or options.build,
            "is_sleeping": faults.sleeping,
        }

    def template(self) -> str:
        """The chat template's text."""
        if self.faults.today:
            return fake_text.DATED
        return fake_text.FOLD if self.options.fold_system else fake_text.CHATML

    def rendered(self, chat: Json) -> str:
        """A chat body as a prompt."""
        faults = self.faults
        return fake_text.render(chat, fold=self.options.fold_system, today=faults.today, prints=faults.prints)

    def models(self) -> Json:
        """GET /v1/models."""
        name = self.props()["model_alias"]
        meta = {"vocab_type": 1, "n_vocab": 32000, "n_ctx": self.options.ctx_size, "n_ctx_train": 32768, "size": 1}
        data = {"id": name, "aliases": [name], "tags": [], "object": "model", "created": 1, "owned_by": "llamacpp"}
        return {"models": [{"name": name, "model": name}], "object": "list", "data": [{**data, "meta": meta}]}

    def set_adapters(self, call: Call, reply: Reply) -> None:
        """POST /lora-adapters: other scales from now on; an adapter that is not named gets 0."""
        scales = {each["id"]: each["scale"] for each in call.json()}
        self.faults.adapters = [{**each, "scale": scales.get(each["id"], 0.0)} for each in self.faults.adapters]
        reply.send(200, {"success": True})

    def slots(self, call: Call, reply: Reply) -> None:
        """GET /slots: through the queue, so that it resets the disconnect poll."""
        if self.options.no_slots:
            raise Refused(501, "This server does not support slots endpoint. Start it with `--slots`", UNSUPPORTED)
        self.polled()
        if "fail_on_no_slot" in call.query and all(slot.task for slot in self.core.slots):
            raise Refused(503, "no slot available", "unavailable_error")
        reply.send(200, [self.slot_view(slot) for slot in self.core.slots])

    def slot_view(self, slot: Slot) -> Json:
        """One slot as /slots tells it: no tokens before a task ran."""
        view = {
            "id": slot.number,
            "n_ctx": self.options.ctx_size,
            "speculative": False,
            "is_processing": bool(slot.task),
        }
        task = slot.last
        if task is None:
            return view
        left = {"has_next_token": bool(slot.task), "has_new_line": False, "n_remain": task.limit - len(task.words)}
        busy = slot.task is not None
        return {
            **view,
            "id_task": task.number,
            "n_prompt_tokens": len(slot.tokens),
            "n_prompt_tokens_processed": task.processed - task.cached if busy else 0,
            "n_prompt_tokens_cache": task.cached if busy else 0,
            "params": {"n_predict": task.limit},
            "next_token": [{**left, "n_decoded": len(task.words)}],
        }

    def polled(self) -> None:
        """Note a look that resets the engine's disconnect poll, and one that comes too soon while something runs."""
        now = self.core.time()
        running = any(slot.task is not None for slot in self.core.slots)
        if running and self.polls and now - self.polls[-1] < 1.9:
            self.core.violations.append(f"/slots or /metrics asked again after {now - self.polls[-1]:.2f} s")
        self.polls.append(now)
        self.core.last_result = now

    def metrics(self, _call: Call, reply: Reply) -> None:
        """GET /metrics."""
        if not self.options.metrics:
            raise Refused(501, "This server does not support metrics endpoint. Start it with `--metrics`", UNSUPPORTED)
        self.polled()
        core = self.core
        values = {
            "prompt_tokens_total": core.totals["prompt"],
            "prompt_tokens_cached_total": core.totals["cached"],
            "tokens_predicted_total": core.totals["predicted"],
            "n_decode_total": core.totals["batches"],
            "requests_processing": sum(slot.task is not None for slot in core.slots),
            "requests_deferred": len(core.deferred),
        }
        lines = [f"# TYPE llamacpp:{name} counter\nllamacpp:{name} {value}\n" for name, value in values.items()]
        reply.send(200, "".join(lines), kind="text/plain; version=0.0.4")

    def state(self) -> Json:
        """GET /fake/state."""
        core = self.core
        return {
            "slots": [
                {"tokens": slot.tokens, "weights": slot.weights, "busy": slot.task is not None} for slot in core.slots
            ],
            "queue": [task.kind for task in core.queue],
            "deferred": [task.kind for task in core.deferred],
            "cache": [len(tokens) for tokens, _ in core.cache],
            "totals": core.totals,
            "violations": core.violations,
            "polls": len(self.polls),
        }

    # tokens

    def tokenize(self, call: Call, reply: Reply) -> None:
        """POST /tokenize."""
        body = call.json()
        tokens = fake_text.tokenize(str(body.get("content", "")), add_special=bool(body.get("add_special")))
        reply.send(200, {"tokens": tokens})

    def detokenize(self, call: Call, reply: Reply) -> None:
        """POST /detokenize."""
        reply.send(200, {"content": "".join(fake_text.text_of(token) for token in call.json().get("tokens", []))})

    def apply_template(self, call: Call, reply: Reply) -> None:
        """POST /apply-template."""
        reply.send(200, {"prompt": self.rendered(call.json())})

    def count_tokens(self, call: Call, reply: Reply) -> None:
        """POST /v1/messages/count_tokens, /v1/chat/completions/input_tokens."""
        kind = Messages if "messages/" in call.path else Chat
        reply.send(200, {"input_tokens": len(self.prompt(call.json(), kind))})

    def prompt(self, body: Json, kind: type[Completion]) -> list[int]:
        """The prompt's tokens of a body in a dialect."""
        if kind in (Completion, TextCompletion):
            if "prompt" not in body:
                raise Refused(400, "[json.exception.out_of_range.403] key 'prompt' not found", BAD)
            return fake_text.prompt_tokens(body["prompt"])
        convert = {Messages: fake_text.chat_from_messages, Responses: fake_text.chat_from_responses}
        chat = convert[kind](body) if kind in convert else body
        return fake_text.tokenize(self.rendered(chat), add_special=True)

    # inference

    async def infer(self, call: Call, reply: Reply, kind: type[Completion]) -> None:
        """One completion in the dialect of `kind`."""
        body = call.json()
        tokens = self.prompt(body, kind)
        limit = next((body[key] for key in LIMITS if isinstance(body.get(key), int)), -1)
        if limit < -1:
            raise Refused(
                400, f"Field 'n_predict': Value must be between -1 <= value <= 2147483647, but got {limit}", BAD
            )
        if len(tokens) >= self.options.ctx_size:
            message = (
                f"request ({len(tokens)} tokens) exceeds the available context size ({self.options.ctx_size} tokens)"
            )
            numbers = {"n_prompt_tokens": len(tokens), "n_ctx": self.options.ctx_size}
            reply.error(400, message + ", try increasing it", "exceed_context_size_error", **numbers)
            return
        name = str(body.get("model") or self.props()["model_alias"])
        if self.faults.no_stream:
            body["stream"] = False
        shape = kind(body, model=name, build=self.props()["build_info"])
        task = self.core.post(
            "complete",
            tokens=tokens,
            limit=self.options.predict if limit == -1 else limit,
            slot=int(body.get("id_slot", -1)) if kind is not Messages else -1,
            cache_prompt=bool(body.get("cache_prompt", True)),
        )
        stream = Stream(reply, shape, task, self.core) if body.get("stream") else None
        reply.coding, reply.kind = self.faults.coding, self.faults.kind
        if stream is not None:
            task.sink, task.hears = stream.hear, stream.hears
            if self.faults.early_head:
                stream.begin()
        await self.wait(task, reply)
        if task.done.done():
            await self.end(task, reply, shape, stream)

    async def end(self, task: Task, reply: Reply, shape: Completion, stream: Stream | None) -> None:
        """Answer with a task's result, or with its error."""
        value = task.done.result()
        if isinstance(value, Refused):
            if stream is None or not reply.started:
                raise value
            told = {"code": value.status, "message": value.message, "type": value.kind}
            reply.event(*((told, "error") if isinstance(shape, Messages) else ({"error": told},)))
            await self.finish(reply)
        elif stream is not None:
            stream.send(shape.last(task))
            await self.finish(reply)
        elif self.faults.hold_end:
            reply.start("application/json")
            reply.write(dumps(shape.whole(task)))
            await self.finish(reply)
        else:
            reply.send(200, shape.whole(task))

    async def finish(self, reply: Reply) -> None:
        """Send the last chunk, when the fault `hold_end` lets it go."""
        while self.faults.hold_end and not reply.gone.is_set():  # noqa: ASYNC110 - both may be set by others
            await asyncio.sleep(0.002)
        reply.finish()

    async def wait(self, task: Task, reply: Reply) -> None:
        """Wait for a task's end; cancel it when the client is seen to be gone.

        Seen only when nothing was heard of any request for `poll` seconds: the real server's poll, its fault included.
        """
        poll, began = self.core.settings.poll, self.core.time()
        while not task.done.done():
            left = max(began, self.core.last_result) + poll - self.core.time()
            if left > 0:
                await asyncio.wait([task.done], timeout=left)
            elif reply.gone.is_set():
                self.core.cancel(task)
                return
            else:
                began = self.core.time()

    # slot actions

    async def slot_action(self, call: Call, reply: Reply, number: str) -> None:
        """POST /slots/{id}?action=save|restore|erase."""
        try:
            task = self.post_action(call, number)
        except Refused as error:
            reply.error(error.status, error.message, error.kind)
            return
        except (ValueError, KeyError, TypeError) as error:
            reply.error(400, f"[json.exception] {error!r}", BAD)
            return
        await self.wait(task, reply)
        if not task.done.done():
            return
        value = task.done.result()
        if isinstance(value, Refused):
            reply.error(value.status, value.message, value.kind)
            return
        reply.send(200, value)

    def post_action(self, call: Call, number: str) -> Task:
        """Check a slot action and queue it; Refused or ValueError for a bad one."""
        if not self.options.slot_save_path or not self.faults.slot_actions:
            message = "This server does not support slots action. Start it with `--slot-save-path`"
            raise Refused(501, message, UNSUPPORTED)
        try:
            slot = int(number)
        except ValueError:
            raise Refused(400, "Invalid slot ID", BAD) from None
        action = call.query.get("action", "")
        if action not in ("save", "restore", "erase"):
            raise Refused(400, "Invalid action", BAD)
        name = "" if action == "erase" else json.loads(call.body)["filename"]
        if action != "erase" and not isinstance(name, str):
            raise TypeError("type must be string")
        if action != "erase" and not valid_name(name):
            raise Refused(400, "Invalid filename", BAD)
        return self.core.post(action, slot=slot, filename=name)


LIMITS = ("n_predict", "max_tokens", "max_completion_tokens", "max_output_tokens")


class Stream:
    """A streamed answer: the head goes out when the slot starts, events as tokens come."""

    def __init__(self, reply: Reply, shape: Completion, task: Task, core: Core) -> None:
        self.reply, self.shape, self.task, self.core = reply, shape, task, core
        progress = {"started", "progress"} if shape.body.get("return_progress") else set()
        self.hears = frozenset({"token", *progress})

    def hear(self, kind: str, value: Json) -> None:
        """A result of the task, called by the inference thread."""
        if self.reply.gone.is_set():
            self.core.cancel(self.task)  # the write fails: streams notice at once
        elif kind in ("started", "progress"):
            self.begin()
            task = self.task
            ms = int((self.core.time() - task.started) * 1e3)
            numbers = {"total": len(task.tokens), "cache": task.cached, "processed": task.processed, "time_ms": ms}
            self.send(self.shape.progress(numbers))
        elif kind == "token":
            if len(self.task.words) == 1:
                self.begin()
                self.send(self.shape.first(self.task))
            self.send(self.shape.piece(self.task, value))

    def begin(self) -> None:
        """Send the head, once."""
        if not self.reply.started:
            self.reply.start()

    def send(self, events: list[tuple[str, Json]]) -> None:
        """Write events."""
        for name, value in events:
            if value == DONE:
                self.reply.write(b"data: [DONE]\n\n")
            else:
                self.reply.event(value, name)
