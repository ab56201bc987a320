"""Keeps a client of HTTP within the reach that its provider has: the name is looked up here, every address that it has
is judged, and the connection goes to one that was judged, not to what the name says a moment later.
"""

import asyncio
import socket

import httpx2

from faregate.dialects.urls import may_reach


class OutOfReach(httpx2.ConnectError):
    """A name leads to an address that its provider may not have."""


class ReachTransport(httpx2.AsyncBaseTransport):
    """Another transport, for requests that may go as far as ``reach`` (``dialects.urls.REACHES``)."""

    def __init__(self, reach: str, inner: httpx2.AsyncBaseTransport) -> None:
        self._reach = reach
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One request, to an address that was judged.

        Raises:
            OutOfReach: the name leads elsewhere.
            ConnectError: it leads nowhere.
        """
        host = request.url.host
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpx2.ConnectError("its name does not resolve", request=request) from error
        addresses = [str(each[4][0]) for each in found]
        if not addresses or not all(may_reach(each, self._reach) for each in addresses):
            raise OutOfReach("its name leads to an address that it may not have", request=request)
        # The Host header was made from the name already; TLS proves the name, too.
        request.url = request.url.copy_with(host=addresses[0])
        request.extensions = {**request.extensions, "sni_hostname": host}
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()
