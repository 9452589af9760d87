"""`bioproxy serve --model`: which command it becomes."""

from __future__ import annotations

import importlib.util
import logging
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bioproxy.config.schema import Config
from bioproxy.engines import launch
from bioproxy.errors import ConfigError


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with a llama-server on it."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / ("llama-server.exe" if sys.platform == "win32" else "llama-server")
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return str(tmp_path / "bin")


def plan(path: str, *arguments: str, key: str = "", **environment: str) -> launch.Plan:
    """What is made of the user's arguments."""
    return launch.make_plan(
        "m.gguf", arguments, slot_folder="/slots", key=key, environment={"PATH": path, **environment}
    )


def values(command: Sequence[str], flag: str) -> list[str]:
    """What stands behind each occurrence of a flag."""
    return [after for word, after in zip(command, [*command[1:], ""], strict=True) if word == flag]


def problem(path: str, *arguments: str) -> str:
    """What is said about the user's arguments."""
    with pytest.raises(ConfigError) as caught:
        plan(path, *arguments)
    return str(caught.value)


def test_llama_server_from_path_comes_first(path: str) -> None:
    """Whoever installed one chose it for this machine."""
    made = plan(path)
    assert made.command[:3] == (f"{path}/llama-server", "--model", "m.gguf")
    assert not made.embedded
    assert made.hint == ""


def test_what_is_erased_between_groups_is_kept_nowhere(path: str) -> None:
    """`kv.isolate: strict` takes the engine's own copies away; whoever gives a size means it."""

    def sizes(*arguments: str, strict: bool) -> list[str]:
        made = launch.make_plan(
            "m.gguf", arguments, slot_folder="/slots", key="", environment={"PATH": path}, strict=strict
        )
        return values(made.command, "--cache-ram")

    assert sizes(strict=True) == ["0"]
    assert sizes("--cache-ram", "64", strict=True) == ["64"]
    assert sizes(strict=False) == []


def test_the_engine_from_the_wheel_comes_second() -> None:
    """In this Python, as a program of its own."""
    made = plan("")
    assert made.command[:5] == (sys.executable, "-m", "bioproxy.embedded", "--model", "m.gguf")
    assert made.embedded


def test_neither_is_a_sentence_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways out are named."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "no llama-server on PATH" in problem("")
    assert "pip install 'bioproxy[llama]'" in problem("")


def test_what_the_cache_on_disk_needs_is_added(path: str) -> None:
    """One slot, a batch of 512, the folder, metrics, a loopback port."""
    command = plan(path).command
    assert values(command, "--parallel") == ["1"]
    assert values(command, "--batch-size") == ["512"]
    assert values(command, "--slot-save-path") == ["/slots"]
    assert values(command, "--host") == ["127.0.0.1"]
    assert "--metrics" in command


@pytest.mark.parametrize(
    ("given", "kept_out"),
    [
        (["-np", "2"], "--parallel"),
        (["--parallel", "2"], "--parallel"),
        (["--parallel=2"], "--parallel"),
        (["-b", "64"], "--batch-size"),
        (["--slot-save-path", "/mine"], "--slot-save-path"),
        (["--metrics"], "--metrics"),
        (["--host", "::1"], "--host"),
        (["--port", "9"], "--port"),
    ],
)
def test_what_the_user_gave_is_not_added_again(path: str, given: list[str], kept_out: str) -> None:
    """In any spelling; it stands as it was written, at the end."""
    command = plan(path, *given).command
    assert command[-len(given) :] == tuple(given)
    assert kept_out not in command[: -len(given)]


def test_the_port_is_free_and_in_the_url(path: str) -> None:
    """Somebody could listen there now."""
    made = plan(path)
    (port,) = values(made.command, "--port")
    assert made.url == f"http://127.0.0.1:{port}"
    with socket.create_server(("127.0.0.1", int(port))):
        pass


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (["--host", "0.0.0.0", "--port", "9"], "http://127.0.0.1:9"),
        (["--host", "::", "--port", "9"], "http://[::1]:9"),
        (["--host=::1", "--port=9"], "http://[::1]:9"),
        (["--port", "9", "--api-prefix", "/llm/"], "http://127.0.0.1:9/llm"),
        (["--port", "9", "--ssl-key-file", "k", "--ssl-cert-file", "c"], "https://127.0.0.1:9"),
    ],
)
def test_the_url_is_where_the_engine_can_be_reached(path: str, given: list[str], url: str) -> None:
    """Every way in which the user's arguments change it."""
    assert plan(path, *given).url == url


def test_the_key_travels_in_the_environment(path: str) -> None:
    """A command line is readable by everybody on the machine."""
    made = plan(path, key="secret")
    assert made.environment["LLAMA_API_KEY"] == "secret"
    assert "secret" not in made.command


def test_a_key_that_we_would_not_know_is_refused(path: str) -> None:
    """Every question to the engine would be answered with 401."""
    assert "set backend_key instead" in problem(path, "--api-key", "secret")
    assert plan(path, "--api-key", "secret", key="secret").command[-1] == "secret"


def test_the_engines_own_page_is_off_unless_asked_for(path: str) -> None:
    """By a variable, for the flag has changed its name once."""
    assert plan(path).environment["LLAMA_ARG_UI"] == "0"
    assert plan(path, LLAMA_ARG_UI="1").environment["LLAMA_ARG_UI"] == "1"


def test_arguments_that_the_embedded_engine_does_not_know_are_refused_now(path: str) -> None:
    """And not at each of its starts; llama-server may know more."""
    assert (
        problem("", "--speculate", "9")
        == "engine_arguments: unknown flag --speculate; --help lists those that there are"
    )
    assert "--speculate" in plan(path, "--speculate", "9").command


def test_a_host_that_is_not_ours_is_a_sentence(path: str) -> None:
    """Before anything is started."""
    assert problem(path, "--host", "192.0.2.1").startswith("engine_arguments: --host 192.0.2.1 cannot be listened on: ")


def test_an_idle_graphics_card_is_said_loudly(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where the processor would do its work."""
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(launch, "CARDS", (str(tmp_path / "nvidia0"),))
    assert f"graphics card ({tmp_path}/nvidia0)" in plan("").hint
    assert plan(path).hint == ""


def test_a_card_is_also_known_by_its_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container the device may have another name."""
    monkeypatch.setattr(launch, "CARDS", ())
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert f"graphics card ({tmp_path}/nvidia-smi)" in plan(str(tmp_path)).hint


def test_a_wheel_for_cards_needs_no_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its library names the card's driver."""
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(launch, "CARDS", (str(tmp_path / "nvidia0"),))
    monkeypatch.setattr(launch, "CARD_CODE", (b"llama",))  # what the installed one certainly names
    assert plan("").hint == ""


def a_model(folder: Path, data: bytes = b"GGUF and so on") -> str:
    """A file that begins as models do."""
    (folder / "m.gguf").write_bytes(data)
    return str(folder / "m.gguf")


def test_the_folder_for_slot_files_is_ours_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It will hold what people wrote; and the hint is in the log."""
    config = Config(model=a_model(tmp_path), backend_url="")
    folder = tmp_path / "state" / "slots"
    with caplog.at_level(logging.WARNING):
        made = launch.launch(config, folder=str(folder))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert values(made.command, "--slot-save-path") == [str(folder)]
    assert made.hint in caplog.text


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    """With the key that chose it."""
    (tmp_path / "file").touch()
    config = Config(model=a_model(tmp_path), backend_url="")
    with pytest.raises(ConfigError, match=r"kv\.directory: the folder for slot files"):
        launch.launch(config, folder=str(tmp_path / "file" / "kv"))


def test_a_model_that_no_engine_can_load_is_a_sentence(tmp_path: Path) -> None:
    """Told at the start, instead of by an engine that is started for ever."""
    with pytest.raises(ConfigError, match=r"model: .*m\.gguf is no GGUF file: it begins with b'PK"):
        launch.launch(Config(model=a_model(tmp_path, b"PK\x03\x04"), backend_url=""), folder="")
    with pytest.raises(ConfigError, match=r"model: .*gone\.gguf cannot be read: No such file"):
        launch.launch(Config(model=str(tmp_path / "gone.gguf"), backend_url=""), folder="")
