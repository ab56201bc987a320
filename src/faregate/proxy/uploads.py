"""Files of many calls, read and renamed off the loop: each line takes microseconds, a file of them seconds.

Owns when that is worth a thread, and nothing of what is read: steps 3 and 8 of such an exchange happen here, all
others where they always do. One thread reads for everybody, so that uploads wait for each other and for nobody else.
"""

from typing import TYPE_CHECKING, Final

from faregate.dialects.operations import FILES
from faregate.proxy.guard import guarded
from faregate.proxy.snapshot import Target

if TYPE_CHECKING:
    from faregate.proxy.exchange import Exchange

#: Files up to this size are read while everybody waits, which is at most some milliseconds.
_ASIDE_BYTES: Final = 64 * 1024


def brings_lines(exchange: "Exchange") -> bool:
    """Whether this may be a file of many calls, and too large to be read on the loop."""
    return len(exchange.body) > _ASIDE_BYTES and exchange.operation is not None and exchange.operation.name == FILES


def read(exchange: "Exchange") -> None:
    """Step 3; the exchange goes on with ``was_read``."""
    lines_of, body, forbid = exchange.dialect.read, exchange.body, exchange.gate.settings.forbid_private_urls
    then = guarded(exchange.was_read, exchange.mistaken)
    exchange.gate.aside(lambda: lines_of(body, "", forbid), then, exchange.mistaken)


def rename(exchange: "Exchange", target: Target) -> None:
    """Let the lines name their model as ``target`` does; the exchange goes on with ``dispatch``."""

    def renamed(body: bytes) -> None:
        exchange.prepared = body
        exchange.dispatch(target)

    exchange.gate.aside(lambda: exchange.edited(target), guarded(renamed, exchange.mistaken), exchange.mistaken)
