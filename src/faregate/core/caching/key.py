"""What makes two calls the same: everything that decides the answer, and whom it may be shared with.

A key is an HMAC-SHA256 (RFC 2104) over parts of stated lengths, so that no two lists of parts make the same bytes, and
under a secret of the installation, so that nobody who reads a store can tell what was asked.
"""

import hmac
from collections.abc import Iterable
from typing import Final

#: Bytes of a key.
KEY_BYTES: Final = 32


def same_call_key(secret: bytes, parts: Iterable[str | bytes]) -> bytes:
    """The key of the calls that agree in all ``parts``, in their order."""
    told: list[bytes] = []
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        told += (len(data).to_bytes(8, "big"), data)
    return hmac.digest(secret, b"".join(told), "sha256")
