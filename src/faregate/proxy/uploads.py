"""Large forms, read off the loop: each line of a batch or frame of a recording takes microseconds, all of them seconds.

Owns when that is worth a thread, and nothing of what is read: steps 3 and 8 of such an exchange happen here, all
others where they always do. One thread reads for everybody, so that they wait for each other and for nobody else.
"""

from typing import TYPE_CHECKING, Final

from faregate.dialects.operations import FILES
from faregate.proxy.guard import guarded
from faregate.proxy.snapshot import Target

if TYPE_CHECKING:
    from faregate.proxy.exchange import Exchange

#: Forms up to this size are read while everybody waits, which is at most some milliseconds.
_ASIDE_BYTES: Final = 64 * 1024


def is_large(exchange: "Exchange") -> bool:
    """Whether this is a form that is too large to be read on the loop."""
    if len(exchange.body) <= _ASIDE_BYTES or exchange.operation is None or exchange.operation.below is not None:
        return False
    return exchange.dialect.media == "form"


def brings_lines(exchange: "Exchange") -> bool:
    """Whether this may be a file of many calls, and too large to be renamed on the loop."""
    return len(exchange.body) > _ASIDE_BYTES and exchange.operation is not None and exchange.operation.name == FILES


def read(exchange: "Exchange", model: str) -> None:
    """Step 3, with the model that the path names; the exchange goes on with ``was_read``."""
    form_of, forbid = exchange.dialect.read, exchange.gate.settings.forbid_private_urls
    then = guarded(exchange.was_read, exchange.mistaken)
    # The body is taken when its turn comes: it is let go with a client that does not wait for that.
    exchange.gate.aside(lambda: form_of(exchange.body, model, forbid), then, exchange.mistaken)


def rename(exchange: "Exchange", target: Target) -> None:
    """Let the lines name their model as ``target`` does; the exchange goes on with ``dispatch``."""

    def renamed(body: bytes) -> None:
        exchange.prepared = body
        exchange.dispatch(target)

    exchange.gate.aside(lambda: exchange.edited(target), guarded(renamed, exchange.mistaken), exchange.mistaken)
