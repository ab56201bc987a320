"""Looks at objects that a provider keeps, and their ends: operations without a body, whose answers cost nothing.

What such an answer tells of usage is what the object's own call was charged, or will be: it is never read here.
(OpenAI, "API reference": responses, files and batches, retrieve, cancel and delete.)
"""

from typing import Final

from faregate.core.call import Call
from faregate.core.metering.meter import Event, EventDecoder, Report
from faregate.core.usage import NO_USAGE
from faregate.errors import Problem

_NOTHING: Final = Report(NO_USAGE)


class Look:
    """One operation's reader: all it has to say is in its path."""

    __slots__ = ("_call",)

    def __init__(self, operation: str) -> None:
        self._call = Call(operation, "", has_output=False, sealed=True)

    def __call__(self, body: bytes, model: str = "", forbid_private_urls: bool = True) -> Call | Problem:
        """The call; a body means nothing, and does not pass on."""
        del body, model, forbid_private_urls
        return self._call


class Unbilled:
    """Understands a stream that is played again, but for what it says of usage, tier and members."""

    __slots__ = ("_decode",)

    def __init__(self, decode: EventDecoder) -> None:
        self._decode = decode

    def __call__(self, payload: bytes) -> Event | str:
        """What one event says, its usage left out."""
        event = self._decode(payload)
        return event if isinstance(event, str) else event._replace(usage=None, service_tier="", unknown=0)

    def plain_text(self, payloads: list[bytes]) -> str | None:
        """The text of many events at once, where each says nothing but text."""
        return self._decode.plain_text(payloads)


def nothing_used(body: bytes) -> Report:
    """No answer of these uses anything."""
    del body
    return _NOTHING


def no_text(body: bytes) -> str:
    """Nothing in an answer is billed."""
    del body
    return ""


def no_prompt(body: bytes) -> list[str]:
    """There is no prompt."""
    del body
    return []


def no_tokens(body: bytes) -> int:
    """There is nothing to count."""
    del body
    return 0


def unedited(body: bytes, call: Call, *, model: str | None, cap: int | None, cap_field: str, ask_usage: bool) -> bytes:
    """No body passes on."""
    del body, call, model, cap, cap_field, ask_usage
    return b""
