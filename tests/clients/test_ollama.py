"""The official ollama package through bioproxy: what it sends is understood, and what it gets is what it knows."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ollama
import pytest

from support.apps import MS, station
from support.clients import fake_line
from support.http import free_port
from support.leaks import until
from support.real_engine import line as real_line
from support.real_engine import llama_server, real_engine

Json = Any
HELLO: Json = [{"role": "user", "content": "hello"}]
FILLED = "These are the house rules.\nmay I?"
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n and so on")
FEW: Json = {"num_predict": 4, "num_ctx": 8192}


@asynccontextmanager
async def ollama_client(port: int, **more: Json) -> AsyncIterator[ollama.AsyncClient]:
    """The official client before the proxy on `port`, closed afterwards."""
    async with ollama.AsyncClient(host=f"http://127.0.0.1:{port}", **more) as client:
        yield client


async def test_chat(tmp_path: Path) -> None:
    """A whole answer, with what it cost; `num_ctx` reloads nothing."""
    async with fake_line(tmp_path) as line, ollama_client(line.app.proxy_port) as client:
        answer = await client.chat("m", HELLO, options=FEW)
        assert (answer.model, answer.done, answer.done_reason) == ("m", True, "length")
        assert answer.message.role == "assistant"
        assert answer.message.content
        assert answer.eval_count == 4
        assert answer.prompt_eval_count
        assert answer.total_duration
        assert answer.created_at
        body = await line.received("/v1/chat/completions")
        assert (body["max_tokens"], body["stream"], "num_ctx" in body) == (4, False, False)


async def test_chat_stream(tmp_path: Path) -> None:
    """The same words in pieces, and the costs in the last one."""
    async with fake_line(tmp_path) as line, ollama_client(line.app.proxy_port) as client:
        whole = await client.chat("m", HELLO, options=FEW)
        pieces = [piece async for piece in await client.chat("m", HELLO, options=FEW, stream=True)]
        assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
        assert [piece.done for piece in pieces] == [False] * 4 + [True]
        assert (pieces[-1].eval_count, pieces[-1].prompt_eval_count) == (4, whole.prompt_eval_count)
        assert pieces[-1].eval_duration


async def test_template(tmp_path: Path) -> None:
    """A prefix is filled in, in a chat and in a completion."""
    async with fake_line(tmp_path) as line, ollama_client(line.app.proxy_port) as client:
        await client.chat("m", [{"role": "user", "content": "@rules may I?"}], options=FEW)
        assert (await line.received("/v1/chat/completions"))["messages"][0]["content"] == FILLED
        await client.generate("m", "@rules may I?", options=FEW)
        assert (await line.received("/v1/chat/completions"))["messages"][0]["content"] == FILLED
        await client.generate("m", "@rules may I?", raw=True, options=FEW)
        assert (await line.received("/v1/completions"))["prompt"] == FILLED
        assert [record.prefix for record in line.app.records] == ["@rules"] * 3


async def test_generate(tmp_path: Path) -> None:
    """Whole, in pieces, and raw; with a system message and pictures."""
    async with fake_line(tmp_path) as line, ollama_client(line.app.proxy_port) as client:
        whole = await client.generate("m", "hello", system="Be brief.", options=FEW)
        pieces = [piece async for piece in await client.generate("m", "hello", "", system="Be brief.", stream=True,
                                                                options=FEW)]  # fmt: skip
        assert "".join(piece.response or "" for piece in pieces) == whole.response != ""
        assert pieces[-1].done
        assert (await line.received("/v1/chat/completions"))["messages"][0] == {
            "role": "system", "content": "Be brief.",
        }  # fmt: skip
        raw = [piece async for piece in await client.generate("m", "hello", raw=True, stream=True, options=FEW)]
        assert "".join(piece.response or "" for piece in raw)
        assert raw[-1].eval_count == 4
        await client.generate("m", "what is it?", images=[PIXEL.decode()], options=FEW)
        parts = (await line.received("/v1/chat/completions"))["messages"][0]["content"]
        assert parts[0]["image_url"]["url"] == f"data:image/png;base64,{PIXEL.decode()}"


async def test_lists(tmp_path: Path) -> None:
    """The one model, as lists of models want it; and the same by its name, with and without the tag."""
    async with fake_line(tmp_path) as line, ollama_client(line.app.proxy_port) as client:
        [listed] = (await client.list()).models
        assert listed.model == "fake.gguf:latest"
        assert listed.digest
        assert listed.modified_at
        assert listed.details is not None
        for name in ("fake.gguf", "fake.gguf:latest"):
            shown = await client.show(name)
            assert shown.capabilities is not None
            assert {"completion", "tools"} <= set(shown.capabilities)
            assert shown.modelinfo is not None
            assert shown.modelinfo["general.basename"] == "fake.gguf"
            family = shown.modelinfo["general.architecture"]
            assert shown.modelinfo[f"{family}.context_length"] == 32768
        [running] = (await client.ps()).models
        assert (running.model, running.context_length) == (listed.model, 32768)
        assert running.expires_at is not None
        pulled = await client.pull("fake.gguf")
        assert pulled.status == "success"
        assert [one.status async for one in await client.pull("fake.gguf", stream=True)] == ["success"]


async def test_nothing_to_say(tmp_path: Path) -> None:
    """Without a prompt a model is loaded; one that was started elsewhere is not unloaded, and that is said."""
    async with fake_line(tmp_path) as line, ollama_client(line.app.proxy_port) as client:
        assert (await client.generate("m", "")).done_reason == "load"
        assert (await client.chat("m", [])).done_reason == "load"
        with pytest.raises(ollama.ResponseError, match="was not started by this bioproxy") as caught:
            await client.generate("m", "", keep_alive=0)
        assert caught.value.status_code == 409


async def test_what_is_not_kept(tmp_path: Path) -> None:
    """There is no store of models to change: 501, and where to change it."""
    async with fake_line(tmp_path) as line, ollama_client(line.app.proxy_port) as client:
        for call in (client.delete("m"), client.copy("m", "n"), client.create("n", from_="m"), client.push("m")):
            with pytest.raises(ollama.ResponseError, match="configuration") as caught:
                await call
            assert caught.value.status_code == 501


async def test_errors(tmp_path: Path) -> None:
    """The engine's refusal, a wrong request and an unknown key are ResponseErrors with sentence and status."""
    async with fake_line(tmp_path, engine={"ctx_size": 64}, api_keys=["right"]) as line:
        port = line.app.proxy_port
        async with ollama_client(port, headers={"Authorization": "Bearer right"}) as client:
            with pytest.raises(ollama.ResponseError, match="exceeds the available context size") as caught:
                await client.chat("m", [{"role": "user", "content": "word " * 200}])
            assert caught.value.status_code == 400
            with pytest.raises(ollama.ResponseError, match="exceeds the available context size"):
                [one async for one in await client.generate("m", "word " * 200, stream=True)]
            with pytest.raises(ollama.ResponseError, match="send the conversation to /api/chat"):
                await client.generate("m", "go on", context=[1, 2, 3])
        async with ollama_client(port) as client:
            with pytest.raises(ollama.ResponseError, match="API key") as caught:
                await client.chat("m", HELLO)
            assert caught.value.status_code == 401


async def test_signs_of_life_are_skipped(tmp_path: Path) -> None:
    """While the engine is silent a stream gets blanks, which the client never sees."""
    async with fake_line(tmp_path, stream_keepalive=20 * MS) as line, ollama_client(line.app.proxy_port) as client:
        await line.engine.faults(stuck=True)
        work = asyncio.get_running_loop().create_task(words_of(client))
        clients = line.app.ports.proxy.shared.connections
        await until(lambda: any(one.responder and one.responder.bytes_out for one in clients))
        await line.engine.faults(stuck=False)
        assert await work


async def words_of(client: ollama.AsyncClient) -> str:
    """What a stream said."""
    pieces = [piece async for piece in await client.chat("m", HELLO, stream=True, options=FEW)]
    return "".join(piece.message.content or "" for piece in pieces)


async def test_error_in_a_stream(tmp_path: Path) -> None:
    """What goes wrong after the first byte is a ResponseError, not a stream that simply ends."""
    async with fake_line(tmp_path) as line, ollama_client(line.app.proxy_port) as client:
        await line.engine.faults(error_event=2)
        with pytest.raises(ollama.ResponseError):
            await words_of(client)


async def test_own_port(tmp_path: Path) -> None:
    """On `ollama.listen` a client finds what it looks for in Ollama's place, and OpenAI's routes beside it."""
    port = free_port()
    async with (
        fake_line(tmp_path, ollama={"listen": f"127.0.0.1:{port}"}),
        ollama_client(port) as client,
    ):
        assert (await client.chat("m", HELLO, options=FEW)).message.content


@real_engine
async def test_the_real_engine(tmp_path: Path) -> None:
    """The second turn comes out of the cache, and is counted; a schema holds; what the engine cannot do it says."""
    async with (
        llama_server(tmp_path) as engine,
        real_line(engine, tmp_path) as app,
        ollama_client(app.proxy_port) as client,
    ):
        name = (await client.list()).models[0].model or ""
        few: Json = {"num_predict": 8, "temperature": 0, "seed": 1, "top_k": 1, "repeat_penalty": 1.1, "stop": ["zz"]}
        messages: Json = [{"role": "user", "content": "word " * 300}]
        first = await client.chat(name, messages, options=few)
        pieces = [piece async for piece in await client.chat(name, messages, options=few, stream=True)]
        assert pieces[-1].prompt_eval_count == first.prompt_eval_count != 0
        assert pieces[-1].eval_count
        await until(lambda: sum(record.path == "/api/chat" for record in app.records) == 2)
        assert app.records[-1].cache in {"hit", "restored"}
        assert (await client.generate(name, "Once", raw=True, options=few)).done
        schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
        filled = await client.chat(name, [{"role": "user", "content": "a?"}], format=schema, think=False,
                                   options={"num_predict": 200, "temperature": 0})  # fmt: skip
        assert filled.message.content
        assert filled.message.content.lstrip().startswith("{")
        shown = await client.show(name)
        assert shown.details is not None
        assert shown.details.family == "llama"
        for refused in (client.generate(name, "def f(", suffix="return 1"), client.embed(name, "a text")):
            with pytest.raises(ollama.ResponseError, match="support"):
                await refused
        assert station(app).gate.cuts == 0
