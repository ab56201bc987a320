"""The operator's prices laid over the list's, in time."""

from hypothesis import given
from hypothesis import strategies as st

from faregate.catalogue.bundled import ListPrice, Stretch
from faregate.catalogue.declared import PriceRow
from faregate.catalogue.timeline import all_cards, card, service_tiers, successive_cards
from faregate.core.pricing.book import PriceTimeline
from faregate.core.pricing.card import Rate, RateCard, Tier, is_provisional
from faregate.core.usage import Usage

IN, OUT, CACHED = "input_tokens", "output_tokens", "cached_input_tokens"


def stretch(start: int, end: int, price: int) -> Stretch:
    return Stretch(start, end, (Tier(0, (Rate(IN, price * 1000, 1), Rate(OUT, price * 2000, 1))),))


def row(unit: str, nanos: int, start: int = 0, end: int = 0) -> PriceRow:
    return PriceRow("p", "m", unit, 1, nanos * 1000, start, end)


def cost_at(cards: tuple[RateCard, ...], now: int, usage: Usage) -> int | None:
    tariff = PriceTimeline(cards).at(now)
    return tariff.cost(usage) if tariff else None


ONE_EACH = Usage(input_text=1, output_text=1)
LISTED = ListPrice((stretch(0, 100, 10), stretch(100, 0, 5)), "list", 0)


def test_the_list_alone_is_taken_as_it_is() -> None:
    """Two listed stretches are two cards with the list as their source."""
    cards = successive_cards("p", "m", LISTED, ())
    assert [(card.effective_from, card.effective_to, card.source) for card in cards] == [
        (0, 100, "list"),
        (100, 0, "list"),
    ]


def test_an_own_price_replaces_its_unit_while_it_is_in_force() -> None:
    """Input at 1 from 50 to 150; before, after and for output the list's price stands."""
    cards = successive_cards("p", "m", LISTED, [row(IN, 1, 50, 150)])
    moments = {now: cost_at(cards, now, ONE_EACH) for now in (49, 50, 99, 100, 149, 150)}
    assert moments == {49: 30, 50: 21, 99: 21, 100: 11, 149: 11, 150: 15}
    assert cards[1].source == "list + override"


def test_an_own_price_reaches_every_tier() -> None:
    """A contract price for input holds above a threshold too; other units keep their cliff."""
    tiers = (
        Tier(0, (Rate(IN, 5_000, 1), Rate(OUT, 7_000, 1))),
        Tier(10, (Rate(IN, 9_000, 1), Rate(OUT, 8_000, 1))),
    )
    listed = ListPrice((Stretch(0, 0, tiers),), "list", 0)
    cards = successive_cards("p", "m", listed, [row(IN, 1)])
    assert cost_at(cards, 0, Usage(input_text=11, output_text=1)) == 11 + 8


def test_an_unlisted_model_is_priced_by_rows_alone() -> None:
    """A house model has a price from the moment that its rows name."""
    cards = successive_cards("p", "m", None, [row(IN, 3, 100), row(OUT, 4, 100)])
    assert [cost_at(cards, now, ONE_EACH) for now in (99, 100)] == [None, 7]


def test_the_row_that_started_later_wins() -> None:
    """A new price needs no end of the old one; when it ends, the old one is back."""
    cards = successive_cards("p", "m", None, [row(IN, 9, 50, 60), row(IN, 3), row(IN, 4)])
    assert [cost_at(cards, now, Usage(input_text=1)) for now in (0, 50, 60)] == [4, 9, 4]


def test_a_moment_at_which_nothing_changes_splits_nothing() -> None:
    """A row that repeats itself from some day on leaves one card."""
    cards = successive_cards("p", "m", None, [row(IN, 3), row(IN, 3, 50)])
    assert len(cards) == 1


def test_a_version_names_its_content() -> None:
    """The same content has the same version; another price, model, provider or time has another."""
    base = successive_cards("p", "m", None, [row(IN, 3)])[0].version
    again = successive_cards("p", "m", None, [row(IN, 3)])[0].version
    others = [
        successive_cards("p", "m", None, [row(IN, 4)]),
        successive_cards("p", "n", None, [row(IN, 3)]),
        successive_cards("q", "m", None, [row(IN, 3)]),
        successive_cards("p", "m", None, [row(IN, 3, 0, 100)]),
    ]
    assert base == again
    assert base.startswith("p/m@")
    assert base not in {cards[0].version for cards in others}


def test_an_override_lies_above_an_import_whenever_it_began() -> None:
    """A later import of a price list does not undo what the operator has set."""
    imported = row(IN, 9, 50)._replace(layer="imported", source="list 2")
    cards = successive_cards("p", "m", LISTED, [row(IN, 1), imported])
    assert [cost_at(cards, now, Usage(input_text=1)) for now in (0, 60)] == [1, 1]
    alone = successive_cards("p", "m", LISTED, [imported])
    assert [cost_at(alone, now, Usage(input_text=1)) for now in (0, 60)] == [10, 9]


def test_an_override_reaches_the_tiers_of_an_import() -> None:
    """An imported cliff is gone where the operator has one price for all lengths."""
    imported = [row(IN, 2), row(IN, 4)._replace(above_input_tokens=10)]
    listed = [each._replace(layer="imported") for each in (*imported, row(OUT, 1))]
    assert cost_at(successive_cards("p", "m", None, listed), 0, Usage(input_text=11)) == 44
    assert cost_at(successive_cards("p", "m", None, [*listed, row(IN, 3)]), 0, Usage(input_text=11)) == 33


def test_an_own_price_may_be_of_one_variant() -> None:
    """Images by size: each row is a price of its own."""
    rows = [row("images", 4)._replace(variant="1024x1024"), row("images", 8)._replace(variant="1024x1024/hd")]
    (made,) = successive_cards("p", "m", None, rows)
    assert [(rate.variant, rate.pico) for rate in made.tiers[0].rates] == [
        ("1024x1024", 4_000),
        ("1024x1024/hd", 8_000),
    ]


TIERED_LIST = ListPrice(
    (Stretch(0, 0, (Tier(0, (Rate(IN, 10, 1), Rate(OUT, 20, 1), Rate("web_searches", 5, 1))),)),),
    "list",
    0,
    (("priority", (Stretch(70, 0, (Tier(0, (Rate(IN, 20, 1), Rate(OUT, 40, 1), Rate("web_searches", 5, 1))),)),)),),
)


def test_each_service_tier_is_a_timeline_of_its_own() -> None:
    """The standard price always, priority from 70 on, named in the version; nothing of one reaches the other."""
    own = row(IN, 1)._replace(service_tier="priority")
    cards = all_cards("p", "m", TIERED_LIST, [row(IN, 9), own])
    assert [(each.service_tier, each.effective_from, each.tiers[0].rates[0].pico) for each in cards] == [
        ("", 0, 9_000),
        ("priority", 0, 1_000),
        ("priority", 70, 1_000),
    ]
    assert [each.version.partition("@")[0] for each in cards[:2]] == ["p/m", "p/m#priority"]
    assert service_tiers(cards) == ("priority",)


def test_a_tier_that_only_rows_know_has_the_tools_of_the_standard_one() -> None:
    """A search costs in any tier what it costs without one; tokens cost what the rows say."""
    rows = [row(IN, 1)._replace(service_tier="flex"), row(OUT, 2)._replace(service_tier="flex")]
    flex = all_cards("p", "m", TIERED_LIST, rows)[-1]
    assert flex.service_tier == "flex"
    assert flex.tiers[0].rates == (Rate(IN, 1_000, 1), Rate(OUT, 2_000, 1), Rate("web_searches", 5, 1))


def test_a_row_may_hold_in_one_region() -> None:
    """Elsewhere it does not count; a card names its region unless that is everywhere."""
    rows = [row(IN, 1), row(IN, 2)._replace(region="data_zone")]
    found = {
        region: [(each.region, each.tiers[0].rates[0].pico) for each in all_cards("p", "m", None, rows, region)]
        for region in ("global", "data_zone")
    }
    assert found == {"global": [("", 1_000)], "data_zone": [("data_zone", 2_000)]}


def test_a_tier_and_a_region_have_versions_of_their_own() -> None:
    """The same prices elsewhere or faster are another card; a provisional one is known by its version."""
    base = stretch(0, 0, 1)
    made = [
        card("p", "m", base, "s"),
        card("p", "m", base, "s", service_tier="flex"),
        card("p", "m", base, "s", region="regional"),
        card("p", "m", base, "s", "regional", "flex"),
        card("p", "m", base, "s", provisional=True),
    ]
    assert len({each.version for each in made}) == 5
    assert [is_provisional(each.version) for each in made] == [False, False, False, False, True]


rows = st.builds(
    row, st.sampled_from((IN, OUT, CACHED)), st.integers(0, 20), st.integers(0, 5), st.sampled_from((0, 6, 7, 8, 9))
)


@given(st.lists(rows, max_size=8), st.booleans(), st.integers(0, 10))
def test_a_timeline_agrees_with_asking_every_row_at_that_moment(own: list[PriceRow], list_too: bool, now: int) -> None:
    """Merging and splitting lose nothing: at any moment each unit has the price that a plain search finds."""
    listed = ListPrice((stretch(0, 4, 10), stretch(4, 0, 5)), "list", 0) if list_too else None
    expected = {IN: 10_000, OUT: 20_000} if now < 4 else {IN: 5_000, OUT: 10_000}
    expected = expected if list_too else {}
    for price in sorted(own, key=lambda price: price.effective_from):
        if price.effective_from <= now and (not price.effective_to or now < price.effective_to):
            expected[price.unit] = price.price_pico
    cards = [
        card
        for card in successive_cards("p", "m", listed, own)
        if card.effective_from <= now and (not card.effective_to or now < card.effective_to)
    ]
    assert len(cards) == bool(expected)
    assert {rate.unit: rate.pico for card in cards for rate in card.tiers[0].rates} == expected
