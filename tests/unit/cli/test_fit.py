"""`bioproxy fit`: what a model takes, for a person and for a script, on machines that a fake engine tells of."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bioproxy.admin.gpus import Gpu
from bioproxy.cli import machine
from bioproxy.cli.machine import by_drivers, by_engine
from bioproxy.cli.main import main
from support.command import Ended, program
from support.gguf_files import QWEN, layers, write

Json = Any
GIB = 1 << 30
MIB = 1 << 20
CUDA = "Available devices:\n  CUDA0: NVIDIA GeForce RTX 3090 (24124 MiB, 23871 MiB free)\n"


Fit = Callable[..., Ended]


@pytest.fixture
def fit(capsys: pytest.CaptureFixture[str]) -> Fit:
    """The verb with these words."""

    def run(*words: object) -> Ended:
        code = main(["fit", *map(str, words)])
        printed = capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    return run


def engine(folder: Path, devices: str) -> str:
    """A PATH with a llama-server that has these devices."""
    program(folder / "bin" / "llama-server", prints=devices)
    return os.pathsep.join((f"{folder}/bin", "/usr/bin", "/bin"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of 4.6 GiB, of which nothing is on the disk but the header."""
    keys = {**QWEN, "tokenizer.chat_template": "{{ messages }}"}
    outside = {"token_embd.weight": 333 * MIB, "output.weight": 500 * MIB}
    return write(tmp_path / "Qwen3-8B-Q4_K_M.gguf", keys, {**outside, **layers(36, ffn_up=110 * MIB)})


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 64 GiB and a card of 24."""
    monkeypatch.setenv("PATH", engine(tmp_path, CUDA))
    monkeypatch.setattr(machine, "memory_of_machine", lambda: 64 * GIB)


@pytest.mark.usefixtures("card")
def test_the_table_says_what_goes_where(fit: Fit, model: Path) -> None:
    """And ends with llama-server's flags for it."""
    ended = fit(model)
    assert ended.code == 0
    lines = [line.split() for line in ended.out.splitlines()]
    assert ended.out.startswith(
        "Qwen3-8B-Q4_K_M.gguf: qwen3, Q4_K_M, 36 layers, trained for 40,960 tokens\n"
        "                         NVIDIA GeForce RTX 3090     memory\n"
    )
    assert lines[2] == ["weights", "4.4", "GiB", "333.0", "MiB"]
    assert lines[3] == ["KV", "cache,", "40,960", "tokens", "5.6", "GiB", "0", "B"]
    assert lines[-2] == ["of", "23.6", "GiB", "64.0", "GiB"]
    assert ended.out.splitlines()[-1] == "It fits: -c 40960 -np 1 -ngl 999"


@pytest.mark.usefixtures("card")
def test_what_does_not_fit_is_told_with_what_would(fit: Fit, model: Path) -> None:
    """Exit code 1, for scripts; and a context beyond what it was trained for is remarked."""
    ended = fit(model, "-c", "262144", "-np", "2")
    assert ended.code == 1
    assert ended.out.splitlines()[-1] == "It does not fit. This would: -c 40960 -np 1 -ngl 999"
    assert "trained for 40,960" in ended.err


@pytest.mark.usefixtures("card")
def test_flags_are_llama_servers(fit: Fit, model: Path) -> None:
    """Long and short; the document has bytes."""
    found = fit(
        model, "--json", "-c", "8192", "-ngl", "18", "--cache-type-k", "q8_0", "-ctv", "q8_0", "-ub", "256"
    ).json()
    assert found["flags"] == [
        "-c",
        "8192",
        "-np",
        "1",
        "-b",
        "256",
        "-ub",
        "256",
        "-ngl",
        "18",
        "-ctk",
        "q8_0",
        "-ctv",
        "q8_0",
    ]
    assert (found["layers_on_cards"], found["fits"], found["architecture"]) == (18, True, "qwen3")
    assert found["cards"]["weights"] == 18 * 110 * MIB
    assert found["cards"]["total"] == sum(found["cards"][part] for part in ("weights", "kv", "compute", "projector"))
    assert found["machine"]["cards"] == [{"name": "NVIDIA GeForce RTX 3090", "bytes": 24124 * MIB}]


@pytest.mark.usefixtures("card")
def test_a_projector_counts(fit: Fit, model: Path, tmp_path: Path) -> None:
    """And has to be one."""
    projector = write(tmp_path / "mmproj.gguf", {"general.architecture": "clip"}, {"v.weight": GIB})
    assert "projector                                1.0 GiB" in fit(model, "--mmproj", projector).out
    assert "is no projector" in fit(model, "--mmproj", model).err
    (empty := tmp_path / "empty.gguf").touch()
    assert f"--mmproj: {empty}: broken GGUF header" in fit(model, "--mmproj", empty).err


def test_without_a_card_the_memory_is_what_counts(
    fit: Fit, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One column, and a hint that there is no card for this engine."""
    monkeypatch.setenv("PATH", engine(tmp_path, "Available devices:\n"))
    monkeypatch.setattr(machine, "memory_of_machine", lambda: 16 * GIB)
    ended = fit(model)
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "It fits: -c 32768 -np 1")
    assert "no graphics card" in ended.err


@pytest.mark.parametrize("words", [["-c", "-1"], ["-ctk", "q9"], ["-np", "0"], ["-c", "9" * 12]])
def test_useless_values_are_wrong_usage(fit: Fit, model: Path, words: list[str]) -> None:
    """Exit code 2."""
    assert fit(model, *words).code == 2


def test_a_slot_without_a_token_fits_nowhere(fit: Fit, model: Path) -> None:
    """The context is that of all slots together."""
    ended = fit(model, "-c", "2", "-np", "3")
    assert (ended.code, ended.err) == (1, "bioproxy: a context of 2 has no token for each of 3 slots\n")


def test_what_is_no_model_gets_a_sentence(fit: Fit, tmp_path: Path) -> None:
    """Exit code 1, and which file it is about."""
    (tmp_path / "x.gguf").write_text("no model")
    for name, sentence in (("x.gguf", "no GGUF file"), ("gone.gguf", "cannot read the model file")):
        ended = fit(tmp_path / name)
        assert ended.code == 1
        assert sentence in ended.err
        assert name in ended.err


# the machine


def test_several_cards_and_shared_ones_are_known_by_the_engines_word() -> None:
    """Apple's cards are part of the memory; the processor is none."""
    two = by_engine(CUDA + "  CUDA1: Tesla P40 (24438 MiB, 24000 MiB free)\n", [], 64 * GIB)
    assert [card.name for card in two.cards] == ["NVIDIA GeForce RTX 3090", "Tesla P40"]
    apple = by_engine("Available devices:\n  MTL0: Apple M2 (21845 MiB, 21845 MiB free)\n  CPU: x (1 MiB)\n", [], GIB)
    assert (apple.shared, [card.name for card in apple.cards]) == (True, ["Apple M2"])


def test_an_old_engine_is_not_asked_in_vain(tmp_path: Path) -> None:
    """One that does not know the question: then the drivers' word counts."""
    path = tmp_path / "llama-server"
    path.write_text("#!/bin/sh\necho 'error: invalid argument' >&2\nexit 1\n")
    path.chmod(0o755)
    assert machine.asked([str(path)]) is None
    assert machine.asked([str(tmp_path / "none")]) is None


def test_a_processors_own_graphics_count_if_there_is_no_card() -> None:
    """Beside a card they are too slow to share a model with it."""
    own = Gpu(vendor="AMD", name="Radeon 780M", memory_total=8 * GIB, shared=True)
    card = Gpu(vendor="AMD", name="RX 7900 XTX", memory_total=24 * GIB)
    assert [one.name for one in by_drivers([own, card], GIB, apple=False).cards] == ["RX 7900 XTX"]
    assert by_drivers([own], GIB, apple=False).shared
    assert by_drivers([], GIB, apple=False).cards == ()


def test_apples_machines_give_models_two_thirds_of_their_memory() -> None:
    """What Metal recommends, if no engine is there to say it."""
    found = by_drivers([], 48 * GIB, apple=True)
    assert (found.shared, found.cards[0].bytes) == (True, 32 * GIB)
