"""Requests in the shape in which clients send them: one that each shipped rule is for, and one that it is not for.

Written by hand after what the clients' sources do; no request of anybody's was recorded.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bioproxy.templates.bodies import Dialect

Json = Any

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
DIALECTS: dict[str, Dialect] = {CHAT: "chat", MESSAGES: "anthropic", RESPONSES: "responses", "/api/chat": "chat"}
TOOL = {"type": "function", "function": {"name": "read", "parameters": {"type": "object", "properties": {}}}}
READ = {"name": "Read", "description": "Reads.", "input_schema": {"type": "object", "properties": {}}}
CLAUDE, CODEX, OPENCODE = "claude-cli/2.1.202 (external, cli)", "codex_cli_rs/0.145.0 (Debian 13)", "opencode/1.18.3"
WEBUI, NODE, ZED = "Python/3.11 aiohttp/3.12.15", "OpenAI/JS 5.12.2", "Zed/0.220.3"
CLINE = {"x-title": "Cline", "http-referer": "https://cline.bot"}
BILLING = "x-anthropic-billing-header: cc_version=2.1.202.{}; cc_entrypoint=cli; cch={};"


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a client: who it is, and which side rule it is for."""

    agent: str
    body: Json
    path: str = CHAT
    headers: dict[str, str] = {}
    app: str = ""
    side: str = ""

    @property
    def dialect(self) -> Dialect:
        return DIALECTS[self.path]

    @property
    def raw(self) -> bytes:
        return msgspec.json.encode(self.body)

    @property
    def fields(self) -> dict[bytes, bytes]:
        """The headers as a request has them."""
        return {name.encode(): value.encode() for name, value in {**self.headers, "user-agent": self.agent}.items()}


def user(*texts: str) -> list[Json]:
    return [{"role": "user", "content": text} for text in texts]


def chat(*messages: Json, stream: bool = True, **more: Json) -> Json:
    return {"model": "m", "messages": list(messages), "stream": stream, **more}


def claude(*messages: Json, system: Json = (), tools: Json = (), most: int = 32000, number: str = "a1b") -> Json:
    """A request of Claude Code: the billing line, who it is, its instructions."""
    texts = [
        BILLING.format(number, f"{number}0f"),
        "You are Claude Code, Anthropic's official CLI for Claude.",
        *system,
    ]
    blocks = [{"type": "text", "text": text} for text in texts]
    return {
        "model": "m", "max_tokens": most, "stream": True, "system": blocks, "tools": list(tools),
        "messages": list(messages),
    }  # fmt: skip


HOME = "Current time is 12:31:05. Today's date is 2026-11-29.\nYou are …"
COMMIT = "You are a helpful assistant that generates informative git commit messages"
TASK = "### Task:\nGenerate something about this chat.\n### Chat History:\n<chat_history>\nUSER: hi\n</chat_history>"
SIDE = (
    Sent(
        agent=WEBUI,
        body=chat(*user(TASK), stream=False, max_completion_tokens=1000),
        app="open-webui",
        side="open-webui-tasks",
    ),
    Sent(
        agent=WEBUI, path="/api/chat", body=chat(*user(TASK), stream=False), app="open-webui", side="open-webui-tasks"
    ),
    Sent(
        agent=NODE,
        body=chat(*user("Provide a concise, 5-word-or-less title for the conversation, please.\n\nhi"), stream=False),
        app="librechat",
        side="librechat-title",
    ),
    Sent(
        agent=OPENCODE,
        headers={"x-session-id": "ses_1"},
        body=chat(
            {"role": "system", "content": "Titles only."}, *user("Generate a title for this conversation:\n", "hi")
        ),
        app="opencode",
        side="opencode-title",
    ),
    Sent(
        agent=OPENCODE,
        path=RESPONSES,
        body={
            "model": "m",
            "stream": True,
            "input": [
                {"role": "developer", "content": "Titles only."},
                {
                    "role": "user",
                    "content": [{"type": "input_text", "text": "Generate a title for this conversation:\n"}],
                },
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            ],
        },
        app="opencode",
        side="opencode-title",
    ),
    Sent(
        agent=CLAUDE,
        path=MESSAGES,
        body={"model": "m", "max_tokens": 1, "messages": user("quota"), "metadata": {"user_id": "u_session_s"}},
        app="claude-code",
        side="claude-code-quota",
    ),
    Sent(
        agent=CLAUDE,
        path=MESSAGES,
        body=claude(*user("fix it"), system=["Analyze if this message indicates a new conversation topic. If so …"]),
        app="claude-code",
        side="claude-code-title",
    ),
    Sent(
        agent=CLAUDE,
        path=MESSAGES,
        body=claude(*user("fix it"), system=["Generate a concise, sentence-case title that …"]),
        app="claude-code",
        side="claude-code-title",
    ),
    Sent(
        agent=CLAUDE,
        path=MESSAGES,
        body=claude(*user("Please write a 5-10 word title for the following conversation:\n\nhi")),
        app="claude-code",
        side="claude-code-summary",
    ),
    Sent(
        agent=CLAUDE,
        path=MESSAGES,
        body=claude(
            *user("hi"), {"role": "assistant", "content": "Hi."}, *user("[SUGGESTION MODE: Suggest …]"), tools=[READ]
        ),
        app="claude-code",
        side="claude-code-suggestion",
    ),
    Sent(
        agent=CODEX,
        path=RESPONSES,
        headers={"x-openai-subagent": "memory_consolidation", "originator": "codex_cli_rs"},
        body={"model": "m", "instructions": "Consolidate.", "input": user("notes"), "stream": True},
        app="codex",
        side="codex-memory",
    ),
    Sent(
        agent=NODE,
        headers=CLINE,
        body=chat(
            {"role": "system", "content": f"{COMMIT} of diffs."},
            *user("diff"),
        ),
        app="cline",
        side="cline-commit-message",
    ),
    Sent(
        agent=ZED,
        body=chat(
            *user("hi"),
            {"role": "assistant", "content": "Hi."},
            *user("Generate a concise 3-7 word title for this conversation, omitting …"),
        ),
        app="zed",
        side="zed-title",
    ),
    Sent(
        agent=NODE,
        body=chat(
            *user("Given the following... please reply with a title for the chat that is short\n\nhi"), max_tokens=16
        ),
        app="openai-sdk",
        side="continue-title",
    ),
)
SYSTEM = {"role": "system", "content": "You help."}
MAIN = (
    Sent(agent=WEBUI, body=chat(SYSTEM, *user("hi")), headers={"x-openwebui-chat-id": "1"}, app="open-webui"),
    Sent(agent=WEBUI, body=chat(*user("hi"), stream=False)),
    Sent(agent=WEBUI, body=chat(*user("### Task: is a heading"), stream=False)),
    Sent(agent=WEBUI, body=chat(*user(TASK))),
    Sent(agent=NODE, body=chat(SYSTEM, *user("hi")), app="openai-sdk"),
    Sent(
        agent=NODE,
        body=chat(SYSTEM, *user("Provide a concise, 5-word-or-less title for the conversation")),
        app="openai-sdk",
    ),
    Sent(agent=NODE, headers=CLINE, body=chat(SYSTEM, *user("write a commit message")), app="cline"),
    Sent(agent="Cline/3.0.61", body=chat(SYSTEM, *user("hi"), tools=[TOOL]), app="cline"),
    Sent(
        agent=OPENCODE,
        body=chat(SYSTEM, *user("Generate a title for this conversation:"), tools=[TOOL]),
        app="opencode",
    ),
    Sent(agent=OPENCODE, body=chat(SYSTEM, *user("hi", "you there?")), app="opencode"),
    Sent(agent=CLAUDE, path=MESSAGES, body=claude(*user("quota"), tools=[READ]), app="claude-code"),
    Sent(agent=CLAUDE, path=MESSAGES, body=claude(*user("write a title"), system=["Instructions."]), app="claude-code"),
    Sent(
        agent=CODEX,
        path=RESPONSES,
        headers={"x-openai-subagent": "compact"},
        body={"model": "m", "input": "hi"},
        app="codex",
    ),
    Sent(agent=ZED, body=chat(*user("Generate a concise title")), app="zed"),
    Sent(
        agent="ollama-python/0.6.1 (aarch64 linux) Python/3.13.7",
        path="/api/chat",
        body=chat({"role": "system", "content": HOME}, *user("hi")),
        app="home-assistant",
    ),
    Sent(agent="ollama-python/0.6.1", path="/api/chat", body=chat(*user("hi")), app="ollama-sdk"),
    Sent(agent="AsyncOpenAI/Python 3.57.0", body=chat(*user("hi")), app="openai-sdk"),
    Sent(
        agent="Anthropic/Python 2.14.0", path=MESSAGES, body={"model": "m", "messages": user("hi")}, app="anthropic-sdk"
    ),
    Sent(agent="GitHubCopilotChat/0.35.0", body=chat(SYSTEM, *user("hi")), app="copilot"),
    Sent(agent="Continue/1.2.4", body=chat(*user("hi")), app="continue"),
    Sent(agent="curl/8.14.1", body=chat(*user("hi")), app="curl"),
    Sent(agent="test", body=chat(*user(TASK), stream=False)),
)
