"""What a Go program takes and prints: scalars, durations, sorted names, URLs, regular expressions.

llama-swap is a Go program, so its users' files and scripts rely on Go's ways. Its YAML is 1.2: `yes` and `off` are
texts unless a key wants true or false; our tree took them for booleans and kept the word beside (`Node.raw`). Its URL
parser takes nearly everything ("localhost:8080" has the scheme "localhost"), and llama-swap prints its sentences. An
address that it takes and that can never be connected to is refused all the same: llama-swap starts with it, and answers
an error whenever the model is used.

Its regular expressions are RE2's, matched in linear time. What RE2 leaves out (look-ahead, look-behind,
back-references) is what makes a search take time that grows with more than the length of the text; an expression that
asks for it is refused when the file is loaded. Python's own `re` takes it, and may search for minutes in a path that a
client chose. Linear in the text: RE2 may take as many steps for each letter as the expression has when its repetitions
are written out, and `(a?){1000}` has four thousand. So those are counted, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeAlias

from bioproxy.config.addresses import engine_parts, socket_path
from bioproxy.config.masking import masked_url_password
from bioproxy.config.tree import Node
from bioproxy.log import go_duration

Json: TypeAlias = Any
Scalar: TypeAlias = str | int | float | bool

PARTS = re.compile(r"[0-9]+|.", re.DOTALL)
DURATION = re.compile(r"[-+]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+")
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}")
BAD_HOST = re.compile(r'[ "\\^`{|}]')
PORT = re.compile(r"(?::[0-9]*)?")

LONGEST = 10_000  # characters of an expression
MOST_STEPS = 2_000  # of a compiled one; a list of hundred file types has less
NOT_LINEAR = ("invalid perl operator", "invalid escape sequence")  # how RE2 names what it leaves out


def scalar(node: Node) -> Scalar | None:
    """The value of a node that is neither list nor mapping."""
    value = node.value
    assert not isinstance(value, dict | tuple)
    return node.raw if isinstance(value, bool) and node.raw and node.raw.lower() not in {"true", "false"} else value


def builtins(node: Node) -> Json:
    """A whole tree as dicts, lists and scalars."""
    match node.value:
        case dict():
            return {key: builtins(child) for key, child in node.value.items()}
        case tuple():
            return [builtins(child) for child in node.value]
        case _:
            return scalar(node)


def write_scalar(value: Scalar | None) -> str:
    """A scalar inside of a text, as Go prints it: true, 4096, 0.7, 1e+06; nothing is the empty text."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return _write_float(value)
        case _:
            return str(value)


def _write_float(value: float) -> str:
    """The shortest digits; with an exponent if that is less than -4 or more than 5."""
    exact = Decimal(repr(value)).normalize()
    if not exact:
        return "0"
    exponent = exact.adjusted()
    if -4 <= exponent < 6:
        return format(exact, "f")
    sign, digits, _ = exact.as_tuple()
    mantissa = str(digits[0]) + ("." + "".join(map(str, digits[1:])) if len(digits) > 1 else "")
    return f"{'-' if sign else ''}{mantissa}e{exponent:+03d}"


def natural(name: str) -> tuple[tuple[int, int, int], ...]:
    """The sort key of names in YAML that Go wrote: signs before numbers before letters, numbers by their value."""
    return tuple(
        (1, int(part), len(part)) if part.isascii() and part.isdigit() else (2 if part.isalpha() else 0, ord(part), 0)
        for part in PARTS.findall(name)
    )


def read_duration(text: str) -> float:
    """Seconds from "5s" or "1m30s"; ValueError if it is no such duration."""
    if text == "0":
        return 0.0
    if not DURATION.fullmatch(text):
        raise ValueError("expected a duration such as 5s or 1m30s")
    parts = re.findall(r"([0-9.]+)([a-zµμ]+)", text)
    total = sum(float(number) * UNITS[unit] for number, unit in parts)
    return -total if text.startswith("-") else total


def write_duration(seconds: float) -> str:
    """A duration as Go prints it: -5s, 0s, 500ms, 4.9s, 1m30s, 1h0m0s."""
    return ("-" if seconds < 0 else "") + go_duration(abs(seconds))


def url_fault(url: str) -> str:
    """Why a text is no URL, as Go says it; "" if it is one, or has an unknown macro, which was told already."""
    fault = _fault(url) if "${" not in url else ""
    return f"parse {json.dumps(masked_url_password(url), ensure_ascii=False)}: {fault}" if fault else ""


def _fault(url: str) -> str:
    if CONTROL.search(url):
        return "net/url: invalid control character in URL"
    if url.startswith(":"):
        return "missing protocol scheme"
    scheme = SCHEME.match(url)
    rest = url[scheme.end() + 1 :] if scheme else url
    if not scheme and ":" in rest.partition("/")[0]:
        return "first path segment in URL cannot contain colon"
    if scheme and not rest.startswith("/"):
        return ""  # opaque: "localhost:8080"
    authority, _, path = rest[2:].partition("/") if rest.startswith("//") else ("", "", rest)
    escape = ESCAPE.search(path.partition("?")[0])
    return host_fault(re.split("[?#]", authority)[0]) or (f'invalid URL escape "{escape[0]}"' if escape else "")


def host_fault(authority: str) -> str:
    """Why the part between // and / is no host with a port."""
    host = authority.rpartition("@")[2]
    if host.startswith("["):
        _, bracket, port = host.rpartition("]")
        if not bracket:
            return "missing ']' in host"
        return "" if PORT.fullmatch(port) else f'invalid port "{port}" after host'
    colon = host.rfind(":")
    if colon >= 0 and not PORT.fullmatch(host[colon:]):
        return f'invalid port "{host[colon:]}" after host'
    if bad := BAD_HOST.search(host):
        return f"invalid character {json.dumps(bad[0])} in host name"
    escape = re.search("%..?", host)
    return f'invalid URL escape "{escape[0]}"' if escape else ""


def engine_fault(url: str) -> str:
    """Why nothing could ever be connected to at a URL that Go takes for one; "" if something could."""
    try:
        engine_parts("http://x" if "${" in url else url)
    except ValueError as error:
        return str(error)
    return ""


def url_doubt(url: str) -> str:
    """What is probably not meant in a URL; "" if all is well."""
    if "${" in url or socket_path(url):
        return ""
    if "://" not in url:
        return "it has no scheme; http:// is taken"
    return "name and password in it have no effect, as in llama-swap" if "@" in url.split("/")[2] else ""


def compile_pattern(text: str) -> Callable[[str], object]:
    """What searches a text for the expression, truthy if it is there; ValueError with the reason if it is none."""
    import re2  # 2 MB and some milliseconds that a program without such expressions is spared

    if len(text) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST:,} characters")
    options = re2.Options()
    options.log_errors = False  # on standard error, beside the sentence that we make of it
    options.never_capture = True  # groups are not used, and finding them makes a search slower
    try:
        compiled = re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace")
        if reason.startswith(NOT_LINEAR):
            reason += " (this is RE2's language, as in Go: it has no look-ahead, look-behind or back-references)"
        raise ValueError(reason) from error
    if compiled.programsize > MOST_STEPS:
        raise ValueError(f"it takes more than {MOST_STEPS:,} steps, its repetitions written out")
    search: Callable[[str], object] = compiled.search
    return search
