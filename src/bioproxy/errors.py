"""Every error that bioproxy raises on purpose, in one tree.

    BioproxyError                 500 internal_error
    ├── ConfigError               500 config_error            carries every problem of a file, not the first one
    ├── RequestError              400 invalid_request_error   the client sent something that cannot be served
    ├── Unauthorized              401 authentication_error
    ├── Forbidden                 403 permission_error
    │   └── ForeignPage           403 permission_error        a browser asks for a page elsewhere, or by another name
    ├── NotFound                  404 not_found_error
    ├── TemplateError             500 template_error          names template, file, place
    ├── QueueFull                 429 rate_limit_error        retry_after is set
    │   └── ModelBusy             429 concurrency_limit       the model's own concurrencyLimit
    ├── TokensSpent               429 rate_limit_exceeded     the key's tokens_per_day; retry_after is set
    ├── QueueTimeout              503 overloaded_error        retry_after is set
    │   └── Closed                503 overloaded_error        a pause, or the shutdown: refused without a wait
    ├── ModelFailed               500 model_failed            its process did not start, or was unloaded meanwhile
    ├── EngineUnavailable         502 engine_unavailable      nothing answered; says what was tried
    │   ├── EngineDied            502 engine_unavailable      it ended by itself while it had the request
    │   └── OutOfFiles            503 engine_unavailable      no file is left for a connection to it
    ├── EngineRefused             the engine's status         it answered an error
    └── EngineProtocolError       502 engine_protocol_error   it answered something that is no HTTP

A class is a decision about what the client sees (`status`, `code`); the message says what, where and what to do.
A library's exceptions are mapped in the module that calls the library, so that no module above catches `OSError`.
How an error looks in the dialect of a call (OpenAI, Anthropic, llama.cpp) is `front/dialects.py`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import msgspec

Json = Any
LONGEST = 4000  # characters of one part of a problem


class BioproxyError(Exception):
    """The root: a message for people, a status and a code for programs.

    `status` is an HTTP status; `retry_after` is in whole seconds, if the client may try again.
    """

    default_status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    fields: Mapping[str, Any] = MappingProxyType({})  # what else an engine's own error says

    def __init__(self, message: str, *, status: int | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = self.default_status if status is None else status
        self.retry_after = retry_after


class Problem(msgspec.Struct, frozen=True):
    """One thing wrong in a configuration: where it stands and what to do about it."""

    message: str
    where: str = ""  # "conf.yaml:12" or "environment variable BIOPROXY_PROXY_PORT" or "flag -port"
    key: str = ""  # dotted path, "kv.policy"

    def __str__(self) -> str:
        """Read as one line: `conf.yaml:12: kv.policy: must be one of auto, always, off`.

        A message that names the key itself, or what the key is part of, as llama-swap's do, does not get it twice. Long
        parts lose their middle: a file may have a key of megabytes, and a message says at its end what is wrong.
        """
        first = self.message.partition(" ")[0].rstrip(":")
        named = f"{self.message} ".startswith((f"{self.key} ", f"{self.key}:"))
        named = named or self.key.startswith((f"{first}.", f"{first}["))
        parts = (self.where, "" if named else self.key, self.message)
        half = LONGEST // 2
        return ": ".join(p if len(p) <= LONGEST else f"{p[:half]}…{p[-half:]}" for p in parts if p)


class ConfigError(BioproxyError):
    """A configuration that cannot be used; all its problems at once."""

    code = "config_error"

    def __init__(self, problems: list[Problem] | tuple[Problem, ...]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RequestError(BioproxyError):
    """The request cannot be served as it is: 400, or the closer 4xx status that is given."""

    default_status = 400
    code = "invalid_request_error"


class Unauthorized(BioproxyError):
    """No key, or none that is known."""

    default_status = 401
    code = "authentication_error"


class Forbidden(BioproxyError):
    """The key is known and does not suffice, or the page or host that asks is foreign."""

    default_status = 403
    code = "permission_error"


class ForeignPage(Forbidden):
    """A browser asks on behalf of a page that may not, or by a name that is none of ours.

    `page` is the page that the log and `/status` count. `confirmed_by` is the target of a link that a person may
    follow.
    """

    def __init__(self, message: str, *, page: str, confirmed_by: bytes = b"") -> None:
        super().__init__(message)
        self.page = page
        self.confirmed_by = confirmed_by


class NotFound(BioproxyError):
    """No such route, prefix or snapshot."""

    default_status = 404
    code = "not_found_error"


class TemplateError(BioproxyError):
    """A template cannot be filled in; the message names template, file and place."""

    code = "template_error"


class QueueFull(BioproxyError):
    """More requests wait than `queue_limit` allows."""

    default_status = 429
    code = "rate_limit_error"


class ModelBusy(QueueFull):
    """More requests for a model than its `concurrencyLimit` allows."""

    code = "concurrency_limit"


class TokensSpent(BioproxyError):
    """A key has used its `tokens_per_day`."""

    default_status = 429
    code = "rate_limit_exceeded"  # OpenAI's word for tokens per day


class ModelFailed(BioproxyError):
    """A model's process did not start, or was stopped while the request waited for it; the message says which."""

    code = "model_failed"


class QueueTimeout(BioproxyError):
    """A request waited for `queue_timeout` and was not served."""

    default_status = 503
    code = "overloaded_error"


class Closed(QueueTimeout):
    """Nobody is served now: bioproxy is paused, or shuts down."""


class EngineUnavailable(BioproxyError):
    """The engine cannot be reached, or closed the connection before it answered.

    `sent`: the engine may have got some of the request, so it may be the request that it stumbled over.
    """

    default_status = 502
    code = "engine_unavailable"
    sent = False


class EngineDied(EngineUnavailable):
    """The engine's process ended by itself while it had the request, which is never sent to another one."""

    sent = True


class OutOfFiles(EngineUnavailable):
    """No further file may be opened, so it is not known how the engine is."""

    default_status = 503


class EngineRefused(BioproxyError):
    """The engine answered with an error; `status` and `fields` are the engine's."""

    default_status = 502
    code = "engine_refused"

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: int | None = None, fields: Json = None
    ) -> None:
        super().__init__(message, status=status, retry_after=retry_after)
        self.fields = fields or {}


class EngineProtocolError(BioproxyError):
    """The engine's answer is no HTTP, or ends before its own length says so."""

    default_status = 502
    code = "engine_protocol_error"


def in_words(error: BaseException, *, late: str = "there was no answer in time") -> str:
    """An error's own words; of one that has none, `late` for a time-out, else its name."""
    return str(error) or (late if isinstance(error, TimeoutError) else type(error).__name__)


# what msgspec raises for bytes from outside that are not the JSON it was asked for: not valid, no UTF-8, nested deeply
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
