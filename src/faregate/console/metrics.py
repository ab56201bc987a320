"""``/metrics``: the gate's counters and the books' figures in Prometheus' text format.

The gate counts in integers; here nano-dollars become dollars and microseconds seconds. A guard keeps the number of
label sets per metric bounded: the largest ones are kept and the rest is summed as ``other``.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from faregate.console.reading import in_thread
from faregate.console.rights import needs
from faregate.console.state import Console
from faregate.console.writing import console_of
from faregate.control import Figures, Histogram, Sample
from faregate.errors import FaregateError, Unavailable
from faregate.ports import CredentialState

router = APIRouter(include_in_schema=False)

OTHER: Final = "other"

_NANOS_SUFFIX: Final = "_nanos_total"

_HELP: Final = {
    "faregate_requests_total": "Calls that ended, by status.",
    "faregate_tokens_total": "Billed tokens by kind.",
    "faregate_units_total": "What else was billed, by unit: images, seconds, characters, searches …",
    "faregate_cost_dollars_total": "Cost of ended calls in dollars.",
    "faregate_refusals_total": "Calls refused, by code.",
    "faregate_shadow_refusals_total": "Calls that limits in the shadow would have refused, by limit.",
    "faregate_brakes_total": "Keys braked because they spent unlike themselves, by cause.",
    "faregate_deployment_trips_total": "How often a deployment came to rest.",
    "faregate_mirrored_calls_total": "Calls whose turn it was to be copied to another deployment, by outcome.",
    "faregate_cache_lookups_total": "Calls that were to use the response cache, by what became of that.",
    "faregate_cache_entries": "Answers that the response cache keeps.",
    "faregate_cache_bytes": "Bytes of memory that kept answers take.",
    "faregate_cache_disk_bytes": "Bytes on disk that kept answers take.",
    "faregate_cache_evictions_total": "Kept answers that made room for others.",
    "faregate_cache_failures_total": "Times that the store of the response cache could not do what it was asked.",
    "faregate_unpriced_usage_total": "What providers reported and no price covers, by unit.",
    "faregate_request_seconds": "From the first byte of a call to the last byte of its answer.",
    "faregate_first_token_seconds": "From the first byte of a call to the first byte of its answer.",
    "faregate_overhead_seconds": "Time that Faregate itself took of a call.",
}

_Labels = tuple[tuple[str, str], ...]


def guarded(samples: Sequence[Sample], label_sets_max: int) -> Iterator[tuple[_Labels, int]]:
    """Samples of one metric: the largest ``label_sets_max`` by value, and the sum of the rest as ``other``.

    Labels of a small closed set (``kind``, ``unit``, ``code``, ``status``) keep their values in that sum.
    """
    ordered = sorted(samples, key=lambda sample: (-sample.value, sample.labels))
    rest: dict[_Labels, int] = defaultdict(int)
    for sample in ordered[:label_sets_max]:
        rest[sample.labels] += sample.value
    for sample in ordered[label_sets_max:]:
        closed = ("kind", "unit", "code", "status", "cause")
        rest[tuple((name, value if name in closed else OTHER) for name, value in sample.labels)] += sample.value
    yield from rest.items()


class _Scrape(Collector):
    """One look at everything."""

    def __init__(self, console: Console, figures: Figures | None, of_books: dict[str, float]) -> None:
        self._console = console
        self._figures = figures
        self._of_books = of_books

    def collect(self) -> Iterable[Metric]:
        """The metrics, as the registry asks for them."""
        up = self._figures is not None
        yield GaugeMetricFamily("faregate_gate_up", "Whether the gate answers the console.", int(up))
        for name, value in self._of_books.items():
            yield GaugeMetricFamily(name, _GAUGES[name], value)
        raised = CounterMetricFamily(
            "faregate_alerts_total", "Alerts raised since the start, by kind.", labels=["kind"]
        )
        for kind, count in sorted(self._console.alerts_raised.items()):
            raised.add_metric([kind], count)
        yield raised
        yield from _of_credentials(self._console.credentials(), self._console.clock.wall_nanos())
        reloads = CounterMetricFamily(
            "faregate_config_reloads_total", "Configurations read again since the start, by result.", labels=["result"]
        )
        for result in ("ok", "failed"):
            reloads.add_metric([result], self._console.reloads[result])
        yield reloads
        if self._figures is None:
            return
        figures = self._figures
        yield GaugeMetricFamily("faregate_ready", "Whether calls are taken.", int(figures.ready))
        yield GaugeMetricFamily("faregate_held_dollars", "Money held by calls that run.", figures.held_nanos / 1e9)
        unknown, pending = figures.unknown_nanos / 1e9, figures.pending_nanos / 1e9
        yield GaugeMetricFamily("faregate_unknown_dollars", "Money held by calls whose outcome is unknown.", unknown)
        yield GaugeMetricFamily("faregate_unknown_requests", "Calls whose outcome is unknown.", figures.unknown_count)
        yield GaugeMetricFamily("faregate_pending_dollars", "Money held by work that providers accepted.", pending)
        yield GaugeMetricFamily("faregate_pending_requests", "Work that providers accepted.", figures.pending_count)
        yield GaugeMetricFamily("faregate_open_exchanges", "Calls at providers now.", figures.open_exchanges)
        yield GaugeMetricFamily("faregate_connections", "Client connections of the gate.", figures.connections)
        backlog = max(figures.position - figures.projected, 0)
        yield GaugeMetricFamily("faregate_journal_backlog_bytes", "Journal not yet in the books.", backlog)
        open_now = int(figures.failing_open)
        yield GaugeMetricFamily("faregate_failing_open", "Whether calls are taken without the books.", open_now)
        resting = GaugeMetricFamily(
            "faregate_deployment_state", "Deployments whose breaker is not closed.", labels=("deployment", "state")
        )
        for each in figures.resting:
            resting.add_metric((each.name, each.state), 1)
        yield resting
        yield from self._counters(figures.samples)
        for histogram in figures.histograms:
            yield _histogram(histogram)

    def _counters(self, samples: Sequence[Sample]) -> Iterator[Metric]:
        by_name: dict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            by_name[sample.name].append(sample)
        for counted, found in sorted(by_name.items()):
            scale = 1
            name = counted
            if counted.endswith(_NANOS_SUFFIX):
                name, scale = counted.removesuffix(_NANOS_SUFFIX) + "_dollars_total", 1_000_000_000
            labels = [label for label, _ in found[0].labels]
            # What a gate has now is no count: Prometheus would add what a restart seems to have taken away.
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family = kind(name, _HELP.get(name, name), labels=labels)
            for each, value in guarded(found, self._console.facts.label_sets_max):
                family.add_metric([text for _, text in each], value / scale if scale > 1 else value)
            yield family


def _of_credentials(states: Sequence[CredentialState], now: int) -> Iterator[Metric]:
    """How the fetched credentials of providers stand; nothing where none is fetched."""
    if not states:
        return
    usable = GaugeMetricFamily(
        "faregate_provider_credential_usable",
        "Whether a provider's fetched credential may be used now.",
        labels=["provider"],
    )
    left = GaugeMetricFamily(
        "faregate_provider_credential_seconds",
        "Seconds until a provider's fetched credential ends; not told of one that does not end by itself.",
        labels=["provider"],
    )
    fetched = CounterMetricFamily(
        "faregate_provider_credential_fetches_total",
        "Tries to fetch a provider's credential, by how they went.",
        labels=["provider", "status"],
    )
    for each in states:
        usable.add_metric([each.provider], int(each.usable))
        if each.expires_at:
            left.add_metric([each.provider], max(each.expires_at - now, 0) / 1e9)
        fetched.add_metric([each.provider, "ok"], each.renewals)
        fetched.add_metric([each.provider, "failed"], each.failures)
    yield from (usable, left, fetched)


_GAUGES: Final = {
    "faregate_journal_lag_seconds": "Age of the oldest journalled event that is not in the books; 0 when all are.",
    "faregate_outbox_backlog": "Facts in the books that wait to be copied to other systems.",
    "faregate_alerts_waiting": "Alerts that some channel has not taken yet.",
}


def _histogram(histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(
        histogram.name, _HELP.get(histogram.name, histogram.name), labels=[name for name, _ in histogram.labels]
    )
    buckets = [(str(bound / 1e6), count) for bound, count in histogram.buckets]
    family.add_metric(
        [value for _, value in histogram.labels], [*buckets, ("+Inf", histogram.count)], histogram.sum_us / 1e6
    )
    return family


def _lag_seconds(console: Console) -> float:
    """Age of the first journalled event that the books do not hold yet."""
    waiting = console.journal.read(console.books.projected(), 1)
    if not waiting:
        return 0.0
    return max(console.clock.wall_nanos() - waiting[0].event.at, 0) / 1e9


def _of_books(console: Console) -> dict[str, float]:
    try:
        alerts = {row["state"]: count for row, count in console.books.tally("alert", ("state",))}
        return {
            "faregate_journal_lag_seconds": _lag_seconds(console),
            "faregate_outbox_backlog": console.books.outbox_backlog(),
            "faregate_alerts_waiting": alerts.get("waiting", 0),
        }
    except FaregateError:
        # Health tells what is wrong with books or journal; the rest of the figures are wanted all the more.
        return {}


@router.get("/metrics")
@needs("installation.read")
async def metrics(request: Request) -> Response:
    """Everything that is counted."""
    console = console_of(request)
    figures = None
    if console.gate is not None:
        try:
            figures = await console.gate.figures()
        except Unavailable:
            # A gate that is down is a figure too: faregate_gate_up is 0.
            figures = None
    of_books = await in_thread(lambda: _of_books(console))

    def text() -> bytes:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Scrape(console, figures, of_books))
        return generate_latest(registry)

    return Response(await in_thread(text), media_type=CONTENT_TYPE_LATEST)
