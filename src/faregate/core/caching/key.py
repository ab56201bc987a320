"""What makes two calls the same: everything that decides the answer, and whom it may be shared with.

A key is an HMAC-SHA256 (RFC 2104) over parts of stated lengths, so that no two lists of parts make the same bytes, and
under a secret of the installation, so that nobody who reads a store can tell what was asked.

Bodies are compared in one form of their own: members sorted, no white space, text in one notation (in the spirit of RFC
8785). What that form could not tell apart has none and is never kept: a member that stands twice, a number beyond all
bounds, text that is no UTF-8.
"""

import hmac
import json
from collections.abc import Iterable
from typing import Any, Final, NoReturn

#: Bytes of a key.
KEY_BYTES: Final = 32

_BOM: Final = "\ufeff"


def read_object(body: bytes) -> dict[str, Any] | None:
    """A body that is one JSON object; ``None`` where it is not, or could be read in more than one way."""
    try:
        text = body.decode().removeprefix(_BOM)
        value = _decode(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def canonical(value: dict[str, Any]) -> bytes | None:
    """The one form of a body; ``None`` where a number in it has none."""
    try:
        return _encode(value).encode("ascii")
    except (ValueError, RecursionError):
        return None


def same_call_key(secret: bytes, parts: Iterable[str | bytes]) -> bytes:
    """The key of the calls that agree in all ``parts``, in their order."""
    digest = hmac.new(secret, digestmod="sha256")
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()


def _each_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise ValueError("a member stands twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decode: Final = json.JSONDecoder(object_pairs_hook=_each_once, parse_constant=_no_number).decode
_encode: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
