"""What a listener needs to speak TLS: a context made of a certificate and a key.

The event loop does the rest; a connection's code sees plain bytes either way. TLS 1.2 is the least, HTTP/1.1 is all
that is offered (ALPN), and whatever else there is to choose is OpenSSL's choice. Its errors seldom say which file they
mean, so the files are looked at one after the other.
"""

from __future__ import annotations

import ssl

from bioproxy import files
from bioproxy.errors import ConfigError, Problem

LARGEST = 16 << 20  # bytes; a chain of certificates is some thousands
MISMATCH = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}


def tls_context(certificate: str, key: str) -> ssl.SSLContext:
    """The context for the certificate (its chain after it) and the key in two PEM files.

    ConfigError that names the file that cannot be read, that is no such thing, or that does not belong to the other.
    """
    for name, path, mark in (("cert", certificate, b"CERTIFICATE-----"), ("key", key, b"PRIVATE KEY-----")):
        try:
            data = files.patiently(files.read, path, most=LARGEST)
        except OSError as error:
            raise not_usable(name, path, f"cannot be read: {error.strerror or error}") from error
        except files.Stuck as error:
            raise ConfigError([Problem(error.message, key=f"tls_{name}_file")]) from error
        if b"-----BEGIN " not in data or mark not in data:
            raise not_usable(name, path, f"holds no {'certificate' if name == 'cert' else 'private key'} in PEM form")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
    except ssl.SSLError as error:
        raise not_usable("cert", certificate, "is damaged: it holds no certificate that can be read") from error
    try:
        context.load_cert_chain(certificate, key, no_pass_phrase)
    except ssl.SSLError as error:
        if error.reason in MISMATCH:
            raise not_usable("key", key, f"does not belong to the certificate in {certificate}") from error
        raise not_usable("key", key, "is damaged, or has a pass phrase, which cannot be typed in here") from error
    return context


def no_pass_phrase() -> str:
    """The pass phrase of a key that has none; without it OpenSSL would ask on the terminal and wait."""
    return ""


def not_usable(name: str, path: str, why: str) -> ConfigError:
    """The error for one of the two files."""
    return ConfigError([Problem(f"{path} {why}", key=f"tls_{name}_file")])
