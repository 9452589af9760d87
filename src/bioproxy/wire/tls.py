"""What a listener needs to speak TLS: a context made of a certificate and a key, and how a renewed pair is found.

The event loop does the rest; a connection's code sees plain bytes either way. TLS 1.2 is the least, HTTP/1.1 is all
that is offered (ALPN), and whatever else there is to choose is OpenSSL's choice. Its errors seldom say which file they
mean, so the files are looked at one after the other.

Certificates are renewed while we run, so `watch` looks at both files every few seconds. The content counts, not time
and size: a link that is turned to another store path is a renewal, and a touched file is none. Whoever renews a pair
writes two files, one after the other, so for a moment they do not fit together. Then the old pair stays in use, and the
log says something only if the files are still the same at the next look.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import logging
import math
import re
import ssl
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bioproxy import files
from bioproxy.errors import ConfigError, Problem

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

log = logging.getLogger(__name__)

INTERVAL = 5.0  # seconds between two looks at the files
SOON = 7 * 86400.0  # seconds before its end at which a certificate should have been renewed, if it lives for months
LARGEST = 16 << 20  # bytes; a chain of certificates is some thousands
GONE = "was taken away while it was read"  # by whoever renews it
MISMATCH = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}
WEAK = {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"}
FIRST = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)  # of a chain: our own
LONG, VERSION, UTC_TIME = 0x80, 0xA0, 0x17  # of DER (X.690): a length of several bytes, and two tags of X.509


class Greeting(ssl.SSLObject):
    """TLS on one connection, unless the client speaks plain HTTP: then it is `plain`, and bytes pass as they are.

    An event loop would cut such a connection without a word. So it gets its protocol, which refuses it in a sentence
    that the client can read (connection.py).
    """

    came: ssl.MemoryBIO
    sent: ssl.MemoryBIO
    plain = False

    def do_handshake(self) -> None:
        """The next step. SSLWantReadError if it takes more of the client."""
        try:
            super().do_handshake()
        except ssl.SSLError as error:
            if error.reason != "HTTP_REQUEST":
                raise
            self.plain = True

    def getpeercert(self, binary_form: bool = False) -> Any:
        return None if self.plain else super().getpeercert(binary_form)

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - the library's own name
        """What came, at most `len` bytes. SSLWantReadError if nothing did."""
        if not self.plain:
            return super().read(len, buffer)
        if not (data := self.came.read(len)):
            raise ssl.SSLWantReadError
        return data

    def write(self, data: ReadableBuffer) -> int:
        return self.sent.write(data) if self.plain else super().write(data)

    def unwrap(self) -> None:
        """Say that nothing more comes."""
        if not self.plain:
            super().unwrap()


class PairContext(ssl.SSLContext):
    """A server's context, and which two files it was made from; `digest` is that of their content.

    Clients take the certificate from `begins` to `ends` (unix time), as far as that can be read. `fault`: why what is
    in the files now is not used instead, "" if nothing else is there.
    """

    certificate = key = fault = ""
    digest = b""
    begins, ends = 0.0, math.inf

    @property
    def due(self) -> float:
        """When it should be renewed at the latest (unix time); some live for a day."""
        return self.ends - min(SOON, (self.ends - self.begins) / 4)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """What an event loop asks for each connection."""
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        if isinstance(made, Greeting):
            made.came, made.sent = incoming, outgoing
        return made


def tls_context(certificate: str, key: str) -> PairContext:
    """The context for the certificate (its chain after it) and the key in two PEM files.

    ConfigError that names the file that cannot be read, that is no such thing, or that does not belong to the other.
    """
    seen = digest(certificate, key)  # if the files change from here on, the next look finds a change
    for name, path, mark in (("cert", certificate, b"CERTIFICATE-----"), ("key", key, b"PRIVATE KEY-----")):
        try:
            data = files.patiently(files.read, path, most=LARGEST)
        except OSError as error:
            raise not_usable(name, path, f"cannot be read: {error.strerror or error}") from error
        except files.Stuck as error:
            raise ConfigError([Problem(error.message, key=f"tls_{name}_file")]) from error
        if b"-----BEGIN " not in data or mark not in data:
            raise not_usable(name, path, f"holds no {'certificate' if name == 'cert' else 'private key'} in PEM form")
        if name == "cert":
            times = validity(data)
    context = PairContext(ssl.PROTOCOL_TLS_SERVER)
    context.begins, context.ends = times
    context.sslobject_class = Greeting
    context.certificate, context.key, context.digest = certificate, key, seen
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
    except ssl.SSLError as error:
        raise not_usable("cert", certificate, "is damaged: it holds no certificate that can be read") from error
    except OSError as error:
        raise not_usable("cert", certificate, GONE) from error
    try:
        context.load_cert_chain(certificate, key, no_pass_phrase)
    except ssl.SSLError as error:
        if error.reason in MISMATCH:
            raise not_usable("key", key, f"does not belong to the certificate in {certificate}") from error
        if error.reason in WEAK:
            why = (error.reason or "").replace("_", " ").lower()
            raise not_usable(
                "cert", certificate, f"is too weak for clients of today ({why}); make another one"
            ) from error
        raise not_usable("key", key, "is damaged, or has a pass phrase, which cannot be typed in here") from error
    except OSError as error:
        raise not_usable("key", key, GONE) from error
    return context


def validity(pem: bytes) -> tuple[float, float]:
    """Since when and until when the first certificate of a chain is valid; always, if that cannot be read.

    RFC 5280, 4.1: the times stand in the inner sequence after version (if it is there), number, algorithm and issuer.
    """
    try:
        found = FIRST.search(pem)
        der = binascii.a2b_base64(found[1]) if found else b""
        at = inside(der, inside(der, 0)[0])[0]
        for _ in range(4 if der[at] == VERSION else 3):
            at = inside(der, at)[1]
        first = inside(der, at)[0]
        return moment(der, first), moment(der, inside(der, first)[1])
    except (ValueError, IndexError):
        return 0.0, math.inf


def inside(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of a value begins and ends, whose tag stands at `at`."""
    length, start = der[at + 1], at + 2
    if length & LONG:
        start += length - LONG
        length = int.from_bytes(der[at + 2 : start], "big")
    return start, start + length


def moment(der: bytes, at: int) -> float:
    """A time, in unix time. ValueError."""
    start, end = inside(der, at)
    form = "%y%m%d%H%M%SZ" if der[at] == UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(der[start:end].decode("ascii"), form).replace(tzinfo=UTC).timestamp()


def doubt(context: PairContext, now: float) -> str:
    """Why clients do not take the certificate now, or will not soon; "" if nothing is wrong."""
    begins, ends = context.begins, context.ends
    if now < begins:
        what, then, so = "is not valid before", begins, "so clients refuse it; renew it"
    elif now >= ends:
        what, then, so = "has expired on", ends, "so clients refuse it; renew it"
    elif now >= context.due:
        what, then, so = "expires on", ends, "and nobody has renewed it"
    else:
        return ""
    return (
        f"the certificate in {context.certificate} {what} {datetime.fromtimestamp(then, UTC):%Y-%m-%d %H:%M} UTC, {so}"
    )


def digest(*paths: str) -> bytes:
    """A digest of what the paths lead to; a file that cannot be read counts as an empty one."""
    found = hashlib.blake2b(digest_size=16)
    for path in paths:
        try:
            data = files.patiently(files.read, path, most=LARGEST)
        except (OSError, files.Stuck):
            data = b""
        found.update(hashlib.blake2b(data).digest())
    return found.digest()


async def watch(
    current: Callable[[], PairContext | None],
    take: Callable[[PairContext, PairContext], Awaitable[None]],
    *,
    clock: Callable[[], float] = time.time,
) -> None:
    """Give `take` a new context, after the old one, whenever the files hold another pair; ends by cancellation only.

    What cannot be used is told once, when two looks have found the same; what clients doubt, once, too.
    """
    seen = told = b""
    doubted = ""
    while True:
        if (now := current()) is not None and (why := doubt(now, clock())) != doubted:
            doubted = why
            if why:
                log.warning("%s", why)
        await asyncio.sleep(INTERVAL)
        if (old := current()) is None:
            continue
        before, seen = seen, await asyncio.to_thread(digest, old.certificate, old.key)
        if seen == old.digest:
            told, old.fault = b"", ""
        elif seen != told:
            try:
                await take(old, await asyncio.to_thread(tls_context, old.certificate, old.key))
            except ConfigError as error:
                if seen == before:
                    told = seen
                    old.fault = f"{error.message}; the old pair stays in use until the two files hold another one"
                    log.warning("%s", old.fault)


def no_pass_phrase() -> str:
    """The pass phrase of a key that has none; without it OpenSSL would ask on the terminal and wait."""
    return ""


def not_usable(name: str, path: str, why: str) -> ConfigError:
    """The error for one of the two files."""
    return ConfigError([Problem(f"{path} {why}", key=f"tls_{name}_file")])
