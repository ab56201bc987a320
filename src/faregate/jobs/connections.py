"""Connections of the console to providers: one client for each, made when it is first needed.

Secrets go only to the provider they belong to, redirects nowhere, and nothing of the environment decides where.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Final

import httpx2

from faregate.control import Provider
from faregate.jobs.reach import ReachTransport

log = logging.getLogger(__name__)

#: How long a provider may take to accept a connection, or to send the next piece of an answer.
SILENCE_SECONDS: Final = 5.0

#: Connections that could not be set up, for want of a certificate's file say, are set up again after this long.
SETUP_AGAIN_SECONDS: Final = 30.0

_LIMITS: Final = httpx2.Limits(max_connections=32, max_keepalive_connections=8)

#: The providers there are now, by name.
Providers = Callable[[], Mapping[str, Provider]]

#: A provider whose credential is renewed → its credential headers now, ``None`` where there is none.
Headers = Callable[[str], Mapping[str, str] | None]


def no_headers(provider: str) -> None:
    """No credential is renewed."""


class ProviderConnections:
    """One client per provider. Close it when done."""

    def __init__(self, providers: Providers, headers: Headers = no_headers) -> None:
        self._providers = providers
        self._headers = headers
        self._clients: dict[str, tuple[Provider, httpx2.AsyncClient]] = {}
        #: Provider → loop time before which no client is made for it again.
        self._again: dict[str, float] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def provider(self, name: str) -> Provider | None:
        """The provider of a name, as it is now."""
        return self._providers().get(name)

    def client(self, provider: Provider) -> httpx2.AsyncClient | None:
        """The client of ``provider``; ``None`` where none can be made now, which says nothing of other providers."""
        known = self._clients.get(provider.name)
        if known is not None and known[0] == provider:
            return known[1] if self._has_credential(provider) else None
        if known is not None:
            # It has moved, or has another secret: what was open to where it was is of no use.
            del self._clients[provider.name]
            task = asyncio.get_running_loop().create_task(known[1].aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        now = asyncio.get_running_loop().time()
        if self._again.get(provider.name, now) > now:
            return None
        try:
            made = self._made(provider)
        except (httpx2.InvalidURL, OSError, ValueError) as problem:
            self._again[provider.name] = now + SETUP_AGAIN_SECONDS
            # The kind alone: the text may hold the address of a proxy, with its password.
            log.warning("provider_cannot_be_asked", extra={"provider": provider.name, "reason": type(problem).__name__})
            return None
        self._clients[provider.name] = provider, made
        return made if self._has_credential(provider) else None

    def _has_credential(self, provider: Provider) -> bool:
        return not provider.renewed or self._headers(provider.name) is not None

    def _made(self, provider: Provider) -> httpx2.AsyncClient:
        context = ssl.create_default_context(cafile=provider.ca_file or None)
        transport: httpx2.AsyncBaseTransport | None = None
        if provider.reach and not provider.proxy:
            inner = httpx2.AsyncHTTPTransport(verify=context, trust_env=False, limits=_LIMITS)
            transport = ReachTransport(provider.reach, inner)

        def prove(request: httpx2.Request) -> httpx2.Request:
            """The credential of the moment, which may have been renewed since the client was made."""
            own = self._headers(provider.name) if provider.renewed else provider.credential
            request.headers.update(own or {})
            return request

        return httpx2.AsyncClient(
            headers={"accept": "application/json", "accept-encoding": "identity"},
            auth=prove,
            verify=context,
            transport=transport,
            proxy=(provider.proxy or None) if transport is None else None,
            timeout=SILENCE_SECONDS,
            follow_redirects=False,
            # Proxies of the environment were read by the configuration; nothing else may decide where a secret goes.
            trust_env=False,
            limits=_LIMITS,
        )

    async def close(self) -> None:
        """Close all connections."""
        for _, client in self._clients.values():
            await client.aclose()
        self._clients.clear()
        await asyncio.gather(*self._closing, return_exceptions=True)
