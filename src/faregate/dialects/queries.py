"""What of a request's query passes on to the provider: named parameters with plain values, and nothing else.

A parameter that is not named here is left out, as an unknown header is (RULINGS 18): clients add some of their own,
such as Azure's ``api-version``, which the provider's configuration says.
"""

import re
from typing import Final

_PAGE: Final = ("after", "before", "limit", "order")

#: Operation → the parameters that its provider may see.
PASSED: Final[dict[str, tuple[str, ...]]] = {
    "responses.get": ("include", "include[]", "include_obfuscation", "starting_after", "stream"),
    "responses.items": (*_PAGE, "include", "include[]"),
    "files.list": (*_PAGE, "purpose"),
    "batches.list": _PAGE,
}

#: More parameters than this have no honest use.
PARAMETERS_MAX: Final = 32

_PLAIN: Final = re.compile(rb"[A-Za-z0-9_.~:,\[\]-]{0,256}")
_BRACKETS: Final = ((b"%5B", b"["), (b"%5b", b"["), (b"%5D", b"]"), (b"%5d", b"]"), (b"%2C", b","), (b"%2c", b","))


def passed_query(operation: str, target: bytes) -> str:
    """The query to send for ``operation``, with its question mark; empty where nothing of it passes."""
    names = PASSED.get(operation)
    query = target.partition(b"?")[2]
    if not query or names is None:
        return ""
    parts = []
    for part in query.split(b"&")[:PARAMETERS_MAX]:
        name, _, value = _plain(part).partition(b"=")
        if name.decode("latin-1") in names and _PLAIN.fullmatch(value) is not None:
            parts.append(b"%b=%b" % (name.replace(b"[", b"%5B").replace(b"]", b"%5D"), value))
    return "?" + b"&".join(parts).decode() if parts else ""


def _plain(part: bytes) -> bytes:
    """Brackets and commas as they are, whether a client escaped them or not."""
    for escaped, plain in _BRACKETS:
        part = part.replace(escaped, plain)
    return part
