"""What the bundled list has wrong, put right."""

from datetime import UTC, datetime

import pytest

from faregate.catalogue.bundled import LeftOut, ListPrice, list_price
from faregate.catalogue.corrections import corrections, known_models, known_price
from faregate.catalogue.timeline import all_cards
from faregate.core.pricing.book import PriceTimeline
from faregate.core.pricing.cost import Tariff
from faregate.core.usage import Measure, Usage
from faregate.dialects.hosted_tools import TEXT_OF
from faregate.dialects.openai_images import variant

NOW = int(datetime(2026, 11, 21, tzinfo=UTC).timestamp()) * 10**9


def tariff(kind: str, model: str, region: str = "global", tier: str = "", now: int = NOW) -> Tariff:
    known = known_price(kind, model, region)
    assert isinstance(known, ListPrice)
    cards = all_cards("p", model, known, (), region)
    found = PriceTimeline(card for card in cards if card.service_tier == tier).at(now)
    assert found is not None
    return found


def one(unit: str, name: str = "") -> Usage:
    return Usage(other=(Measure(unit, name, 1),))


@pytest.mark.parametrize(
    ("model", "size", "quality", "cents"),
    [
        ("dall-e-2", "256x256", "", "1.6"),
        ("dall-e-2", "auto", "standard", "2"),
        ("dall-e-3", "1024x1024", "", "4"),
        ("dall-e-3", "1024x1024", "hd", "8"),
        ("dall-e-3", "1792x1024", "standard", "8"),
        ("dall-e-3", "1024x1792", "hd", "12"),
    ],
)
def test_an_image_is_priced_by_size_and_quality(model: str, size: str, quality: str, cents: str) -> None:
    """Each combination that is sold has its row, under the name that the dialect gives it."""
    assert tariff("openai", model).cost(one("images", variant(size, quality))) == int(float(cents) * 10**7)


@pytest.mark.parametrize(("size", "quality"), [("512x512", ""), ("1024x1024", "ultra"), ("1025x1024", "hd")])
def test_an_image_that_is_not_sold_has_no_price(size: str, quality: str) -> None:
    """B6: never nothing; the gate refuses what ``uncovered`` names."""
    assert tariff("openai", "dall-e-3").uncovered([Measure("images", variant(size, quality), 1)])


@pytest.mark.parametrize(
    ("model", "usage", "nanos"),
    [
        # 0.006 dollars a minute
        ("whisper-1", Usage(other=(Measure("seconds", "", 60),)), 6_000_000),
        ("whisper-1", one("seconds"), 100_000),
        ("tts-1", Usage(other=(Measure("characters", "", 1_000),)), 15_000_000),
        ("tts-1-hd", Usage(other=(Measure("characters", "", 1_000),)), 30_000_000),
        ("gpt-4o-mini-tts", Usage(input_text=1_000, output_audio=1_000), 600_000 + 12_000_000),
        ("gpt-4o-transcribe", Usage(input_audio=1_000, output_text=1_000), 6_000_000 + 10_000_000),
        ("gpt-4o-audio-preview", Usage(input_audio=1_000, output_audio=1_000), 120_000_000),
        ("gpt-4o-audio-preview-2024-10-01", Usage(input_audio=1_000, output_audio=1_000), 300_000_000),
        ("gpt-image-1", Usage(input_text=1_000, output_text=1_056), 5_000_000 + 42_240_000),
        ("gpt-4o-search-preview", Usage(input_text=1_000), 2_500_000 + 25_000_000),
        ("gpt-5-search-api", Usage(), 10_000_000),
        ("ft:gpt-4.1-2025-04-14:acme::abc", Usage(input_text=1_000, output_text=1_000), 15_000_000),
        ("rerank-v3.5", one("search_units"), 2_000_000),
        ("gpt-4o", one("web_searches", "preview"), 25_000_000),
        ("gpt-5", one("web_searches", "preview"), 10_000_000),
        ("gpt-5", one("code_sessions"), 30_000_000),
        ("gpt-5", one("file_searches"), 2_500_000),
        ("gpt-5", one("output_image_tokens", "gpt-image-1"), 40_000),
        ("gpt-5", one("input_image_tokens", f"gpt-image-1.5{TEXT_OF}"), 5_000),
    ],
)
def test_what_is_no_text_costs_what_it_costs(model: str, usage: Usage, nanos: int) -> None:
    """Seconds, characters, searches and the tokens of images and sound, at the provider's own prices."""
    assert tariff("openai", model).cost(usage) == nanos


@pytest.mark.parametrize("model", ["omni-moderation-latest", "omni-moderation-2024-09-26", "text-moderation-stable"])
def test_moderation_is_free_by_price(model: str) -> None:
    """Somebody wrote down 0 with a page; it is not that nobody knew."""
    assert tariff("openai", model).cost(Usage(input_text=10_000)) == 0
    known = known_price("openai", model)
    assert isinstance(known, ListPrice)
    assert "omni-moderation" in known.source


@pytest.mark.parametrize(
    ("model", "region", "tier", "now", "expected"),
    [
        ("gpt-4.1", "global", "priority", NOW, 3_500),
        ("gpt-4.1", "data_zone", "priority", NOW, 3_850),
        ("gpt-4.1", "data_zone", "", NOW, 2_200),
        ("gpt-4.1", "regional", "", NOW, 2_200),
        ("gpt-4.1", "global", "batch", NOW, 1_000),
        ("gpt-5.4", "data_zone", "", NOW, 2_750),
        ("whisper", "regional", "", NOW, 0),
        # Azure followed OpenAI's cut two months later.
        ("gpt-5.6-luna", "global", "", NOW - 90 * 86_400 * 10**9, 1_000),
        ("gpt-5.6-luna", "global", "", NOW, 200),
    ],
)
def test_azure_asks_its_own_prices(model: str, region: str, tier: str, now: int, expected: int) -> None:
    """A token of input by tier and region; what is not tokens costs the same everywhere."""
    assert tariff("azure_openai", model, region, tier, now).cost(Usage(input_text=1)) == expected


def test_a_regional_deployment_has_no_other_tiers() -> None:
    """Azure sells priority and batches in global and data zone deployments; OpenAI's flex it does not sell at all."""
    found = {}
    for region in ("global", "data_zone", "regional"):
        known = known_price("azure_openai", "gpt-5", region)
        assert isinstance(known, ListPrice)
        found[region] = [tier for tier, _ in known.service_tiers]
    assert found == {"global": ["priority", "batch"], "data_zone": ["priority", "batch"], "regional": []}


def test_inference_in_one_country_costs_more_at_anthropic() -> None:
    """Tokens of every kind a tenth more, searches the same."""
    usage = Usage(input_text=1_000, output_text=1_000, other=(Measure("web_searches", "", 1),))
    costs = [tariff("anthropic", "claude-opus-5-5", region).cost(usage) for region in ("global", "data_zone")]
    assert costs == [34_000_000, 36_400_000]


def test_a_spelling_has_the_price_of_what_it_spells() -> None:
    """The exact name first: a snapshot that the list prices apart keeps its own price."""
    assert known_price("openai", "gpt-4o-2030-01-01") == known_price("openai", "gpt-4o")
    assert known_price("openai", "gpt-4o-2024-05-13") != known_price("openai", "gpt-4o")
    assert known_price("openai", "house", requested="gpt-4o") == known_price("openai", "gpt-4o")
    assert known_price("openai", "house", requested="thing", answered="gpt-4o-2024-08-06") is not None
    assert known_price("openai", "house") is None


def test_what_is_left_out_stays_so_under_any_name() -> None:
    """The reason names the model as it was asked for."""
    found = known_price("gemini", "models/gemini-embedding-2")
    assert isinstance(found, LeftOut)
    assert found.model == "models/gemini-embedding-2"


def test_every_correction_corrects_something_and_has_a_source() -> None:
    """A row that the list has caught up with must go; each names its page and its day."""
    for correction in corrections():
        known = known_price("openai", correction.model)
        listed = list_price("openai", correction.model)
        assert isinstance(known, ListPrice), correction.model
        assert not isinstance(listed, ListPrice) or listed.stretches != known.stretches, correction.model
        assert "https://" in correction.source
        assert "2026-" in correction.source
        assert (correction.model in known_models("openai")) == correction.offered
