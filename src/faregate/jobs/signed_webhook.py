"""Sends an alert to a webhook: one signed POST to an address that was looked up once and is public.

The receiver proves where it comes from by ``x-faregate-signature: v1=`` and the hex HMAC-SHA256, under the channel's
secret, of ``x-faregate-timestamp``, a dot and the body as it came. ``x-faregate-event-id`` is the same at every try.

An address that an admin may write is a way into the network that the console stands in. So the name is resolved here,
every address that it has must be public (unless the configuration allows private ones), and the connection goes to the
address that was looked at, not to what the name says a moment later. Redirects are not followed, and nothing of the
answer but its status is used.
"""

import asyncio
import contextlib
import hashlib
import hmac
import socket
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import httpx2
import msgspec

from faregate.core.alerts import AddressFault, Parcel
from faregate.dialects.urls import is_public_address

DEADLINE_SECONDS: Final = 5.0
REST_SECONDS: Final = 1.0
ANSWER_BYTES_MAX: Final = 64 * 1024

#: What stands before the signature: another way to sign would have another one.
SIGNATURE_VERSION: Final = "v1"

_encode = msgspec.json.Encoder().encode


class _Place(NamedTuple):
    """Where a webhook is: the parts of its address."""

    scheme: str
    host: str
    port: int
    target: str
    #: As the Host header has it.
    authority: str


class WebhookSender:
    """Sends to webhooks. Close it when done."""

    def __init__(
        self,
        *,
        allow_private: bool,
        wall_nanos: Callable[[], int],
        ca_file: str = "",
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        """``ca_file`` has the authorities to trust instead of the system's."""
        self._allow_private = allow_private
        self._wall_nanos = wall_nanos
        self._ca_file = ca_file
        self._deadline_seconds = deadline_seconds
        self._client: httpx2.AsyncClient | None = None
        self._making = asyncio.Lock()

    async def send(self, parcel: Parcel) -> str:
        """Send once; why it was not taken, in a few words, or nothing where it was."""
        try:
            async with asyncio.timeout(self._deadline_seconds):
                place = _place(parcel.channel.url)
                addresses = await _resolved(place)
                refused = self._refused(addresses)
                if isinstance(place, AddressFault) or refused is not None:
                    return "its address is private or cannot be used"
                return await self._post(place, addresses[0], parcel)
        except TimeoutError:
            return f"no answer within {self._deadline_seconds:g} s"
        except socket.gaierror:
            return "its name does not resolve"
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            return _trouble(error)

    def fault(self, url: str) -> AddressFault | None:
        """What is wrong with the address of a webhook; looks its name up, so it is for threads."""
        place = _place(url)
        if isinstance(place, AddressFault):
            return place
        try:
            found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return AddressFault("field_range", "the name of this host does not resolve")
        return self._refused([str(each[4][0]) for each in found])

    def _refused(self, addresses: list[str]) -> AddressFault | None:
        if self._allow_private or all(is_public_address(each) for each in addresses):
            return None
        rule = "this address is private or on this machine; set alerts.allow_private: true to allow it"
        return AddressFault("url_forbidden", rule)

    async def _post(self, place: _Place, address: str, parcel: Parcel) -> str:
        body = _encode(parcel.told)
        timestamp = str(self._wall_nanos() // 1_000_000_000)
        headers = {
            "host": place.authority,
            "content-type": "application/json",
            "user-agent": "faregate",
            "x-faregate-event-id": parcel.alert,
            "x-faregate-timestamp": timestamp,
            "x-faregate-signature": f"{SIGNATURE_VERSION}={signature(parcel.channel.secret, timestamp, body)}",
        }
        client = await self._connected()
        host = f"[{address}]" if ":" in address else address
        url = f"{place.scheme}://{host}:{place.port}{place.target}"
        extensions = {"sni_hostname": place.host}
        async with client.stream("POST", url, content=body, headers=headers, extensions=extensions) as answer:
            # Its status has said it; the rest is listened to only so that a receiver can end in peace.
            with contextlib.suppress(httpx2.HTTPError, TimeoutError):
                async with asyncio.timeout(REST_SECONDS):
                    read = 0
                    async for chunk in answer.aiter_raw(16 * 1024):
                        read += len(chunk)
                        if read > ANSWER_BYTES_MAX:
                            break
        if 200 <= answer.status_code < 300:
            return ""
        if 300 <= answer.status_code < 400:
            return f"it answered {answer.status_code}; redirects are not followed"
        return f"it answered {answer.status_code}"

    async def _connected(self) -> httpx2.AsyncClient:
        """The client, made when it is first needed: certificates are read from disk."""
        async with self._making:
            if self._client is None:
                self._client = await asyncio.to_thread(_client, self._ca_file)
        return self._client

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """The hex HMAC-SHA256 that a receiver works out, too."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def _place(url: str) -> _Place | AddressFault:
    """The parts of an address."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return AddressFault("field_range", "this is not an address such as https://example.com/alerts")
    if parts.scheme not in ("http", "https") or not host or port == 0 or "%" in host or not url.isascii():
        return AddressFault("field_range", "expected an http or https address such as https://example.com/alerts")
    if "@" in parts.netloc:
        return AddressFault("field_range", "the address must not hold a user or password; webhooks are signed instead")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Place(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), target, parts.netloc)


def _trouble(error: BaseException) -> str:
    """Why somebody could not be asked; what failed below an error of the library says it best."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "its certificate is not trusted"
        if isinstance(cause, ssl.SSLError):
            return "it does not speak TLS as it should"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.ConnectError | ConnectionError):
        return "it does not take connections"
    return f"it could not be asked ({type(error).__name__})"


async def _resolved(place: _Place | AddressFault) -> list[str]:
    """The addresses that a host has now.

    Raises:
        OSError: it has none.
    """
    if isinstance(place, AddressFault):
        return []
    try:
        found = await asyncio.get_running_loop().getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError("not a host name") from error
    return [str(each[4][0]) for each in found]


def _client(ca_file: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        verify=ssl.create_default_context(cafile=ca_file or None),
        timeout=DEADLINE_SECONDS,
        follow_redirects=False,
        # A proxy of the environment would go where it likes, not where was looked at.
        trust_env=False,
        # Connections are told apart by address alone, so that none may be kept: two names may share one.
        limits=httpx2.Limits(max_connections=32, max_keepalive_connections=0),
    )
