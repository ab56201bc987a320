"""What the bundled price list's own engine makes of our usages: the oracle of the prices that we expand from it."""

from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal

from genai_prices.data import providers
from genai_prices.types import ModelPrice
from genai_prices.types import Usage as ListUsage

from faregate.core.usage import Usage

#: Kind of a provider → its list.
LISTS = {"openai": "openai", "azure_openai": "azure", "anthropic": "anthropic", "gemini": "google"}

#: Our service tier → what the list calls it.
CONTEXTS: dict[str, dict[str, str]] = {
    "": {},
    "priority": {"service_tier": "priority"},
    "flex": {"service_tier": "flex"},
    "batch": {"processing": "batch"},
    "fast": {"speed": "fast"},
}


def listed_price(kind: str, model: str, now: int, service_tier: str = "") -> ModelPrice | None:
    """The list's price at ``now`` (nanoseconds), ``None`` where it does not know the model."""
    provider = next(provider for provider in providers if provider.id == LISTS[kind])
    info = provider.find_model(model, all_providers=providers)
    if info is None:
        return None
    return info.get_prices(datetime.fromtimestamp(now // 10**9, UTC), CONTEXTS[service_tier])


def by_the_list(price: ModelPrice, usage: Usage) -> int:
    """What the list's own engine makes of a usage, rounded half to even to nano-dollars."""
    hour = usage.quantity("cache_write_1h_tokens")
    kept = usage.quantity("cached_input_audio_tokens"), usage.quantity("cached_input_image_tokens")
    told: dict[str, int] = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.input_cached + sum(kept),
        "cache_write_tokens": usage.input_cache_write + hour,
        "cache_write_1h_tokens": hour,
        "output_reasoning_tokens": usage.output_reasoning,
        "input_audio_tokens": usage.input_audio + kept[0],
        "cache_audio_read_tokens": kept[0],
        "input_image_tokens": usage.quantity("input_image_tokens") + kept[1],
        "cache_image_read_tokens": kept[1],
        "output_audio_tokens": usage.output_audio,
        "output_image_tokens": usage.quantity("output_image_tokens"),
        "web_searches": usage.quantity("web_searches"),
        "storage_searches": usage.quantity("file_searches"),
        "input_characters": usage.quantity("characters"),
        "audio_seconds": usage.quantity("seconds"),
        "input_audio_seconds": usage.quantity("seconds"),
    }
    dollars = price.calc_price(ListUsage(**told))["total_price"]
    return int((dollars * 10**9).quantize(Decimal(1), ROUND_HALF_EVEN))
