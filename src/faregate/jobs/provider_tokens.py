"""Keeps the credentials of providers fresh: fetched at the start, renewed well before they end, held in memory only.

A renewal that fails is tried again, soon and then ever more rarely; the credential before stays in use until its own
end. Whoever is to use them is handed each new one at once.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from faregate.control import Credential, masked_of
from faregate.jobs.token_sources import Fetched, NotFetched, Source
from faregate.ports import CredentialState

log = logging.getLogger(__name__)

#: Of its life, or of the time after which it is to be renewed, a credential is used for this part at least, and for
#: this much more by chance, so that those of many installations are not renewed at one moment.
RENEW_AFTER: Final = 0.6
RENEW_SPREAD: Final = 0.2

#: A failed fetch is tried again after about this long, twice as long each time.
AGAIN_SECONDS: Final = 0.5
#: At most so long apart while calls wait for it (the gate tells their callers as much), and while the one before holds.
AGAIN_SECONDS_MAX: Final = 5.0
AGAIN_SECONDS_MAX_UNHURRIED: Final = 30.0

#: How often a pause looks whether its end has come by the wall clock: the other one stands still while a machine is
#: suspended, and a token ends all the same.
LOOK_SECONDS: Final = 30.0


class Wanted(NamedTuple):
    """A provider whose credential is fetched: where it goes, and as which header."""

    provider: str
    base_url: str
    source: Source
    header: str
    #: What stands before the secret, such as ``Bearer`` and a space.
    scheme: str


#: Takes credentials that are in force from now on.
HandOver = Callable[[Sequence[Credential]], None]


class _Kept:
    """What is known of one provider's credential."""

    def __init__(self) -> None:
        self.credential: Credential | None = None
        self.trouble = ""
        self.renewals = 0
        self.failures = 0


class ProviderTokens:
    """The fetched credentials of all providers. ``run`` keeps them fresh until it is cancelled."""

    def __init__(
        self,
        wanted: Sequence[Wanted],
        hand_over: HandOver,
        wall_nanos: Callable[[], int],
        jitter: Callable[[], float],
        tried: Callable[[], None] = lambda: None,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """``tried`` is called once, when every source has been asked; ``jitter`` gives fractions of 0 to 1."""
        self._wanted = tuple(wanted)
        self._hand_over = hand_over
        self._wall_nanos = wall_nanos
        self._jitter = jitter
        self._tried = tried
        self._look_seconds = look_seconds
        self._kept: Mapping[str, _Kept] = {each.provider: _Kept() for each in self._wanted}
        self._untried = {each.provider for each in self._wanted}

    def headers(self, provider: str) -> dict[str, str] | None:
        """The credential headers of a provider now; ``None`` where it has none that may be used."""
        kept = self._kept.get(provider)
        if kept is None or kept.credential is None or self._ended(kept.credential):
            return None
        return kept.credential.headers

    def trouble(self, provider: str) -> str:
        """Why the credential of a provider was not fetched the last time; empty where it was."""
        kept = self._kept.get(provider)
        return "" if kept is None else kept.trouble

    def states(self) -> tuple[CredentialState, ...]:
        """How every credential stands, in the order of the providers."""
        return tuple(
            CredentialState(
                each.provider,
                kept.credential is not None and not self._ended(kept.credential),
                kept.credential.expires_at if kept.credential is not None else 0,
                kept.trouble,
                kept.renewals,
                kept.failures,
            )
            for each in self._wanted
            for kept in (self._kept[each.provider],)
        )

    async def run(self) -> None:
        """Fetch and renew until cancelled."""
        if not self._wanted:
            self._tried()
        async with asyncio.TaskGroup() as group:
            for each in self._wanted:
                group.create_task(self._keep(each), name=f"credential-{each.provider}")
            # What needs no renewal ends, and whoever runs this counts on its going on.
            group.create_task(asyncio.Event().wait(), name="credentials")

    async def _keep(self, wanted: Wanted) -> None:
        misses = 0
        while True:
            fetched = await self._once(wanted)
            if fetched is None:
                misses += 1
                await asyncio.sleep(self._again(wanted.provider, misses))
                continue
            misses = 0
            if not fetched.renew_seconds:
                return
            await self._pause(fetched.renew_seconds * (RENEW_AFTER + RENEW_SPREAD * self._jitter()))

    async def _pause(self, seconds: float) -> None:
        """Wait until that time is over by either clock: one stands still sometimes, the other may be set back."""
        end = self._wall_nanos() + int(seconds * 1e9)
        while seconds > 0 and self._wall_nanos() < end:
            part = min(seconds, self._look_seconds)
            await asyncio.sleep(part)
            seconds -= part

    async def _once(self, wanted: Wanted) -> Fetched | None:
        """Ask the source once, and hand over what it gave."""
        kept = self._kept[wanted.provider]
        try:
            fetched = await wanted.source.fetch()
        except NotFetched as missing:
            kept.failures += 1
            kept.trouble = str(missing)
            facts = {
                "provider": wanted.provider,
                "reason": kept.trouble,
                "usable": self.headers(wanted.provider) is not None,
            }
            log.warning("credential_not_fetched", extra=facts)
            self._count_tried(wanted.provider)
            return None
        except Exception as error:  # Whatever it is, it must not end the renewals of this provider, or of all others.
            kept.failures += 1
            kept.trouble = f"its credential could not be fetched ({type(error).__name__})"
            log.error("credential_not_fetched", extra={"provider": wanted.provider, "reason": type(error).__name__})
            self._count_tried(wanted.provider)
            return None
        kept.credential = Credential(
            wanted.provider,
            wanted.base_url,
            {wanted.header: wanted.scheme + fetched.secret},
            masked_of(fetched.secret),
            fetched.expires_at,
        )
        if kept.trouble or not kept.renewals:
            log.info("credential_fetched", extra={"provider": wanted.provider})
        kept.trouble = ""
        kept.renewals += 1
        self._hand_over((kept.credential,))
        self._count_tried(wanted.provider)
        return fetched

    def _count_tried(self, provider: str) -> None:
        if provider in self._untried:
            self._untried.discard(provider)
            if not self._untried:
                self._tried()

    def _again(self, provider: str, misses: int) -> float:
        hurried = self.headers(provider) is None
        longest = AGAIN_SECONDS_MAX if hurried else AGAIN_SECONDS_MAX_UNHURRIED
        # The exponent is bounded, because a source may be away for days.
        pause = min(longest, AGAIN_SECONDS * 2.0 ** min(misses - 1, 10))
        return pause * (0.5 + 0.5 * self._jitter())

    def _ended(self, credential: Credential) -> bool:
        return 0 < credential.expires_at <= self._wall_nanos()
