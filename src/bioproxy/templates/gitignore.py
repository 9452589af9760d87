"""Which files a `.gitignore` names, so that a pattern such as `<{src/**/*}>` takes what the project calls its source.

The rules are git's (its gitignore manual page): of several rules that fit, the last one in the deepest file decides;
`!` takes back; a slash at the start or inside binds a rule to the folder of its file; a slash at the end means folders
only; and what lies in an ignored folder cannot be taken back. A project begins at the nearest folder above that holds
`.git`; where there is none, only files at and below the folder in which a pattern starts count.

Asking git itself would need git, a process per look, and a repository; the rules are thirty lines.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import msgspec

NAME = ".gitignore"
LARGEST = 1 << 20  # bytes; a larger one is no list of rules


class Rule(msgspec.Struct, frozen=True):
    """One line: what it fits (relative path), whether for folders only, and whether it takes back."""

    pattern: re.Pattern[str]
    folders: bool
    back: bool


def rules_of(text: str) -> tuple[Rule, ...]:
    """The rules of a `.gitignore`'s text, in order; lines that can fit nothing are left out."""
    return tuple(rule for line in text.splitlines() if (rule := rule_of(line)) is not None)


def rule_of(line: str) -> Rule | None:
    """One line as a rule; None for comments and blank lines."""
    line = re.sub(r"(?<!\\)[ \t]+$", "", line)
    if not line or line.startswith("#"):
        return None
    back = line.startswith("!")
    body = line[1:] if back else line
    folders = body.endswith("/")
    body = body.rstrip("/") if folders else body
    if not body:
        return None
    bound = "/" in body
    start = "" if bound else "(?:.*/)?"
    try:
        return Rule(re.compile(start + expression(body.lstrip("/")) + r"\Z", re.DOTALL), folders, back)
    except re.error:
        return None  # an unclosed or reversed class fits nothing


def expression(body: str) -> str:
    """A rule's text as a regular expression over a relative path."""
    out, at = "", 0
    while at < len(body):
        taken, piece = token(body, at)
        out += piece
        at += taken
    return out


def token(body: str, at: int) -> tuple[int, str]:
    """(characters taken, expression) of what stands at `at`."""
    if body.startswith("**/", at) and (at == 0 or body[at - 1] == "/"):
        return 3, "(?:.*/)?"
    if body.startswith("/**", at) and at + 3 == len(body):
        return 3, "/.+"
    letter = body[at]
    if letter == "*":
        return len(body) - at - len(body[at:].lstrip("*")), "[^/]*"
    if letter == "?":
        return 1, "[^/]"
    if letter == "\\" and at + 1 < len(body):
        return 2, re.escape(body[at + 1])
    if letter == "[" and (found := re.compile(r"\[[!^]?\]?[^\]]*\]").match(body, at)):
        inner = found.group()[1:-1]
        negated = inner[:1] in {"!", "^"}
        inner = (inner[1:] if negated else inner).replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
        return len(found.group()), f"(?!/)[{'^' if negated else ''}{inner}]"
    return 1, re.escape(letter)


Levels = tuple[
    tuple[int, tuple[Rule, ...]], ...
]  # per folder with rules: length of its path, its rules; outermost first


def ignored(levels: Levels, path: str, *, folder: bool) -> bool:
    """Whether `path` (relative to the project, `/` between names) is named; the folder it lies in is not."""
    for length, rules in reversed(levels):
        name = path[length:]
        for rule in reversed(rules):
            if (folder or not rule.folders) and rule.pattern.match(name):
                return not rule.back
    return False


def descend(levels: Levels, folder: Path, path: str) -> Levels:
    """The levels inside `folder`, whose path in the project is `path` (empty for the project itself)."""
    rules = read_rules(folder / NAME)
    return (*levels, (len(path) + 1 if path else 0, rules)) if rules else levels


def enter(folder: Path) -> tuple[Levels, str] | None:
    """The levels inside an absolute `folder` and its path in the project; None where the folder itself is ignored."""
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
    """The rules in a file; none where it cannot be read, as git has it."""
    try:
        with path.open("rb") as file:
            return parsed(file.read(LARGEST))
    except OSError:
        return ()


@lru_cache(maxsize=256)
def parsed(data: bytes) -> tuple[Rule, ...]:
    """`rules_of`, remembered: the same files are looked at again and again."""
    return rules_of(data.decode(errors="replace"))


def project_of(folder: Path) -> Path | None:
    """The nearest folder at or above `folder` that holds `.git`."""
    return next((place for place in (folder, *folder.parents) if (place / ".git").exists()), None)
