"""Where a provider or service that somebody makes through the API may be, and what its secret may look like.

The rules are stricter than those of the configuration file: whoever writes that can reach the network anyway, and an
admin key that leaks must not open it. What is judged here is judged again each time a connection is made, by ``reach``.
"""

import asyncio
import re
import socket
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from faregate.config.values import PLACEHOLDERS
from faregate.console.problems import ApiProblem
from faregate.dialects.urls import is_public_https, may_reach

URL_CHARACTERS_MAX: Final = 2_048
SECRET_CHARACTERS_MAX: Final = 8_192

#: A name server has this long; whatever it says later is judged when a connection is made.
LOOKUP_SECONDS: Final = 3.0

_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_REFERENCE: Final = re.compile(r"\$\{|\A(?:file|env|command|vault|exec):", re.IGNORECASE)
#: What masks look like, our own among them.
_MASKED: Final = re.compile(r"…|\*{3}|\.{3}|•")


class Wanted(NamedTuple):
    """An address that somebody wants for a provider or service."""

    base_url: str
    allow_http: bool
    allow_private: bool


def _forbidden(rule: str) -> ApiProblem:
    return ApiProblem("url_forbidden", rule, field="base_url")


def split_address(base_url: str) -> SplitResult:
    """The parts of an address that has the form of one.

    Raises:
        ApiProblem: url_forbidden.
    """
    if _REFERENCE.search(base_url):
        raise _forbidden("references work in the configuration file only; send the address itself")
    if len(base_url) > URL_CHARACTERS_MAX or _VISIBLE.fullmatch(base_url) is None or "\\" in base_url:
        raise _forbidden("expected an address such as https://api.openai.com/v1, without spaces")
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _forbidden("expected an address such as https://api.openai.com/v1") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise _forbidden("expected an https address such as https://api.openai.com/v1")
    if "@" in parts.netloc:
        raise _forbidden("an address holds neither user nor password; the secret goes into api_key")
    if "?" in base_url or "#" in base_url:
        raise _forbidden("an address has neither query nor fragment: scheme, host and path only")
    path = parts.path.removeprefix("/").removesuffix("/")
    if path and any(segment in ("", ".", "..") for segment in unquote(path).split("/")):
        raise _forbidden("its path has dot or empty segments")
    if "%" in host or not host.isascii():
        raise _forbidden("its host is not a host name")
    return parts


async def reach_of(wanted: Wanted) -> str:
    """How far connections to an address may lead (``dialects.urls.REACHES``); its name is looked up for that.

    Raises:
        ApiProblem: url_forbidden: it leads where nothing of ours may be.
    """
    parts = split_address(wanted.base_url)
    # Some resolvers take numbers for addresses in every spelling that C does, so they are asked rather than the text.
    addresses = await _looked_up(parts.hostname or "")
    if not addresses:
        # It may resolve where the gate runs, or behind a proxy; what it leads to is judged at each connection.
        public = is_public_https(f"https://{parts.netloc}/")
        addresses = ["8.8.8.8"] if public else ["10.0.0.1"]
    return _judged(parts.scheme, addresses, wanted)


def _judged(scheme: str, addresses: Iterable[str], wanted: Wanted) -> str:
    known = list(addresses)
    if not all(may_reach(each, "private") for each in known):
        raise _forbidden("it leads to link-local or metadata addresses, where nothing may be called")
    if all(may_reach(each, "loopback") for each in known):
        if not (wanted.allow_http if scheme == "http" else wanted.allow_http or wanted.allow_private):
            raise _forbidden("it leads to this machine; set allow_http: true to allow that")
        return "loopback"
    public = all(may_reach(each, "public") for each in known)
    if scheme == "http" and (public or not (wanted.allow_http and wanted.allow_private)):
        raise _forbidden("its credential and every prompt would cross the network in the clear; use https")
    if public:
        return "public"
    if not wanted.allow_private:
        raise _forbidden("it leads to a private address; set allow_private: true to allow that")
    return "private"


async def _looked_up(host: str) -> list[str]:
    """The addresses of a host now; none where it has none, or nobody says so in time."""
    try:
        async with asyncio.timeout(LOOKUP_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        return []
    return [str(each[4][0]) for each in found]


def check_secret(secret: str) -> None:
    """Refuse what cannot be the secret of a provider or service.

    Raises:
        ApiProblem: field_range, or url_forbidden for a reference.
    """
    if _REFERENCE.search(secret):
        rule = "references to variables, files and commands work in the configuration file only; send the secret itself"
        raise ApiProblem("url_forbidden", rule, field="api_key")
    if _MASKED.search(secret):
        rule = "this is a masked secret; leave the field out to keep the one that is stored"
        raise ApiProblem("field_range", rule, field="api_key")
    if not secret or len(secret) > SECRET_CHARACTERS_MAX or _VISIBLE.fullmatch(secret) is None:
        rule = "must be the secret alone: visible ASCII characters, without spaces or a line's end"
        raise ApiProblem("field_range", rule, field="api_key")
    if secret.lower() in PLACEHOLDERS:
        raise ApiProblem("field_range", "this is a placeholder, not a secret", field="api_key")
