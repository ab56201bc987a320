"""Price files are read exactly and whole, or every fault is named by its line and nothing is used."""

import json
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.catalogue.importing import FORMATS, YAML_CHARACTERS_MAX, read_prices
from faregate.core.pricing.listing import PriceEntry

HEAD = "provider,model,unit,per,price\n"


def litellm(**models: object) -> str:
    return json.dumps({name.replace("__", "/"): facts for name, facts in models.items()}, indent=4)


def priced(entries: tuple[PriceEntry, ...]) -> dict[tuple[str, str, str, int], Fraction]:
    """Unit, variant, tier and threshold → exact dollars for one unit."""
    return {
        (each.unit, each.variant, each.service_tier, each.above_input_tokens): Fraction(each.pico, each.per * 10**12)
        for each in entries
    }


# -- own formats -------------------------------------------------------------------------------------------------------


def test_a_csv_row_is_one_exact_price() -> None:
    """Every column is read; what is left empty is the standard."""
    text = (
        "provider,model,unit,per,price,variant,service_tier,region,effective_from,effective_to,source\n"
        "openai,gpt-4o,input_tokens,1M,2.50,,,,,,contract 7\n"
        "openai,dall-e-3,images,1,0.080,1024x1024/hd,priority,data_zone,2026-12-01,2027-01-01T00:00:00+01:00,\n"
    )
    found = read_prices(text, "prices.csv")
    assert found.faults == ()
    assert found.entries == (
        PriceEntry(
            "gpt-4o", "input_tokens", 1_000_000, 2_500_000_000_000,
            provider="openai", source="contract 7", where="prices.csv:2",
        ),
        PriceEntry(
            "dall-e-3", "images", 1, 80_000_000_000, provider="openai", variant="1024x1024/hd",
            service_tier="priority", region="data_zone", effective_from=1_796_083_200 * 10**9,
            effective_to=1_798_758_000 * 10**9, where="prices.csv:3",
        ),
    )  # fmt: skip


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_may_be_cut_by_what_spreadsheets_write(delimiter: str) -> None:
    """Byte-order mark, quotes, comments and empty lines are what spreadsheets leave behind."""
    text = "\ufeff" + HEAD + '\n# a comment,,,,\n"openai","gpt-4o",input_tokens,1000,0.0025\n'
    found = read_prices(text.replace(",", delimiter), "prices.csv")
    assert [(each.per, each.pico, each.where) for each in found.entries] == [(1000, 2_500_000_000, "prices.csv:4")]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("openai,gpt-4o,input_tokens,1000000,-1", "negative"),
        ("openai,gpt-4o,input_tokens,1000000,1e-3", "plain decimal digits"),
        ("openai,gpt-4o,input_tokens,1000000,NaN", "not an amount"),
        ("openai,gpt-4o,input_tokens,1000000,0.0000000000001", "twelve decimals"),
        ("openai,gpt-4o,input_tokens,1000000,10000000000", "more than"),
        ("openai,gpt-4o,input_tokens,0,1", "per"),
        ("openai,gpt-4o,input_tokens,1.5,1", "per"),
        ("openai,gpt-4o,words,1000,1", "output_tokens"),
        ("openai,,input_tokens,1000,1", "model is missing"),
        ("openai,gpt-4o,input_tokens,1000", "5 columns"),
        ('openai,"gpt-4o,input_tokens,1000,1', "no CSV"),
        ("openai," + "m" * 129 + ",input_tokens,1000,1", "128"),
        ("openai,gpt-4o,input_tokens,1,9000001", "more than 9000000"),
    ],
)
def test_a_row_that_cannot_be_is_named_by_its_line(row: str, said: str) -> None:
    """The other rows do not matter then: a file is used whole or not at all."""
    found = read_prices(HEAD + "openai,gpt-4,input_tokens,1000,1\n" + row + "\n", "prices.csv")
    assert [(fault.where, said in fault.problem) for fault in found.faults] == [("prices.csv:3", True)]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("provider,model,unit,per", "missing: price"),
        ("provider,model,unit,per,price,prise", "unknown column 'prise'"),
        ("provider,model,unit,per,price,price", "twice"),
    ],
)
def test_columns_are_named_in_the_first_line(columns: str, said: str) -> None:
    """A misspelt column would silently lose what stands in it."""
    (fault,) = read_prices(columns + "\n", "p.csv").faults
    assert (fault.where, said in fault.problem) == ("p.csv:1", True)


def test_a_table_may_begin_with_comments() -> None:
    """They count as lines, so that what is named after them is named rightly."""
    text = (
        "# contract of July, with; semicolons; in it\n\n" + HEAD + "openai,gpt-4o,input_tokens,1000,1\nopenai,a,b,1,1\n"
    )
    found = read_prices(text, "p.csv")
    assert [fault.where for fault in found.faults] == ["p.csv:5"]
    assert [entry.where for entry in found.entries] == ["p.csv:4"]


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("effective_to", "9999-12-31", "leave effective_to empty"),
        ("effective_from", "2300-01-01T00:00:00Z", "after 2200"),
        ("effective_from", "1970-01-01", "1970"),
        ("region", "mars", "data_zone"),
    ],
)
def test_a_moment_or_a_place_that_cannot_be_is_named(column: str, cell: str, said: str) -> None:
    """A moment that no column holds, a place that no deployment can have: nothing would ever go by such a price."""
    text = f"{HEAD.strip()},{column}\nopenai,gpt-4o,input_tokens,1000,1,{cell}\n"
    (fault,) = read_prices(text, "p.csv").faults
    assert (fault.where, said in fault.problem) == ("p.csv:2", True)


def test_the_same_price_twice_is_a_contradiction() -> None:
    """The second place names the first."""
    row = "openai,gpt-4o,input_tokens,1000,1\n"
    (fault,) = read_prices(HEAD + row + row, "p.csv").faults
    assert (fault.where, "p.csv:2" in fault.problem) == ("p.csv:3", True)


def test_yaml_keeps_the_digits_that_stand_in_it() -> None:
    """2.50 unquoted is no binary fraction; the list may stand under `prices`."""
    text = (
        "prices:\n"
        "  - {provider: openai, model: gpt-4o, unit: input_tokens, per: 1000000, price: 2.50, service_tier: ~}\n"
        "  - provider: openai\n    model: tts-1\n    unit: characters\n    per: 1M\n    price: '15'\n"
    )
    found = read_prices(text, "prices.yaml")
    assert [(each.unit, each.pico, each.where) for each in found.entries] == [
        ("input_tokens", 2_500_000_000_000, "prices.yaml:2"),
        ("characters", 15_000_000_000_000, "prices.yaml:3"),
    ]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("- {provider: openai, model: a, unit: requests, per: 1, price: 1, prise: 2}", "p.yaml:1"),
        ("- {provider: openai, provider: b}", "p.yaml:1"),
        ("- [1]", "p.yaml:1"),
        ("- {provider: [a]}", "p.yaml:1"),
        ("a: 1", "p.yaml:1"),
        ("prices: 3", "p.yaml:1"),
        ("-\n\t- a", "p.yaml:2"),
        ("", "p.yaml:1"),
        ("- !!python/object:os.system {}", "p.yaml:1"),
        ("[" * 5_000, "p.yaml:1"),
        ('- "\\U00110000"', "p.yaml:1"),
        ("%YAML 1." + "9" * 5_000 + "\n---\n- a", "p.yaml:1"),
        ("# " + "x" * YAML_CHARACTERS_MAX, "p.yaml:1"),
    ],
)
def test_yaml_that_is_something_else_is_named(text: str, where: str) -> None:
    """No tag is constructed and no key is passed over."""
    (fault,) = read_prices(text, "p.yaml").faults
    assert fault.where == where


# -- the public list ---------------------------------------------------------------------------------------------------


def test_a_model_of_the_public_list_is_taken_apart_exactly() -> None:
    """Thresholds and service tiers stand in the names of fields; the digits are what counts."""
    text = litellm(
        **{
            "gpt-x": {
                "litellm_provider": "openai", "mode": "chat",
                "input_cost_per_token": 2.5e-06, "output_cost_per_token": 1e-05,
                "cache_read_input_token_cost": 1.25e-06, "cache_creation_input_token_cost": 3.75e-06,
                "cache_creation_input_token_cost_above_1hr": 6e-06,
                "input_cost_per_token_above_200k_tokens": 5e-06,
                "input_cost_per_token_batches": 1.25e-06, "output_cost_per_token_priority": 1.7e-05,
                "input_cost_per_token_flex": 1.25e-06, "input_cost_per_token_above_272k_tokens_priority": 2e-05,
                "input_cost_per_audio_token": 4e-05, "output_cost_per_reasoning_token": 1e-05,
                "search_context_cost_per_query": {"search_context_size_low": 0.03, "search_context_size_high": 0.05},
                "max_input_tokens": 128000, "supports_vision": True,
            },
        }
    )  # fmt: skip
    found = read_prices(text, "model_prices.json")
    assert (found.format, found.faults, found.skipped) == ("litellm", (), ())
    assert {(each.kind, each.model) for each in found.entries} == {("openai", "gpt-x")}
    million = 10**6
    assert priced(found.entries) == {
        ("input_tokens", "", "", 0): Fraction("2.5") / million,
        ("output_tokens", "", "", 0): Fraction(10, million),
        ("cached_input_tokens", "", "", 0): Fraction("1.25") / million,
        ("cache_write_tokens", "", "", 0): Fraction("3.75") / million,
        ("cache_write_1h_tokens", "", "", 0): Fraction(6, million),
        ("input_tokens", "", "", 200_000): Fraction(5, million),
        ("input_tokens", "", "batch", 0): Fraction("1.25") / million,
        ("output_tokens", "", "priority", 0): Fraction(17, million),
        ("input_tokens", "", "flex", 0): Fraction("1.25") / million,
        ("input_tokens", "", "priority", 272_000): Fraction(20, million),
        ("input_audio_tokens", "", "", 0): Fraction(40, million),
        ("reasoning_tokens", "", "", 0): Fraction(10, million),
        ("web_searches", "", "", 0): Fraction("0.05"),
    }


@pytest.mark.parametrize(
    ("name", "facts", "expected"),
    [
        ("azure/us/gpt-4o", {"input_cost_per_token": 2.75e-06}, ("azure_openai", "gpt-4o", "data_zone", "")),
        ("azure/eu/gpt-4o", {"input_cost_per_token": 2.75e-06}, ("azure_openai", "gpt-4o", "data_zone", "")),
        ("azure/global-standard/gpt-4o", {"input_cost_per_token": 2.5e-06}, ("azure_openai", "gpt-4o", "global", "")),
        (
            "azure/hd/1024-x-1792/dall-e-3",
            {"mode": "image_generation", "output_cost_per_image": 0.12},
            ("azure_openai", "dall-e-3", "", "1024x1792/hd"),
        ),
    ],
)
def test_names_of_the_public_list_hold_place_and_size(
    name: str, facts: dict[str, object], expected: tuple[str, str, str, str]
) -> None:
    """What stands before the model is no part of its name."""
    (entry,) = read_prices(json.dumps({name: {"litellm_provider": "azure", **facts}}), "l.json").entries
    assert (entry.kind, entry.model, entry.region, entry.variant) == expected


@pytest.mark.parametrize(
    ("name", "pixel", "dollars"),
    [
        ("256-x-256/dall-e-2", "2.4414e-07", "0.016"),
        ("512-x-512/dall-e-2", "6.86e-08", "0.018"),
        ("1024-x-1024/dall-e-2", "1.9e-08", "0.02"),
        ("standard/1024-x-1024/dall-e-3", "3.81469e-08", "0.04"),
        ("hd/1024-x-1792/dall-e-3", "6.539e-08", "0.12"),
    ],
)
def test_prices_by_pixel_are_the_published_prices_of_images(name: str, pixel: str, dollars: str) -> None:
    """https://developers.openai.com/api/docs/pricing; the list divided them by pixels and rounded."""
    facts = f'"litellm_provider": "openai", "mode": "image_generation", "input_cost_per_pixel": {pixel}'
    text = f'{{"{name}": {{{facts}}}}}'
    (entry,) = read_prices(text, "l.json").entries
    assert (entry.unit, Fraction(entry.pico, 10**12)) == ("images", Fraction(dollars))


def test_seconds_and_characters_are_priced_by_what_is_billed() -> None:
    """Of two fields for one unit the dearer one counts: 0.006 a minute, 15 a million characters."""
    text = litellm(
        **{
            "whisper-1": {
                "litellm_provider": "openai", "mode": "audio_transcription",
                "input_cost_per_second": 0.0001, "output_cost_per_second": 0.0,
            },
            "tts-1": {"litellm_provider": "openai", "mode": "audio_speech", "input_cost_per_character": 1.5e-05},
        }
    )  # fmt: skip
    found = {each.model: each for each in read_prices(text, "l.json").entries}
    whisper, speech = found["whisper-1"], found["tts-1"]
    assert (whisper.unit, whisper.per, whisper.pico) == ("seconds", 60, 6_000_000_000)
    assert (speech.unit, speech.per, speech.pico) == ("characters", 1_000_000, 15_000_000_000_000)


def test_of_two_data_zones_the_dearer_one_counts() -> None:
    """Our deployments say that they are in one, not in which."""
    text = litellm(
        azure__us__m={"litellm_provider": "azure", "input_cost_per_token": 1e-06},
        azure__eu__m={"litellm_provider": "azure", "input_cost_per_token": 2e-06},
    )
    (entry,) = read_prices(text, "l.json").entries
    assert (entry.region, entry.pico, entry.where) == ("data_zone", 2_000_000_000_000, "l.json:6")


def test_what_a_program_made_of_a_fraction_is_read_as_it_was_meant() -> None:
    """Sixteen digits are no price that anybody wrote."""
    text = '{"m": {"litellm_provider": "openai", "input_cost_per_token": 8.000000000000001e-07}}'
    (entry,) = read_prices(text, "l.json").entries
    assert entry.pico == 800_000_000_000


def test_zeros_and_strangers_are_left_out_and_told() -> None:
    """A zero in that list means that nobody looked it up, except for moderation, which is free."""
    text = litellm(
        sample_spec={"litellm_provider": "openai", "input_cost_per_token": 1.0},
        strange={"litellm_provider": "bedrock", "input_cost_per_token": 1e-06},
        zero={"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 0.0},
        moderation={"litellm_provider": "openai", "mode": "moderation", "input_cost_per_token": 0.0},
        fast__claude={"litellm_provider": "anthropic", "input_cost_per_token": 1e-06},
        video={"litellm_provider": "openai", "output_cost_per_video_per_second": 0.1},
    )
    found = read_prices(text, "l.json")
    assert [(each.model, each.pico) for each in found.entries] == [("moderation", 0)]
    assert [fault.problem.partition(":")[0] for fault in found.skipped] == ["strange", "fast/claude", "video"]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"m": {\n"litellm_provider": "openai", "input_cost_per_token": -1e-06}}', "l.json:1"),
        ('{\n"m": {"litellm_provider": "openai", "input_cost_per_token": "1e-06"}}', "l.json:2"),
        ('{\n"m": {"litellm_provider": "openai", "input_cost_per_token": NaN}}', "l.json:2"),
        ('{\n"m": {"litellm_provider": "openai", "input_cost_per_token": true}}', "l.json:2"),
        ('{\n"m": {"litellm_provider": "openai", "input_cost_per_token": 2000}}', "l.json:2"),
        ('{\n"m": {"litellm_provider": "openai", "input_cost_per_token": 1e-20}}', "l.json:2"),
        ('{"m": {}, "m": {}}', "l.json:1"),
        ('{"m": 3}', "l.json:1"),
        ("[]", "l.json:1"),
        ('{\n"m": {', "l.json:2"),
        ("[" * 100_000, "l.json:1"),
    ],
)
def test_a_list_that_cannot_be_is_named_by_its_line(text: str, where: str) -> None:
    """Nothing of it is used."""
    (fault,) = read_prices(text, "l.json").faults
    assert fault.where == where


@pytest.mark.parametrize(
    "facts",
    [{"": 1}, {"a\nb": 1}, {"cost_\ud800": 1}, {"cost_" + "x" * 100_000: 1}, {"litellm_provider": "\ud800"}],
)
def test_strange_names_of_fields_are_left_out(facts: dict[str, object]) -> None:
    """They are told in a few printable characters, or not at all."""
    found = read_prices(json.dumps({"m": {"litellm_provider": "openai", **facts}}), "l.json")
    assert (found.entries, found.faults) == ((), ())
    assert all(len(told.problem.encode()) < 200 and told.problem.isprintable() for told in found.skipped)


def test_a_name_without_a_model_is_left_out() -> None:
    """Nobody could call it."""
    found = read_prices('{"openai/": {"litellm_provider": "openai", "input_cost_per_token": 1e-6}}', "l.json")
    assert (found.entries, [told.where for told in found.skipped]) == ((), ["l.json:1"])


def test_a_price_that_no_column_holds_is_named() -> None:
    """Whether it is written so, or made so by what it is for."""
    pixels = {"litellm_provider": "openai", "mode": "image_generation", "input_cost_per_pixel": 1}
    text = json.dumps({"m": {"litellm_provider": "openai", "input_cost_per_token": 10}, "9999x9999/d": pixels})
    assert ["more than" in fault.problem for fault in read_prices(text, "l.json").faults] == [True, True]


def test_a_long_text_is_looked_through_once() -> None:
    """A line of many quotes would take hours, were each of them taken for a beginning."""
    text = json.dumps({"source": '"' * 1_000_000, "m": {"litellm_provider": "openai", "input_cost_per_token": 1e-6}})
    (fault,) = read_prices(text, "l.json").faults
    assert fault.where == "l.json:1"


@given(st.decimals(min_value=0, max_value=9, places=12, allow_nan=False), st.sampled_from(["", "E", "e"]))
def test_no_digit_is_lost_on_the_way(price: Decimal, exponent: str) -> None:
    """Whatever way a number of up to fifteen digits is written, the price is exactly that."""
    text = f"{price:f}"
    if exponent:
        text = str(price.scaleb(6).normalize()).replace("E", exponent)
        text = f"{price.scaleb(6):f}{exponent}-6"
    found = read_prices('{"m": {"litellm_provider": "openai", "input_cost_per_token": ' + text + "}}", "l.json")
    exact = Fraction(price)
    digits = len(price.as_tuple().digits)
    if price and digits <= 15:
        (entry,) = found.entries
        assert Fraction(entry.pico, entry.per * 10**12) == exact
    elif not price:
        assert found.entries == ()


@given(st.text(max_size=300), st.sampled_from(FORMATS))
def test_no_text_gets_through_but_as_prices_or_faults(text: str, format: str) -> None:
    """Hostile files end in a fault with a place."""
    found = read_prices(text, "any", format)
    assert found.faults or found.entries or found.format == "litellm"
    assert all(each.per >= 1 and each.pico >= 0 for each in found.entries)
    assert all(fault.where.startswith("any:") for fault in found.faults)
