"""What Ollama's clients are told of a model, out of its configuration, its engine and the head of its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bioproxy.admin.ollama import File, Known, read, shortly, tagged
from bioproxy.config.dialect.schema import Capabilities
from bioproxy.embedded.model import ensure_model
from bioproxy.engines.facts import EngineFacts

Json = Any
FILE = File(
    4_000_000_000,
    1_700_000_000.0,
    {
        "general.architecture": "qwen3",
        "general.file_type": 15,
        "general.size_label": "8B",
        "general.parameter_count": 8_190_000_000,
        "qwen3.context_length": 40960,
        "qwen3.embedding_length": 4096,
        "tokenizer.chat_template": "{% if enable_thinking %}<think>{% endif %}",
    },
)


def test_a_model_that_never_ran() -> None:
    """The head of its file tells all that lists want."""
    one = Known(name="qwen", file=FILE)
    assert one.details == {
        "parent_model": "", "format": "gguf", "family": "qwen3", "families": ["qwen3"], "parameter_size": "8B",
        "quantization_level": "Q4_K_M", "context_length": 40960, "embedding_length": 4096,
    }  # fmt: skip
    assert one.capabilities == ["completion", "tools", "thinking"]
    assert (one.entry["name"], one.entry["model"], one.entry["size"]) == ("qwen:latest", "qwen:latest", 4_000_000_000)
    assert len(one.entry["digest"]) == 64


def test_a_model_of_which_nothing_is_known() -> None:
    """Each text is there all the same: some clients refuse a list with a hole in it."""
    one = Known(name="a", file=File())
    assert all(isinstance(one.details[name], str) and one.details[name] for name in (
        "format", "family", "parameter_size", "quantization_level",
    ))  # fmt: skip
    assert one.capabilities == ["completion", "tools"]


@pytest.mark.parametrize(
    ("known", "context"),
    [
        ({"facts": EngineFacts(url="http://a", context=8192)}, 8192),
        ({"configured": Capabilities(context=16384)}, 16384),
        ({"words": ("llama-server", "-c", "4096")}, 4096),
        ({"words": ("llama-server", "--ctx-size=0x")}, 40960),
        ({}, 40960),
    ],
)
def test_the_length_of_the_context(known: Json, context: int) -> None:
    """What the engine gives to a request, else what it is given, else what the model was made for."""
    assert Known(name="a", file=FILE, **known).context == context


@pytest.mark.parametrize(
    ("keys", "known", "capabilities"),
    [
        ({}, {"words": ("llama-server", "--mmproj", "p.gguf")}, ["completion", "tools", "vision"]),
        ({}, {"facts": EngineFacts(url="http://a", media=True)}, ["completion", "tools", "vision"]),
        ({}, {"words": ("llama-server", "--embeddings")}, ["embedding"]),
        ({"general.architecture": "bert", "bert.pooling_type": 2}, {}, ["embedding"]),
        ({"tokenizer.ggml.fim_pre_token_id": 151659}, {}, ["completion", "tools", "insert"]),
        ({}, {"configured": Capabilities(inputs=("text", "image"), outputs=("text",))}, ["completion", "vision"]),
        ({}, {"configured": Capabilities(tools=True)}, ["completion", "tools"]),
        ({}, {"configured": Capabilities(reranker=True)}, []),
    ],
)
def test_capabilities(keys: Json, known: Json, capabilities: list[str]) -> None:
    """What the configuration says counts; else what the command, the engine and the file tell."""
    one = Known(name="a", file=File(1, 1.0, keys), **known)
    assert one.capabilities == capabilities
    assert (".Suffix" in one.template) is ("insert" in capabilities)


def test_a_file_is_read_once(tmp_path: Path) -> None:
    """And again when it changed; what is not there, or no model, leaves the rest to others."""
    path = ensure_model(tmp_path, shape="tiny")
    first = read({str(path)}, {})
    assert first[str(path)].keys["general.architecture"] == "llama"
    assert first[str(path)].size == path.stat().st_size
    assert read({str(path)}, first) == {}
    path.write_bytes(b"GGUF, or not")
    assert read({str(path), str(tmp_path / "gone")}, first) == {str(path): File(), str(tmp_path / "gone"): File()}


def test_names_and_sizes() -> None:
    """A tag for a name that has none; parameters as people say them."""
    assert [tagged(name) for name in ("qwen", "qwen:8b", "far/qwen")] == ["qwen:latest", "qwen:8b", "far/qwen:latest"]
    assert [shortly(count) for count in (0, 270_000_000, 8_190_000_000)] == ["unknown", "270.0M", "8.2B"]
