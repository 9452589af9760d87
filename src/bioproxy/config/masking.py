"""Keys, tokens and passwords, replaced before they are shown: the one place that knows what a secret looks like.

Everything that is shown goes through here: `bioproxy config`, `/status`, `/running`, lists of models, errors, lines of
the log, files that name commands, and the last words of a process. What is secret is told by the *name* that stands
before it, because nothing else is known about a value: a flag (`--api-key x`, `-hft x`), a variable (`HF_TOKEN=x`), a
field of JSON (`"api_key": "x"`), a header (`Authorization: Bearer x`); and the password of a URL has a place of its
own. A name that ends in `file` or `path` names a file only. Too much is better than too little: no reader misses the
value of `TOKENIZERS_PARALLELISM`.

A command is masked as the text that it is, not as words, so that everything else is shown as it stands in the file,
quotes and line ends included; `masked_words` does the same for arguments that were split already. Each text is read
once, whatever stands in it: names and values are matched without going back (possessively), and a name inside a
value is not considered again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

MASK = "********"
SHORTEST = 6  # characters; what is shorter would hide words
WORDS = frozenset({"auth", "creds", "credential", "pass"})  # secret as a part of a name, but not as the end of a word
ENDS = ("key", "token", "secret", "password", "passwd", "passphrase", "credentials", "authorization", "cookie")
FILES = frozenset({"file", "files", "path", "directory", "dir", "name"})
FLAGS = frozenset({"-hft"})
HEADERS = frozenset({"authorization", "cookie", "password", "apikey"})  # one word that says enough before a colon

GAP = r"(?:\s|\\\r?\n)++"  # between two words of a command, which may stand on two lines
QUOTED = r"""(?:"(?:\\.|[^"\\])*+(?:"|\Z)|'[^']*+(?:'|\Z))"""
PLAIN = r"""(?:\\.|[^\s"'\\])++"""
# A quote in the middle of a value begins a piece of it, unless it ends the text around it: `sh -c "… --api-key k"`.
VALUE = re.compile(rf"""(?:{QUOTED}|{PLAIN})(?:{PLAIN}|(?=["'][^\s"')\]}}}},;]){QUOTED})*+""", re.DOTALL)
FIELD = re.compile(
    rf"""\\"(?:(?!\\").)*+(?:\\"|\Z)|{QUOTED}|\[[^\]]*+(?:\]|\Z)|[^\s"'\[][^"'\r\n]*+""", re.DOTALL
)  # of JSON, or of a header
NAMED = re.compile(
    rf"""(?<![\w-])(?:
        (?P<flag>--?[A-Za-z][\w-]*+)(?:=|{GAP}|(?P<comma>["']\s*+,\s*+(?=["'])))
      | (?P<name>[A-Za-z_][\w-]*+)(?:=|(?P<colon>\\?["']?\s*+:\s*+))
      | (?P<bearer>bearer)\s++
    )""",
    re.IGNORECASE | re.VERBOSE,
)
QUOTES = re.compile(r"""[\\"']+""")
SCHEME = re.compile(r"(?:bearer|basic)\s+", re.IGNORECASE)
BEARER = re.compile(r"(?<![\w-])bearer\s++", re.IGNORECASE)
AUTHORITY = re.compile(r"""(?<![\w+.-])([A-Za-z][A-Za-z0-9+.-]*+)://([^\s/?#"'<>]*+)""")
VARIABLE = re.compile(r"[A-Za-z_][\w-]*+")


@lru_cache(maxsize=2048)
def is_secret(name: str) -> bool:
    """Whether a flag, variable, field or header of this name holds credentials."""
    bare = name.lstrip("-")
    lower = bare.lower()
    parts = lower.replace("-", "_").split("_")
    if parts[-1] in FILES:
        return False
    shouted = bare.isupper() and any(end in lower for end in ENDS)
    return name in FLAGS or lower.endswith(ENDS) or any(part in ENDS or part in WORDS for part in parts) or shouted


def masked_command(text: str) -> str:
    """A command line, or any other text, without its secrets."""
    shown, done = [], 0
    for start, end in spans(text):
        shown += [text[done:start], MASK]
        done = end
    return "".join([*shown, text[done:]])


def masked_words(words: Sequence[str]) -> list[str]:
    """Arguments without the secrets among them; one that is a script (`sh -c "…"`) is masked as a command."""
    shown, hide = [], False
    for word in words:
        name, equals, value = word.partition("=")
        flag = name.startswith("-") and is_secret(name)
        if hide:
            shown.append(MASK)
        elif value and (flag or (VARIABLE.fullmatch(name) and is_secret(name))):
            shown.append(f"{name}={MASK}")
        else:
            shown.append(masked_command(word))
        hide = flag and not equals and not hide
    return shown


def masked_environment(variables: Iterable[str]) -> list[str]:
    """`NAME=value` texts without what is secret in them."""
    found = []
    for variable in variables:
        name, equals, value = variable.partition("=")
        secret = value and is_secret(name.upper())
        found.append(f"{name}={MASK}" if secret else name + equals + masked_command(value))
    return found


def masked_value(value: Any, name: str = "") -> Any:
    """A value as JSON has it, without the texts in it whose names are those of secrets."""
    if isinstance(value, dict):
        return {key: masked_value(inner, key) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked_value(inner, name) for inner in value]
    return MASK if isinstance(value, str) and value and is_secret(name) else value


def masked_url_password(text: str) -> str:
    """A text without the passwords of URLs in it."""
    for start, end in reversed(list(in_urls(text))):
        text = text[:start] + MASK + text[end:]
    return text


def masked_text(text: str, secrets: Iterable[str]) -> str:
    """What a program said, without `secrets`, wherever they stand, and without what looks like one."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return masked_command(text)


class MaskedOutput:
    """What a program writes, in the pieces in which it comes, without `secrets`."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self.secrets = [secret.encode("utf-8", "surrogateescape") for secret in secrets]
        self.held = b""  # what may be the beginning of a secret, until the next piece tells

    def feed(self, data: bytes) -> bytes:
        """The next piece, as far as it may be shown by now."""
        data = self.held + data
        for secret in self.secrets:
            data = data.replace(secret, MASK.encode())
        begun = 0
        if self.secrets and not data.endswith(b"\n"):
            lengths = (
                length for secret in self.secrets for length in range(1, len(secret)) if data.endswith(secret[:length])
            )
            begun = max(lengths, default=0)
        self.held = data[len(data) - begun :]
        return data[: len(data) - begun]

    def rest(self) -> bytes:
        """The program has ended: what was held back."""
        held, self.held = self.held, b""
        return held


def secrets_in(words: Sequence[str], variables: Iterable[str]) -> list[str]:
    """The values that would be masked in a command and its `NAME=value` variables, the longest first."""
    values, before = set(), ""
    for word in words:
        name, _, value = word.partition("=")
        known = is_secret(name) and (name.startswith("-") or VARIABLE.fullmatch(name) is not None)
        values |= {value} if known else pieces(word)
        values |= {word} if before.startswith("-") and "=" not in before and is_secret(before) else set()
        before = word
    for variable in variables:
        name, _, value = variable.partition("=")
        values |= {value} if is_secret(name.upper()) else pieces(value)
    return sorted((value for value in values if len(value) >= SHORTEST), key=len, reverse=True)


def pieces(text: str) -> set[str]:
    """The secrets in a text as its program reads them: without the quotes and what else stands around them."""
    found = (
        SCHEME.sub("", piece.strip(" []{},;")) for start, end in spans(text) for piece in QUOTES.split(text[start:end])
    )
    return set(found)


def spans(text: str) -> Iterator[tuple[int, int]]:
    """Where secrets stand in a text, in order, none within another."""
    done = 0
    for start, end in sorted([*named(text), *in_urls(text)]):
        if end > done:
            yield max(start, done), end
            done = end


def named(text: str) -> Iterator[tuple[int, int]]:
    """Where the values of secret names stand."""
    done = 0
    for match in NAMED.finditer(text):
        if match.start() < done:
            continue
        value = value_of(match, text)
        if value is not None and value.end() > value.start():
            yield value.span()
            done = value.end()


def value_of(match: re.Match[str], text: str) -> re.Match[str] | None:
    """The value that a name stands before, or None if the name is no secret's."""
    name, colon = match["flag"] or match["name"], match["colon"]
    if match["bearer"]:
        return VALUE.match(text, match.end())
    if not is_secret(name):
        return None
    if colon is not None and not (colon.strip(" \t\r\n:") or "-" in name or "_" in name or name.lower() in HEADERS):
        return None  # prose: "duplicate key: x"
    scheme = BEARER.match(text, match.end())
    start = scheme.end() if scheme else match.end()
    return (VALUE if colon is None and match["comma"] is None else FIELD).match(text, start)


def in_urls(text: str) -> Iterator[tuple[int, int]]:
    """Where passwords stand in URLs, and names that stand without one, which are tokens in a URL of the web."""
    for match in AUTHORITY.finditer(text):
        credentials, at, _ = match[2].rpartition("@")
        user, colon, password = credentials.partition(":")
        if at and (password or (not colon and user and match[1].lower() in {"http", "https"})):
            end = match.start(2) + len(credentials)
            yield end - len(password or user), end
