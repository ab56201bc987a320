"""Versions of rows (``ETag``) and changes that are made only to the version that was read (``If-Match``, RFC 9110).

Whoever sends the header relies on it, so a route that does not go by it refuses it.

A version follows from what the row holds, so that it says the same on every connection and after a restart. What a
resource shows beside its row, such as where a limit stands, is no part of it.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Final

import msgspec
from fastapi import Request

from faregate.console.describing import WRITING, answer_of
from faregate.console.doors import TOLD
from faregate.console.problems import ApiProblem
from faregate.ports import Row

#: More versions than that are not looked at.
VERSIONS_MAX: Final = 16

#: Whatever the version is.
ANY: Final = "*"

_TAG: Final = re.compile(r'\s*(?:(\*)|(?:W/)?"([\x21\x23-\x7e]{0,64})")\s*')

_encode = msgspec.json.Encoder(order="sorted").encode


async def asked_where_it_acts(request: Request) -> None:
    """Refuse ``If-Match`` where nothing has a version; every route of the console depends on this.

    Raises:
        ApiProblem: ``header_invalid``.
    """
    if request.method in WRITING and "if-match" in request.headers:
        answer = answer_of(request.scope["endpoint"])
        if answer is not None and not answer.versioned:
            rule = "If-Match: what this request changes has no version; leave the header out"
            raise ApiProblem("header_invalid", rule, field="If-Match")


def version_of(row: Row) -> str:
    """The version of a row, 16 hex digits."""
    return hashlib.sha256(_encode(row)).hexdigest()[:16]


def versioned(request: Request, row: Row) -> Row:
    """``row``, whose version the answer to this request tells."""
    request.scope[TOLD][b"etag"] = f'"{version_of(row)}"'.encode()
    return row


def only_if_unchanged(request: Request, find: Callable[[], Row]) -> Callable[[], None] | None:
    """What looks, while nothing else is changed, whether the row that ``find`` gives is the one that was read.

    ``None`` where the request does not ask for that. What it gives raises ``ApiProblem`` ``stale_version``, and what
    ``find`` raises.

    Raises:
        ApiProblem: ``If-Match`` holds no versions.
    """
    wanted = request.headers.getlist("if-match")
    if not wanted:
        return None
    versions = _versions(",".join(wanted))

    def look() -> None:
        if version_of(find()) not in versions and ANY not in versions:
            rule = "it was changed since you read it; read it again, and send the change with the ETag that you get"
            raise ApiProblem("stale_version", rule)

    return look


def _versions(header: str) -> frozenset[str]:
    parts = header.split(",")
    matches = [_TAG.fullmatch(part) for part in parts]
    if len(parts) > VERSIONS_MAX or None in matches:
        rule = f'If-Match: expected at most {VERSIONS_MAX} versions such as "0123456789abcdef", joined by commas'
        raise ApiProblem("header_invalid", rule, field="If-Match")
    return frozenset(match[1] or match[2] for match in matches if match is not None)
