"""Fingerprints: what an engine is, read from files, arguments and what it tells."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from bioproxy.config.schema import Kv
from bioproxy.engines.facts import Capabilities, EngineFacts
from bioproxy.kv.attaching import DRAFT, examine
from bioproxy.kv.fingerprint import CLOCK_SLACK, Identities, Watch, fingerprint
from support.faults import changed
from support.real_engine import header

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
    same.append(facts(path, environment=("LLAMA_CACHE=/c", "LLAMA_API_KEY=k")))
    assert {value(engine) for engine in same} == {plain}
    others = [
        facts(path, "-ctk", "q8_0"),
        facts(path, "--lora", str(lora)),
        facts(path, chat_template="llama3"),
        facts(path, media=True),
        facts(path, environment=("LLAMA_ARG_CACHE_TYPE_K=q8_0",)),
        facts(path, environment=("LLAMA_ATTN_ROT_DISABLE=1",)),
    ]
    values = [value(engine) for engine in others]
    assert plain not in values
    assert values[0] == values[4]
    assert len(set(values)) == 5


def test_the_context_counts_where_it_turns_positions(tmp_path: Path) -> None:
    """Phi 3 and the like: llama-server takes a file of `-c 4096` with `-c 16384`, and answers something else."""
    path = tmp_path / "a.gguf"
    path.write_bytes(header(b"rope_factors_long.weight", general__architecture="phi3"))
    engines = [
        facts(path, context=4096),
        facts(path, context=16384),
        facts(path, "-c", "262144", context=16384),  # what is told is capped
    ]
    assert len({value(engine) for engine in engines}) == 3
    assert value(facts(path, "--port", "1", context=4096)) == value(engines[0])


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


def test_a_header_that_cannot_be_read_leaves_the_window_open(tmp_path: Path) -> None:
    """Not known is not "no"."""
    assert Identities().traits(str(model(tmp_path / "a.gguf"))).window is None
    assert Identities().traits(str(tmp_path / "missing.gguf")).window is None


NAMED = [
    ("--lora", "{}"),
    ("--lora-scaled", "{}:0.5"),
    ("--lora_scaled", "{}:0.5"),
    ("--lora-scaled", "{}", "0.5"),
    ("--control-vector", "{}"),
    ("--control-vector-scaled", "{}:2"),
    ("-mm", "{}"),
    ("--chat-template-file", "{}"),
    ("--adapter-of-tomorrow", "{}"),
]


def told(flags: tuple[str, ...], name: str) -> list[str]:
    """The flags with the file's name filled in."""
    return [flag.format(name) for flag in flags]


@pytest.mark.parametrize("flags", NAMED)
def test_a_file_is_looked_for_where_the_engine_looks_for_it(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """A relative path starts at the engine's working folder, and another content there is another fingerprint."""
    path, added = model(tmp_path / "a.gguf"), model(tmp_path / "added.gguf", b"one")
    engine = facts(path, *told(flags, "added.gguf"), folder=str(tmp_path))
    before = value(engine)
    model(added, b"two")
    assert value(engine) != before


@pytest.mark.parametrize("flags", NAMED)
def test_a_file_that_cannot_be_seen_means_no_snapshots(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Nobody would notice another file of that name; the reason names it, and what would mend that."""
    path = model(tmp_path / "a.gguf")
    for engine in (
        facts(path, *told(flags, "lora.gguf"), folder=str(tmp_path)),
        facts(path, *told(flags, "lora.gguf")),  # where it starts is not known
        facts(path, *told(flags, "/elsewhere/lora.gguf")),
    ):
        found, _ = fingerprint(engine, extra="")
        findings = examine(engine, found, Kv())
        assert (found.value, findings.restores, findings.saves) == ("", False, False)
        assert any("lora.gguf" in note and "kv.fingerprint" in note for note in findings.notes)
        vouched, _ = fingerprint(engine, extra="of May")
        assert vouched.value
        assert any("lora.gguf" in text for text in vouched.hidden)
        assert vouched.value != fingerprint(engine, extra="of June")[0].value


def test_a_model_that_cannot_be_seen_means_no_snapshots() -> None:
    """The weights count most of all; what the engine tells of them does only where its command line is hidden."""
    found, _ = fingerprint(facts("/elsewhere/a.gguf"), extra="")
    assert found.value == ""
    assert "--model /elsewhere/a.gguf cannot be read here" in found.reason
    assert value(facts("/elsewhere/a.gguf", command=()))


def test_each_adapter_of_a_list_counts(tmp_path: Path) -> None:
    """A later llama-server takes several files between commas."""
    path, one, two = model(tmp_path / "a.gguf"), model(tmp_path / "1.gguf"), model(tmp_path / "2.gguf")
    engine = facts(path, "--lora", f"{one},{two}")
    before = value(engine)
    model(two, b"other")
    assert value(engine) != before


def test_adapters_that_the_engine_tells_of_count_like_arguments(tmp_path: Path) -> None:
    """From a preset, or baked into an image: seen by content, else no snapshots."""
    path, lora = model(tmp_path / "a.gguf"), model(tmp_path / "lora.gguf", b"one")
    engine = facts(path, adapters=((0, 1.0),), adapter_files=(str(lora),))
    before = value(engine)
    model(lora, b"two")
    assert value(engine) != before
    lora.unlink()
    assert "lora.gguf" in fingerprint(engine, extra="")[0].reason


@pytest.mark.parametrize("files", [("lora.gguf",), (), None])
def test_adapters_of_an_engine_that_hides_its_command_line_must_be_vouched_for(files: tuple[str, ...] | None) -> None:
    """A file of that name here may be another one; also if the engine does not tell whether it has any."""
    far = facts("/remote/a.gguf", command=(), started=None, adapters=((0, 1.0),) if files is not None else ())
    far = msgspec.structs.replace(far, adapter_files=files)
    found, _ = fingerprint(far, extra="")
    assert found.value == ""
    assert "kv.fingerprint" in found.reason
    assert value(far, "style of May")


def test_a_projector_that_the_engine_fetched_lies_beside_its_model(tmp_path: Path) -> None:
    """`-hf` names no file; another projector is another fingerprint, and none to be seen means no snapshots."""
    path = model(tmp_path / "a.gguf")
    engine = facts(path, command=("llama-server", "-hf", "owner/model"), media=True)
    assert "projector" in fingerprint(engine, extra="")[0].reason
    named_in_an_environment_that_is_hidden = facts(path, hidden=True, media=True)
    assert "projector" in fingerprint(named_in_an_environment_that_is_hidden, extra="")[0].reason
    projector = model(tmp_path / "mmproj-a.gguf", b"one")
    before = value(engine)
    model(projector, b"two")
    assert value(engine) != before


def test_what_launched_a_hidden_engine_tells_it_from_another() -> None:
    """Two models behind forwarders may tell the same about themselves."""
    hidden = facts("/models/x.gguf", command=(), started=None)
    words = [("ssh", "one", "llama-server"), ("ssh", "two", "llama-server")]
    assert len({value(msgspec.structs.replace(hidden, launched=one)) for one in words}) == 2
    assert value(hidden) != value(msgspec.structs.replace(hidden, described=(("n_params", 7),)))


def test_a_link_that_was_turned_after_the_start_gives_no_fingerprint(tmp_path: Path) -> None:
    """The file that it leads to now is old, and yet not what the engine has read."""
    link = tmp_path / "current.gguf"
    link.symlink_to(model(tmp_path / "a.gguf"))
    found, _ = fingerprint(facts(link, started=time.time() - 3600), extra="")
    assert "restart the engine" in found.reason


@pytest.mark.parametrize("turn", ["link", "rename"])
def test_a_folder_that_was_exchanged_after_the_start_gives_no_fingerprint(tmp_path: Path, turn: str) -> None:
    """`models/current` leads to another folder now, or is another one: all that is in there is old."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        model(tmp_path / name / "a.gguf", name.encode())
    current = tmp_path / "current"
    current.symlink_to("old") if turn == "link" else (tmp_path / "old").rename(current)
    born = max(os.lstat(path).st_ctime for path in (current, tmp_path / "new", tmp_path / "new" / "a.gguf"))
    plain = facts(current / "a.gguf", started=born - CLOCK_SLACK)
    contained = facts("/models/a.gguf", started=born - CLOCK_SLACK, volumes=((str(current), "/models"),))
    assert value(plain) == value(contained)
    while model(tmp_path / "clock").stat().st_ctime <= born:  # the system's clock for files is coarse
        pass
    if turn == "link":
        current.unlink()
        current.symlink_to("new")
    else:
        current.rename(tmp_path / "old")
        (tmp_path / "new").rename(current)
    for engine in (plain, contained):
        assert "restart the engine" in fingerprint(engine, extra="")[0].reason


def test_the_watch_sees_what_keeps_size_and_time(tmp_path: Path) -> None:
    """Written in place with its time set back: the time of the change cannot be."""
    path = model(tmp_path / "a.gguf")
    os.utime(path, (1, 1))
    watch = Watch()
    watch.add(str(path), started=None)
    with path.open("r+b") as file:
        file.write(b"GGUF" + b"WEIGHTS")
    before = changed(path)
    while changed(path) == before:  # the system's clock for files is coarse
        os.utime(path, (1, 1))
    assert "was overwritten" in watch.changed()


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
        (facts(__file__, "--swa-full"), Kv(), "only templates are restored"),
        (facts(__file__, "-np", "-1", slots=4), Kv(), "idle slots are cleared"),
        (facts(__file__), Kv(isolate="strict"), "--cache-ram 0"),
        (facts(__file__, slots=2), Kv(isolate="strict"), "groups wait for each other"),
        (facts(__file__, slots=2), Kv(policy="always"), "treated as auto"),
        (facts(__file__, command=()), Kv(), "not visible"),
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
