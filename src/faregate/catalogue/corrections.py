"""Our own layer over the bundled list: what it leaves out or has wrong, each with the page and the day it was read.

A source that begins with "recalled" could not be looked up when it was written down. ``known_price`` is what everybody
asks: the list price under any spelling of a name, with these prices laid over it, and for Azure what Azure asks.
"""

from functools import cache, lru_cache
from typing import Final, NamedTuple

from faregate.catalogue import azure
from faregate.catalogue.aliases import price_names, spellings
from faregate.catalogue.bundled import LeftOut, ListPrice, Stretch, list_price, listed
from faregate.catalogue.layers import Place, laid_over, scaled
from faregate.core.money import picos
from faregate.core.pricing.card import Rate, Tier

MILLION: Final = 1_000_000

_OPENAI_PAGE: Final = "https://developers.openai.com/api/docs/pricing"
_MODEL_PAGES: Final = "https://developers.openai.com/api/docs/models/"


class Correction(NamedTuple):
    """Prices of one model that the list does not have or has wrong."""

    model: str
    #: (unit, variant, dollars, for how many)
    prices: tuple[tuple[str, str, str, int], ...]
    #: The page, and when it was read.
    source: str
    #: These are all prices of the model; what the list says of it does not count.
    alone: bool = False
    #: A provider of this kind offers it to everybody.
    offered: bool = True


def _tokens(**dollars: str) -> tuple[tuple[str, str, str, int], ...]:
    return tuple((unit, "", price, MILLION) for unit, price in dollars.items())


def _images(sizes: dict[str, str]) -> tuple[tuple[str, str, str, int], ...]:
    """Prices of one image each, by size and quality as ``dialects.openai_images`` writes them."""
    return tuple(("images", variant, price, 1) for variant, price in sizes.items())


_DALL_E_2: Final = {"256x256": "0.016", "512x512": "0.018", "1024x1024": "0.02"}
_DALL_E_3: Final = {"1024x1024": "0.04", "1024x1792": "0.08", "1792x1024": "0.08"}
_DALL_E_3_HD: Final = {"1024x1024/hd": "0.08", "1024x1792/hd": "0.12", "1792x1024/hd": "0.12"}

_RERANKERS: Final = (
    "rerank-v3.5",
    "rerank-english-v3.0",
    "rerank-multilingual-v3.0",
    "rerank-v4.0-pro",
    "rerank-v4.0-fast",
)

_FREE: Final = (("requests", "", "0", 1),)
_SEARCH_25: Final = ("requests", "", "25", 1_000)
_SEARCH_10: Final = ("requests", "", "10", 1_000)

_AUDIO_SOURCE: Final = f"recalled, {_OPENAI_PAGE} (audio tokens of gpt-4o-audio-preview), 2026-11-21"
_SEARCH_SOURCE: Final = f"recalled, {_OPENAI_PAGE} (web search preview: every call is one), 2026-11-21"
_MODERATION_SOURCE: Final = f"{_MODEL_PAGES}omni-moderation-latest (free of charge), 2026-11-21"
_TUNED_SOURCE: Final = f"recalled, {_OPENAI_PAGE} (fine-tuning), 2026-11-21"
_RERANK_SOURCE: Final = "recalled, https://cohere.com/pricing (rerank: 2 dollars per 1,000 searches), 2026-11-21"

_OPENAI: Final = (
    # The list has no price of an image.
    Correction(
        "dall-e-2",
        _images(_DALL_E_2),
        f"{_MODEL_PAGES}dall-e-2, 2026-11-21",
        alone=True,
    ),
    Correction(
        "dall-e-3",
        _images(_DALL_E_3 | _DALL_E_3_HD),
        f"recalled, {_MODEL_PAGES}dall-e-3, 2026-11-21",
        alone=True,
    ),
    # The list prices audio as text; it costs sixteen to sixty times as much.
    Correction("gpt-4o-audio-preview", _tokens(input_audio_tokens="40", output_audio_tokens="80"), _AUDIO_SOURCE),
    Correction(
        "gpt-4o-audio-preview-2024-10-01", _tokens(input_audio_tokens="100", output_audio_tokens="200"), _AUDIO_SOURCE
    ),
    Correction(
        "gpt-4o-mini-audio-preview",
        _tokens(input_audio_tokens="10", output_audio_tokens="20"),
        f"{_MODEL_PAGES}gpt-4o-mini-audio-preview, 2026-11-21",
    ),
    # Every call of these searches, and no answer says so: the search is a price by the call.
    Correction(
        "gpt-4o-search-preview",
        (*_tokens(input_tokens="2.5", output_tokens="10"), _SEARCH_25),
        _SEARCH_SOURCE,
        alone=True,
    ),
    Correction(
        "gpt-4o-mini-search-preview",
        (*_tokens(input_tokens="0.15", output_tokens="0.6"), _SEARCH_25),
        _SEARCH_SOURCE,
        alone=True,
    ),
    Correction(
        "gpt-5-search-api",
        (*_tokens(input_tokens="1.25", cached_input_tokens="0.125", output_tokens="10"), _SEARCH_10),
        _SEARCH_SOURCE,
        alone=True,
    ),
    # Free by price, not by accident. The list has entries without a price.
    Correction("omni-moderation", _FREE, _MODERATION_SOURCE, alone=True),
    Correction("omni-moderation-latest", _FREE, _MODERATION_SOURCE, alone=True),
    Correction("omni-moderation-2024-09-26", _FREE, _MODERATION_SOURCE, alone=True),
    Correction("text-moderation", _FREE, _MODERATION_SOURCE, alone=True, offered=False),
    Correction("text-moderation-stable", _FREE, _MODERATION_SOURCE, alone=True, offered=False),
    # The list knows some fine-tuned models only; the others would be priced as nothing.
    Correction(
        "ft:gpt-4.1",
        _tokens(input_tokens="3", cached_input_tokens="0.75", output_tokens="12"),
        _TUNED_SOURCE,
        alone=True,
        offered=False,
    ),
    Correction(
        "ft:gpt-4.1-mini",
        _tokens(input_tokens="0.8", cached_input_tokens="0.2", output_tokens="3.2"),
        _TUNED_SOURCE,
        alone=True,
        offered=False,
    ),
    Correction(
        "ft:gpt-4.1-nano",
        _tokens(input_tokens="0.2", cached_input_tokens="0.05", output_tokens="0.8"),
        _TUNED_SOURCE,
        alone=True,
        offered=False,
    ),
    Correction(
        "ft:o4-mini",
        _tokens(input_tokens="4", cached_input_tokens="1", output_tokens="16"),
        _TUNED_SOURCE,
        alone=True,
        offered=False,
    ),
    Correction(
        "ft:davinci-002", _tokens(input_tokens="12", output_tokens="12"), _TUNED_SOURCE, alone=True, offered=False
    ),
    Correction(
        "ft:babbage-002", _tokens(input_tokens="1.6", output_tokens="1.6"), _TUNED_SOURCE, alone=True, offered=False
    ),
    # Others serve these in OpenAI's wire format; an account at OpenAI has none of them.
    *(
        Correction(name, (("search_units", "", "2", 1_000),), _RERANK_SOURCE, alone=True, offered=False)
        for name in _RERANKERS
    ),
)

#: What calling a tool costs where the list has a price of one tool, by kind: it has none of the others.
_TOOLS: Final = {
    "openai": ((("code_sessions", "", "0.03", 1),), f"recalled, {_OPENAI_PAGE} (code interpreter, by the GB)"),
    # It is billed by the hour of a container, the first 1,550 of a month being free; a session is one.
    "anthropic": (
        (("code_sessions", "", "0.05", 1),),
        "recalled, https://platform.claude.com/docs/en/about-claude/pricing (code execution)",
    ),
    "gemini": (
        (("code_sessions", "", "0", 1),),
        "recalled, https://ai.google.dev/gemini-api/docs/code-execution (no charge but the tokens)",
    ),
}

#: Models that do not reason pay for the preview of web search by its older and dearer price.
_PREVIEW_FAMILIES: Final = ("gpt-4o", "gpt-4.1")
_PREVIEW: Final = Rate("web_searches", picos("25"), 1_000, "preview")
_PREVIEW_SOURCE: Final = f"{_OPENAI_PAGE} as quoted at https://community.openai.com/t/1363698"

#: Image models that a tool may call, and whose tokens an answer reports beside its own (``dialects.hosted_tools``).
_IMAGE_MODELS: Final = ("gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5")
_TEXT_OF: Final = " text"

#: Kind → region → how much more the tokens cost there, as a fraction; what is not named costs the same everywhere.
_UPLIFTS: Final = {
    "azure_openai": azure.UPLIFTS,
    # Inference in the United States only: https://platform.claude.com/docs/manage-claude/data-residency, 2026-11-21
    "anthropic": {"data_zone": (11, 10)},
}

_BY_MODEL: Final = {("openai", correction.model): correction for correction in _OPENAI}


def known_price(
    kind: str, model: str, region: str = "global", requested: str = "", answered: str = ""
) -> ListPrice | LeftOut | None:
    """What a model costs at a kind of provider and in a region: known, left out with the reason, or ``None``.

    ``model`` is what the deployment is declared to hold; where nothing is known of it the model that was requested from
    the provider, and then the one that answered, say what it costs.
    """
    for name in price_names(model, requested, answered):
        found = _known(kind, name, region)
        if found is not None:
            return found._replace(model=model) if isinstance(found, LeftOut) else found
    return None


@lru_cache(maxsize=8192)
def _known(kind: str, name: str, region: str) -> ListPrice | LeftOut | None:
    found = azure.price(name) if kind == azure.KIND else list_price(kind, name)
    found = _corrected(kind, name, found)
    return _in_region(kind, found, region) if isinstance(found, ListPrice) else found


@cache
def known_models(kind: str) -> tuple[str, ...]:
    """Names of all models that a kind of provider offers at a known price; Azure's deployments have their own names."""
    added = (each.model for (of, _), each in _BY_MODEL.items() if of == kind and each.offered)
    return tuple(dict.fromkeys((*listed(kind), *added)))


def corrections() -> tuple[Correction, ...]:
    """Every correction of a model, for showing."""
    return tuple(_BY_MODEL.values())


def _corrected(kind: str, name: str, found: ListPrice | LeftOut | None) -> ListPrice | LeftOut | None:
    # Azure sells OpenAI's models.
    lists = ("openai",) if kind == azure.KIND else (kind,)
    correction = next(
        (_BY_MODEL[of, each] for each in spellings(name) for of in lists if (of, each) in _BY_MODEL), None
    )
    if correction is not None and correction.alone:
        context = found.context_tokens_max if isinstance(found, ListPrice) else 0
        tiers = (Tier(0, tuple(_rates(correction.prices).values())),)
        return ListPrice((Stretch(0, 0, tiers),), correction.source, context)
    if not isinstance(found, ListPrice):
        return found
    if correction is not None:
        found = _with(found, _rates(correction.prices), correction.source)
    return _with_tools(kind, name, found)


def _with_tools(kind: str, name: str, found: ListPrice) -> ListPrice:
    """The prices of tools that the list does not have, for models that it knows to call some."""
    units = {rate.unit for stretch in found.stretches for rate in stretch.tiers[0].rates}
    if "web_searches" not in units and "file_searches" not in units:
        return found
    if kind == azure.KIND:
        return _with(found, _rates(azure.TOOLS), azure.TOOLS_SOURCE)
    if kind not in _TOOLS:
        return found
    prices, source = _TOOLS[kind]
    rates = _rates(prices)
    if kind == "openai":
        rates |= _image_tool()
        if any(name == family or name.startswith(f"{family}-") for family in _PREVIEW_FAMILIES):
            rates["web_searches", "preview", 0] = _PREVIEW
            source = f"{source} + {_PREVIEW_SOURCE}"
    return _with(found, rates, source)


@cache
def _image_tool() -> dict[Place, Rate]:
    """What the tokens of an image model cost that a response called, as variants of the units."""
    rates: dict[Place, Rate] = {}
    for model in _IMAGE_MODELS:
        price = list_price("openai", model)
        if not isinstance(price, ListPrice):
            continue
        own = {rate.unit: rate for rate in price.stretches[-1].tiers[0].rates}
        image_out = own.get("output_image_tokens", own["output_tokens"])
        image_in = own.get("input_image_tokens", own["input_tokens"])
        for unit, variant, rate in (
            ("input_image_tokens", model, image_in),
            ("input_image_tokens", model + _TEXT_OF, own["input_tokens"]),
            ("output_image_tokens", model, image_out),
        ):
            rates[unit, variant, 0] = rate._replace(unit=unit, variant=variant)
    return rates


def _rates(prices: tuple[tuple[str, str, str, int], ...]) -> dict[Place, Rate]:
    return {(unit, variant, 0): Rate(unit, picos(price), per, variant) for unit, variant, price, per in prices}


def _with(found: ListPrice, rates: dict[Place, Rate], source: str) -> ListPrice:
    """A list price with rates laid over it, at all times and in all its service tiers."""
    return found._replace(
        stretches=_laid(found.stretches, rates),
        service_tiers=tuple((tier, _laid(stretches, rates)) for tier, stretches in found.service_tiers),
        source=f"{found.source} + {source}",
    )


def _laid(stretches: tuple[Stretch, ...], rates: dict[Place, Rate]) -> tuple[Stretch, ...]:
    return tuple(stretch._replace(tiers=laid_over(stretch.tiers, rates)) for stretch in stretches)


def _in_region(kind: str, found: ListPrice, region: str) -> ListPrice:
    uplift = _UPLIFTS.get(kind, {}).get(region)
    if uplift is None:
        return found

    def raised(stretches: tuple[Stretch, ...]) -> tuple[Stretch, ...]:
        return tuple(each._replace(tiers=scaled(each.tiers, *uplift)) for each in stretches)

    tiers = found.service_tiers
    if kind == azure.KIND and region == azure.REGIONAL:
        # Only global and data zone deployments have other tiers than the standard one.
        tiers = ()
    return found._replace(
        stretches=raised(found.stretches),
        service_tiers=tuple((tier, raised(stretches)) for tier, stretches in tiers),
        source=f"{found.source} + uplift ({region})",
    )
