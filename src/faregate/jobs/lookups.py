"""Asks a provider what became of a call, by our request id: one bounded GET to the configured path.

The answer is ``{"served": bool, "ended": bool, "complete": bool, "usage": {…}}``, usage in OpenAI's form; 404 means
that the id was never seen, anything else that there is no word yet. An answer is final only where it says so. Secrets
go only to the provider they belong to, redirects nowhere.
"""

import asyncio
import logging
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx2
import msgspec

from faregate.control import Provider, Unknown
from faregate.dialects import DIALECTS
from faregate.jobs.resolve_unknowns import NeverSeen, NotServed, NoWord, Served, Word

log = logging.getLogger(__name__)

DEADLINE_SECONDS: Final = 5.0
ANSWER_BYTES_MAX: Final = 64 * 1024

#: Connections that could not be set up, for want of a certificate's file say, are set up again after this long.
SETUP_AGAIN_SECONDS: Final = 30.0


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
    """One client per provider that can be asked. Close it when done."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = {name: each for name, each in providers.items() if each.lookup}
        self._clients: dict[str, httpx2.AsyncClient] = {}
        #: Provider → loop time before which no client is made for it again.
        self._again: dict[str, float] = {}

    async def ask(self, unknown: Unknown) -> Word:
        """The provider's word on ``unknown``; ``NoWord`` where it cannot be had now."""
        provider = self._providers.get(unknown.who.provider)
        if provider is None:
            return NoWord()
        client = self._client(provider)
        if client is None:
            return NoWord()
        parts = urlsplit(provider.base_url)
        url = f"{parts.scheme}://{parts.netloc}" + provider.lookup.replace("{id}", quote(unknown.id, safe=""))
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

    def _client(self, provider: Provider) -> httpx2.AsyncClient | None:
        """The client of ``provider``; ``None`` where none can be made now, which says nothing of other providers."""
        client = self._clients.get(provider.name)
        now = asyncio.get_running_loop().time()
        if client is None and self._again.get(provider.name, now) <= now:
            try:
                client = self._clients[provider.name] = _client(provider)
            except (httpx2.InvalidURL, OSError, ValueError) as problem:
                self._again[provider.name] = now + SETUP_AGAIN_SECONDS
                # The kind alone: the text may hold the address of a proxy, with its password.
                log.warning(
                    "provider_cannot_be_asked", extra={"provider": provider.name, "reason": type(problem).__name__}
                )
        return client

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()


def _client(provider: Provider) -> httpx2.AsyncClient:
    context = ssl.create_default_context(cafile=provider.ca_file or None)
    return httpx2.AsyncClient(
        headers={**provider.credential, "accept": "application/json", "accept-encoding": "identity"},
        verify=context,
        proxy=provider.proxy or None,
        timeout=DEADLINE_SECONDS,
        follow_redirects=False,
        # Proxies of the environment were read by the configuration; nothing else may decide where a secret goes.
        trust_env=False,
        limits=httpx2.Limits(max_connections=32, max_keepalive_connections=8),
    )
