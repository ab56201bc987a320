"""List prices: what is priced agrees with the list to the nano-dollar, and what cannot be priced is left out."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from genai_prices.data import providers
from genai_prices.types import ModelPrice
from genai_prices.types import Usage as ListUsage

from faregate.catalogue.bundled import LeftOut, ListPrice, left_out, list_price, listed
from faregate.catalogue.timeline import successive_cards
from faregate.core.pricing.book import PriceTimeline
from faregate.core.pricing.card import Tier
from faregate.core.usage import Usage

LISTS = {"openai": "openai", "azure_openai": "azure", "anthropic": "anthropic", "gemini": "google"}
DAY = 86_400 * 10**9
#: 2026-11-21
NOW = 1_795_219_200 * 10**9

#: Azure offers nothing by name; some of its own list and some that it takes from OpenAI's.
AZURE_MODELS = ("gpt-4o", "gpt-4.1-mini", "gpt-5", "o1", "o3", "o3-mini", "o4-mini", "phi-4", "text-embedding-3-large")

#: Units that we price; the list also holds rates of extras that nobody asked for here.
USAGES = (
    Usage(input_text=1_000, output_text=500),
    Usage(input_text=1, output_text=1),
    Usage(input_text=300_001, input_cached=17, output_text=33, output_reasoning=9_999),
    Usage(input_text=123_457, input_cache_write=1_001, output_text=77),
    Usage(input_text=7, input_audio=13, output_text=5),
)


def listed_price(kind: str, model: str, now: int) -> ModelPrice:
    provider = next(provider for provider in providers if provider.id == LISTS[kind])
    info = provider.find_model(model, all_providers=providers)
    assert info is not None
    return info.get_prices(datetime.fromtimestamp(now // 10**9, UTC))


def by_the_list(price: ModelPrice, usage: Usage) -> int:
    """What the list's own engine makes of a usage, rounded half to even to nano-dollars."""
    reported = ListUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.input_cached,
        cache_write_tokens=usage.input_cache_write,
        output_reasoning_tokens=usage.output_reasoning,
        input_audio_tokens=usage.input_audio,
    )
    dollars = price.calc_price(reported)["total_price"]
    return int((dollars * 10**9).quantize(Decimal(1), ROUND_HALF_EVEN))


def pairs() -> Iterator[tuple[str, str, int, Usage]]:
    """Every priced model at every moment its price stood, with every usage that it can report."""
    for kind in LISTS:
        for model in listed(kind) or AZURE_MODELS:
            price = list_price(kind, model)
            assert isinstance(price, ListPrice)
            for stretch in price.stretches:
                now = stretch.effective_from + DAY if stretch.effective_from else (stretch.effective_to or NOW) - DAY
                audio = any(rate.unit == "input_audio_tokens" for rate in stretch.tiers[0].rates)
                for usage in USAGES:
                    if audio or not usage.input_audio:
                        yield kind, model, now, usage


def test_every_priced_model_agrees_with_the_list() -> None:
    """All models of four providers, at all times, by several usages: the nano-dollars of the list's own engine."""
    compared = 0
    differences = []
    for kind, model, now, usage in pairs():
        price = list_price(kind, model)
        assert isinstance(price, ListPrice)
        tariff = PriceTimeline(successive_cards(kind, model, price, ())).at(now)
        assert tariff is not None
        ours, theirs = tariff.cost(usage), by_the_list(listed_price(kind, model, now), usage)
        compared += 1
        if ours != theirs:
            differences.append((model, usage, ours, theirs))
    assert differences == []
    assert compared >= 1_000


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("tts-1", "billed by input_mchars"),
        ("whisper-1", "billed by audio_hours"),
        ("gpt-image-1", "not measured apart"),
        ("gpt-4o-search-preview", "searches the web"),
        ("gpt-4o-mini-search-preview", "searches the web"),
        ("o3-deep-research", "searches the web"),
        ("moderation", "no price"),
        ("omni-moderation-latest", "no price"),
        ("gpt-realtime", "not measured apart"),
    ],
)
def test_what_a_usage_report_cannot_price_is_left_out(model: str, reason: str) -> None:
    """Models billed by other units, by the search, or listed at nothing have no price, and say why."""
    answer = list_price("openai", model)
    assert isinstance(answer, LeftOut)
    assert reason in answer.reason
    assert model not in listed("openai")


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
    assert ("openai", "whisper-1") in out
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
    assert isinstance(list_price("azure_openai", "whisper-1"), LeftOut)
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
