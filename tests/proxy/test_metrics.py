"""What the gate counts of ended calls."""

from pathlib import Path

from faregate.control import Sample
from faregate.core.attribution import Attribution
from faregate.core.usage import COUNTED_UNITS, OTHER_INPUT_UNITS, OTHER_OUTPUT_UNITS, OTHER_UNITS, Measure, Usage
from faregate.proxy.metrics import COUNTED_AT_ONCE, Metrics
from gates import running_gate, scenario, steered

WHO = Attribution("default", "research", model="m")


def counted(*usages: Usage) -> dict[tuple[str, str], int]:
    """Name and last label of each counter that counts usage → its value."""
    metrics = Metrics()
    for usage in usages:
        metrics.settled((metrics.row(WHO, "ok"), usage, 1, 2, 3, 4))
    return {(sample.name, sample.labels[-1][1]): sample.value for sample in metrics.samples() if of_usage(sample)}


def of_usage(sample: Sample) -> bool:
    """Whether a sample counts tokens or units."""
    return sample.labels[-1][0] in ("kind", "unit")


def test_every_leaf_and_unit_is_counted_where_it_belongs() -> None:
    """Tokens by kind, whatever kind; what is not tokens by its unit; variants together."""
    other = tuple(Measure(unit, "", 100 + n) for n, unit in enumerate(OTHER_UNITS))
    found = counted(Usage(1, 2, 3, 4, 5, 6, 7, other), Usage(other=(Measure("images", "hd", 1000),)))
    kinds = ("input", "cached_input", "cache_write", "input_audio", "output", "reasoning", "output_audio")
    tokens = {("faregate_tokens_total", kind): n for n, kind in enumerate(kinds, start=1)}
    rare = {
        ("faregate_tokens_total", unit.removesuffix("_tokens")): 100 + OTHER_UNITS.index(unit)
        for unit in (*OTHER_INPUT_UNITS, *OTHER_OUTPUT_UNITS)
    }
    units = {("faregate_units_total", unit): 100 + OTHER_UNITS.index(unit) for unit in COUNTED_UNITS}
    units["faregate_units_total", "images"] += 1000
    assert found == {**tokens, **rare, **units}


def test_an_ordinary_call_makes_no_series_of_what_it_did_not_use() -> None:
    """A scrape lists the units that somebody used."""
    assert counted(Usage(3, output_text=2)) == {
        ("faregate_tokens_total", "input"): 3,
        ("faregate_tokens_total", "output"): 2,
    }


def test_what_ended_is_added_up_in_small_parts() -> None:
    """There are never many to add up while a call waits; nothing is added before that is worth it, or twice."""
    metrics = Metrics()
    row = metrics.row(WHO, "ok")
    seen = set()
    for _ in range(3 * COUNTED_AT_ONCE + 1):
        metrics.settled((row, Usage(1), 1, 2, 3, 4))
        metrics.count_many()
        seen.add(row[0])
    metrics.count()

    assert seen == {0, COUNTED_AT_ONCE, 2 * COUNTED_AT_ONCE, 3 * COUNTED_AT_ONCE}
    assert row[0] == 3 * COUNTED_AT_ONCE + 1


@scenario
async def test_a_tier_that_nobody_has_a_price_for_is_told(tmp_path: Path) -> None:
    """An answer of a dearer tier is billed as the one that was asked for, which somebody should look at."""
    async with running_gate(tmp_path) as running:
        for tier in ("default", "priority", "of-tomorrow"):
            assert (await running.chat(steered(service_tier=tier))).status_code == 200
        found = {sample.labels: sample.value for sample in running.gate.metrics.samples() if "unpriced" in sample.name}
        assert found == {(("unit", "service_tier"),): 2}
