"""What a limit may say beyond whom it covers, its unit, amount and window: the terms that it holds by.

Plain values that travel from the books over the control socket into the gate; what they mean is decided in ``admit``
(admission), ``closer`` (actions), ``windows`` and ``in_force`` (time) and ``thresholds`` (what people are told).
Amounts are nano-dollars for ``usd`` and whole units otherwise, moments are nanoseconds since 1970 UTC and 0 means none.
Field order is the format of the control socket: add fields at the end, with a default.
"""

from typing import NamedTuple

#: How a limit over a window counts: by the window's own counter, or as a bucket that drains all the time (GCRA).
ALGORITHMS = ("", "smooth")

#: What may happen at a share of the amount, mildest first.
DEEDS = ("notify", "throttle", "downgrade", "revoke", "stop")

#: What the share is taken of: what is spent, or what will be at the window's end if it goes on like this.
BASES = ("actual", "forecast")


class Raise(NamedTuple):
    """Another amount for some time; of several at one moment the largest counts."""

    amount: int
    since: int
    until: int


class Action(NamedTuple):
    """What happens once ``percent`` of the amount is spent, or (``forecast``) expected to be."""

    do: str
    percent: int
    basis: str = "actual"
    #: Of a downgrade: the model that answers instead, and for which models; none means every other one.
    to: str = ""
    models: tuple[str, ...] = ()
    #: Of a throttle: calls a minute that still pass.
    requests_per_minute: int = 0


class Forced(NamedTuple):
    """The action at this place of the list is in force until a moment, because a forecast says so."""

    action: int
    until: int


class Past(NamedTuple):
    """The amount that was in force before a moment; carry-over is worked out with it. ``None`` was unlimited."""

    until: int
    amount: int | None


class Spared(NamedTuple):
    """Those of a limit that counts each whom it does not concern: of these dimensions, those with these values."""

    names: tuple[str, ...]
    values: tuple[str, ...]


class Terms(NamedTuple):
    """The terms of one limit; as made, an ordinary limit."""

    #: ``smooth``: amount units per window, at an even pace after a burst of ``burst``.
    algorithm: str = ""
    burst: int = 0
    #: ``MM-DD`` on which a fiscal year begins; quarters follow it. Empty is the first of January.
    year_start: str = ""
    #: Most that is carried over from the windows before; 0 carries nothing.
    carry_max: int = 0
    #: Windows that began before it carry nothing.
    carry_from: int = 0
    #: Amounts that were in force, oldest first.
    history: tuple[Past, ...] = ()
    raises: tuple[Raise, ...] = ()
    #: It binds from a moment on, and up to one.
    since: int = 0
    until: int = 0
    #: False: nothing is held for a call, only what it used counts, so that what runs may exceed the amount.
    estimate: bool = True
    actions: tuple[Action, ...] = ()
    forced: tuple[Forced, ...] = ()
    #: Name of the answer that a refused caller gets, of those in ``limits.denials``; empty is the usual one.
    denial: str = ""
    #: Why it is there, told to whom it refuses; of stops and brakes that the product set itself.
    reason: str = ""
    #: Whom a limit that counts each leaves to other limits.
    spared: tuple[Spared, ...] = ()


PLAIN = Terms()
