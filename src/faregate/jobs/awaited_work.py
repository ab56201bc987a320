"""Asks a provider how work stands that it accepted: a bounded look at the object that it keeps for it.

Where the object names files with the rest, they are fetched from the same provider and added up as they come, so that a
large one takes no memory. Everything has a bound in bytes and time; what cannot be had now is asked for again. A look
at an object that is gone says nothing: its end by policy comes in its time.
"""

import asyncio
from collections import Counter
from typing import Final
from urllib.parse import quote

import httpx2

from faregate.control import Provider, Unknown
from faregate.core.metering.meter import Report
from faregate.core.usage import Usage
from faregate.dialects import DIALECTS, Dialect
from faregate.dialects.kept import BATCH, CONTENT, LOOKS, RESPONSE, Outcome
from faregate.dialects.operations import upstream_path
from faregate.jobs.connections import Headers, ProviderConnections, Providers, no_headers
from faregate.jobs.resolve_unknowns import NoWord, Served, Untold, Word

#: One look, and all of one object's files.
LOOK_SECONDS: Final = 10.0
FILES_SECONDS: Final = 300.0

#: A response with everything it wrote, or a batch; larger ones end by policy.
OBJECT_BYTES_MAX: Final = 32 * 1024 * 1024
#: OpenAI's largest output of a batch, and as much for its errors.
FILES_BYTES_MAX: Final = 2 * 1024 * 1024 * 1024

#: Usages that differ from each other; lines beyond them are priced by their sum.
LINES_MAX: Final = 100_000

#: Which look tells of the work of an operation.
_LOOK_OF: Final = {"responses": LOOKS[RESPONSE], "batches": LOOKS[BATCH]}


class ProviderWork:
    """Looks at what providers accepted. Close it when done."""

    def __init__(self, providers: Providers, headers: Headers = no_headers) -> None:
        self._connections = ProviderConnections(providers, headers)

    async def ask(self, unknown: Unknown) -> Word:
        """How the work behind ``unknown`` stands; ``NoWord`` while it runs, and where that cannot be learnt now."""
        provider = self._connections.provider(unknown.who.provider)
        dialect, look = DIALECTS.get(unknown.who.service), _LOOK_OF.get(unknown.who.service)
        if provider is None or dialect is None or dialect.outcome is None or look is None:
            return NoWord()
        client = self._connections.client(provider)
        if client is None:
            return NoWord()
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                body = await _body(client, _url(provider, look, unknown.awaited.object_id))
            if body is None:
                return NoWord()
            outcome = dialect.outcome(body)
            if not outcome.ended:
                return NoWord()
            if not outcome.files:
                return word_of(outcome, outcome.report)
            async with asyncio.timeout(FILES_SECONDS):
                return await self._with_files(client, provider, dialect, unknown, outcome)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError):
            return NoWord()

    async def _with_files(
        self, client: httpx2.AsyncClient, provider: Provider, dialect: Dialect, unknown: Unknown, outcome: Outcome
    ) -> Word:
        """What the files of an object add up to."""
        if dialect.lines is None:
            return NoWord()
        told: Counter[Usage] = Counter()

        def count(usage: Usage) -> None:
            if usage in told or len(told) < LINES_MAX:
                told[usage] += 1

        lines = dialect.lines(unknown.awaited.facts, count)
        left = FILES_BYTES_MAX
        for file in outcome.files:
            async with client.stream("GET", _url(provider, CONTENT, file)) as answer:
                if answer.status_code != 200:
                    return NoWord()
                async for chunk in answer.aiter_raw(64 * 1024):
                    left -= len(chunk)
                    if left < 0:
                        return NoWord()
                    lines.feed(chunk)
                    # Reading lines is work; the console answers people meanwhile.
                    await asyncio.sleep(0)
            lines.close()
        whole = sum(told.values()) and len(told) < LINES_MAX
        return word_of(outcome, lines.report, tuple(told.items()) if whole else ())

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.close()


def word_of(outcome: Outcome, report: Report, lines: tuple[tuple[Usage, int], ...] = ()) -> Word:
    """What the end of accepted work says of its cost."""
    if not outcome.ended:
        return NoWord()
    if report.usage is None:
        return Untold(outcome.characters)
    return Served(report.usage, outcome.complete, True, report.service_tier, report.model, lines)


def _url(provider: Provider, operation: str, object_id: str) -> str:
    path = upstream_path(provider.kind, operation, "", provider.api_version, quote(object_id, safe=""))
    return provider.base_url.rstrip("/") + path


async def _body(client: httpx2.AsyncClient, url: str) -> bytes | None:
    """A whole, good answer within the bound."""
    async with client.stream("GET", url) as answer:
        if answer.status_code != 200:
            return None
        body = bytearray()
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > OBJECT_BYTES_MAX:
                return None
    return bytes(body)
