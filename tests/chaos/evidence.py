"""What a chaos run leaves behind, and the checker that joins it: the provider's truth, the clients' log, the books.

Pure: it is given facts and gives one finding per guarantee, so that it judges any gateway, ours or a naive one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

#: Nano-dollars for a million input and output tokens.
Price = tuple[int, int]


#: Promised are 5 s on a machine of its own; a busy one is given three times as much.
READY_SECONDS = 15.0


class Seen(NamedTuple):
    """One call as its client saw it. ``status`` is 0 where no answer came; ``whole``: the answer was not cut."""

    request_id: str
    tenant: str
    stream: bool
    status: int
    whole: bool


class Booked(NamedTuple):
    """One record of the books; only calls that were dispatched count."""

    request_id: str
    tenant: str
    status: str
    cost_nanos: int
    input_tokens: int
    output_tokens: int
    usage_source: str = ""


class Sample(NamedTuple):
    """A limit at one moment of the run, in nano-dollars."""

    tenant: str
    posted: int
    held: int


class Evidence(NamedTuple):
    """Everything a run left behind."""

    kills: int
    truth: Sequence[Mapping[str, Any]]
    seen: Sequence[Seen]
    booked: Sequence[Booked]
    samples: Sequence[Sample]
    #: Tenant → its lifetime limit in nano-dollars.
    limits: Mapping[str, int]
    prices: Mapping[str, Price]
    #: What the product's own ``verify`` says at the end; empty where there is none.
    verified: Mapping[str, Any] = {}
    #: The most calls that were under way at once.
    in_flight_max: int = 0
    #: For each kill, how many calls it made unknown.
    unknowns: Sequence[int] = ()
    #: Seconds from each kill until calls were accepted again.
    recoveries: Sequence[float] = ()


class Finding(NamedTuple):
    """One guarantee, whether it held, and the figures that say so."""

    guarantee: str
    held: bool
    figures: str

    def __str__(self) -> str:
        return f"{self.guarantee:3s} {'holds ' if self.held else 'BROKEN'} {self.figures}"


def true_cost(record: Mapping[str, Any], prices: Mapping[str, Price]) -> int:
    """What a call that the provider served costs, rounded once, half to even."""
    usage = record["usage"] or {}
    incoming, outgoing = prices[record["model"]]
    exact = usage.get("prompt_tokens", 0) * incoming + usage.get("completion_tokens", 0) * outgoing
    whole, rest = divmod(exact, 1_000_000)
    return int(whole + (2 * rest > 1_000_000 or (2 * rest == 1_000_000 and whole % 2)))


def check(evidence: Evidence) -> list[Finding]:
    """Every guarantee that a run can prove or disprove, in order."""
    served = [record for record in evidence.truth if record["served"]]
    costs: Counter[str] = Counter()
    for record in served:
        costs[record["request_id"]] += true_cost(record, evidence.prices)
    booked = {row.request_id: row for row in evidence.booked}
    return [
        _hard_limit(evidence, costs, booked),
        _one_record_each(evidence, costs, booked),
        _exact_money(evidence, costs, booked),
        _uncertainty(evidence, costs, booked),
        _durable_before_visible(evidence, booked),
        _fast_recovery(evidence),
    ]


def _hard_limit(evidence: Evidence, costs: Mapping[str, int], booked: Mapping[str, Booked]) -> Finding:
    """G1: no sample, no sum of the books and no true cost is above the limit."""
    excess: Counter[str] = Counter()
    for sample in evidence.samples:
        over = sample.posted + sample.held - evidence.limits[sample.tenant]
        excess["samples"] = max(excess["samples"], over)
    spent: Counter[str] = Counter()
    true: Counter[str] = Counter()
    for row in evidence.booked:
        spent[row.tenant] += row.cost_nanos
    tenants = {one.request_id: one.tenant for one in evidence.seen} | {id: row.tenant for id, row in booked.items()}
    for request_id, cost in costs.items():
        true[tenants.get(request_id, "")] += cost
    for tenant, limit in evidence.limits.items():
        excess["books"] = max(excess["books"], spent[tenant] - limit)
        excess["truth"] = max(excess["truth"], true[tenant] - limit)
    refused = sum(one.status in (402, 429) for one in evidence.seen)
    figures = ", ".join(f"excess in {name} {excess[name]}" for name in ("samples", "books", "truth"))
    figures += f" nano-dollars; {len(evidence.samples)} samples, {refused} calls refused"
    return Finding("G1", not any(value > 0 for value in excess.values()), figures)


def _one_record_each(evidence: Evidence, costs: Mapping[str, int], booked: Mapping[str, Booked]) -> Finding:
    """G2: every call that the provider served has exactly one record."""
    lost = costs.keys() - booked.keys()
    times = Counter(row.request_id for row in evidence.booked)
    doubled = [id for id, count in times.items() if count > 1]
    figures = f"{len(lost)} lost, {len(doubled)} doubled of {len(costs)} served; {evidence.kills} kills"
    return Finding("G2", not lost and not doubled, figures + _some(lost))


def _exact_money(evidence: Evidence, costs: Mapping[str, int], booked: Mapping[str, Booked]) -> Finding:
    """G3: what was booked is the price of what was served, to the nano-dollar, call by call; entries sum to zero."""
    wrong = [id for id, row in booked.items() if row.cost_nanos != costs.get(id, 0)]
    error = sum(row.cost_nanos for row in evidence.booked) - sum(costs.values())
    proven = evidence.verified.get("ok", True) is True
    figures = f"{len(wrong)} calls booked at another cost, books − truth = {error} nano-dollars, verify {proven}"
    return Finding("G3", not wrong and error == 0 and proven, figures + _some(wrong))


def _uncertainty(evidence: Evidence, costs: Mapping[str, int], booked: Mapping[str, Booked]) -> Finding:
    """G4: unknowns never exceed what was under way, and in the end nothing is unknown and nothing held."""
    unknown = [row.request_id for row in evidence.booked if row.status == "unknown"]
    most = max(evidence.unknowns, default=0)
    held = str(evidence.verified.get("held", "0"))
    suspense = str(evidence.verified.get("unknown", "0"))
    settled = not unknown and not held.strip("0.") and not suspense.strip("0.")
    figures = f"{len(unknown)} still unknown, held {held}, in suspense {suspense}"
    figures += f"; {sum(evidence.unknowns)} were, at most {most} by one kill of {evidence.in_flight_max} under way"
    return Finding("G4", settled and most <= evidence.in_flight_max, figures)


def _durable_before_visible(evidence: Evidence, booked: Mapping[str, Booked]) -> Finding:
    """G6: every answer that a client got whole is in the books as settled, whatever was killed right after."""
    whole = [one for one in evidence.seen if one.status == 200 and one.whole]
    missing = [one.request_id for one in whole if one.request_id not in booked]
    unsettled = [one.request_id for one in whole if one.request_id in booked and booked[one.request_id].status != "ok"]
    figures = f"{len(missing)} missing, {len(unsettled)} not settled of {len(whole)} answers seen whole"
    return Finding("G6", not missing and not unsettled, figures + _some([*missing, *unsettled]))


def _fast_recovery(evidence: Evidence) -> Finding:
    """G7: calls are accepted again soon after each kill, without a hand."""
    slowest = max(evidence.recoveries, default=0.0)
    return Finding("G7", slowest <= READY_SECONDS, f"ready again after at most {slowest:.1f} s")


def _some(ids: Any) -> str:
    """The first few ids, to start looking with."""
    shown = sorted(ids)[:3]
    return f" ({', '.join(shown)} …)" if shown else ""
