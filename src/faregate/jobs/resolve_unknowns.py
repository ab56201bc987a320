"""Ends exchanges whose outcome was not learnt: by the provider's word, or, when it cannot be had in time, by policy.

``decide`` is the rule and knows no clock, network or storage; the class below asks providers and carries the decisions
to the gate. Providers are asked at once, but only a final word ends a call before it cannot run any more: a call that
is not known yet, or not ended, may still be served.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from faregate.control import Resolve, Unknown
from faregate.core.pricing.card import RateCard
from faregate.core.pricing.charging import COST_MAX, charge, cost_within, rule_of
from faregate.core.pricing.cost import Tariff
from faregate.core.usage import NO_USAGE, Usage
from faregate.errors import FaregateError

log = logging.getLogger(__name__)

#: After the longest request a provider needs this long to have it in its records for sure.
GRACE_NANOS: Final = 30 * 1_000_000_000

#: Lookups at the same time; ten thousand unknowns are asked for within the promised minute.
LOOKUPS_AT_ONCE: Final = 32

#: A provider that does not know yet is asked again after this long, doubled each time.
AGAIN_SECONDS_MIN: Final = 1.0
AGAIN_SECONDS_MAX: Final = 30.0

#: Nothing costs as much, which is nine million dollars: fifty thousand lines can report more than any books can hold.
COST_BELIEVED_MAX: Final = COST_MAX // 1000


class Served(NamedTuple):
    """The provider served the call, to its end where ``complete``, and billed this usage."""

    usage: Usage
    complete: bool = True
    #: The call has ended at the provider, so that this usage will not grow.
    final: bool = True
    #: What answered: it may decide the price.
    service_tier: str = ""
    model: str = ""
    #: The usage of each line where there were many, and how many used just that; they add up to ``usage``.
    lines: tuple[tuple[Usage, int], ...] = ()


class NotServed(NamedTuple):
    """The provider knows the call and did not bill it, so far or, where ``final``, at its end."""

    final: bool = True


class NeverSeen(NamedTuple):
    """The provider does not know the id."""


class Untold(NamedTuple):
    """The call has ended, and the provider will never say what it used: so many characters of text came of it."""

    characters: int = 0


class NoWord(NamedTuple):
    """The provider cannot be asked, does not answer, is still at it, or said something that cannot be."""


Word = Served | NotServed | NeverSeen | Untold | NoWord


class Rules(NamedTuple):
    """When a word that is not final is proof too, how long money stays held, and what then."""

    max_request_nanos: int
    unknown_ttl_nanos: int
    policy: str
    grace_nanos: int = GRACE_NANOS


def decide(unknown: Unknown, word: Word, card: RateCard | None, rules: Rules, now: int) -> Resolve | None:
    """How to end ``unknown``, or ``None`` to wait. ``card`` is the rate card that its hold was priced with."""
    age = now - unknown.dispatched_at
    over = age > rules.max_request_nanos + rules.grace_nanos
    if isinstance(word, Served) and card is not None and (word.final or over):
        cost = _cost(card, word)
        due = charge(rule_of(unknown.charge_rule), cost, used=word.usage != NO_USAGE)
        if max(cost, due) > COST_BELIEVED_MAX:
            return _by_policy(unknown, card, rules.policy)
        status = "ok" if word.complete else "cut"
        version = card.version if card.version != unknown.price_version else ""
        return Resolve(unknown.id, status, "provider_said", word.usage, "provider", cost, due, "", word.model, version)
    if isinstance(word, Untold):
        # It will not be said later either: the policy decides at once, by what came.
        seen = max(unknown.output_tokens_seen, -(-word.characters * 2 // 7))
        return _by_policy(msgspec.structs.replace(unknown, output_tokens_seen=seen), card, rules.policy)
    if isinstance(word, NeverSeen) and over:
        return _free(unknown)
    if isinstance(word, NotServed) and (word.final or over):
        return _free(unknown)
    if age > rules.unknown_ttl_nanos:
        return _by_policy(unknown, card, rules.policy)
    return None


def _cost(card: RateCard, word: Served) -> int:
    """What the provider is owed; lines are priced one by one where that makes a difference."""
    tariff = Tariff(card)
    if word.lines and (len(card.tiers) > 1 or tariff.cost(NO_USAGE)):
        return sum(tariff.cost(usage) * times for usage, times in word.lines)
    return tariff.cost(word.usage)


def version_of(unknown: Unknown, word: Word) -> str:
    """The version of the rate card that decides: of the tier that answered, else the one of the hold."""
    tier = word.service_tier if isinstance(word, Served) else ""
    return dict(unknown.awaited.tier_prices).get(tier, unknown.price_version)


def _free(unknown: Unknown) -> Resolve:
    return Resolve(unknown.id, "failed", "not_served", NO_USAGE, "none", 0, 0)


def _by_policy(unknown: Unknown, card: RateCard | None, policy: str) -> Resolve:
    """The end by policy: never charged above its hold; without its rate card it is taken to have cost what it held."""
    held, rule = unknown.held, rule_of(unknown.charge_rule)
    # The most it can have cost, as far as the hold tells: what is free to its payer holds no money.
    most = cost_within(rule, held.usd)
    held_cost = most if 0 <= most < COST_MAX else 0
    if policy == "charge_max":
        usage = Usage(input_text=held.input_tokens, output_text=held.output_tokens)
        if card is not None and most == COST_MAX:
            held_cost = Tariff(card).bound(held.input_tokens, held.output_tokens)
        return Resolve(unknown.id, "cut", policy, usage, "estimate", held_cost, held.usd)
    usage = Usage(input_text=unknown.input_tokens_bound, output_text=unknown.output_tokens_seen)
    # Nothing was seen of what is not sold by the token, so that there is nothing to estimate it from.
    by_tokens = held.tokens and not (held.images or held.seconds or held.characters)
    cost = held_cost if card is None or not by_tokens else min(Tariff(card).cost(usage), max(most, 0))
    due = min(charge(rule, cost, used=usage != NO_USAGE), held.usd)
    # With ``operator_pays`` the books debit the operator and nobody's limit counts it (core.ledger.postings).
    return Resolve(unknown.id, "cut", policy, usage, "estimate", cost, due)


class UnknownResolver:
    """One run looks at every unknown once. All that it needs of others comes in as functions."""

    def __init__(
        self,
        *,
        unknowns: Callable[[], Sequence[Unknown]],
        card: Callable[[str], RateCard | None],
        lookup: Callable[[Unknown], Awaitable[Word]],
        resolve: Callable[[Resolve], Awaitable[bool]],
        rules: Callable[[Unknown], Rules],
        wall_nanos: Callable[[], int],
        again_seconds: tuple[float, float] = (AGAIN_SECONDS_MIN, AGAIN_SECONDS_MAX),
        at_once: int = LOOKUPS_AT_ONCE,
    ) -> None:
        """``again_seconds`` are the first pause before a provider is asked again, and the longest."""
        self._unknowns = unknowns
        self._card = card
        self._lookup = lookup
        self._resolve = resolve
        self._rules = rules
        self._wall_nanos = wall_nanos
        self._pause_min, self._pause_max = again_seconds
        self._at_once = at_once
        #: Id → (loop time before which it is not looked at again, the pause after that).
        self._again: dict[str, tuple[float, float]] = {}

    async def run(self) -> None:
        """Look at every unknown that is due.

        Raises:
            Unavailable: the books or the gate do not answer.
        """
        found = await asyncio.to_thread(self._unknowns)
        open_ids = {each.id for each in found}
        self._again = {each: rest for each, rest in self._again.items() if each in open_ids}
        now = asyncio.get_running_loop().time()
        due = [each for each in found if self._again.get(each.id, (0.0, 0.0))[0] <= now]
        at_once = asyncio.Semaphore(self._at_once)

        async def one(unknown: Unknown) -> None:
            async with at_once:
                await self._end(unknown)

        async with asyncio.TaskGroup() as group:
            for unknown in due:
                group.create_task(one(unknown))

    async def _word(self, unknown: Unknown) -> Word:
        try:
            return await self._lookup(unknown)
        # Whatever asking one provider fails of, the other unknowns are ended, and this one by policy in its time.
        except Exception as error:
            reason = type(error).__name__
            log.error("lookup_failed", extra={"request_id": unknown.id, "reason": reason})
            return NoWord()

    async def _end(self, unknown: Unknown) -> None:
        word = await self._word(unknown)
        card = await asyncio.to_thread(self._card, version_of(unknown, word))
        order = decide(unknown, word, card, self._rules(unknown), self._wall_nanos())
        if order is None:
            _, pause = self._again.get(unknown.id, (0.0, self._pause_min))
            due = asyncio.get_running_loop().time() + pause
            self._again[unknown.id] = due, min(pause * 2, self._pause_max)
            return
        try:
            changed = await self._resolve(order)
        except FaregateError as error:
            # The gate is away; it comes back with this unknown, and the next run ends it.
            log.warning("unknown_not_resolved", extra={"request_id": unknown.id, "reason": error.message})
            return
        # Until the journal is projected the books still show it: it is not looked at again at once.
        self._again[unknown.id] = asyncio.get_running_loop().time() + AGAIN_SECONDS_MAX, AGAIN_SECONDS_MAX
        if changed:
            facts = {"request_id": unknown.id, "resolution": order.resolution, "charge_nanos": order.charge}
            log.info("unknown_resolved", extra=facts)
