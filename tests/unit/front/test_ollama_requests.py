"""Ollama's requests as requests of the road, and the exact requests of the clients that people use."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from bioproxy.errors import RequestError
from bioproxy.front.ollama.requests import Call, Load, named, translate

Json = Any
USER = {"role": "user", "content": "Hi"}
CALL = {"function": {"name": "turn_on", "arguments": {"room": "hall"}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "turn_on", "parameters": {"type": "object"}}}


def on_the_road(path: str, body: Json) -> tuple[str, Json]:
    """The path that a request becomes, and its body as the engine would read it."""
    _, call = translate(path, json.dumps(body).encode())
    assert isinstance(call, Call)
    return call.path, json.loads(msgspec.json.encode(call.body))


def chat(**body: Json) -> Json:
    """A chat's body on the road, without what every stream has."""
    path, found = on_the_road("/api/chat", {"model": "m", "messages": [USER], **body})
    assert path == "/v1/chat/completions"
    return found


def test_a_stream_is_the_default() -> None:
    """Its costs are asked for; who says false gets one answer."""
    assert chat() == {
        "model": "m", "messages": [USER], "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert chat(stream=False) == {"model": "m", "messages": [USER], "stream": False}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"format": "json"}, {"response_format": {"type": "json_object"}}),
        (
            {"format": SCHEMA},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}},
        ),
        ({"format": ""}, {}),
        ({"format": None, "think": None, "options": None, "tools": None}, {}),
        ({"tools": [TOOL]}, {"tools": [TOOL]}),
        ({"tools": []}, {}),
        ({"think": True}, {"chat_template_kwargs": {"enable_thinking": True}}),
        ({"think": False}, {"chat_template_kwargs": {"enable_thinking": False}}),
        ({"think": "high"}, {"chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "high"}}),
        ({"options": {"num_predict": 9, "temperature": 0.10, "stop": ["a"]}},
         {"max_tokens": 9, "temperature": 0.1, "stop": ["a"]}),
        ({"options": {"num_predict": -1, "num_ctx": 4096, "num_gpu": 99, "seed": 2**53 + 1}}, {"seed": 2**53 + 1}),
        ({"options": {"top_k": 1, "top_p": 0.5, "min_p": 0.1, "repeat_penalty": 1.1, "num_keep": 4, "seed": None}},
         {"top_k": 1, "top_p": 0.5, "min_p": 0.1, "repeat_penalty": 1.1, "n_keep": 4}),
        ({"keep_alive": "5m"}, {}),
        ({"keep_alive": 0}, {}),
    ],
)  # fmt: skip
def test_what_a_chat_may_say(given: Json, found: Json) -> None:
    """Each member in the road's own words, or left out; numbers as they came."""
    assert chat(stream=False, **given) == {"model": "m", "messages": [USER], "stream": False, **found}


def test_pictures_stand_before_the_text() -> None:
    """As URLs that hold them, by how their base64 begins."""
    message = {"role": "user", "content": "what?", "images": ["iVBORw0", "/9j/4AA", "data:image/gif;base64,R0"]}
    [found] = chat(messages=[message])["messages"]
    urls = [part["image_url"]["url"] for part in found["content"][:3]]
    assert urls == ["data:image/png;base64,iVBORw0", "data:image/jpeg;base64,/9j/4AA", "data:image/gif;base64,R0"]
    assert found["content"][3] == {"type": "text", "text": "what?"}


@pytest.mark.parametrize(
    ("results", "ids"),
    [
        ([{"tool_name": "b"}, {"tool_name": "a"}], ["call_1_1", "call_1_0"]),
        ([{}, {}], ["call_1_0", "call_1_1"]),
        ([{"name": "b"}, {}], ["call_1_1", "call_1_0"]),
        ([{"tool_call_id": "own"}, {}], ["own", "call_1_0"]),
        ([{"tool_name": "unknown"}], ["call_1_0"]),
    ],
)
def test_results_find_the_calls_that_they_answer(results: Json, ids: list[str]) -> None:
    """By their id, by the tool's name, or by their order; ids are the same each time, for the sake of the cache."""
    calls = [{"function": {"name": name, "arguments": {"x": 1}}} for name in ("a", "b")]
    messages = [USER, {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": calls}]
    messages += [{"role": "tool", "content": "done", **result} for result in results]
    found = chat(messages=messages)["messages"]
    assert found[1]["reasoning_content"] == "hm"
    assert [call["id"] for call in found[1]["tool_calls"]] == ["call_1_0", "call_1_1"]
    assert found[1]["tool_calls"][0]["function"] == {"name": "a", "arguments": '{"x": 1}'}
    assert [one["tool_call_id"] for one in found[2:]] == ids


def test_a_result_without_a_call() -> None:
    """It has an id all the same, for engines refuse a result that has none."""
    assert chat(messages=[{"role": "tool", "content": "done"}])["messages"][0]["tool_call_id"] == "call_0"


@pytest.mark.parametrize(
    ("body", "path", "found"),
    [
        ({"prompt": "Hi"}, "/v1/chat/completions", {"messages": [USER]}),
        ({"prompt": "Hi", "system": "Be brief."}, "/v1/chat/completions",
         {"messages": [{"role": "system", "content": "Be brief."}, USER]}),
        ({"prompt": "Hi", "raw": True, "options": {"num_predict": 3}}, "/v1/completions",
         {"prompt": "Hi", "max_tokens": 3}),
        ({"prompt": "Hi", "raw": True, "format": SCHEMA}, "/v1/completions", {"prompt": "Hi", "json_schema": SCHEMA}),
        ({"prompt": "def f(", "suffix": "return 1", "options": {"num_predict": 3}}, "/infill",
         {"input_prefix": "def f(", "input_suffix": "return 1", "prompt": "", "n_predict": 3}),
    ],
)  # fmt: skip
def test_completions(body: Json, path: str, found: Json) -> None:
    """A chat of one message, the prompt as it stands, or a gap to be filled."""
    at, asked = on_the_road("/api/generate", {"model": "m", "stream": False, **body})
    assert at == path
    assert asked == {"model": "m", "stream": False, **found}


@pytest.mark.parametrize(
    ("path", "body", "asked"),
    [
        ("/api/embed", {"input": "a"}, {"input": "a"}),
        ("/api/embed", {"input": ["a", "b"], "truncate": True, "dimensions": 64},
         {"input": ["a", "b"], "dimensions": 64}),
        ("/api/embeddings", {"prompt": "a"}, {"input": "a"}),
    ],
)  # fmt: skip
def test_embeddings(path: str, body: Json, asked: Json) -> None:
    """Texts, as numbers that JSON can hold."""
    found = on_the_road(path, {"model": "m", **body})
    assert found == ("/v1/embeddings", {"model": "m", "encoding_format": "float", **asked})


@pytest.mark.parametrize(
    ("path", "body", "unloads"),
    [
        ("/api/chat", {"messages": []}, False),
        ("/api/chat", {}, False),
        ("/api/generate", {"keep_alive": 0, "prompt": ""}, True),
        ("/api/generate", {"keep_alive": "0"}, True),
        ("/api/generate", {"keep_alive": "0s"}, True),
        ("/api/generate", {"keep_alive": -1}, False),
        ("/api/generate", {"keep_alive": "10m"}, False),
        ("/api/generate", {"keep_alive": "0.5h"}, False),
        ("/api/embed", {"input": []}, False),
        ("/api/embed", {"input": ""}, False),
        ("/api/embeddings", {"prompt": ""}, False),
    ],
)
def test_nothing_to_compute(path: str, body: Json, unloads: bool) -> None:
    """The model is loaded, or unloaded if it is to stay for no time at all."""
    name, found = translate(path, json.dumps({"model": "m", **body}).encode())
    assert name == "m"
    assert isinstance(found, Load)
    assert found.unloads is unloads


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/api/chat", b"{", "not what Ollama's API takes"),
        ("/api/chat", b'{"messages": "Hi"}', "Expected `array | null`"),
        ("/api/chat", b'{"messages": [{"content": "Hi"}]}', "missing required field `role`"),
        ("/api/chat", b'{"messages": [{"role": "user"}], "format": 5}', "JSON schema"),
        ("/api/chat", b'{"messages": [{"role": "user"}], "think": "a lot"}', "`think` must be"),
        ("/api/chat", b'{"messages": [{"role": "user"}], "logprobs": true}', "logprobs"),
        ("/api/chat", b'{"messages": [' + b",".join([b'{"role":"user"}'] * 20_001) + b"]}", "more than 20000"),
        ("/api/chat", b'{"messages": [{"role": "user"}], "tools": ' + b"[" * 200_000 + b"}", "not what Ollama's API"),
        ("/api/chat", b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "not what Ollama's API"),
        ("/api/chat", b'{"a":' * 500_001, "more than 500000 values"),
        ("/api/generate", b'{"prompt": "a", "context": [1, 2]}', "send the conversation to /api/chat"),
        ("/api/generate", b'{"prompt": "a", "template": "{{ .Prompt }}"}', "`template` cannot be changed"),
        ("/api/generate", b'{"prompt": "a", "raw": true, "images": ["x"]}', "leave `raw` and `suffix` away"),
        ("/api/embed", b'{"input": 5}', "a text or a list of texts"),
    ],
)
def test_what_is_refused(path: str, body: bytes, words: str) -> None:
    """In a sentence that says what to do."""
    with pytest.raises(RequestError) as caught:
        translate(path, body)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("body", "name", "streams"),
    [(b'{"model": "m"}', "m", True), (b'{"name": "m", "stream": false}', "m", False), (b"{}", "", True)],
)
def test_a_model_is_named_in_two_ways(body: bytes, name: str, streams: bool) -> None:
    """Continue says `name`, all others `model`."""
    assert named(body) == (name, streams)


# As each client sends it, with words of ours in place of a user's.
CLIENTS: dict[str, tuple[str, Json, str]] = {
    "Open WebUI chats": ("/api/chat", {
        "model": "qwen:latest", "messages": [{"role": "user", "content": "Hi"}], "stream": True,
        "options": {"temperature": 0.8, "num_ctx": 16384, "stop": ["</s>"]}, "keep_alive": "5m",
    }, "/v1/chat/completions"),
    "Open WebUI sees": ("/api/chat", {
        "model": "qwen:latest", "messages": [{"role": "user", "content": "what?", "images": ["iVBORw0"]}],
        "options": {},
    }, "/v1/chat/completions"),
    "Open WebUI embeds": ("/api/embed", {"model": "bge:latest", "input": ["a", "b"], "truncate": True},
                          "/v1/embeddings"),
    "Home Assistant": ("/api/chat", {
        "model": "qwen", "messages": [
            {"role": "system", "content": "You control a house."}, {"role": "user", "content": "Light, please."},
            {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": '{"done": true}'},
        ],
        "tools": [TOOL], "stream": True, "think": False, "keep_alive": "-1s", "options": {"num_ctx": 8192},
    }, "/v1/chat/completions"),
    "Home Assistant fills a form": ("/api/chat", {
        "model": "qwen", "messages": [USER], "format": SCHEMA, "stream": True, "think": False, "keep_alive": -1,
        "options": {"num_ctx": 8192},
    }, "/v1/chat/completions"),
    "Zed": ("/api/chat", {
        "model": "qwen:latest", "messages": [USER], "stream": True, "keep_alive": -1, "think": None,
        "options": {"num_ctx": 32768, "stop": [], "temperature": 1.0}, "tools": [],
    }, "/v1/chat/completions"),
    "Continue fills a gap": ("/api/generate", {
        "model": "coder", "prompt": "def f(", "suffix": "\n", "raw": False, "stream": True, "keep_alive": 1800,
        "options": {"num_predict": 64, "stop": ["\n\n"], "temperature": 0.01, "num_ctx": 4096},
    }, "/infill"),
    "Continue completes": ("/api/generate", {
        "model": "coder", "prompt": "<fim>def f(", "raw": True, "stream": True, "keep_alive": 1800,
        "options": {"num_predict": 64, "num_ctx": 4096},
    }, "/v1/completions"),
    "LangChain": ("/api/chat", {
        "model": "qwen", "messages": [{"role": "user", "content": "Hi", "images": []}], "stream": True, "format": "",
        "options": {"mirostat": None, "num_ctx": None, "num_predict": None, "temperature": 0.8}, "keep_alive": None,
    }, "/v1/chat/completions"),
}  # fmt: skip


@pytest.mark.parametrize("client", CLIENTS)
def test_the_requests_of_clients(client: str) -> None:
    """Each becomes a request of the road, for the same model, and nothing of it is `num_ctx`."""
    path, body, expected = CLIENTS[client]
    found, asked = on_the_road(path, body)
    assert found == expected
    assert asked["model"] == body["model"]
    assert {"num_ctx", "keep_alive", "options", "format", "think"}.isdisjoint(asked)
