"""Nothing that a call costs changes unseen: hundreds of usages against a file and against the list's own engine."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from faregate.catalogue.bundled import ListPrice
from faregate.catalogue.corrections import known_price
from faregate.catalogue.timeline import all_cards
from faregate.core.pricing.book import PriceTimeline
from faregate.core.usage import Measure, Usage


def writer() -> ModuleType:
    """The module that wrote the file; it is run by its path, as people do."""
    spec = importlib.util.spec_from_file_location("price_regression", Path(__file__).with_name("price_regression.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRITER = writer()
LINES: list[dict[str, Any]] = [json.loads(line) for line in WRITER.FILE.read_text().splitlines()]


def usage_of(line: dict[str, Any]) -> Usage:
    told = dict(line["usage"])
    other = tuple(Measure(*each) for each in told.pop("other", ()))
    return Usage(**told, other=other)


def ours(line: dict[str, Any]) -> int | None:
    known = known_price(line["kind"], line["model"], line["region"])
    assert isinstance(known, ListPrice)
    cards = all_cards(line["kind"], line["model"], known, (), line["region"])
    tariff = PriceTimeline(card for card in cards if card.service_tier == line["service_tier"]).at(line["at"])
    return None if tariff is None else tariff.cost(usage_of(line))


def listed(line: dict[str, Any]) -> int | None:
    found = WRITER.listed_nanos(line["kind"], line["model"], line["service_tier"], line["at"], usage_of(line))
    assert found is None or isinstance(found, int)
    return found


def test_every_usage_costs_what_the_file_says() -> None:
    """A new price list or a changed correction shows here, to the nano-dollar; then write the file anew and read it."""
    assert [line for line in LINES if ours(line) != line["nanos"]] == []


def test_the_list_agrees_wherever_it_is_not_corrected() -> None:
    """``ModelPrice.calc_price`` gives the same; where it does not the line names our source."""
    assert [line for line in LINES if (listed(line) == line["nanos"]) == ("corrected" in line)] == []


def test_every_correction_is_sourced() -> None:
    """A page, a day, or an admission that it was recalled."""
    corrected = [line for line in LINES if "corrected" in line]
    assert 50 <= len(corrected) < len(LINES) / 2
    # The list does not know some spellings, of models that it has the right price of.
    assert all("http" in line["corrected"] or listed(line) is None for line in corrected)


def test_the_file_covers_what_is_sold() -> None:
    """At least 300 usages of 60 models, in every tier, with every kind of unit that has a list price."""
    assert len(LINES) >= 300
    assert len({(line["kind"], line["model"]) for line in LINES}) >= 60
    assert {line["service_tier"] for line in LINES} >= {"", "priority", "flex", "batch", "fast"}
    measured = {measure[0] for line in LINES for measure in line["usage"].get("other", ())}
    assert measured >= {"images", "seconds", "characters", "search_units"}
    assert measured >= {"web_searches", "file_searches", "code_sessions"}
    assert measured >= {"cache_write_1h_tokens", "cached_input_audio_tokens", "cached_input_image_tokens"}
    assert measured >= {"input_image_tokens", "output_image_tokens"}
    leaves = {leaf for line in LINES for leaf in line["usage"]}
    assert leaves >= {*Usage._fields}


def test_prices_of_a_date_and_of_long_prompts_are_in_it() -> None:
    """Some models cost another amount at another moment, and some another one a token where the prompt is long."""
    at_moments: dict[str, set[int]] = {}
    for line in LINES:
        same = json.dumps({**line, "at": 0, "nanos": 0, "corrected": ""})
        at_moments.setdefault(same, set()).add(line["nanos"])
    assert sum(len(costs) > 1 for costs in at_moments.values()) >= 4

    def steps(line: dict[str, Any]) -> int | None:
        return ours({**line, "usage": {"input_text": 300_001}})

    long = [line for line in LINES if line["usage"].get("input_text") == 300_001]
    dearer = [line for line in long if (steps(line) or 0) > 2 * (ours({**line, "usage": {"input_text": 150_001}}) or 0)]
    assert len(dearer) >= 10


@pytest.mark.parametrize(
    ("kind", "model", "region", "tier", "expected"),
    [
        # The list says 1.25 and 0.60 dollars a million, whatever the tier.
        ("azure_openai", "gpt-5", "global", "priority", 2_500),
        ("azure_openai", "gpt-5", "data_zone", "priority", 2_750),
        ("azure_openai", "gpt-5", "global", "batch", 625),
        ("azure_openai", "gpt-5", "data_zone", "", 1_375),
        ("openai", "gpt-5", "global", "priority", 2_500),
    ],
)
def test_azure_is_priced_as_azure(kind: str, model: str, region: str, tier: str, expected: int) -> None:
    """Tier and region change what a token of input costs there, which the bundled list does not know."""
    line = {"kind": kind, "model": model, "region": region, "service_tier": tier, "at": WRITER.NOW}
    assert ours({**line, "usage": {"input_text": 1}}) == expected
