"""What makes two calls the same: everything that decides the answer, and whom it may be shared with.

A key is a keyed BLAKE2b (RFC 7693) over parts of stated lengths, so that no two lists of parts make the same bytes, and
under a secret of the installation, so that nobody who reads a store can tell what was asked. HMAC-SHA256 costs a short
call four times as much.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

#: Bytes of a key.
KEY_BYTES: Final = 32


def same_call_key(secret: bytes, parts: Iterable[str | bytes]) -> bytes:
    """The key of the calls that agree in all ``parts``, in their order."""
    told: list[bytes] = []
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        told += (len(data).to_bytes(8, "big"), data)
    return blake2b(b"".join(told), key=secret, digest_size=KEY_BYTES).digest()
