"""List prices: what is priced agrees with the list to the nano-dollar, and what cannot be priced is left out."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from genai_prices.types import ModelPrice

from faregate.catalogue.bundled import LeftOut, ListPrice, Stretch, left_out, list_price, listed
from faregate.catalogue.timeline import successive_cards
from faregate.core.pricing.book import PriceTimeline
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.pricing.cost import Tariff
from faregate.core.usage import Measure, Usage
from price_list import LISTS, by_the_list, listed_price

DAY = 86_400 * 10**9
#: 2026-11-21
NOW = 1_795_219_200 * 10**9

#: Azure offers nothing by name; some of its own list and some that it takes from OpenAI's.
AZURE_MODELS = ("gpt-4o", "gpt-4.1-mini", "gpt-5", "o1", "o3", "o3-mini", "o4-mini", "phi-4", "text-embedding-3-large")

#: Usages by the units that a model must have a price of its own for to report them; tools and other kinds are so rare
#: that no price of theirs may hide behind that of text.
USAGES: dict[tuple[str, ...], Usage] = {
    ("input_tokens",): Usage(input_text=300_001, input_cached=17),
    ("input_tokens", "output_tokens"): Usage(input_text=1_000, output_text=500, output_reasoning=9_999),
    ("cache_write_tokens",): Usage(input_text=123_457, input_cache_write=1_001, output_text=77),
    ("cache_write_1h_tokens",): Usage(
        input_text=5, input_cache_write=3, other=(Measure("cache_write_1h_tokens", "", 1_001),)
    ),
    ("input_audio_tokens",): Usage(input_text=7, input_audio=13, output_text=5),
    ("output_audio_tokens",): Usage(input_text=7, output_text=5, output_audio=1_003),
    ("cached_input_audio_tokens",): Usage(
        input_text=7, input_audio=13, other=(Measure("cached_input_audio_tokens", "", 11),)
    ),
    ("input_image_tokens",): Usage(input_text=7, other=(Measure("input_image_tokens", "", 501),)),
    ("cached_input_image_tokens",): Usage(input_text=7, other=(Measure("cached_input_image_tokens", "", 501),)),
    ("output_image_tokens",): Usage(output_text=7, other=(Measure("output_image_tokens", "", 4_160),)),
    ("web_searches",): Usage(input_text=9, output_text=2, other=(Measure("web_searches", "", 3),)),
    ("file_searches",): Usage(input_text=9, output_text=2, other=(Measure("file_searches", "", 3),)),
    ("seconds",): Usage(other=(Measure("seconds", "", 61),)),
    ("characters",): Usage(other=(Measure("characters", "", 4_097),)),
}


def price_then(kind: str, model: str, now: int, service_tier: str) -> ModelPrice:
    price = listed_price(kind, model, now, service_tier)
    assert price is not None
    return price


def pairs() -> Iterator[tuple[str, str, str, Stretch, int, Usage]]:
    """Every priced model in every service tier at every moment its price stood, with every usage it can report."""
    for kind in LISTS:
        for model in listed(kind) or AZURE_MODELS:
            price = list_price(kind, model)
            assert isinstance(price, ListPrice)
            for tier, stretches in (("", price.stretches), *price.service_tiers):
                for stretch in stretches:
                    begins, ends = stretch.effective_from, stretch.effective_to
                    now = begins + DAY if begins else (ends or NOW) - DAY
                    units = {rate.unit for rate in stretch.tiers[0].rates}
                    for needed, usage in USAGES.items():
                        if units.issuperset(needed):
                            yield kind, model, tier, stretch, now, usage


def test_every_priced_model_agrees_with_the_list() -> None:
    """All models of four providers, in all tiers and at all times: the nano-dollars of the list's own engine."""
    compared: Counter[str] = Counter()
    differences = []
    for kind, model, tier, stretch, now, usage in pairs():
        tariff = Tariff(RateCard(kind, model, model, stretch.tiers))
        ours, theirs = tariff.cost(usage), by_the_list(price_then(kind, model, now, tier), usage)
        compared[tier] += 1
        if ours != theirs:
            differences.append((model, tier, usage, ours, theirs))
    assert differences == []
    assert compared[""] >= 1_200
    assert all(compared[tier] >= 100 for tier in ("priority", "flex", "batch"))
    assert compared["fast"] >= 20


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("openai/gpt-4o-search-preview", "searches the web"),
        ("openai/gpt-4o-mini-search-preview", "searches the web"),
        ("openai/gpt-5-search-api", "searches the web"),
        ("openai/moderation", "no price"),
        ("openai/omni-moderation-latest", "no price"),
        ("gemini/gemini-embedding-2", "input_video_mtok"),
        ("gemini/gemini-omni-1.1-flash", "output_video_mtok"),
        ("gemini/gemma-3", "no price"),
    ],
)
def test_what_a_usage_report_cannot_price_is_left_out(model: str, reason: str) -> None:
    """Models billed by other units, by the search, or listed at nothing have no price, and say why."""
    kind, _, name = model.partition("/")
    answer = list_price(kind, name)
    assert isinstance(answer, LeftOut)
    assert reason in answer.reason
    assert name not in listed(kind)


@pytest.mark.parametrize(
    ("model", "unit", "pico", "per"),
    [
        ("openai/whisper-1", "seconds", 360_000_000_000, 3_600),
        ("openai/tts-1-hd", "characters", 30 * 10**12, 1_000_000),
        ("openai/gpt-image-1", "input_image_tokens", 10 * 10**12, 1_000_000),
        ("openai/gpt-realtime", "cached_input_audio_tokens", 400_000_000_000, 1_000_000),
        ("openai/o3-deep-research", "web_searches", 10 * 10**12, 1_000),
        ("openai/gpt-5", "file_searches", 2_500_000_000_000, 1_000),
        ("anthropic/claude-opus-5", "cache_write_1h_tokens", 10 * 10**12, 1_000_000),
        ("gemini/gemini-2.5-flash-image", "output_image_tokens", 30 * 10**12, 1_000_000),
    ],
)
def test_everything_that_is_measured_has_its_price(model: str, unit: str, pico: int, per: int) -> None:
    """Seconds, characters, searches and the rarer tokens are priced in our units, exactly."""
    kind, _, name = model.partition("/")
    price = list_price(kind, name)
    assert isinstance(price, ListPrice)
    assert Rate(unit, pico, per) in price.stretches[-1].tiers[0].rates


def test_a_service_tier_begins_when_its_price_was_looked_up() -> None:
    """The list knows gpt-5's priority price from 2026-10-12 on; before that nobody can say what a call cost."""
    price = list_price("openai", "gpt-5")
    assert isinstance(price, ListPrice)
    (stretch,) = dict(price.service_tiers)["priority"]
    known = int(datetime(2026, 10, 12, tzinfo=UTC).timestamp()) * 10**9
    assert (stretch.effective_from, stretch.effective_to) == (known, 0)


def test_a_tier_that_the_list_does_not_know_has_no_price() -> None:
    """gpt-4 cannot be had in priority, and nothing is guessed for it."""
    price = list_price("openai", "gpt-4")
    assert isinstance(price, ListPrice)
    assert [tier for tier, _ in price.service_tiers] == ["batch"]


def test_a_fine_tuned_model_is_not_taken_for_another() -> None:
    """An entry that matches whatever holds its name would price a tuned o4-mini as the model itself."""
    assert list_price("azure_openai", "ft:o4-mini-2025-04-16:acme::abc") is None


@pytest.mark.parametrize("model", ["dall-e-3", "house-model", "", "../../etc/passwd", "GPT 4"])
def test_an_unlisted_model_has_no_price(model: str) -> None:
    """Not knowing a model is not a price of nothing."""
    assert list_price("openai", model) is None
    assert list_price("http", model) is None


def test_no_listed_rate_is_zero() -> None:
    """Nothing that is priced from the list is free in any unit, tier or time."""
    free = [
        (model, rate)
        for kind in LISTS
        for model in listed(kind)
        if isinstance(price := list_price(kind, model), ListPrice)
        for stretch in price.stretches
        for tier in stretch.tiers
        for rate in tier.rates
        if rate.pico <= 0
    ]
    assert free == []


def test_left_out_and_listed_are_disjoint_and_both_told() -> None:
    """Every model of a list is either offered or left out with a sentence."""
    out = {(item.kind, item.model) for item in left_out()}
    assert all(item.reason for item in left_out())
    assert ("openai", "moderation") in out
    assert not out & {(kind, model) for kind in LISTS for model in listed(kind)}


def test_a_dated_price_splits_the_timeline() -> None:
    """o3 cost 10 and 40 dollars per million until its price fell on 2025-06-10."""
    price = list_price("openai", "o3")
    assert isinstance(price, ListPrice)
    fell = int(datetime(2025, 6, 10, tzinfo=UTC).timestamp()) * 10**9
    timeline = PriceTimeline(successive_cards("openai", "o3", price, ()))
    costs = [tariff.cost(Usage(input_text=1)) for now in (fell - 1, fell) if (tariff := timeline.at(now))]
    assert costs == [10_000, 2_000]


def test_a_tiered_price_keeps_its_cliff() -> None:
    """gpt-5.5 doubles its input price for a call with more than 272,000 input tokens."""
    price = list_price("openai", "gpt-5.5")
    assert isinstance(price, ListPrice)
    assert [tier.above_input_tokens for tier in price.stretches[0].tiers] == [0, 272_000]


def test_azure_takes_its_own_list_first_and_then_openais() -> None:
    """Azure sells OpenAI's models at OpenAI's price, and says so in the source."""
    azure, openai = list_price("azure_openai", "gpt-4o"), list_price("openai", "gpt-4o")
    assert isinstance(azure, ListPrice)
    assert isinstance(openai, ListPrice)
    assert azure.stretches == openai.stretches
    assert azure.source.endswith("OpenAI list price")
    assert isinstance(own := list_price("azure_openai", "o3-mini"), ListPrice)
    assert "OpenAI" not in own.source
    assert azure.service_tiers == ()
    assert listed("azure_openai") == ()


def test_dated_and_fine_tuned_names_are_priced_as_what_they_are() -> None:
    """A snapshot has its model's price, a fine-tuned model its own."""
    dated, base = list_price("openai", "gpt-4o-2024-08-06"), list_price("openai", "gpt-4o")
    tuned = list_price("openai", "ft:gpt-4o-2024-08-06:acme::abc123")
    assert isinstance(dated, ListPrice)
    assert isinstance(tuned, ListPrice)
    assert dated == base
    assert tuned.stretches[0].tiers != dated.stretches[0].tiers


def test_names_are_such_as_a_caller_writes() -> None:
    """Patterns and other gateways' spellings in the list are not offered."""
    assert {"gpt-4o", "gpt-4o-2024-08-06", "o3", "text-embedding-3-small"} <= set(listed("openai"))
    assert not [name for name in listed("openai") if ":" in name or name.endswith("-")]


def test_tiers_are_plain_integers() -> None:
    """The list's decimals have become integers that any process can read."""
    price = list_price("openai", "gpt-4o")
    assert isinstance(price, ListPrice)
    (tier,) = price.stretches[0].tiers
    assert isinstance(tier, Tier)
    assert {type(rate.pico) for rate in tier.rates} == {int}
