"""Writes ``price_regression.jsonl``: what usages of many models cost, line by line, to be compared at every change.

Run ``PYTHONPATH=src:tests python tests/catalogue/price_regression.py`` after the price list or a correction has
changed, and read the difference: every changed number is a changed bill. A line that the list's own engine prices
otherwise names the source of our correction, so that no difference comes about unseen.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from faregate.catalogue.bundled import ListPrice
from faregate.catalogue.corrections import known_models, known_price
from faregate.catalogue.timeline import all_cards
from faregate.core.pricing.book import PriceTimeline
from faregate.core.usage import Measure, Usage
from price_list import by_the_list, listed_price

FILE = Path(__file__).with_name("price_regression.jsonl")

#: 2026-11-21
NOW = 1_795_219_200 * 10**9
#: 2026-09-01, before the list knew service tiers and before Azure had cut some prices
EARLIER = 1_788_220_800 * 10**9

AZURE_MODELS = (
    *(
        "gpt-4o",
        "gpt-4o-mini",
        "gpt-4.1",
        "gpt-4.1-mini",
        "gpt-5",
        "gpt-5.1",
        "gpt-5.4",
        "gpt-5.6-luna",
        "gpt-35-turbo",
    ),
    *("o1", "o3-mini", "o4-mini", "phi-4", "text-embedding-3-large", "whisper", "tts-hd", "dall-e-3", "gpt-image-1"),
)
#: Spellings that no list has.
SPELLED = (
    *("gpt-4o-2030-01-01", "ft:gpt-4.1-mini-2025-04-14:acme::x", "ft:gpt-4o-2024-08-06:acme::x", "rerank-v3.5"),
    *("gpt-4o-mini-2024-07-18.ft-abc", "text-moderation-latest", "gpt-4o-audio-preview-2024-10-01"),
)


def usages(units: set[str], variants: set[tuple[str, str]]) -> Iterator[Usage]:
    """What a model with prices of these units may report, short and long."""
    if "output_tokens" in units:
        yield Usage(input_text=1_237, input_cached=4_096, output_text=211, output_reasoning=640)
        yield Usage(input_text=300_001, input_cached=17, output_text=33)
    elif "input_tokens" in units:
        yield Usage(input_text=8_191)
    if "cache_write_tokens" in units:
        hour = (Measure("cache_write_1h_tokens", "", 2_048),) if "cache_write_1h_tokens" in units else ()
        yield Usage(input_text=11, input_cache_write=1_024, output_text=77, other=hour)
    if "input_audio_tokens" in units:
        yield Usage(input_text=7, input_audio=1_500, output_text=5)
    if "output_audio_tokens" in units:
        yield Usage(input_text=7, output_text=5, output_audio=1_003)
    if "input_image_tokens" in units:
        yield Usage(input_text=40, output_text=1_056, other=(Measure("input_image_tokens", "", 323),))
    for unit in ("cached_input_audio_tokens", "cached_input_image_tokens", "output_image_tokens"):
        if unit in units:
            yield Usage(input_text=40, output_text=9, other=(Measure(unit, "", 511),))
    for unit, variant in sorted(variants):
        if unit in ("images", "seconds", "characters", "search_units"):
            yield Usage(other=(Measure(unit, variant, 61),))
        elif unit in ("web_searches", "file_searches", "code_sessions"):
            yield Usage(input_text=9, output_text=2, other=(Measure(unit, variant, 2),))
    if units == {"requests"}:
        yield Usage(input_text=100)


def cases() -> Iterator[tuple[str, str, str, int]]:
    """Kind, model, region, and moment."""
    for kind in ("openai", "anthropic", "gemini"):
        prices = []
        for model in known_models(kind):
            price = known_price(kind, model)
            # Dated names, and many of the others, have the price of another.
            if price not in prices:
                prices.append(price)
                yield kind, model, "global", NOW
    for model in SPELLED:
        yield "openai", model, "global", NOW
    for model in ("o3", "gpt-5.6-luna", "gpt-5"):
        yield "openai", model, "global", EARLIER
    for model in AZURE_MODELS:
        yield "azure_openai", model, "global", NOW
    for model in ("gpt-4o", "gpt-5.1", "o1", "whisper"):
        yield "azure_openai", model, "data_zone", NOW
    yield "azure_openai", "gpt-5.6-luna", "global", EARLIER
    yield "azure_openai", "gpt-4.1", "regional", NOW
    yield "anthropic", "claude-opus-5-5", "data_zone", NOW


def lines() -> Iterator[dict[str, Any]]:
    """Every line of the file."""
    for kind, model, region, now in cases():
        known = known_price(kind, model, region)
        assert isinstance(known, ListPrice), model
        cards = all_cards(kind, model, known, (), region)
        for tier in dict.fromkeys(card.service_tier for card in cards):
            tariff = PriceTimeline(card for card in cards if card.service_tier == tier).at(now)
            if tariff is None:
                continue
            rates = next(card for card in cards if card.version == tariff.version).tiers[0].rates
            found = usages({rate.unit for rate in rates}, {(rate.unit, rate.variant) for rate in rates})
            # Tools cost the same in any tier.
            for usage in islice(found, 4 if tier else None):
                line = {
                    "kind": kind,
                    "model": model,
                    "region": region,
                    "service_tier": tier,
                    "at": now,
                    "usage": {name: value for name, value in usage._asdict().items() if value},
                    "nanos": tariff.cost(usage),
                }
                if line["nanos"] != listed_nanos(kind, model, tier, now, usage):
                    line["corrected"] = known.source.partition(" + ")[2] or known.source
                yield line


def listed_nanos(kind: str, model: str, tier: str, now: int, usage: Usage) -> int | None:
    """What the list's own engine makes of it, ``None`` where it does not know the model."""
    price = listed_price(kind, model, now, tier)
    return None if price is None else by_the_list(price, usage)


if __name__ == "__main__":
    FILE.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines()))
