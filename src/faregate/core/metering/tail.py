"""The usage report at the end of something that is too large to be kept: an image in an event.

Providers write the report behind the data, so its last bytes are enough. Finds its braces and knows nothing of what is
between them.
"""

from typing import Final

#: Kept of an event beyond the bounds; usage reports are a tenth of it.
TAIL_BYTES: Final = 8 * 1024

_NAME: Final = b'"usage"'
_OPENING: Final = 0x7B
_CLOSING: Final = 0x7D


def usage_at_end(data: bytes) -> bytes:
    """The last member ``usage`` in the last bytes of ``data``, as an object of its own; empty where there is none.

    Quotes in texts are escaped, so the name is never part of one.
    """
    tail = data[-TAIL_BYTES:]
    start = tail.rfind(_NAME)
    opened = tail.find(b"{", start, start + 32) if start >= 0 else -1
    depth = 0
    for at in range(opened, len(tail)) if opened >= 0 else ():
        depth += (tail[at] == _OPENING) - (tail[at] == _CLOSING)
        if not depth:
            return b'{"usage":' + tail[opened : at + 1] + b"}"
    return b""
