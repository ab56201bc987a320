"""What a stream cost, as one comment line of its own before its end (``gateway.stream_receipt: comment``).

The head of a stream leaves before its cost is known. Clients pass comments over (WHATWG HTML section 9.2), so that only
those that look for it find it.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from faregate.core.money import dollars
from faregate.core.usage import Usage

if TYPE_CHECKING:
    from faregate.proxy.exchange import Exchange

_DONE: Final = b"data: [DONE]"

_encode: Final = msgspec.json.Encoder().encode


def place(out: bytes, last_mark: bytes, whole: bool) -> int:
    """Where in the last bytes of a stream a comment may stand: before the event that ends it; -1 for nowhere.

    An event that began in bytes which have passed cannot have anything put before it. A stream that has no last event
    of its own ends with the comment.
    """
    at = out.rfind(_DONE)
    if at < 0 and last_mark:
        at = out.rfind(last_mark)
    if at < 0:
        return len(out) if whole and (not out or out.endswith((b"\n\n", b"\r\n\r\n"))) else -1
    for ends in (b"\n\n", b"\r\n\r\n"):
        before = out.rfind(ends, 0, at)
        if before >= 0:
            return before + len(ends)
    return 0 if out.startswith((_DONE, b"event:")) else -1


def comment(exchange: "Exchange", due: int, usage: Usage) -> bytes:
    """The comment: what its headers would say, had it been held whole."""
    target, match, gate = exchange.target, exchange.match, exchange.gate
    told: dict[str, object] = {
        "request_id": exchange.id,
        "cost": dollars(due),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "consumed_tokens": usage.input_tokens + usage.output_tokens,
        "model": target.model if target is not None else "",
        "deployment": target.name if target is not None else "",
    }
    if exchange.cap:
        told["clamped"] = exchange.cap
    if exchange.downgraded_from:
        told["downgraded"] = exchange.downgraded_from
    if match is not None and match.tells:
        left = gate.allowances.figures(match.standing, gate.wall_nanos(), match.hidden)
        if left.usd is not None:
            told["limit_remaining"] = dollars(left.usd.remaining)
        if left.tokens is not None:
            told["remaining_tokens"] = left.tokens.remaining
    return b": faregate " + _encode(told) + b"\n\n"
