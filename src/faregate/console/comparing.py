"""``/api/v1/reports/deployments``: how deployments compare: what calls cost there, how they ended, how fast it was.

Copies of calls (``mirror``) are rows of their own, and where a copy and its original are both known, a pair. They are
nobody's calls: only whoever may read the whole installation sees them.
"""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter, Request

from faregate.console.describing import answers, asks, choice, text, time
from faregate.console.paging import single_values
from faregate.console.reading import in_thread
from faregate.console.reports import ratio_text
from faregate.console.requests import FILTERS
from faregate.console.rights import needs
from faregate.console.shapes import calls as shapes
from faregate.console.texts import or_none, second_text, time_text
from faregate.console.usage import asked_period
from faregate.console.writing import console_of
from faregate.core import money
from faregate.core.comparison import MILLI, Comparison, Figures, PairOfPlaces, Pairs, Place, nearest_rank

router = APIRouter(prefix="/reports", tags=["reports"])

#: Records that a report is of, the newest: percentiles need their figures in memory, and this is about a second's work.
RECORDS_MAX: Final = 100_000

_STREAM: Final = {"true": True, "false": False}


def _milli(value: int | None) -> float | None:
    """Thousandths of a whole that is no money, as a number."""
    return None if value is None else value / MILLI


def _percentiles(values: Sequence[int], *percents: int) -> dict[str, float | None]:
    """Of microseconds, in milliseconds."""
    ordered = sorted(values)
    return {f"p{percent}": _milli(nearest_rank(ordered, percent)) for percent in percents}


def _median(values: Sequence[int]) -> float | None:
    return _milli(nearest_rank(sorted(values), 50))


def _row(place: Place, figures: Figures) -> dict[str, Any]:
    each = figures.cost_per_request
    return {
        "model": or_none(place.model),
        "deployment": place.deployment,
        "provider": or_none(place.provider),
        "mirrored": place.mirrored,
        "requests": figures.requests,
        "ok": figures.ok,
        "failed": figures.failed,
        "ok_ratio": ratio_text(figures.ok, figures.ok + figures.failed),
        "cost": money.dollars(figures.cost),
        "cost_per_request": None if each is None else money.dollars(each),
        "input_tokens": figures.input_tokens,
        "output_tokens": figures.output_tokens,
        "latency_ms": _percentiles(figures.latencies_us, 50, 90, 99),
        "first_token_ms": _percentiles(figures.first_tokens_us, 50, 90),
        "output_tokens_per_second": _median(figures.speeds),
    }


def _pair(of: PairOfPlaces, pairs: Pairs) -> dict[str, Any]:
    originals, copies = pairs.originals, pairs.copies
    return {
        "model": or_none(of.model),
        "deployment": of.deployment,
        "mirror": of.mirror,
        "pairs": originals.requests,
        "cost": money.dollars(originals.cost),
        "mirror_cost": money.dollars(copies.cost),
        "latency_ms": _median(originals.latencies_us),
        "mirror_latency_ms": _median(copies.latencies_us),
        "output_tokens": originals.output_tokens,
        "mirror_output_tokens": copies.output_tokens,
        "failed": pairs.failed,
        "mirror_failed": pairs.mirror_failed,
    }


def shape(found: Comparison) -> dict[str, Any]:
    """A comparison as the API shows it: rows by model, copies below what they are compared with."""
    rows = sorted(found.rows.items(), key=lambda each: (each[0].model, each[0].mirrored, each[0]))
    return {
        "records": found.records,
        "truncated": found.truncated,
        "data": [_row(place, figures) for place, figures in rows],
        "pairs": [_pair(of, pairs) for of, pairs in sorted(found.pairs.items(), key=lambda each: each[0])],
    }


@router.get("/deployments")
@needs("usage.read")
@asks(
    time("since", "Not before this time; from the start of this month where it is not given."),
    time("until", "Before this time; up to now where it is not given."),
    text("model", "The model that is priced; of a pair, on either side."),
    text("deployment", "The deployment; of a pair, on either side."),
    text("operation", "The operation of the call."),
    choice("stream", tuple(_STREAM), "Only streams, or only what is none."),
)
@answers(shapes.DeploymentReport)
async def compare_deployments(request: Request) -> dict[str, Any]:
    """How deployments compare from ``since`` (default: start of this month) up to ``until`` (default: now)."""
    console = console_of(request)
    values = single_values(request)
    now = console.clock.wall_nanos()
    since, until = asked_period(values, now)
    stream = _STREAM[values.pop("stream")] if "stream" in values else None
    filters: dict[str, Any] = {FILTERS[name]: value for name, value in values.items()}
    found = await in_thread(lambda: console.books.comparison(since, until, RECORDS_MAX, stream=stream, **filters))
    return {"since": time_text(since), "until": second_text(until or now), **shape(found)}
