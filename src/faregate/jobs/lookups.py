"""Asks a provider what became of a call, by our request id: one bounded GET to the configured path.

The answer is ``{"served": bool, "ended": bool, "complete": bool, "usage": {…}}``, usage in OpenAI's form; 404 means
that the id was never seen, anything else that there is no word yet. An answer is final only where it says so. Secrets
go only to the provider they belong to, redirects nowhere.
"""

import asyncio
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx2
import msgspec

from faregate.control import Unknown
from faregate.dialects import DIALECTS
from faregate.jobs.connections import Headers, ProviderConnections, Providers, no_headers
from faregate.jobs.resolve_unknowns import NeverSeen, NotServed, NoWord, Served, Word

DEADLINE_SECONDS: Final = 5.0
ANSWER_BYTES_MAX: Final = 64 * 1024


class _Told(msgspec.Struct):
    served: bool
    #: No try of this request runs any more. What was answered to its end has ended.
    ended: bool = False
    complete: bool = False
    usage: dict[str, Any] | None = None


#: What the wire formats call the report of an answer.
_USAGE_MEMBERS: Final = ("usage", "usageMetadata")

_decode = msgspec.json.Decoder(_Told).decode
_encode = msgspec.json.Encoder().encode


def word_of(status: int, body: bytes, operation: str) -> Word:
    """What an answer to a lookup says; the usage in it has the shape of the operation's own answers."""
    if status == 404:
        return NeverSeen()
    if status != 200:
        return NoWord()
    try:
        told = _decode(body)
    except msgspec.MsgspecError:
        return NoWord()
    if not told.served:
        return NotServed(told.ended)
    dialect = DIALECTS.get(operation)
    if dialect is None or told.usage is None:
        return NoWord()
    # Whichever of the names an answer has for it: a dialect looks for its own.
    report = dialect.usage_of(_encode(dict.fromkeys(_USAGE_MEMBERS, told.usage)))
    if report.usage is None or report.invalid:
        return NoWord()
    return Served(report.usage, told.complete, told.ended or told.complete)


class ProviderLookups:
    """Asks those providers that can be asked. Close it when done."""

    def __init__(self, providers: Providers, headers: Headers = no_headers) -> None:
        self._connections = ProviderConnections(providers, headers)

    async def ask(self, unknown: Unknown) -> Word:
        """The provider's word on ``unknown``; ``NoWord`` where it cannot be had now."""
        provider = self._connections.provider(unknown.who.provider)
        if provider is None or not provider.lookup:
            return NoWord()
        client = self._connections.client(provider)
        if client is None:
            return NoWord()
        parts = urlsplit(provider.base_url)
        id = quote(unknown.asked_as or unknown.id, safe="")
        url = f"{parts.scheme}://{parts.netloc}" + provider.lookup.replace("{id}", id)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS), client.stream("GET", url) as answer:
                body = bytearray()
                async for chunk in answer.aiter_raw():
                    body += chunk
                    if len(body) > ANSWER_BYTES_MAX:
                        return NoWord()
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError):
            return NoWord()
        return word_of(answer.status_code, bytes(body), unknown.who.service)

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.close()
