r"""Regular expressions as Go writes them (RE2), for Python.

The two languages share nearly everything that a list of paths needs. What differs in writing is translated: `\z`, the
classes `[[:alpha:]]` and quoting with `\Q…\E`. What Python cannot take is an error with Python's reason.
"""

from __future__ import annotations

import re
import warnings

CLASSES = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "digit": "0-9", "lower": "a-z", "upper": "A-Z", "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f", "space": r"\t\n\v\f\r ", "blank": r"\t ",
    "punct": r"!-/:-@\[-`{-~", "cntrl": r"\x00-\x1f\x7f",
    "ascii": r"\x00-\x7f", "graph": "!-~", "print": " -~",
}  # fmt: skip
TOKEN = re.compile(r"\\Q(.*?)(?:\\E|\Z)|\\z|\[:([a-z]+):\]|\\.", re.DOTALL)


def compile_pattern(text: str) -> re.Pattern[str]:
    """The expression for `search`; raises ValueError with the reason where it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "[[" is a bracket here, whatever Python plans
            return re.compile(TOKEN.sub(_translated, text))
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from error


def _translated(token: re.Match[str]) -> str:
    if token[0].startswith(r"\Q"):
        return re.escape(token[1])
    if token[0] == r"\z":
        return r"\Z"
    return CLASSES.get(token[2], token[0]) if token[2] else token[0]
