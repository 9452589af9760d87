"""Is a text a URL? Asked with the ears of Go's parser, for its sentences are what llama-swap prints.

That parser takes nearly everything ("localhost:8080" has the scheme "localhost"). What it takes and nobody can connect
to is refused all the same: llama-swap starts with it, and answers an error whenever the model is used.
"""

from __future__ import annotations

import json
import re

from bioproxy.config.addresses import engine_parts
from bioproxy.config.masking import masked_url_password

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}")
BAD_HOST = re.compile(r'[ "\\^`{|}]')
PORT = re.compile(r"(?::[0-9]*)?")


def url_fault(url: str) -> str:
    """Why a text is no URL, as Go says it; "" where it is one, or where an unknown macro in it was named already."""
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
    """Why what stands between // and / is no host with a port."""
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
    """Why nothing could be connected to at a URL that Go takes for one; "" if something could."""
    if "${" in url:
        return ""
    try:
        engine_parts(url)
    except ValueError as error:
        return str(error)
    return ""


def url_doubt(url: str) -> str:
    """What is probably not meant in a URL that something can be connected to; "" where all is well."""
    if "${" in url:
        return ""
    if "://" not in url:
        return "it has no scheme; http:// is taken"
    return "name and password in it have no effect, as in llama-swap" if "@" in url.split("/")[2] else ""
