"""Connections of the console to providers: one client for each, made when it is first needed.

Secrets go only to the provider they belong to, redirects nowhere, and nothing of the environment decides where.
"""

import asyncio
import logging
import ssl
from collections.abc import Mapping
from typing import Final

import httpx2

from faregate.control import Provider

log = logging.getLogger(__name__)

#: How long a provider may take to accept a connection, or to send the next piece of an answer.
SILENCE_SECONDS: Final = 5.0

#: Connections that could not be set up, for want of a certificate's file say, are set up again after this long.
SETUP_AGAIN_SECONDS: Final = 30.0


class ProviderConnections:
    """One client per provider. Close it when done."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self.providers = dict(providers)
        self._clients: dict[str, httpx2.AsyncClient] = {}
        #: Provider → loop time before which no client is made for it again.
        self._again: dict[str, float] = {}

    def client(self, provider: Provider) -> httpx2.AsyncClient | None:
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
        timeout=SILENCE_SECONDS,
        follow_redirects=False,
        # Proxies of the environment were read by the configuration; nothing else may decide where a secret goes.
        trust_env=False,
        limits=httpx2.Limits(max_connections=32, max_keepalive_connections=8),
    )
