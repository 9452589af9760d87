"""Which files a `.gitignore` names, so that a pattern such as `<{src/**/*}>` takes what the project calls its source.

The rules are git's (its gitignore manual page, and wildmatch.c for what that leaves open): of several rules that fit,
the last one in the deepest file decides; `!` takes back; a slash at the start or inside binds a rule to the folder of
its file; a slash at the end means folders only; and what lies in an ignored folder cannot be taken back. A project
begins at the nearest folder above that holds `.git`; if there is none, only files at and below the folder in which a
pattern starts count. Like git we compare bytes, not letters.

A repository is text from outside, so what it costs to read and to match is bounded. A line becomes an expression of
RE2, which matches in linear time however many stars it has (Python's `re` needs hours for a dozen of them). Lines in a
row that say the same, named or taken back, become one expression: a thousand of them are as quick as one.

Asking git itself would need git, a process per look, and a repository.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import msgspec

from bioproxy import files
from bioproxy.errors import TemplateError

NAME = ".gitignore"
LARGEST = 1 << 20  # bytes; a larger one is no list of rules
MOST_RULES = 1000  # runs of lines that say the same, in one file
LONGEST_RUN = 16 << 10  # bytes of expressions that become one
LONGEST_PATH = 4096  # bytes of a path that a system opens: a line that wants more fits nothing
BOM = b"\xef\xbb\xbf"
SPECIAL = (b"*", b"?", b"[", b"\\")
ANY_FOLDERS = b"(?:.*/)?"
STARS = re.compile(rb"\*+")
MEMBER = re.compile(rb"(?:\\(.)|([^\\]))(?:-(?:\\(.)|([^\\\]])))?", re.DOTALL)  # of a class: a letter, or a range
WORD = string.ascii_letters + string.digits
CLASSES = {  # as git has them, whatever the locale
    name: frozenset(letters.encode())
    for name, letters in {
        b"alnum": WORD, b"alpha": string.ascii_letters, b"blank": " \t", b"digit": string.digits,
        b"cntrl": "".join(map(chr, (*range(32), 127))), b"graph": WORD + string.punctuation,
        b"lower": string.ascii_lowercase, b"print": WORD + string.punctuation + " ", b"punct": string.punctuation,
        b"space": " \t\n\r", b"upper": string.ascii_uppercase, b"xdigit": string.hexdigits,
    }.items()
}  # fmt: skip


class Line(msgspec.Struct, frozen=True):
    """One line: its expression over a relative path, whether for folders only, and whether it takes back."""

    expression: bytes
    folders: bool
    back: bool


class Rule(msgspec.Struct, frozen=True):
    """Lines in a row that say the same: whether they fit a path, are for folders only, and take back."""

    fits: Callable[[bytes], object]
    folders: bool
    back: bool


def rules_of(data: bytes) -> tuple[Rule, ...]:
    """The rules of a `.gitignore`, in order; lines that can fit nothing are left out. TemplateError for too many."""
    found = (line for text in data.removeprefix(BOM).split(b"\n") if (line := line_of(text)) is not None)
    rules: list[Rule] = []
    for (folders, back), lines in groupby(found, key=lambda line: (line.folders, line.back)):
        rules += (Rule(compiled(run), folders, back) for run in runs(line.expression for line in lines))
        if len(rules) > MOST_RULES:
            raise TemplateError(
                f"it changes more than {MOST_RULES} times between files and folders, or between leaving out and taking "
                "back; put the lines of a kind together"
            )
    return tuple(rules)


def runs(expressions: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The expressions in parts that RE2 takes as one."""
    run: list[bytes] = []
    size = 0
    for expression in expressions:
        if run and size + len(expression) > LONGEST_RUN:
            yield run
            run, size = [], 0
        run.append(expression)
        size += len(expression)
    yield run


def compiled(run: list[bytes]) -> Callable[[bytes], object]:
    """What says whether one of a run's expressions fits a path; what is too large for RE2 fits none."""
    import re2  # 2.5 MB that only patterns need

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # bytes
    options.dot_nl = options.never_capture = True
    options.log_errors = False
    try:
        fits: Callable[[bytes], object] = re2.compile(b"|".join(run), options).fullmatch
    except re2.error:
        return lambda _path: None
    return fits


def line_of(text: bytes) -> Line | None:
    """One line; None for a comment, a blank line and what fits nothing."""
    text = without_blanks(text.removesuffix(b"\r")).partition(b"\0")[0]
    if text.startswith(b"#"):
        return None
    back = text.startswith(b"!")
    body = text[1:] if back else text
    folders = body.endswith(b"/")
    body = body[:-1] if folders else body
    bound = b"/" in body
    expression = expression_of(body.removeprefix(b"/"), bound=bound) if body else None
    if expression is None:
        return None
    return Line(expression if bound else ANY_FOLDERS + expression, folders, back)


def without_blanks(text: bytes) -> bytes:
    """A line without the blanks at its end; one with a backslash before it stays."""
    bare = text.rstrip(b" ")
    backslashes = len(bare) - len(bare.rstrip(b"\\"))
    return text[: len(bare) + 1] if backslashes % 2 else bare


def expression_of(body: bytes, *, bound: bool) -> bytes | None:
    """A line's expression, over a whole path if it is `bound`, else over a name; None if it can fit nothing."""
    out: list[bytes] = []
    at = letters = 0
    plain = True
    while at < len(body):
        one = body[at : at + 1]
        if one == b"*":
            taken, piece = stars(body, at, bound=bound, plain=plain)
        elif (found := letter(body, at)) is not None and letters < LONGEST_PATH:
            taken, piece = found
            letters += 1
        else:
            return None
        plain = plain and one not in SPECIAL
        if piece != ANY_FOLDERS or out[-1:] != [ANY_FOLDERS]:  # `**/**/` is `**/`
            out.append(piece)
        at += taken
    return b"".join(out)


def stars(body: bytes, at: int, *, bound: bool, plain: bool) -> tuple[int, bytes]:
    """(bytes taken, expression) of a run of stars.

    Two go over slashes only if they are a whole name. `plain`: nothing special stands before them; git compares such a
    beginning by itself, and then takes what follows for the beginning of a name.
    """
    found = STARS.match(body, at)
    assert found is not None
    end = found.end()
    if bound and end - at > 1 and (plain or body[at - 1 : at] == b"/"):
        if body.startswith(b"/", end):
            return end + 1 - at, ANY_FOLDERS
        if end == len(body) or body.startswith(b"\\/", end):
            return end - at, b".*"
    return end - at, b"[^/]*"


def letter(body: bytes, at: int) -> tuple[int, bytes] | None:
    """(bytes taken, expression) of what stands for one byte of a path; None if it fits none."""
    one = body[at : at + 1]
    if one == b"?":
        return 1, b"[^/]"
    if one == b"[":
        return bracket(body, at)
    if one == b"\\":
        return (2, b"\\x%02x" % body[at + 1]) if at + 1 < len(body) else None
    return 1, b"\\x%02x" % body[at]


def bracket(body: bytes, at: int) -> tuple[int, bytes] | None:
    """(bytes taken, expression) of a class; None if it does not end or fits nothing."""
    negated = body[at + 1 : at + 2] in {b"!", b"^"}
    place = first = at + 1 + negated
    close = 0  # the next `]`, looked for once
    members: set[int] = set()
    while place == first or body[place : place + 1] != b"]":
        if body.startswith(b"[:", place):
            close = close if close >= place + 2 else body.find(b"]", place + 2)
            if close > place + 2 and body.startswith(b":", close - 1):
                if (named := CLASSES.get(body[place + 2 : close - 1])) is None:
                    return None
                members |= named
                place = close + 1
                continue
        found = MEMBER.match(body, place)
        if found is None:  # the line's end
            return None
        low = high = ord(found[1] or found[2])
        if found.lastindex in {3, 4}:
            high = ord(found[found.lastindex])
        members.update(range(low, high + 1))
        place = found.end()
    fits = sorted((set(range(256)) - members if negated else members) - {ord("/")})
    return (place + 1 - at, b"[%b]" % b"".join(b"\\x%02x" % one for one in fits)) if fits else None


# per folder with rules: the length of its path in bytes, its rules; outermost first
Levels = tuple[tuple[int, tuple[Rule, ...]], ...]


def ignored(levels: Levels, path: str, *, folder: bool) -> bool:
    """Whether `path` (relative to the project, `/` between names) is named; the folder it lies in is not."""
    name = os.fsencode(path)
    for length, rules in reversed(levels):
        for rule in reversed(rules):
            if (folder or not rule.folders) and rule.fits(name[length:]):
                return not rule.back
    return False


def descend(levels: Levels, folder: Path, path: str) -> Levels:
    """The levels inside `folder`, whose path in the project is `path` (empty for the project itself)."""
    rules = read_rules(folder / NAME)
    return (*levels, (len(os.fsencode(path)) + 1 if path else 0, rules)) if rules else levels


def enter(folder: Path) -> tuple[Levels, str] | None:
    """The levels inside an absolute `folder` and its path in the project; None if the folder itself is ignored."""
    project = project_of(folder) or folder
    names = folder.relative_to(project).parts
    path, levels = "", descend((), project, "")
    for name in names:
        path = f"{path}/{name}" if path else name
        if ignored(levels, path, folder=True):
            return None
        project /= name
        levels = descend(levels, project, path)
    return levels, path


def read_rules(path: Path) -> tuple[Rule, ...]:
    """The rules in a file; none if it is no regular file or cannot be read. TemplateError for too many."""
    try:
        return parsed(files.read(path, most=LARGEST)[:LARGEST])
    except OSError:
        return ()
    except TemplateError as error:
        raise TemplateError(f"{path}: {error.message}") from error


@lru_cache(maxsize=256)
def parsed(data: bytes) -> tuple[Rule, ...]:
    """`rules_of`, remembered: the same files are looked at again and again."""
    return rules_of(data)


def project_of(folder: Path) -> Path | None:
    """The nearest folder at or above `folder` that holds `.git`."""
    return next((place for place in (folder, *folder.parents) if files.found(place / ".git")), None)
