"""Regular expressions as Go writes them: RE2's language, matched in linear time.

llama-swap is a Go program, so its users' expressions are RE2's already. What RE2 leaves out (look-ahead, look-behind,
back-references) is what makes a search take time that grows with more than the length of the text; an expression that
asks for it is refused when the file is loaded. Python's own `re` takes it, and searches with it for minutes in a path
that a client chose.

Linear in the text: RE2 may take as many steps for each letter as the expression has when its repetitions are written
out, and `(a?){1000}` has four thousand. So those are counted, too.
"""

from __future__ import annotations

from collections.abc import Callable

import re2

LONGEST = 10_000  # characters of an expression
MOST_STEPS = 2_000  # of a compiled one; a list of hundred file types has less
NOT_LINEAR = ("invalid perl operator", "invalid escape sequence")  # how RE2 names what it leaves out


def compile_pattern(text: str) -> Callable[[str], object]:
    """What searches a text for the expression, truthy if it is there; ValueError with the reason if it is none."""
    if len(text) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST:,} characters")
    options = re2.Options()
    options.log_errors = False  # on standard error, beside the sentence that we make of it
    options.never_capture = True  # nobody asks for groups, and finding them costs a slower search
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
