"""Keys and tokens in commands and variables, replaced before anybody sees them.

A command is masked as the text that it is, not as words, so that what is shown is otherwise what stands in the file,
quotes and line ends included. Masked is the value of a flag whose name ends in a word for a secret (`--api-key`,
`--hf-token`), of a variable whose name has one in it (`HF_TOKEN=…`, wherever it stands), of a bearer's header, and a
password in a URL. `--api-key-file` names a file only. Too much is better than too little: the value of
`TOKENIZERS_PARALLELISM` is nobody's loss.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "********"
WORDS = r"KEY|TOKEN|SECRET|PASSWORD"
VALUE = r"""(?:"[^"]*"|'[^']*'|[^\s"']+)+"""
FLAG = re.compile(rf"(?<!\S)((?:--?(?:[\w-]*[-_])?(?:{WORDS})|-hft)(?:\s+|=)){VALUE}", re.IGNORECASE)
VARIABLE = re.compile(rf"\b([A-Z0-9_]*(?:{WORDS})[A-Z0-9_]*=){VALUE}")
HEADER = re.compile(r"(\b(?:authorization:\s*)?bearer\s+)[^\s\"']+", re.IGNORECASE)
PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/@:]*:)[^\s/@]+(?=@)", re.IGNORECASE)
SHORTEST = 6  # characters; what is shorter would hide words
ENVIRONMENT = re.compile(rf"([A-Z0-9_]*(?:{WORDS})[A-Z0-9_]*=).+", re.IGNORECASE | re.DOTALL)


def masked_command(command: str) -> str:
    """A command line without its secrets."""
    for pattern in (FLAG, VARIABLE, HEADER, PASSWORD):
        command = pattern.sub(rf"\g<1>{MASK}", command)
    return command


def masked_environment(variables: Iterable[str]) -> list[str]:
    """`NAME=value` texts without the values of those whose name tells of a secret."""
    return [masked_url_password(ENVIRONMENT.sub(rf"\g<1>{MASK}", variable)) for variable in variables]


def masked_url_password(text: str) -> str:
    """A text without the passwords of URLs in it."""
    return PASSWORD.sub(rf"\g<1>{MASK}", text)


def secrets_in(command: str, variables: Iterable[str]) -> list[str]:
    """The values that would be masked in a command and its `NAME=value` variables, the longest first."""
    patterns = (FLAG, VARIABLE, HEADER, PASSWORD)
    matches = [match for pattern in patterns for match in pattern.finditer(command)]
    matches += [match for variable in variables if (match := ENVIRONMENT.fullmatch(variable))]
    values = {match.group(0)[len(match.group(1)) :].strip("\"'") for match in matches}
    return sorted((value for value in values if len(value) >= SHORTEST), key=len, reverse=True)


def masked_text(text: str, secrets: Iterable[str]) -> str:
    """What a program said, without `secrets`, wherever they stand, and without what looks like one."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return masked_command(text)
