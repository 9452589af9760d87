"""Templates that are watched: matching, changes that settle, faults, reload."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest

from bioproxy.aio import spawn
from bioproxy.errors import ConfigError
from bioproxy.events import TemplateChanged, TemplateFault
from bioproxy.templates.catalogue import Estimate, watch
from support.config_files import settings
from support.faults import hung
from support.templates import Site, site, write

GOOD = {"t.md": "<{a.txt}> <{message}>", "a.txt": "one"}


@pytest.fixture(autouse=True)
def log_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an earlier test set the program's own log up, which keeps its records to itself."""
    monkeypatch.setattr(logging.getLogger("bioproxy"), "propagate", True)


def two(folder: Path) -> Site:
    """`@code` and the longer `@code-review` and `@code deep`."""
    write(folder, {"c.md": "C <{message}>", "r.md": "R <{message}>"})
    made = Site(folder, {"@code": "c.md", "@code-review": "r.md", "@code deep": "r.md"})
    made.catalogue.load()
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@code hello", ("@code", "hello")),
        ("@code\nhello", ("@code", "hello")),
        ("@code\r\nhello", ("@code", "hello")),
        ("@code\thello", ("@code", "hello")),
        ("@code", ("@code", "")),
        ("@code ", ("@code", "")),
        ("@code   two more blanks", ("@code", "  two more blanks")),
        ("@code \n", ("@code", "\n")),
        ("@code-review this", ("@code-review", "this")),
        ("@code-reviews this", None),
        ("@codex", None),
        ("@code,", None),
        (" @code hello", None),
        ("say @code hello", None),
        ("", None),
        ("@CODE hello", None),
        ("@code deep hello", ("@code deep", "hello")),
        ("@code deep", ("@code deep", "")),
        ("@code deep\n\nhello", ("@code deep", "\nhello")),
        ("@code deeper", ("@code", "deeper")),
        ("@code  deep", ("@code", " deep")),
    ],
)
def test_a_prefix_counts_only_before_a_blank_a_newline_or_the_end(
    tmp_path: Path, text: str, expected: tuple[str, str] | None
) -> None:
    """The longest prefix wins, and exactly one blank or newline is taken away."""
    assert two(tmp_path).catalogue.match(text) == expected


def test_a_prefix_is_no_expression(tmp_path: Path) -> None:
    """Its letters mean themselves."""
    write(tmp_path, {"t.md": "<{message}>"})
    made = Site(tmp_path, {"c++.": "t.md"})
    made.catalogue.load()
    assert made.catalogue.match("c++. x") == ("c++.", "x")
    assert made.catalogue.match("ccc! x") is None


def test_without_prefixes_nothing_matches(tmp_path: Path) -> None:
    """An empty configuration is a good one."""
    made = Site(tmp_path, {})
    made.catalogue.load()
    assert made.catalogue.match("@code x") is None
    assert made.catalogue.prefixes == ()


def test_a_broken_start_tells_everything_and_uses_nothing(tmp_path: Path) -> None:
    """Every template is looked at before the start is refused."""
    write(tmp_path, {"a.md": "no message", "b.md": "<{missing}><{message}>", "c.md": "<{message}>"})
    made = Site(tmp_path, {"@a": "a.md", "@b": "b.md", "@c": "c.md", " @d": "c.md"})
    with pytest.raises(ConfigError) as caught:
        made.catalogue.load()
    assert [problem.key for problem in caught.value.problems] == ["prefixes. @d", "prefixes.@a", "prefixes.@b"]
    assert made.catalogue.prefixes == ()


def waits(made: Site) -> float | None:
    return made.catalogue.due


async def test_a_change_counts_when_it_has_settled(tmp_path: Path) -> None:
    """Until then the old text is in use, and `due` says when to look again."""
    made = site(tmp_path, GOOD, settle=5)
    assert waits(made) is None
    made.write({"a.txt": "two"})
    assert await made.catalogue.check() == ()
    assert made.text() == "one MESSAGE"
    assert waits(made) == 5
    made.clock.now += 3
    assert await made.catalogue.check() == ()
    assert waits(made) == 2
    made.clock.now += 2
    assert await made.catalogue.check() == ("@code",)
    assert made.text() == "two MESSAGE"
    assert waits(made) is None


async def test_a_tree_that_is_still_written_is_not_used(tmp_path: Path) -> None:
    """Each further change begins the wait anew."""
    made = site(tmp_path, GOOD, settle=5)
    for text in ("two", "three", "four"):
        made.write({"a.txt": text})
        assert await made.catalogue.check() == ()
        made.clock.now += 4
    made.clock.now += 1
    assert await made.catalogue.check() == ("@code",)
    assert made.text() == "four MESSAGE"


async def test_a_change_that_was_taken_back_is_none(tmp_path: Path) -> None:
    """No event, no new version."""
    made = site(tmp_path, GOOD, settle=5)
    version = made.catalogue.current("@code").version
    made.write({"a.txt": "two"})
    await made.catalogue.check()
    made.write({"a.txt": "one"})
    await made.catalogue.check()
    made.clock.now += 10
    assert await made.catalogue.check() == ()
    assert (made.catalogue.current("@code").version, made.events) == (version, [])


async def test_a_settled_change_is_told_with_its_cost(tmp_path: Path) -> None:
    """In tokens and seconds, where the engine taught how much they are."""
    made = site(tmp_path, {"t.md": "<{a.txt}><{b.txt}><{message}>", "a.txt": "a" * 4000, "b.txt": "b" * 4000})
    made.catalogue.estimate = lambda _prefix: Estimate(tokens_per_byte=0.25, seconds_per_token=0.01)
    made.write({"b.txt": "c" * 4000})
    await made.catalogue.check()
    (event,) = made.events
    assert isinstance(event, TemplateChanged)
    assert event.cost == "b.txt changed at 50 % of the template: 1,000 of 2,000 tokens again, about 10 s"
    assert event.version == made.catalogue.current("@code").version
    assert made.catalogue.statistics()[0].cost == event.cost


async def test_the_old_version_comes_back_with_the_old_text(tmp_path: Path) -> None:
    """Switching a branch back finds the old snapshot again."""
    made = site(tmp_path, GOOD)
    version = made.catalogue.current("@code").version
    made.write({"a.txt": "two"})
    await made.catalogue.check()
    made.write({"a.txt": "one"})
    await made.catalogue.check()
    assert made.catalogue.current("@code").version == version


async def test_a_new_file_for_a_pattern_is_a_change(tmp_path: Path) -> None:
    """So is one that is gone."""
    made = site(tmp_path, {"t.md": "<{src/*.py}><{message}>", "src/a.py": "1"})
    made.write({"src/b.py": "2"})
    assert await made.catalogue.check() == ("@code",)
    (tmp_path / "src" / "a.py").unlink()
    assert await made.catalogue.check() == ("@code",)
    assert made.text() == "==> src/b.py <==\n2\nMESSAGE"


async def test_a_fault_keeps_the_last_good_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is told once, shows in the statistics, and ends by itself."""
    made = site(tmp_path, GOOD)
    (tmp_path / "a.txt").unlink()
    for _ in range(2):
        assert await made.catalogue.check() == ()
    assert made.text() == "one MESSAGE"
    (fault,) = made.events
    assert isinstance(fault, TemplateFault)
    assert "there is no file a.txt" in fault.reason
    assert [record.getMessage() for record in caplog.records] == [
        f"the template of @code is broken, its last good text stays in use: {fault.reason}"
    ]
    assert made.catalogue.statistics()[0].state == "fault"
    made.write({"a.txt": "one"})
    await made.catalogue.check()
    assert made.events[1:] == [TemplateFault(prefix="@code", reason="")]
    found = made.catalogue.statistics()[0]
    assert (found.state, found.last_error) == ("ok", fault.reason)


@pytest.mark.parametrize("broken", ["no place for it", "<{gone}><{message}>", b"\xff<{message}>"])
async def test_a_template_that_breaks_while_running_changes_nothing(tmp_path: Path, broken: str | bytes) -> None:
    """Whatever is wrong with it."""
    made = site(tmp_path, GOOD)
    made.write({"t.md": broken})
    assert await made.catalogue.check() == ()
    assert made.text() == "one MESSAGE"
    assert made.catalogue.statistics()[0].state == "fault"


async def test_statistics_say_what_a_template_is(tmp_path: Path) -> None:
    """Sizes in bytes, and where each file stands."""
    made = site(tmp_path, {"t.md": "ä<{a.txt}>.<{message}>!", "a.txt": "one"})
    (found,) = made.catalogue.statistics()
    assert (found.prefix, found.path, found.bytes, found.static) == ("@code", str(tmp_path / "t.md"), 7, 6)
    assert [source.name for source in found.includes] == ["t.md", "a.txt", "t.md", "t.md"]
    assert not found.pending
    assert found.changed_at > 0


async def test_a_reload_adds_and_removes_prefixes(tmp_path: Path) -> None:
    """A template that stays keeps its text, its version and its object."""
    made = two(tmp_path)
    kept = made.catalogue.current("@code")
    made.write({"new.md": "N <{message}>"})
    paths = {"@code": str(tmp_path / "c.md"), "@new": str(tmp_path / "new.md")}
    assert await made.catalogue.replace(paths) == ("@new",)
    assert made.catalogue.prefixes == ("@code", "@new")
    assert made.catalogue.current("@code") is kept
    assert made.catalogue.match("@new x") == ("@new", "x")
    assert made.catalogue.match("@code-review x") is None


async def test_a_broken_reload_changes_nothing(tmp_path: Path) -> None:
    """The error names what is wrong."""
    made = two(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        await made.catalogue.replace({"@code": str(tmp_path / "gone.md")})
    assert made.catalogue.prefixes == ("@code", "@code-review", "@code deep")
    assert made.catalogue.match("@code x") == ("@code", "x")


async def test_a_prefix_with_another_file_is_read_anew(tmp_path: Path) -> None:
    """It counts as changed."""
    made = two(tmp_path)
    paths = {"@code": str(tmp_path / "r.md"), "@code-review": str(tmp_path / "r.md")}
    assert await made.catalogue.replace(paths) == ("@code",)
    assert made.text("@code") == "R MESSAGE"


async def test_looks_do_not_overtake_each_other(tmp_path: Path) -> None:
    """Many at once tell a change once."""
    made = site(tmp_path, GOOD)
    made.write({"a.txt": "two"})
    found = await asyncio.gather(*(made.catalogue.check() for _ in range(5)))
    assert found == [("@code",), (), (), (), ()]


async def test_a_look_that_was_given_up_leaves_the_catalogue_whole(tmp_path: Path) -> None:
    """The next one finds what the first would have found."""
    made = site(tmp_path, GOOD)
    made.write({"a.txt": "two"})
    look = spawn(made.catalogue.check(), name="look")
    await asyncio.sleep(0)
    look.cancel()
    with pytest.raises(asyncio.CancelledError):
        await look
    assert made.text() == "one MESSAGE"
    assert await made.catalogue.check() == ("@code",)


async def test_files_are_looked_at_again_and_again(tmp_path: Path) -> None:
    """At once, when asked, at the interval, and when a change may have settled; who works with the texts is told."""
    made = site(tmp_path, GOOD)
    awake, told = asyncio.Event(), asyncio.Event()
    made.catalogue.watchers.add(told.set)

    async def changes(text: str) -> None:
        async with asyncio.timeout(30):
            await told.wait()
        told.clear()
        assert made.text() == f"{text} MESSAGE"

    config = settings(warmup_check_interval=1000.0)
    watching = spawn(watch(lambda: (made.catalogue,), settings=config, awake=awake), name="watch")
    try:
        made.write({"a.txt": "two"})
        await changes("two")
        made.write({"a.txt": "three"})
        awake.set()
        await changes("three")
        made.catalogue.settings, made.catalogue.clock = settings(warmup__settle=0.01), time.monotonic
        made.write({"a.txt": "four"})
        awake.set()
        await changes("four")
        config.take(settings(warmup_check_interval=0.01).config)
        awake.set()
        made.catalogue.settings = settings(warmup__settle=0.0)
        for text in ("five", "six"):
            made.write({"a.txt": text})
            await changes(text)
    finally:
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching


async def test_a_request_that_waited_has_the_files_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not if that was done since it came, within a second; and not if it would have to wait long for that."""
    monkeypatch.setattr("bioproxy.templates.catalogue.QUICK", 10.0)  # a busy machine may take its time for a look
    made = site(tmp_path, GOOD)
    await made.catalogue.check()
    made.write({"a.txt": "two"})
    made.clock.now += 0.5
    await made.catalogue.freshen(waited=0.6)
    assert made.text() == "one MESSAGE"
    await made.catalogue.freshen(waited=0.4)
    assert made.text() == "two MESSAGE"
    made.write({"a.txt": "three"})
    made.clock.now += 2.0
    made.catalogue.took = 10.1
    await made.catalogue.freshen(waited=60.0)
    assert made.text() == "two MESSAGE"
    made.catalogue.took = 0.0
    await made.catalogue.freshen(waited=60.0)
    assert made.text() == "three MESSAGE"


async def test_a_request_waits_a_moment_for_files_that_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is filled in with the last good text."""
    made = site(tmp_path, GOOD)
    with hung(tmp_path / "a.txt", monkeypatch, long=False):
        await made.catalogue.freshen(waited=60.0)
        assert made.text() == "one MESSAGE"
