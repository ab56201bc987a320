"""How deployments compare: what calls cost there, how they ended and how long they took, also beside their copies.

Percentiles are by nearest rank: the smallest value that at least so many of a hundred values do not exceed. It is one
of the values, and no arithmetic between two of them is needed.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from faregate.core.money import half_even

#: Speeds are whole numbers of thousandths of a token in a second.
MILLI: Final = 1_000

_MICROS: Final = 1_000_000


class EndedCall(NamedTuple):
    """What a record tells of a call, as far as deployments are compared by it; money in nano-dollars."""

    model: str
    deployment: str
    provider: str
    status: str
    #: The limit that ended its answer; empty for nearly every call.
    limit: str
    stream: bool
    cost: int
    input_tokens: int
    output_tokens: int
    #: 0 where it is not known, as the next one.
    latency_us: int
    first_token_us: int

    @property
    def ok(self) -> bool:
        """Whether it went as it should."""
        return self.status == "ok"

    @property
    def failed(self) -> bool:
        """Whether the deployment failed: neither did its caller leave, nor did a limit end it."""
        return self.status == "failed" or (self.status == "cut" and not self.limit)

    @property
    def speed(self) -> int | None:
        """Thousandths of output tokens in a second, from the first one to the end of a stream that went ok."""
        took = self.latency_us - self.first_token_us
        # Of a whole answer the first byte comes when all of it is there.
        if not (self.ok and self.stream and self.first_token_us and self.output_tokens) or took <= 0:
            return None
        return half_even(self.output_tokens * MILLI * _MICROS, took)


def nearest_rank(values: Sequence[int], percent: int) -> int | None:
    """The smallest of some values in their order that ``percent`` of a hundred do not exceed, from 1 to 100.

    ``None`` where there are no values.
    """
    assert 1 <= percent <= 100
    return values[-(-percent * len(values) // 100) - 1] if values else None


class Figures:
    """What calls of one deployment add up to."""

    __slots__ = (
        *("requests", "ok", "failed", "cost", "costing", "input_tokens", "output_tokens"),
        *("latencies_us", "first_tokens_us", "speeds"),
    )

    def __init__(self) -> None:
        self.requests = 0
        self.ok = 0
        self.failed = 0
        self.cost = 0
        #: Calls that went ok or cost something: a failure that cost nothing makes no call look cheap.
        self.costing = 0
        self.input_tokens = 0
        self.output_tokens = 0
        #: Of those that went ok, in no order; so are the next two.
        self.latencies_us: list[int] = []
        self.first_tokens_us: list[int] = []
        self.speeds: list[int] = []

    def add(self, call: EndedCall) -> None:
        """Count a call."""
        self.requests += 1
        self.ok += call.ok
        self.failed += call.failed
        self.cost += call.cost
        self.costing += call.ok or call.cost > 0
        self.input_tokens += call.input_tokens
        self.output_tokens += call.output_tokens
        if not call.ok:
            return
        if call.latency_us:
            self.latencies_us.append(call.latency_us)
        if call.stream and call.first_token_us:
            self.first_tokens_us.append(call.first_token_us)
        speed = call.speed
        if speed is not None:
            self.speeds.append(speed)

    @property
    def cost_per_request(self) -> int | None:
        """Nano-dollars of a call that went ok or cost something, on average; ``None`` where there is none."""
        return half_even(self.cost, self.costing) if self.costing else None


class Pairs:
    """Calls and their copies: figures of those that both went ok, and how often one side alone failed."""

    __slots__ = ("copies", "failed", "mirror_failed", "originals")

    def __init__(self) -> None:
        self.originals = Figures()
        self.copies = Figures()
        self.failed = 0
        self.mirror_failed = 0

    def add(self, original: EndedCall, copy: EndedCall) -> None:
        """Count a call and its copy."""
        if original.ok and copy.ok:
            self.originals.add(original)
            self.copies.add(copy)
        self.failed += original.failed and copy.ok
        self.mirror_failed += copy.failed and original.ok


class Place(NamedTuple):
    """Whose calls are one row."""

    model: str
    deployment: str
    provider: str
    mirrored: bool


class PairOfPlaces(NamedTuple):
    """Whose calls and copies are one row: the model is that of the calls."""

    model: str
    deployment: str
    mirror: str


class Comparison:
    """All of it, of some records."""

    def __init__(self) -> None:
        self.rows: dict[Place, Figures] = {}
        self.pairs: dict[PairOfPlaces, Pairs] = {}
        #: How many records it is of, and whether older ones were left out for their number.
        self.records = 0
        self.truncated = False

    def add(self, call: EndedCall, *, mirrored: bool) -> None:
        """Count a call, or a copy of one."""
        place = Place(call.model, call.deployment, call.provider, mirrored)
        self.rows.setdefault(place, Figures()).add(call)

    def add_pair(self, original: EndedCall, copy: EndedCall) -> None:
        """Count a copy beside its original, which each is a call of its own as well."""
        of = PairOfPlaces(original.model, original.deployment, copy.deployment)
        self.pairs.setdefault(of, Pairs()).add(original, copy)
