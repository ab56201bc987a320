"""Fetches the public keys of issuers of tokens and hands them to the gate, which verifies tokens and asks nobody.

Keys are fetched at the start, every few minutes, and when the gate meets a token that names a key it does not know; for
that at most once in ten seconds for each issuer, whatever comes in. What was fetched last stays in force while an
issuer cannot be reached; the gate stops trusting it after a day.

An issuer's address is the configuration's, and that of its keys what its discovery document says, which must name the
issuer itself. Redirects are not followed, and plain http is for loopback alone: who can change these answers can make
tokens.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import httpx2
import msgspec

from faregate.config.identity_rules import is_plain_elsewhere
from faregate.control import ISSUER_KEYS_MAX, IssuerKeys, TellIssuerKeys, WantedIssuerKeys
from faregate.core.tokens import Issuer, fitting_algorithms
from faregate.errors import Failed, FaregateError, Unavailable

log = logging.getLogger(__name__)

#: For both answers together; the call that waits for them gives up a moment later.
DEADLINE_SECONDS: Final = 2.5
ANSWER_BYTES_MAX: Final = 256 * 1024

#: How often keys are fetched though nobody misses any, and how soon again where that failed or one is missed.
REFRESH_NANOS: Final = 300 * 1_000_000_000
AGAIN_NANOS: Final = 10 * 1_000_000_000

#: What of a published key is of use; certificates, above all, are not.
_MEMBERS: Final = frozenset(("kty", "use", "key_ops", "alg", "kid", "crv", "n", "e", "x", "y"))

#: The keys of an issuer, as JWK.
Keys = tuple[dict[str, Any], ...]


class _Known:
    """What is known of one issuer, and when it was looked at; times are of a clock that never goes back."""

    __slots__ = ("again_at", "keys", "looking", "rules", "sent", "wanted")

    def __init__(self, rules: Issuer) -> None:
        self.rules = rules
        self.keys: IssuerKeys | None = None
        self.sent = True
        self.looking: asyncio.Task[Keys] | None = None
        #: A token named a key that is not among these.
        self.wanted = False
        #: Before this moment nobody's token makes another look.
        self.again_at = 0


class IssuerKeyFetcher:
    """Keeps the gate's keys of issuers fresh. ``run`` is one short round; call it a few times a second."""

    def __init__(
        self,
        issuers: Callable[[], Sequence[Issuer]],
        tell: Callable[[TellIssuerKeys], Awaitable[WantedIssuerKeys]],
        fetch: Callable[[Issuer], Awaitable[Keys]],
        wall_nanos: Callable[[], int],
        monotonic_nanos: Callable[[], int],
    ) -> None:
        self._issuers = issuers
        self._tell = tell
        self._fetch = fetch
        self._wall_nanos = wall_nanos
        self._monotonic_nanos = monotonic_nanos
        self._known: dict[str, _Known] = {}
        #: Issuer → when it is looked at next, whether anybody asks or not.
        self._due: dict[str, int] = {}
        #: Issuers that were looked at and that the gate was not told of yet.
        self._answered: set[str] = set()
        #: Of these it was told already that they cannot be reached.
        self._failing: set[str] = set()

    async def run(self) -> None:
        """Take what was fetched, tell the gate, and begin to fetch what is due. Waits for no issuer."""
        rules = {issuer.name: issuer for issuer in self._issuers()}
        for name in [name for name, known in self._known.items() if rules.get(name) != known.rules]:
            gone = self._known.pop(name)
            self._due.pop(name, None)
            if gone.looking is not None:
                gone.looking.cancel()
        if not rules:
            return
        for name, issuer in rules.items():
            known = self._known.setdefault(name, _Known(issuer))
            if known.looking is not None and known.looking.done():
                self._take(known, known.looking)
                known.looking = None
        await self._tell_gate()
        now = self._monotonic_nanos()
        for name, known in self._known.items():
            due = now >= self._due.get(name, 0)
            if known.looking is None and (due or (known.wanted and now >= known.again_at)):
                self._due[name] = now + REFRESH_NANOS
                if (known.wanted and known.keys is not None) or name in self._failing:
                    # A look that comes by itself, or for want of any keys, takes nothing from what tokens may ask for.
                    known.again_at = now + AGAIN_NANOS
                known.wanted = False
                known.looking = asyncio.get_running_loop().create_task(self._look(known.rules))

    async def close(self) -> None:
        """Give up what is under way."""
        for known in self._known.values():
            if known.looking is not None:
                known.looking.cancel()
        await asyncio.gather(
            *(known.looking for known in self._known.values() if known.looking), return_exceptions=True
        )

    async def _look(self, rules: Issuer) -> Keys:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self._fetch(rules)

    def _take(self, known: _Known, looking: "asyncio.Task[Keys]") -> None:
        name = known.rules.name
        self._answered.add(name)
        error = asyncio.CancelledError() if looking.cancelled() else looking.exception()
        if error is None:
            known.keys, known.sent = IssuerKeys(name, looking.result(), self._wall_nanos()), False
            self._failing.discard(name)
            return
        self._due[name] = self._monotonic_nanos() + AGAIN_NANOS
        if name not in self._failing:
            self._failing.add(name)
            reason = error.message if isinstance(error, FaregateError) else type(error).__name__
            log.warning("issuer_keys_not_fetched", extra={"issuer": name, "reason": reason})

    async def _tell_gate(self) -> None:
        """Tell the gate what is new, and hear what it misses; while it is away nothing of that is lost."""
        fresh = [known for known in self._known.values() if known.keys is not None and not known.sent]
        answered = tuple(self._answered)
        try:
            wanted = await self._tell(
                TellIssuerKeys(tuple(known.keys for known in fresh if known.keys is not None), answered)
            )
        except (Unavailable, Failed):
            return
        self._answered.difference_update(answered)
        for known in fresh:
            known.sent = True
        for name in wanted.unknown:
            # A gate that has none at all waits for those that are being fetched: another look for it would be counted
            # against the next token that names a new key.
            if name in self._known and (self._known[name].looking is None or name not in wanted.missing):
                self._known[name].wanted = True
        for name in wanted.missing:
            # Another gate than the one that was told.
            if name in self._known:
                self._known[name].sent = False


async def fetch_keys(issuer: Issuer) -> Keys:
    """The keys that an issuer publishes now.

    Raises:
        Failed: it cannot be reached, or what it answers is of no use; the text says which and quotes nothing of it.
    """
    try:
        context = ssl.create_default_context(cafile=issuer.ca_file or None)
        client = httpx2.AsyncClient(
            headers={"accept": "application/json", "accept-encoding": "identity"},
            verify=context,
            proxy=issuer.proxy or None,
            timeout=DEADLINE_SECONDS,
            follow_redirects=False,
            trust_env=False,
        )
    except (httpx2.InvalidURL, OSError, ValueError) as error:
        raise Failed(f"its connection cannot be set up ({type(error).__name__})") from error
    async with client:
        return await _keys_at(client, issuer.jwks_uri or await _discovered(client, issuer.issuer), issuer.algorithms)


async def _discovered(client: httpx2.AsyncClient, issuer: str) -> str:
    """Where an issuer says that its keys are (OpenID Connect Discovery 1.0 section 4)."""
    document = await _object(client, issuer.rstrip("/") + "/.well-known/openid-configuration")
    if document.get("issuer") != issuer:
        raise Failed("its discovery document is that of another issuer")
    uri = document.get("jwks_uri")
    if not isinstance(uri, str) or not uri.startswith(("https://", "http://")) or len(uri) > 2_048:
        raise Failed("its discovery document names no jwks_uri")
    if is_plain_elsewhere(uri):
        raise Failed("its discovery document names a jwks_uri without TLS")
    return uri


async def _keys_at(client: httpx2.AsyncClient, uri: str, algorithms: Sequence[str]) -> Keys:
    """The keys that tokens may be checked with; a set without any leaves those in force that were fetched before."""
    keys = (await _object(client, uri)).get("keys")
    if not isinstance(keys, list) or not keys:
        raise Failed("its key set holds no keys")
    usable = [key for key in keys if isinstance(key, dict) and fitting_algorithms(key, algorithms)]
    if not usable:
        raise Failed("its key set holds no public key for the algorithms that its tokens may use")
    return tuple({name: key[name] for name in key if name in _MEMBERS} for key in usable[:ISSUER_KEYS_MAX])


async def _object(client: httpx2.AsyncClient, url: str) -> dict[str, Any]:
    """A JSON object of bounded size."""
    body = bytearray()
    try:
        async with client.stream("GET", url) as answer:
            if answer.status_code != 200:
                raise Failed(f"it answered {answer.status_code}")
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > ANSWER_BYTES_MAX:
                    raise Failed(f"it answered more than {ANSWER_BYTES_MAX} bytes")
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        raise Failed(f"it does not answer ({type(error).__name__})") from error
    try:
        found = msgspec.json.decode(bytes(body))
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Failed("it answered what is no JSON") from error
    if not isinstance(found, dict):
        raise Failed("it answered what is no JSON object")
    return found
