"""Tries a provider: one bounded question that costs nothing, with its own stored secret, to its own stored host."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import httpx2
import msgspec

from faregate.dialects.operations import ANTHROPIC, AZURE
from faregate.jobs.connections import Headers, ProviderConnections, Providers
from faregate.jobs.reach import OutOfReach
from faregate.ports import Tried

DEADLINE_SECONDS: Final = 10.0
#: Trials at once; more wait for their turn.
AT_ONCE: Final = 4
#: The longest lists of models have a few hundred kilobytes.
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024

#: Anthropic answers nothing without it.
_ANTHROPIC_VERSION: Final = "2023-06-01"


class _Listed(msgspec.Struct):
    """The member of a list of models that holds them, by whatever name."""

    data: list[Any] | None = None
    models: list[Any] | None = None


_decode = msgspec.json.Decoder(_Listed).decode


class ProviderTrial:
    """Tries providers by their names. Close it when done."""

    def __init__(
        self,
        providers: Providers,
        headers: Headers,
        monotonic_nanos: Callable[[], int] = time.monotonic_ns,
        trouble: Callable[[str], str] = lambda provider: "",
    ) -> None:
        """``trouble`` says why the credential of a provider was not fetched, empty where it was or needs not be."""
        self._trouble = trouble
        self._connections = ProviderConnections(providers, headers)
        self._monotonic_nanos = monotonic_nanos
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, name: str) -> Tried:
        """Ask the provider for its models; nothing of its answer is passed on but how many there are."""
        async with self._turns:
            return await self._asked(name)

    async def _asked(self, name: str) -> Tried:
        provider = self._connections.provider(name)
        if provider is None:
            return Tried(False, "it is not in use: it is disabled, or its configuration cannot be used")
        client = self._connections.client(provider)
        if client is None:
            return Tried(
                False, self._trouble(name) or "its credential is not there, or its connection cannot be set up"
            )
        version = f"?api-version={provider.api_version}"
        path = f"/openai/models{version}" if provider.kind == AZURE else "/models"
        headers = {"anthropic-version": _ANTHROPIC_VERSION} if provider.kind == ANTHROPIC else {}
        began = self._monotonic_nanos()
        try:
            async with (
                asyncio.timeout(DEADLINE_SECONDS),
                client.stream("GET", provider.base_url + path, headers=headers) as answer,
            ):
                body = bytearray()
                async for part in answer.aiter_raw():
                    body += part
                    if len(body) > ANSWER_BYTES_MAX:
                        return Tried(False, "it answered with far more than a list of models", answer.status_code)
        except OutOfReach:
            return Tried(False, "its name leads to an address that it may not have")
        except TimeoutError:
            return Tried(False, f"no answer within {DEADLINE_SECONDS:g} s")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            return Tried(False, f"it cannot be reached ({type(error).__name__})")
        took = (self._monotonic_nanos() - began) // 1_000_000
        return _told(answer.status_code, bytes(body), took)

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.close()


def _told(status: int, body: bytes, took: int) -> Tried:
    if status in (401, 403):
        return Tried(False, f"it answered {status}: it does not take the credential", status, 0, took)
    if 300 <= status < 400:
        return Tried(
            False, f"it answered {status}; redirects are not followed, so name where it leads", status, 0, took
        )
    if status != 200:
        return Tried(False, f"it answered {status} when it was asked for its models", status, 0, took)
    try:
        listed = _decode(body)
    except msgspec.MsgspecError:
        return Tried(False, "it answered with something that is no list of models; is base_url right?", status, 0, took)
    found = listed.data if listed.data is not None else listed.models
    if found is None:
        return Tried(False, "it answered with something that is no list of models; is base_url right?", status, 0, took)
    return Tried(True, f"it answered with {len(found)} models", status, len(found), took)
