"""The bracket that a quote is: the true cost of every answer within a call's caps lies inside."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.amounts import UNITS, Amounts, posted_amounts
from faregate.core.call import AUDIO_IN, AUDIO_OUT, CACHE_WRITE_1H, IMAGE_IN, IMAGE_OUT, Call
from faregate.core.limits.admit import UNLIMITED
from faregate.core.money import PICOS_PER_DOLLAR, PICOS_PER_NANO
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.pricing.charging import ChargeRule, charge, charge_bound
from faregate.core.pricing.cost import Tariff
from faregate.core.pricing.extremes import exact_sum, least_lines, most_lines
from faregate.core.pricing.quote import Offer, Span, held, largest_cap, quote, together
from faregate.core.usage import COUNT_MAX, COUNTED_UNITS, NO_USAGE, Measure, Usage, measures

MILLION = 1_000_000
ROOM = Amounts(*[UNLIMITED] * len(UNITS))

#: Which leaves a bit of ``Call.media`` allows beside text.
BY_MEDIA = {
    AUDIO_IN: ("input_audio", "cached_input_audio_tokens"),
    IMAGE_IN: ("input_image_tokens", "cached_input_image_tokens"),
    CACHE_WRITE_1H: ("cache_write_1h_tokens",),
    AUDIO_OUT: ("output_audio",),
    IMAGE_OUT: ("output_image_tokens",),
}
OUTGOING = ("output_text", "output_reasoning", "output_audio", "output_image_tokens")

picos = st.one_of(st.just(0), st.integers(0, 10**13), st.sampled_from((15 * 10**10, 25 * 10**11)))
pers = st.sampled_from((1, 3, 1_000, MILLION, 999_983))
rules = st.builds(
    ChargeRule, st.just(()), st.integers(0, MILLION), st.integers(0, 2 * MILLION), st.integers(0, 10**7), st.booleans()
)


def unit_rates(*units: str) -> st.SearchStrategy[list[Rate]]:
    chosen = st.lists(st.sampled_from(units), unique=True) if units else st.just([])
    return chosen.flatmap(lambda names: st.tuples(*(st.builds(Rate, st.just(n), picos, pers) for n in names)).map(list))


@st.composite
def cards(draw: st.DrawFn) -> RateCard:
    """A card of tokens with up to two more tiers, and of some counted units."""
    tokens = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens", "input_image_tokens")
    media = ("cache_write_tokens", "input_audio_tokens", "output_audio_tokens", "requests")
    kinds = (*tokens, *media, *COUNTED_UNITS)
    thresholds = sorted(draw(st.sets(st.integers(1, 5_000), max_size=2)))
    tiers = tuple(Tier(above, tuple(draw(unit_rates(*kinds)))) for above in (0, *thresholds))
    return RateCard("p", "m", "p/m@any", tiers)


def spread(draw: st.DrawFn, total: int, leaves: list[str]) -> dict[str, int]:
    """``total`` dealt to some leaves."""
    found = dict.fromkeys(leaves, 0)
    for leaf in leaves[1:]:
        found[leaf] = draw(st.integers(0, total))
        total -= found[leaf]
    found[leaves[0]] = total
    return found


@st.composite
def answered(draw: st.DrawFn) -> tuple[Call, Offer, Usage]:
    """A call, a place for it, and the usage of an answer that keeps to the call's caps."""
    media = draw(st.integers(0, 31))
    at_most = measures(
        Measure(unit, "", draw(st.integers(0, 50)))
        for unit in draw(st.sets(st.sampled_from(("web_searches", "code_sessions", "seconds"))))
    )
    declared = draw(st.sampled_from(((), (Measure("images", "hd/1024x1024", 3),), (Measure("characters", "", 900),))))
    call = Call(
        "chat.completions", "m", choices=draw(st.integers(1, 4)), extra_output_tokens=draw(st.integers(0, 50)),
        has_output=draw(st.booleans()), media=media, at_most=at_most, declared=declared,
    )  # fmt: skip
    least = draw(st.integers(0, 6_000))
    cap = draw(st.integers(0, 4_000))
    incoming = Span(least, least + draw(st.integers(0, 6_000)))
    offer = Offer(tuple(draw(st.lists(cards(), min_size=1, max_size=2))), incoming, cap, draw(rules))
    allowed = [leaf for bit, leaves in BY_MEDIA.items() if media & bit for leaf in leaves]
    inputs = ["input_text", "input_cached", "input_cache_write", *(leaf for leaf in allowed if leaf not in OUTGOING)]
    outputs = ["output_text", "output_reasoning", *(leaf for leaf in allowed if leaf in OUTGOING)]
    most = cap * call.choices + call.extra_output_tokens if call.has_output else 0
    leaves = spread(draw, draw(st.integers(incoming.least, incoming.most)), inputs)
    leaves |= spread(draw, draw(st.integers(0, most)), outputs)
    fields: dict[str, Any] = {leaf: leaves.pop(leaf) for leaf in list(leaves) if leaf in Usage._fields}
    other = [Measure(unit, "", quantity) for unit, quantity in leaves.items()]
    other += [each._replace(quantity=draw(st.integers(0, each.quantity))) for each in at_most]
    return call, offer, NO_USAGE._replace(**fields, other=measures([*other, *declared]))


@given(answered(), st.data())
def test_the_cost_of_every_answer_lies_inside(made: tuple[Call, Offer, Usage], data: st.DataObject) -> None:
    """Whichever place's tariff answers, cost, charge and every unit are between the two ends."""
    call, offer, usage = made
    told = quote(call, offer)
    cost = Tariff(data.draw(st.sampled_from(offer.cards))).cost(usage)
    assert told.cost.least <= cost <= told.cost.most
    charged = charge(offer.rule, cost, used=usage != NO_USAGE)
    assert told.charge.least <= charged <= told.charge.most
    posted = posted_amounts(charged, usage)
    assert all(used <= most for used, most in zip(posted, told.held, strict=True))
    assert told.output_tokens.least <= usage.output_tokens <= told.output_tokens.most
    assert told.input_tokens.least <= usage.input_tokens <= told.input_tokens.most


@given(answered())
def test_the_upper_lines_add_up_to_what_is_held(made: tuple[Call, Offer, Usage]) -> None:
    """The derivation of the upper end is that of the bound on the request path, to the nano-dollar."""
    call, offer, _ = made
    told = quote(call, offer)
    most = (*call.at_most, *call.declared)
    bounds = [
        Tariff(card).bound(offer.input_tokens.most, told.output_tokens.most, call.media, most) for card in offer.cards
    ]
    assert told.cost.most == max(bounds)
    assert told.held.usd == charge_bound(offer.rule, max(bounds))
    assert exact_sum(told.least_lines) // PICOS_PER_NANO == told.cost.least


@given(answered(), st.integers(0, 10**11), st.integers(0, 10**6))
def test_the_largest_cap_fits_and_one_more_does_not(made: tuple[Call, Offer, Usage], usd: int, tokens: int) -> None:
    """By money and tokens together; where even no output does not fit there is none."""
    call, offer, _ = made
    room = ROOM._replace(usd=usd, tokens=tokens)
    tariffs = [Tariff(card) for card in offer.cards]

    def fits(cap: int) -> bool:
        return all(wanted <= left for wanted, left in zip(held(call, offer, tariffs, cap), room, strict=True))

    cap = largest_cap(call, offer, room)
    if cap is None:
        assert not call.has_output or not fits(0)
        return
    assert fits(cap)
    assert cap == COUNT_MAX or not fits(cap + 1)


GPT_4O = RateCard(
    "openai",
    "gpt-4o",
    "v1",
    (
        Tier(
            0,
            (
                Rate("input_tokens", 5 * PICOS_PER_DOLLAR // 2, MILLION),
                Rate("cached_input_tokens", 5 * PICOS_PER_DOLLAR // 4, MILLION),
                Rate("output_tokens", 10 * PICOS_PER_DOLLAR, MILLION),
            ),
        ),
    ),
)


def test_a_quote_derives_both_of_its_ends() -> None:
    """All input cached and no answer below; nothing cached and the whole cap above."""
    told = quote(Call("chat.completions", "gpt-4o"), Offer((GPT_4O,), Span(1_000, 1_000), 500))
    assert told.cost == Span(1_250_000, 7_500_000)
    assert [(line.unit, line.quantity) for line in told.least_lines] == [("cached_input_tokens", 1_000)]
    assert [(line.unit, line.quantity) for line in told.most_lines] == [("input_tokens", 1_000), ("output_tokens", 500)]


def test_images_are_known_from_the_request() -> None:
    """What has a price by the image costs the same at both ends, and the unit is told with its variant."""
    card = RateCard("p", "m", "v", (Tier(0, (Rate("images", PICOS_PER_DOLLAR // 25, 1, "hd"),)),))
    call = Call("images.generations", "m", has_output=False, declared=(Measure("images", "hd", 3),))
    told = quote(call, Offer((card,), Span(0, 400), 0))
    assert told.cost == Span(120_000_000, 120_000_000)
    assert told.units == (("images", "hd", 3, 3),)
    assert largest_cap(call, Offer((card,), Span(0, 400), 0), ROOM) is None


def test_a_cheaper_upper_tier_counts_at_the_lower_end() -> None:
    """Input that may reach a tier with falling prices may cost less there than below its threshold."""
    falling = RateCard(
        "p", "m", "v", (Tier(0, (Rate("input_tokens", 9_000_000, 1),)), Tier(10, (Rate("input_tokens", 1_000_000, 1),)))
    )
    assert exact_sum(least_lines(falling, 8, 20, 0)) == Fraction(11_000_000)
    assert exact_sum(least_lines(falling, 1, 20, 0)) == Fraction(9_000_000)
    assert exact_sum(most_lines(falling, 11, 0)) == Fraction(99_000_000)


def test_several_places_make_one_bracket() -> None:
    """From the cheapest to the dearest, with the lines of these two."""
    double = GPT_4O._replace(
        tiers=(Tier(0, tuple(rate._replace(pico=2 * rate.pico) for rate in GPT_4O.tiers[0].rates)),)
    )
    call = Call("chat.completions", "gpt-4o")
    quotes = [quote(call, Offer((card,), Span(10, 20), cap)) for card, cap in ((GPT_4O, 5), (double, 50))]
    both = together(quotes)
    assert both.cost == Span(quotes[0].cost.least, quotes[1].cost.most)
    assert (both.output_tokens, both.held.tokens) == (Span(0, 50), 70)
    assert (both.least_lines, both.most_lines) == (quotes[0].least_lines, quotes[1].most_lines)


def test_a_quote_without_a_price_is_refused() -> None:
    """Nobody is told that something unpriced is free."""
    with pytest.raises(ValueError, match="rate card"):
        quote(Call("chat.completions", "gpt-4o"), Offer((), Span(1, 1), 1))
