"""The public price list of LiteLLM (``model_prices_and_context_window.json``) → exact integer prices.

The list is one object by model name; prices are numbers in dollars for one unit, such as ``2.5e-06`` for a token. They
are read from their digits, never as binary fractions. The fields are described by the entry ``sample_spec`` of the list
and by https://docs.litellm.ai/docs/provider_registration/add_model_pricing. What the list says beyond prices of units
that we measure is left out and told, never guessed: an entry of another kind of provider, a zero, an unknown unit.
"""

import json
import re
from collections.abc import Iterator, Mapping
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Final, NamedTuple

from faregate.core.money import PICOS_PER_DOLLAR, PRICE_DOLLARS_MAX
from faregate.core.pricing.listing import PriceEntry, PriceFault, PriceFile
from faregate.core.strict_json import once

#: ``litellm_provider`` → our kind of provider, and the prefix that the list's names carry for it.
_KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "openai": ("openai", "openai/"),
    "text-completion-openai": ("openai", "text-completion-openai/"),
    "azure": ("azure_openai", "azure/"),
    "azure_text": ("azure_openai", "azure/"),
    "anthropic": ("anthropic", "anthropic/"),
    "gemini": ("gemini", "gemini/"),
}

_MILLION: Final = 1_000_000


class _Field(NamedTuple):
    """What one field of the list prices."""

    unit: str
    #: How many units our price is for; the list's own are for one, or for ``of``.
    per: int = _MILLION
    of: int = 1
    variant: str = ""


#: Fields that may also carry a threshold and a service tier.
_FIELDS: Final[Mapping[str, _Field]] = {
    "input_cost_per_token": _Field("input_tokens"),
    "output_cost_per_token": _Field("output_tokens"),
    "output_cost_per_reasoning_token": _Field("reasoning_tokens"),
    "cache_read_input_token_cost": _Field("cached_input_tokens"),
    "cache_creation_input_token_cost": _Field("cache_write_tokens"),
    "cache_creation_input_token_cost_above_1hr": _Field("cache_write_1h_tokens"),
    "input_cost_per_audio_token": _Field("input_audio_tokens"),
    "output_cost_per_audio_token": _Field("output_audio_tokens"),
    "cache_read_input_audio_token_cost": _Field("cached_input_audio_tokens"),
    "input_cost_per_image_token": _Field("input_image_tokens"),
    "cache_read_input_image_token_cost": _Field("cached_input_image_tokens"),
    "output_cost_per_image_token": _Field("output_image_tokens"),
    "input_cost_per_character": _Field("characters"),
    "output_cost_per_character": _Field("characters"),
    "input_cost_per_second": _Field("seconds", 60),
    "output_cost_per_second": _Field("seconds", 60),
    "input_cost_per_query": _Field("search_units", 1_000),
    "input_cost_per_request": _Field("requests", 1_000),
    "ocr_cost_per_page": _Field("pages", 1_000),
    "code_interpreter_cost_per_session": _Field("code_sessions", 1_000),
    "file_search_cost_per_1k_calls": _Field("file_searches", 1_000, 1_000),
}

#: The price of an image, whatever it is called, where an image is what is sold.
_IMAGES: Final = ("output_cost_per_image", "input_cost_per_image")
_PIXELS: Final = ("output_cost_per_pixel", "input_cost_per_pixel")

_SEARCHES: Final = "search_context_cost_per_query"
_SEARCH_SIZES: Final = tuple(f"search_context_size_{size}" for size in ("low", "medium", "high"))

#: A field with its threshold and its service tier, which stand in either order.
_SUFFIXED: Final = re.compile(
    r"(?P<base>.+?)(?:_(?P<tier_first>batches|priority|flex))?(?:_above_(?P<above>[0-9]{1,6})k_tokens)?"
    r"(?:_(?P<tier>batches|priority|flex))?"
)
_TIERS: Final = {"batches": "batch", "priority": "priority", "flex": "flex"}

#: Fields that look like prices and are none that we could use, or are told by others.
_PRICE: Final = re.compile(r"(?:^|_)cost(?:_|$)|_price$")

_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?")

#: A text, and whether an object of that name begins after it.
_TEXT: Final = re.compile(r'"(?P<name>(?:[^"\\]|\\.)*)"(?P<object>\s*:\s*\{)?')

#: Segments before a model's name. A size is written ``1024-x-1024``, also with plain letters in between.
_SIZE: Final = re.compile(r"([0-9]{2,5})-?x-?([0-9]{2,5})")
_QUALITIES: Final = ("standard", "hd", "low", "medium", "high", "auto")
#: Where Azure processes a call, as our deployments say it: data zones are the United States and the European Union.
_REGIONS: Final = {"us": "data_zone", "eu": "data_zone", "global": "global", "global-standard": "global"}

#: A number of more digits than these is what a program made of a binary fraction (0.8000000000000001).
_DIGITS: Final = Context(prec=15, rounding=ROUND_HALF_EVEN)
_DIGITS_MAX: Final = 15
_EXACT: Final = Context(prec=60)

_ENTRIES_MAX: Final = 50_000
_FAULTS_MAX: Final = 50
_NAME_MAX: Final = 128
#: Of what a file calls things, so much stands in a sentence.
_SHOWN_MAX: Final = 64
_ONE_DOLLAR_MAX: Final = 1_000


class _Refused(Exception):
    """A field holds what no price can be; the sentence says what."""


class _Literal(str):
    """A number as its digits stand in the file."""

    __slots__ = ()


def read(text: str, name: str) -> PriceFile:
    """The prices of the list's ``text``; ``name`` is what its places are called after."""
    try:
        listed = json.loads(
            text.removeprefix("\ufeff"),
            parse_float=_Literal,
            parse_int=_Literal,
            parse_constant=_Literal,
            object_pairs_hook=once,
        )
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        told = getattr(error, "msg", str(error) if isinstance(error, ValueError) else "is nested too deeply")
        return PriceFile("litellm", faults=(PriceFault(f"{name}:{line}", f"is no JSON: {told}"),))
    if not isinstance(listed, dict) or len(listed) > _ENTRIES_MAX:
        problem = f"is one object by model name, of at most {_ENTRIES_MAX} models"
        return PriceFile("litellm", faults=(PriceFault(f"{name}:1", problem),))
    lines = _lines(text)
    entries: dict[tuple[object, ...], PriceEntry] = {}
    faults: list[PriceFault] = []
    skipped: list[PriceFault] = []
    for model, facts in listed.items():
        where = f"{name}:{lines.get(model, 1)}"
        if model == "sample_spec":
            continue
        if not isinstance(facts, dict):
            faults.append(PriceFault(where, f"{model[:64]!r} is not an object"))
        elif len(model) > _NAME_MAX or not model.isprintable():
            faults.append(PriceFault(where, f"the name has at most {_NAME_MAX} printable characters"))
        else:
            try:
                _keep_dearest(entries, _model(model, facts, where, skipped))
            except _Refused as problem:
                faults.append(PriceFault(where, f"{model}: {problem}"))
        if len(faults) >= _FAULTS_MAX:
            break
    return PriceFile("litellm", tuple(entries.values()), tuple(faults), tuple(skipped))


def _keep_dearest(entries: dict[tuple[object, ...], PriceEntry], found: Iterator[PriceEntry]) -> None:
    """Add prices; of several for one thing the dearest counts, for it is never too little.

    The list prices input and output of seconds and characters, and both data zones, apart; what they are priced for is
    one thing here.
    """
    for entry in found:
        key = entry.kind, entry.model, entry.unit, entry.variant, entry.service_tier, entry.region
        place = (*key, entry.above_input_tokens)
        before = entries.get(place)
        if before is None or entry.pico * before.per > before.pico * entry.per:
            entries[place] = entry


def _lines(text: str) -> dict[str, int]:
    """The line that each name of an object stands on, the first where several are alike."""
    found: dict[str, int] = {}
    # Only a line feed: the other signs that end lines may stand within a text. Each text is read to its end and never
    # begun within, so that one long line takes no longer than many.
    for number, line in enumerate(text.split("\n"), start=1):
        for match in _TEXT.finditer(line):
            if match["object"] is not None:
                found.setdefault(match["name"], number)
    return found


def _shown(name: str) -> str:
    """A name of the file's as a sentence has it."""
    return name[:_SHOWN_MAX] if name.isprintable() else repr(name[:_SHOWN_MAX])


class _Place(NamedTuple):
    """What a name of the list says beside the model: where it is processed, and which size and quality an image has."""

    model: str
    region: str = ""
    size: tuple[int, int] = (0, 0)
    quality: str = ""


def _place(name: str, prefix: str) -> _Place | str:
    """A name taken apart, or why it cannot be."""
    # Sizes stand before or after the name of the provider: ``1024-x-1024/azure/…`` and ``azure/hd/1024-x-1024/…``.
    parts = name.split("/")
    model = parts.pop()
    if not model:
        return "it names no model"
    place = _Place(model)
    for part in parts:
        if f"{part}/" == prefix:
            continue
        size = _SIZE.fullmatch(part)
        if size is not None:
            place = place._replace(size=(int(size[1]), int(size[2])))
        elif part in _QUALITIES:
            place = place._replace(quality=part)
        elif part in _REGIONS:
            place = place._replace(region=_REGIONS[part])
        else:
            return f"what {part[:32]!r} means in its name is not known"
    return place


def _variant(place: _Place) -> str:
    size = f"{place.size[0]}x{place.size[1]}" if place.size[0] else ""
    return "/".join(part for part in (size, place.quality) if part)


def _model(name: str, facts: Mapping[str, Any], where: str, skipped: list[PriceFault]) -> Iterator[PriceEntry]:
    sold_by = str(facts.get("litellm_provider", ""))
    if sold_by not in _KINDS:
        skipped.append(
            PriceFault(where, f"{name}: sold by {_shown(sold_by) or 'nobody named'}, no kind of provider here")
        )
        return
    kind, prefix = _KINDS[sold_by]
    place = _place(name, prefix)
    if isinstance(place, str):
        skipped.append(PriceFault(where, f"{name}: {place}"))
        return
    source = str(facts.get("source", ""))[:_NAME_MAX]
    base = PriceEntry(
        place.model, "", 1, 0, kind=kind, region=place.region, where=where,
        source=f"litellm {source}".strip() if source.isprintable() else "litellm",
    )  # fmt: skip
    yield from _prices(facts, place, base, name, skipped)


def _prices(
    facts: Mapping[str, Any], place: _Place, base: PriceEntry, name: str, skipped: list[PriceFault]
) -> Iterator[PriceEntry]:
    mode = str(facts.get("mode", ""))
    free = mode == "moderation"
    for key, value in facts.items():
        match = _SUFFIXED.fullmatch(key)
        if match is None:
            # Nothing at all, or more than one line: no field of the list is called so.
            continue
        field = _FIELDS.get(match["base"])
        tier = _TIERS.get(match["tier"] or match["tier_first"] or "", "")
        above = int(match["above"] or 0) * 1_000
        if field is not None:
            pico = _picos(key, value, field.per, field.of)
            if pico or (free and field.unit == "input_tokens"):
                yield base._replace(
                    unit=field.unit, per=field.per, pico=pico, service_tier=tier, above_input_tokens=above
                )
        elif key in _IMAGES or key in _PIXELS:
            # For a model that answers with text this is what an image in the question costs, which its tokens tell.
            if mode in ("image_generation", "image_edit"):
                yield from _images(key, value, place, base)
        elif key == _SEARCHES and isinstance(value, dict):
            for size, cost in value.items():
                if size in _SEARCH_SIZES and (pico := _picos(size, cost, 1_000)):
                    # No answer says which size of context was searched with; the dearest is never too little.
                    yield base._replace(unit="web_searches", per=1_000, pico=pico)
        elif _PRICE.search(key) and value not in (None, "", "0", "0.0"):
            skipped.append(PriceFault(base.where, f"{name}: {_shown(key)} prices a unit that is not measured"))


def _images(key: str, value: Any, place: _Place, base: PriceEntry) -> Iterator[PriceEntry]:
    """The price of an image, which the list gives for one image or for one of its pixels."""
    variant = _variant(place)
    if key in _IMAGES:
        pico = _picos(key, value, 1)
    elif place.size[0]:
        # Divided by their pixels, prices of images were rounded there; they are whole tenths of a cent, and no image
        # is sold below the product.
        exact = _number(key, value) * place.size[0] * place.size[1]
        pico = _held(key, int(exact.quantize(Decimal("0.001"), ROUND_CEILING, _EXACT) * PICOS_PER_DOLLAR), 1)
    else:
        return
    if pico:
        yield base._replace(unit="images", per=1, pico=pico, variant=variant)


def _picos(key: str, value: Any, per: int, of: int = 1) -> int:
    """Pico-dollars for ``per`` units of a price in dollars for ``of`` of them."""
    exact = _EXACT.divide(_EXACT.multiply(_number(key, value), Decimal(PICOS_PER_DOLLAR * per)), Decimal(of))
    whole = exact.to_integral_value(ROUND_HALF_EVEN)
    if exact != whole:
        raise _Refused(f"{key} has more decimals than a price holds")
    return _held(key, int(whole), per)


def _held(key: str, pico: int, per: int) -> int:
    """A price that is not larger than one may be."""
    if pico > PRICE_DOLLARS_MAX * PICOS_PER_DOLLAR:
        raise _Refused(f"{key} is more than {PRICE_DOLLARS_MAX} dollars for {per} units")
    return pico


def _number(key: str, value: Any) -> Decimal:
    """The number as written; one of more digits than a binary fraction holds is taken as what it was meant to be."""
    if value is None:
        return Decimal(0)
    if not isinstance(value, _Literal) or _NUMBER.fullmatch(value) is None:
        raise _Refused(f"{key} is not a number")
    exact = Decimal(value)
    if exact < 0:
        raise _Refused(f"{key} is negative")
    if exact > _ONE_DOLLAR_MAX:
        raise _Refused(f"{key} is more than {_ONE_DOLLAR_MAX} dollars for one unit")
    return _DIGITS.plus(exact) if len(exact.as_tuple().digits) > _DIGITS_MAX else exact
