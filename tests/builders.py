"""Short makers of valid events and of the clock that tests hold in their hands."""

from faregate.core.amounts import NOTHING, Amounts
from faregate.core.attribution import Attribution
from faregate.core.ledger.events import Attempt, Intended, Progressed, Recalled, Refused, Settled
from faregate.core.usage import Usage

#: A moment at the start of a roll-up slot: 2026-11-01 00:00 UTC.
START = 1_793_491_200 * 1_000_000_000
MINUTE = 60 * 1_000_000_000
SOME_USAGE = Usage(input_text=10, output_text=5)


class HeldClock:
    """A clock that moves only when it is told to."""

    def __init__(self, now: int = START) -> None:
        self.now = now

    def wall_nanos(self) -> int:
        return self.now

    def monotonic_nanos(self) -> int:
        return self.now


def request_id(number: int) -> str:
    return f"req_{number:026d}"


def attribution(**changed: object) -> Attribution:
    who = Attribution(
        organization="default",
        team="research",
        project="search",
        user="ada",
        key="key_1",
        stage="dev",
        model="gpt-4o",
        deployment="openai/gpt-4o",
        provider="openai",
        service="chat.completions",
    )
    return who._replace(**changed)  # type: ignore[arg-type]


def intended(
    number: int, *, at: int = START, held: int = 1_000, who: Attribution | None = None, stream: bool = False
) -> Intended:
    amounts = Amounts(held, 100, 60, 40, 1, 1)
    return Intended(request_id(number), at, at, who or attribution(), amounts, "pv_1", stream, 60)


def settled(
    number: int,
    *,
    at: int = START + MINUTE,
    charge: int = 700,
    usage: Usage = SOME_USAGE,
    resolution: str = "",
    status: str = "ok",
) -> Settled:
    attempts = (Attempt("openai/gpt-4o", 200, "", 1_500),)
    return Settled(
        request_id(number), at, status, 200, "", usage, "provider", charge, charge, "pv_1", 2_000, 900, attempts,
        "gpt-4o-2024", "chatcmpl-1", 0, resolution,
    )  # fmt: skip


def recalled(
    number: int, *, at: int = START, saved: int = 700, charge: int = 0, who: Attribution | None = None
) -> Recalled:
    """An answer that was given again: no deployment and no provider has to do with it."""
    caller = (who or attribution())._replace(deployment="", provider="")
    return Recalled(
        request_id(number), at, at, caller, False, saved, charge, 300, "gpt-4o-2024", "" if not charge else "fee 0.1"
    )


def progressed(number: int, output_tokens: int, *, at: int = START, held: int = 0) -> Progressed:
    """A mark; with ``held`` it says that so many nano-dollars are held from now on."""
    amounts = Amounts(held, 160, 60, 100, 1, 1) if held else NOTHING
    return Progressed(request_id(number), at, output_tokens, amounts)


def refused(number: int, *, at: int = START, who: Attribution | None = None) -> Refused:
    return Refused(request_id(number), at, who or attribution(), False, 429, "budget_exhausted", 150, "lim_1")
