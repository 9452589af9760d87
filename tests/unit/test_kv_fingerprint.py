"""Fingerprints: what an engine is, read from files, arguments and what it tells."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from bioproxy.config.schema import Kv
from bioproxy.engines.facts import Capabilities, EngineFacts
from bioproxy.kv.fingerprint import Watch, fingerprint, seen
from bioproxy.kv.identities import Identities
from bioproxy.kv.notes import DRAFT, examine

STARTED = time.time() + 86400  # after every file of these tests was written, however late they run


def model(path: Path, content: bytes = b"weights") -> Path:
    path.write_bytes(b"GGUF" + content * 1000)
    return path


def facts(path: Path | str, *flags: str, **more: object) -> EngineFacts:
    usual = {
        "url": "http://localhost:8081",
        "build": "b11549",
        "model_path": str(path),
        "started": STARTED,
        "command": ("llama-server", "-m", str(path), *flags),
        "chat_template": "chatml",
        "context": 8192,
        "capabilities": Capabilities(slot_actions=True),
    }
    return EngineFacts(**(usual | more))  # type: ignore[arg-type]


def value(engine: EngineFacts, extra: str = "") -> str:
    found, _ = fingerprint(engine, extra=extra)
    assert found.value, found.reason
    return found.value


def test_a_moved_model_is_the_same_model(tmp_path: Path) -> None:
    """Neither path nor time is part of it: moving a models folder loses nothing."""
    one, two = model(tmp_path / "a.gguf"), model(tmp_path / "b.gguf")
    os.utime(two, (1, 1))
    assert value(facts(one)) == value(facts(two))


def test_other_weights_are_another_model(tmp_path: Path) -> None:
    """Rule 2: same shape, same name, other bytes."""
    one, two = model(tmp_path / "a.gguf"), model(tmp_path / "b.gguf", b"WEIGHTS")
    assert value(facts(one)) != value(facts(two))


def test_every_part_of_a_split_model_counts(tmp_path: Path) -> None:
    """Rule 2: the second part was exchanged."""
    first = model(tmp_path / "m-00001-of-00002.gguf")
    second = model(tmp_path / "m-00002-of-00002.gguf")
    before = value(facts(first))
    model(second, b"WEIGHTS")
    assert value(facts(first)) != before


def test_what_shapes_the_cache_counts_and_what_does_not_does_not(tmp_path: Path) -> None:
    """Cache type, chat template, adapter, media; not port, context or build."""
    path, lora = model(tmp_path / "a.gguf"), model(tmp_path / "lora.gguf", b"adapter")
    plain = value(facts(path))
    same = [facts(path, "--port", "1"), facts(path, context=4096), facts(path, build="b99")]
    assert {value(engine) for engine in same} == {plain}
    others = [
        facts(path, "-ctk", "q8_0"),
        facts(path, "--lora", str(lora)),
        facts(path, chat_template="llama3"),
        facts(path, media=True),
        facts(path, environment=("LLAMA_ARG_CACHE_TYPE_K=q8_0",)),
    ]
    values = [value(engine) for engine in others]
    assert plain not in values
    assert values[0] == values[4]
    assert len(set(values)) == 4


def test_another_adapter_under_the_same_name_is_noticed(tmp_path: Path) -> None:
    """Rule 2: LoRA files are known by content too."""
    path, lora = model(tmp_path / "a.gguf"), model(tmp_path / "lora.gguf", b"one")
    before = value(facts(path, "--lora", str(lora)))
    model(lora, b"two")
    assert value(facts(path, "--lora", str(lora))) != before


def test_an_engine_elsewhere_is_known_by_what_it_tells() -> None:
    """details, KV: path, context, slots, template and the operator's own text; what is not visible is listed."""
    far = facts("/remote/a.gguf", command=(), started=None)
    found, watch = fingerprint(far, extra="")
    assert found.value
    assert watch.files == []
    assert any("launch arguments" in text for text in found.hidden)
    assert any("/remote/a.gguf" in text for text in found.hidden)
    others = [
        value(msgspec.structs.replace(far, model_path="/remote/b.gguf")),
        value(msgspec.structs.replace(far, context=1024)),
        value(far, "--lora mine"),
    ]
    assert len({found.value, *others}) == 4


def test_a_file_younger_than_its_engine_gives_no_fingerprint(tmp_path: Path) -> None:
    """Rule 2: nobody knows which model a process runs whose file was written after it started."""
    path = model(tmp_path / "a.gguf")
    found, _ = fingerprint(facts(path, started=time.time() - 3600), extra="")
    assert found.value == ""
    assert "restart the engine" in found.reason


def test_a_file_put_in_place_with_an_old_date_is_young(tmp_path: Path) -> None:
    """`cp -p` and `mv` bring an old mtime along; the time of the change tells."""
    path = model(tmp_path / "a.gguf")
    os.utime(path, (1, 1))
    found, _ = fingerprint(facts(path, started=time.time() - 3600), extra="")
    assert found.value == ""


def test_the_watch_sees_an_overwritten_model(tmp_path: Path) -> None:
    """Compared before each save: the old one's cache must not get the new one's name."""
    path = model(tmp_path / "a.gguf")
    watch = Watch()
    watch.add(str(path), started=None)
    assert watch.changed() == ""
    model(path, b"WEIGHTS")
    assert "was overwritten" in watch.changed()
    path.unlink()
    assert "is gone" in watch.changed()


def test_a_touched_model_is_read_again_once(tmp_path: Path) -> None:
    """The same bytes under another time are the same model, and are not digested at every save."""
    path = model(tmp_path / "a.gguf")
    reads: list[str] = []

    def identify(name: str) -> str:
        reads.append(name)
        return "same"

    watch = Watch(identify)
    watch.add(str(path), started=None)
    os.utime(path, (5, 5))
    assert watch.changed() == ""
    assert watch.changed() == ""
    assert len(reads) == 2


def test_a_process_is_asked_for_its_own_view_of_a_file(tmp_path: Path) -> None:
    """In a container another file may have the same name."""
    path = str(model(tmp_path / "a.gguf"))
    assert seen(path, os.getpid()) == path
    assert seen(path, None) == path
    assert seen(str(tmp_path / "missing.gguf"), os.getpid()) == ""
    assert seen(str(tmp_path / "missing.gguf"), None) == ""


def test_a_header_that_cannot_be_read_leaves_the_window_open(tmp_path: Path) -> None:
    """Not known is not "no"."""
    assert Identities().traits(str(model(tmp_path / "a.gguf"))).window is None
    assert Identities().traits(str(tmp_path / "missing.gguf")).window is None


@pytest.mark.parametrize(
    ("engine", "config", "sentence"),
    [
        (facts("/m", capabilities=Capabilities()), Kv(), "start it with --slot-save-path"),
        (facts("/m", capabilities=Capabilities(locked=True)), Kv(), "set backend_key"),
        (facts("/m", "-md", "/d.gguf"), Kv(), DRAFT),
    ],
)
def test_what_cannot_be_is_denied_with_what_would_mend_it(engine: EngineFacts, config: Kv, sentence: str) -> None:
    """Rules 7 and 24: no slot actions, a draft model."""
    findings = examine(engine, fingerprint(engine, extra="")[0], config)
    assert (findings.restores, findings.saves) == (False, False)
    assert any(sentence in note for note in findings.notes)


@pytest.mark.parametrize(
    ("engine", "config", "sentence"),
    [
        (facts("/m", "--swa-full"), Kv(), "only templates are restored"),
        (facts("/m", "-np", "-1", slots=4), Kv(), "idle slots are cleared"),
        (facts("/m"), Kv(isolate="strict"), "--cache-ram 0"),
        (facts("/m", slots=2), Kv(policy="always"), "treated as auto"),
        (facts("/m"), Kv(), "not visible"),
    ],
)
def test_what_limits_an_engine_is_said(engine: EngineFacts, config: Kv, sentence: str) -> None:
    """Rule 24: each limit is a sentence for /status, and forbids nothing else."""
    findings = examine(engine, fingerprint(engine, extra="")[0], config)
    assert findings.restores
    assert any(sentence in note for note in findings.notes)


def test_policy_off_says_nothing(tmp_path: Path) -> None:
    """Whoever switched it off does not want to hear what is missing."""
    engine = facts(model(tmp_path / "a.gguf"), capabilities=Capabilities())
    findings = examine(engine, fingerprint(engine, extra="")[0], Kv(policy="off"))
    assert (findings.restores, findings.saves, findings.notes) == (False, False, ())
