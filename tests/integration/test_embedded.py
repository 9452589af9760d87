"""The embedded engine as a program, on models that bioproxy writes itself: routes, snapshots, ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from bioproxy.config.schema import Config
from bioproxy.embedded import flags
from bioproxy.embedded import model as demo_model
from bioproxy.engines.launch import launch
from bioproxy.engines.process import Exit, Process
from fakes.real_engine import RealEngine
from support.command import program

pytestmark = pytest.mark.real_engine

COMMAND = [sys.executable, "-m", "bioproxy.embedded"]
READY = re.compile(r"ready on (http://\S+)")
TOOL = {"type": "function", "function": {"name": "look", "description": "looks", "parameters": {"type": "object"}}}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": 7}'}}


class Engine:
    """A running engine: its URL, its process, and its routes."""

    def __init__(self, program: subprocess.Popen[str], url: str) -> None:
        self.program = program
        self.url = url

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """GET, or POST with a body; the JSON of a 200."""
        with urllib.request.urlopen(self.request(path, body), timeout=15) as answer:
            return json.load(answer)

    def status(self, path: str, body: dict[str, Any] | None = None) -> int:
        """The status of an answer, whatever it is."""
        try:
            with urllib.request.urlopen(self.request(path, body), timeout=15) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def request(self, path: str, body: dict[str, Any] | None) -> urllib.request.Request:
        """The request itself."""
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.Request(self.url + path, data=data, headers={"Content-Type": "application/json"})

    def generate(self, prompt: str | list[int], *, tokens: int = 16) -> Any:
        """The likeliest continuation."""
        return self.ask("/completion", {"prompt": prompt, "n_predict": tokens, "temperature": 0})


@contextmanager
def engine(model: Path, *arguments: str, **options: Any) -> Iterator[Engine]:
    """An engine on a free port, ready; killed afterwards."""
    command = [*COMMAND, "-m", str(model), "--port", "0", "-t", "1", "-c", "4096", "--log-disable", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options) as program:
        try:
            assert program.stderr is not None
            said = []
            for line in program.stderr:
                said.append(line)
                if found := READY.search(line):
                    yield Engine(program, found[1])
                    return
            pytest.fail(f"the engine ended: {said}")
        finally:
            program.kill()


def refused(*arguments: str) -> tuple[int, str]:
    """Exit code and last line of ours from an engine that cannot start.

    llama.cpp's log thread may speak after it, and has the time of a line of its own written before ours now and then.
    """
    ended = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=15, check=False)
    ours = re.findall(r"^(?:[\d.]+ )?(bioproxy engine: .*)$", ended.stderr, re.MULTILINE)
    assert ours, ended.stderr
    return ended.returncode, ours[-1]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the models of these tests."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def tiny(models: Path) -> Path:
    """The small model."""
    return demo_model.ensure_model(models, shape="tiny")


@pytest.fixture(scope="module")
def running(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine for the tests that only ask."""
    slots = tmp_path_factory.mktemp("slots")
    with engine(tiny, "--slot-save-path", str(slots), "--metrics", "-a", "small", "-b", "512") as found:
        yield found


def test_it_answers_what_an_attachment_asks(running: Engine) -> None:
    """Health, properties, slots, models, metrics."""
    assert running.ask("/health") == {"status": "ok"}
    properties = running.ask("/props")
    assert properties["total_slots"] == 1
    assert properties["model_alias"] == "small"
    assert properties["default_generation_settings"]["n_ctx"] == 4096
    assert properties["chat_template_caps"]["supports_tools"]
    assert len(running.ask("/slots")) == 1
    assert running.ask("/v1/models")["data"][0]["id"] == "small"
    assert running.status("/metrics") == 200


def test_any_text_survives_the_way_to_tokens_and_back(running: Engine) -> None:
    """Bytes that are in no merged piece have tokens of their own."""
    text = "def f(x):\n\treturn 'Grüße 漢字 🦙'  # \x00\x7f"
    tokens = running.ask("/tokenize", {"content": text})["tokens"]
    assert running.ask("/detokenize", {"tokens": tokens})["content"] == text


def test_a_token_is_about_as_long_as_in_real_models(running: Engine) -> None:
    """Else every figure of the demo would be about prompts that are too long."""
    source = Path(flags.__file__).read_text()
    assert 2.5 < len(source) / len(running.ask("/tokenize", {"content": source})["tokens"]) < 5


def test_control_tokens_are_one_token_and_the_prompt_begins_with_one(running: Engine) -> None:
    """As in real chat models."""
    body = {"content": "<|im_start|>user", "add_special": True, "parse_special": True, "with_pieces": True}
    pieces = [token["piece"] for token in running.ask("/tokenize", body)["tokens"]]
    assert pieces[:2] == ["<|begin|>", "<|im_start|>"]


def test_the_template_renders_system_tools_calls_and_results(running: Engine) -> None:
    """All that shapes a head is in the text."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "House rules."},
        {"role": "user", "content": "Look!"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "42", "tool_call_id": "1"},
    ]
    text = running.ask("/apply-template", {"messages": messages, "tools": [TOOL]})["prompt"]
    assert text.startswith("<|im_start|>system\nHouse rules.\n\nYou may call these functions:\n")
    assert '"description": "looks"' in text
    assert '<|im_start|>assistant\n<tool_call>{"name": "look", "arguments": {"at": 7}}</tool_call><|im_end|>' in text
    assert text.endswith("<|im_start|>tool\n42<|im_end|>\n<|im_start|>assistant\n")


def test_without_tools_it_is_turn_after_turn(running: Engine) -> None:
    """The plain form, on which warm-ups find their prefix."""
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    body = {"messages": messages, "add_generation_prompt": False}
    expected = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
    assert running.ask("/apply-template", body)["prompt"] == expected


def test_a_restored_snapshot_continues_as_the_live_slot_did(running: Engine) -> None:
    """Same text, and not a token evaluated again."""
    prompt = running.ask("/tokenize", {"content": "one two three " * 100})["tokens"]
    running.ask("/completion", {"prompt": prompt, "n_predict": 0})
    saved = running.ask("/slots/0?action=save", {"filename": "a.bin"})
    live = running.generate([*prompt, 77])
    running.ask("/slots/0?action=erase", {})
    assert running.ask("/slots/0?action=restore", {"filename": "a.bin"})["n_restored"] == saved["n_saved"]
    again = running.generate([*prompt, 77])
    assert again["timings"]["cache_n"] == len(prompt)
    assert again["content"] == live["content"]


def test_the_text_depends_on_what_stands_far_before(running: Engine) -> None:
    """Otherwise a wrong cache would go unnoticed in every test that compares texts."""
    tokens = running.ask("/tokenize", {"content": "several words that say nothing " * 60})["tokens"]
    other = [*tokens[:5], tokens[5] + 1, *tokens[6:]]
    assert running.generate(tokens, tokens=32)["content"] != running.generate(other, tokens=32)["content"]


def test_an_answer_is_printable(running: Engine) -> None:
    """Random weights, but no broken UTF-8 and no control tokens."""
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 200}
    answer = running.ask("/v1/chat/completions", body)["choices"][0]
    assert answer["finish_reason"] == "length"
    assert answer["message"]["content"].isascii()
    assert "<|" not in answer["message"]["content"]


def test_the_same_seed_writes_the_same_file(models: Path, tiny: Path) -> None:
    """A demo is the same on every run; another seed is another model of the same size."""
    demo_model.write_model(models / "again.gguf", shape="tiny")
    demo_model.write_model(models / "other.gguf", shape="tiny", seed=1)
    assert (models / "again.gguf").read_bytes() == tiny.read_bytes()
    assert (models / "other.gguf").stat().st_size == tiny.stat().st_size
    assert (models / "other.gguf").read_bytes() != tiny.read_bytes()


def test_a_model_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """What fails leaves no file that looks like one."""
    (tmp_path / "taken.gguf").mkdir()
    with pytest.raises(OSError, match="taken"):
        demo_model.write_model(tmp_path / "taken.gguf", shape="tiny")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.gguf"]


@pytest.mark.parametrize("shape", ["swa", "mamba"])
def test_other_kinds_of_memory_work_too(models: Path, shape: demo_model.Name) -> None:
    """A sliding window and a state space, for the tests of what a restore is worth there."""
    model = demo_model.ensure_model(models, shape=shape)
    with engine(model) as found:
        assert found.generate("some words", tokens=4)["tokens_predicted"] == 4


def test_other_weights_say_something_else(models: Path, running: Engine) -> None:
    """Same shape, other seed."""
    with engine(demo_model.ensure_model(models, shape="tiny", seed=1)) as other:
        assert other.generate("some words")["content"] != running.generate("some words")["content"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_with_a_client_connected(tiny: Path, number: int) -> None:
    """Also in the middle of a stream."""
    with engine(tiny) as found:
        body = {"prompt": "x", "n_predict": -1, "stream": True}
        with urllib.request.urlopen(found.request("/completion", body), timeout=15) as stream:
            assert stream.readline().startswith(b"data: ")
            found.program.send_signal(number)
            assert found.program.wait(timeout=10) == -number


def test_signals_that_a_parent_ignored_end_it_too(tiny: Path) -> None:
    """What `nohup` and careless parents hand down is undone."""

    def ignore() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    with engine(tiny, preexec_fn=ignore) as found:
        found.program.terminate()
        assert found.program.wait(timeout=10) == -signal.SIGTERM


def test_it_serves_on_when_nobody_reads_its_output(tiny: Path) -> None:
    """A closed pipe is not its problem."""
    with engine(tiny, "--verbose", stdout=subprocess.PIPE) as found:
        assert found.program.stdout is not None
        assert found.program.stderr is not None
        found.program.stdout.close()
        found.program.stderr.close()
        assert found.generate("some words", tokens=4)["tokens_predicted"] == 4


def test_a_key_in_the_environment_locks_it(tiny: Path) -> None:
    """As llama-server does; health stays public."""
    with engine(tiny, env={**os.environ, "LLAMA_API_KEY": "secret"}) as found:
        assert found.status("/health") == 200
        assert found.status("/completion", {"prompt": "x", "n_predict": 1}) == 401


def test_a_broken_model_is_exit_1_and_a_sentence(tiny: Path, tmp_path: Path) -> None:
    """A download that was cut short."""
    (tmp_path / "cut.gguf").write_bytes(tiny.read_bytes()[:100_000])
    code, line = refused("-m", str(tmp_path / "cut.gguf"), "--port", "0")
    assert code == 1
    assert line.startswith(f"bioproxy engine: llama.cpp did not start with {tmp_path}/cut.gguf")


def test_a_missing_model_is_exit_1_and_a_sentence() -> None:
    """The path that was asked for is in it."""
    assert refused("-m", "/no/such.gguf", "--port", "0") == (
        1,
        "bioproxy engine: cannot read the model /no/such.gguf: No such file or directory",
    )


def test_a_taken_port_is_exit_1_and_a_sentence(tiny: Path) -> None:
    """Before anything is loaded."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        code, line = refused("-m", str(tiny), "--port", port)
    assert (code, line) == (1, f"bioproxy engine: cannot listen on 127.0.0.1 port {port}: Address already in use")


def test_an_unknown_flag_is_exit_1_and_a_sentence(tiny: Path) -> None:
    """With the nearest one."""
    code, line = refused("-m", str(tiny), "--ctx-sise", "5")
    assert (code, line) == (1, "bioproxy engine: unknown flag --ctx-sise; did you mean --ctx-size?")


@pytest.mark.parametrize(
    ("flag", "beginning"), [("--help", "usage: bioproxy engine -m FILE"), ("--version", "bioproxy engine: xllamacpp ")]
)
def test_help_and_version_are_exit_0(flag: str, beginning: str) -> None:
    """On standard output."""
    shown = subprocess.run([*COMMAND, flag], capture_output=True, text=True, timeout=15, check=True)
    assert shown.stdout.startswith(beginning)


async def test_serve_model_brings_a_killed_engine_back_on_its_url(tiny: Path, tmp_path: Path) -> None:
    """The whole of `bioproxy serve --model` below the app: found, started, killed, there again, gone."""
    ends: asyncio.Queue[Exit] = asyncio.Queue()
    config = Config(model=str(tiny), backend_url="", state_directory=str(tmp_path), engine_arguments=("-t", "1"))
    plan = launch(config, folder=str(tmp_path / "slots"))
    process = Process(plan.command, name=plan.name, environment=plan.environment, on_exit=ends.put_nowait)
    await process.start()
    keeping = aio.spawn(process.run(), name="engine process")
    await answers(plan.url)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    assert "was ended by SIGKILL" in (await ends.get()).reason
    await answers(plan.url)
    await process.restart()
    await answers(plan.url)
    assert process.statistics().starts == 3
    await process.stop()
    await aio.finish([keeping])
    assert process.pid is None


async def answers(url: str) -> None:
    """Wait until the engine there is ready."""

    async def look() -> bool | None:
        try:
            with await asyncio.to_thread(urllib.request.urlopen, url + "/health", timeout=5):
                return True
        except OSError:
            return None

    assert await aio.poll(look, interval=0.02, deadline=30)


async def test_an_abort_starts_no_debugger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs would keep the dead engine, its port and its memory for ever."""
    for name in ("gdb", "lldb"):
        program(tmp_path / "bin" / name, "")
        with (tmp_path / "bin" / name).open("a") as script:
            script.write(f"touch {tmp_path}/started\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    async with RealEngine(slot_folder=tmp_path / "slots") as engine:
        await engine.post("/completion", {"prompt": list(range(100, 600)), "n_predict": 0})
        written = (await engine.slot("save", "a")).json()["n_written"]
        os.truncate(tmp_path / "slots" / "a", written - 1)
        with pytest.raises(ConnectionError):
            await engine.slot("restore", "a")
        assert await engine.wait() == -signal.SIGABRT
    assert not (tmp_path / "started").exists()
