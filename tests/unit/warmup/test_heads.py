"""Which heads are warmed, and how they are kept."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from bioproxy import files
from bioproxy.prompt import Head
from bioproxy.warmup import heads as module
from bioproxy.warmup.heads import BARE, Heads, name_of
from bioproxy.warmup.plain import LARGEST
from support.config_files import settings


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def head(text: str) -> Head:
    return Head(messages=b'[{"role":"system","content":"%s"}]' % text.encode())


def make(tmp_path: Path, *, limit: int = 2, max_age: float = 1000.0, clock: Clock | None = None) -> Heads:
    return Heads(
        str(tmp_path / "state" / "heads"),
        settings=settings(warmup__heads=limit),
        max_age=max_age,
        clock=clock or Clock(),
    )


def test_without_heads_the_bare_message_is_warmed(tmp_path: Path) -> None:
    """A template that nobody used yet is rendered alone."""
    assert make(tmp_path).top("@code") == (BARE,)


def test_a_head_counts_once_two_conversations_used_it(tmp_path: Path) -> None:
    """A system message with the time of day in it is used by one conversation, and costs nothing."""
    heads = make(tmp_path)
    heads.note("@code", head("It is 10:41"), b"conversation 1")
    heads.note("@code", head("It is 10:41"), b"conversation 1")
    assert heads.top("@code") == (BARE,)
    heads.note("@code", head("You are kind"), b"conversation 2")
    heads.note("@code", head("You are kind"), b"conversation 3")
    assert heads.top("@code") == (head("You are kind"),)


def test_the_newest_two_are_warmed(tmp_path: Path) -> None:
    """Of the heads that count, those used last come first, as many as the limit says."""
    heads = make(tmp_path)
    for text in ("a", "b", "c"):
        for conversation in (b"1", b"2"):
            heads.note("@code", head(text), conversation)
    assert heads.top("@code") == (head("c"), head("b"))
    heads.note("@code", head("a"), b"3")
    assert heads.top("@code") == (head("a"), head("c"))


def test_clients_without_a_head_count_too(tmp_path: Path) -> None:
    """The bare message can be one of the heads that clients use."""
    heads = make(tmp_path)
    for one in (head("a"), BARE):
        heads.note("@code", one, b"1")
        heads.note("@code", one, b"2")
    assert heads.top("@code") == (BARE, head("a"))


def test_a_limit_of_zero_means_the_bare_message(tmp_path: Path) -> None:
    """`warmup.heads: 0` switches heads off."""
    heads = make(tmp_path, limit=0)
    heads.note("@code", head("a"), b"1")
    heads.note("@code", head("a"), b"2")
    assert heads.top("@code") == (BARE,)


def test_a_change_of_what_is_warmed_is_told(tmp_path: Path) -> None:
    """The warm-up wakes when a head begins to count, and not for every request."""
    heads, calls = make(tmp_path), 0

    def changed() -> None:
        nonlocal calls
        calls += 1

    heads.on_change = changed
    for conversation in (b"1", b"2", b"3", b"4"):
        heads.note("@code", head("a"), conversation)
    assert calls == 1


async def test_heads_survive_a_restart_in_a_private_file(tmp_path: Path) -> None:
    """What was noted is there again; the file and its folder are ours alone."""
    heads = make(tmp_path)
    heads.note("@code", head("a"), b"1")
    heads.note("@code", head("a"), b"2")
    await heads.save()
    again = make(tmp_path)
    await again.load()
    assert again.top("@code") == (head("a"),)
    assert stat.S_IMODE(Path(heads.path).stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(heads.path).parent.stat().st_mode) == 0o700
    assert [file.name for file in Path(heads.path).parent.iterdir()] == ["heads"]


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of each file that was written."""
    sizes, write = list[int](), files.write_whole

    def counted(path: str, data: bytes) -> None:
        sizes.append(len(data))
        write(path, data)

    monkeypatch.setattr(files, "write_whole", counted)
    return sizes


async def test_what_was_only_used_again_is_written_once_an_hour(tmp_path: Path, writes: list[int]) -> None:
    """Megabytes of tools are not written anew at every look of a busy day."""
    clock = Clock()
    heads = make(tmp_path, clock=clock)
    heads.note("@code", head("a"), b"1")
    heads.note("@code", head("a"), b"2")
    await heads.save()
    for number in range(100):
        heads.note("@code", head("a"), b"%d" % number)
        heads.note("@code", head(f"It is {number}"), b"1")
        await heads.save()
        clock.now += 29.0
    assert len(writes) == 1
    clock.now += 600.0
    await heads.save()
    assert len(writes) == 2


async def test_heads_that_begin_to_count_are_written_every_ten_minutes_at_most(
    tmp_path: Path, writes: list[int]
) -> None:
    """However many new ones there are; and at the end, whatever the time."""
    clock = Clock()
    heads = make(tmp_path, clock=clock)

    async def one_more(text: str, *, last: bool = False) -> int:
        for conversation in (b"1", b"2"):
            heads.note("@code", head(text), conversation)
        await heads.save(last=last)
        return len(writes)

    assert [await one_more("a"), await one_more("b")] == [1, 1]
    clock.now += 600.0
    assert [await one_more("c"), await one_more("d"), await one_more("e", last=True)] == [2, 2, 3]


async def test_what_was_noted_before_the_file_was_read_is_the_newest(tmp_path: Path) -> None:
    """Requests may come before the warm-up begins."""
    heads = make(tmp_path)
    for text in ("a", "b"):
        for conversation in (b"1", b"2"):
            heads.note("@code", head(text), conversation)
    await heads.save()
    again = make(tmp_path)
    for conversation in (b"1", b"2"):
        again.note("@code", head("a"), conversation)
    await again.load()
    assert again.top("@code") == (head("a"), head("b"))


async def test_nothing_new_is_not_written(tmp_path: Path) -> None:
    """A look without a change leaves the disk alone."""
    heads = make(tmp_path)
    await heads.save()
    assert not Path(heads.path).exists()


async def test_old_heads_go(tmp_path: Path) -> None:
    """What was not used for `max_age` is forgotten, in memory and on disk."""
    clock = Clock()
    heads = make(tmp_path, clock=clock)
    heads.note("@code", head("a"), b"1")
    await heads.save()
    clock.now += 2000
    again = make(tmp_path, clock=clock)
    await again.load()
    assert again.statistics().known == 0
    await again.save()
    third = make(tmp_path, max_age=1e9)
    await third.load()
    assert third.statistics().known == 0


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x82\xa7version\x63\xa8prefixes\x80"])
async def test_a_file_that_cannot_be_read_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    """Broken, cut or of another version: heads are collected anew."""
    heads = make(tmp_path)
    Path(heads.path).parent.mkdir()
    Path(heads.path).write_bytes(content)
    await heads.load()
    assert heads.statistics().known == 0


async def test_a_disk_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    """A fault of the disk costs nothing but a warning; the next save writes everything."""
    heads = make(tmp_path)
    heads.note("@code", head("a"), b"1")
    blocker = tmp_path / "state"
    blocker.write_text("a file where the folder should be")
    await heads.save()
    blocker.unlink()
    await heads.save()
    assert Path(heads.path).exists()


def test_heads_are_bounded(tmp_path: Path) -> None:
    """A client that sends a new system message each time fills neither memory nor disk; huge heads are not kept."""
    heads = make(tmp_path)
    for number in range(2 * module.KEPT):
        heads.note("@code", head(str(number)), b"1")
    heads.note("@code", head("x" * LARGEST), b"1")
    assert heads.statistics().known == module.KEPT


def test_a_head_is_named_without_telling_its_text() -> None:
    """`/status` shows eight hex digits, or `bare`."""
    assert name_of(BARE) == "bare"
    assert len(name_of(head("secret"))) == 8
    assert name_of(head("secret")) != name_of(head("other"))
