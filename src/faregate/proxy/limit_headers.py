"""Headers that tell what a call used and what is left of its limits, as bytes; their names are the configuration's."""

from faregate.config.settings import GateSettings
from faregate.core.limits.figures import Figures
from faregate.core.limits.windows import SECOND
from faregate.core.money import dollars

_MILLISECOND = 1_000_000


class LimitHeaders:
    """Writes the headers of one gate."""

    __slots__ = ("_quota", "_remaining", "consumed")

    def __init__(self, settings: GateSettings) -> None:
        #: The header of the tokens that a call used, up to their number.
        self.consumed = f"{settings.consumed_tokens_header}: "
        self._remaining = f"{settings.remaining_tokens_header}: "
        quota = settings.remaining_quota_tokens_header
        self._quota = f"{quota}: " if quota else ""

    def left(self, figures: Figures, now_nanos: int) -> bytes:
        """What is left of the limits that have the fewest; nothing of a unit that no limit bounds."""
        usd, tokens, requests, quota = figures
        # With every answer of a caller who has limits: one text, encoded once, is the fastest way.
        lines = f"x-faregate-limit-remaining: {dollars(usd[1])}\r\n" if usd is not None else ""
        if requests is not None:
            amount, left, ends_at = requests
            lines += f"x-ratelimit-limit-requests: {amount}\r\nx-ratelimit-remaining-requests: {left}\r\n"
            if ends_at:
                lines += f"x-ratelimit-reset-requests: {duration(ends_at - now_nanos)}\r\n"
        if tokens is not None:
            amount, left, ends_at = tokens
            lines += f"{self._remaining}{left}\r\n"
            lines += f"x-ratelimit-limit-tokens: {amount}\r\nx-ratelimit-remaining-tokens: {left}\r\n"
            if ends_at:
                lines += f"x-ratelimit-reset-tokens: {duration(ends_at - now_nanos)}\r\n"
            if quota is not None and self._quota:
                lines += f"{self._quota}{quota.remaining}\r\n"
        return lines.encode()


def duration(nanos: int) -> str:
    """A span as OpenAI writes it, rounded up: ``120ms``, ``1s``, ``6m0s``, ``30h0m0s``."""
    if nanos <= 0:
        return "0s"
    milliseconds = -(-nanos // _MILLISECOND)
    if milliseconds < 1_000:
        return f"{milliseconds}ms"
    seconds = -(-nanos // SECOND)
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m{seconds}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}s"
