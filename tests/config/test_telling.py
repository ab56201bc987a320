"""How two configurations differ, by path: everything that somebody set, and never what was secret."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from faregate.config.load import load_text
from faregate.config.telling import CHARACTERS_MAX, MORE, PATHS_MAX, Difference, Settings, difference, settings_of

SECRET = "sk-a-secret-of-the-environment-7f3a9c51"

BEFORE = """\
content: {default: metadata, retention: 7d}
providers:
  - {name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: "${KEY}", proxy: "http://u:word@p:1"}
pricing:
  overrides:
    - {provider: openai, model: gpt-4.1, unit: input_tokens, per: 1000000, price: "2.5"}
limits: {default_output_tokens: "${TOKENS}"}
"""


def settings(text: str, secret: str = SECRET, tokens: str = "4321") -> Settings:
    loaded = load_text(text.encode(), "faregate.yaml", {"KEY": secret, "TOKENS": tokens}, Path("/"))
    return settings_of(loaded.config, loaded.references, lambda path, text: hashlib.sha256(text.encode()).hexdigest())


def changed(before: Settings | None, after: Settings) -> Difference:
    found = difference(before, after)
    assert found is not None
    return found


def test_what_changed_is_told_by_its_path_as_it_was_and_as_it_is() -> None:
    """A setting that was not set before is told as its default; what is in a list goes by its name."""
    text = BEFORE.replace("metadata", "full").replace('"2.5"', '"3"') + "durability: power\n"
    text = text.replace("pricing:", "  - {name: second, kind: anthropic, api_key: sk-another-key-0123}\npricing:")

    told = changed(settings(BEFORE), settings(text))

    price = "pricing.overrides[openai/gpt-4.1/input_tokens].price"
    assert told.before == {
        "content.default": "metadata", price: "2.5", "durability": "process", "providers": ["openai"],
    }  # fmt: skip
    assert told.after == {
        "content.default": "full", price: "3", "durability": "power", "providers": ["openai", "second"],
        "providers[second].name": "second", "providers[second].kind": "anthropic",
        "providers[second].api_key": "sk-…0123", "providers[second].base_url": "https://api.anthropic.com/v1",
    }  # fmt: skip


def test_secrets_and_values_of_references_are_masked_and_told_when_they_change() -> None:
    """A provider's key, a proxy's password, a number from the environment."""
    text = BEFORE.replace("word", "other-word")

    told = changed(settings(BEFORE), settings(text, SECRET[:-4] + "beef", "8765"))

    assert told.before is not None
    assert set(told.before) == {"providers[openai].api_key", "providers[openai].proxy", "limits.default_output_tokens"}
    assert told.after["providers[openai].api_key"] == "sk-…beef"
    everything = json.dumps([told.before, told.after, changed(None, settings(BEFORE)).after])
    assert not [word for word in (SECRET, SECRET[:-4], "word", "4321", "8765") if word in everything]


def test_what_is_the_same_is_no_difference() -> None:
    """A default that is written down, and another order of keys."""
    lines = BEFORE.replace("{default: metadata, retention: 7d}", "{retention: 7d, default: metadata}")

    assert difference(settings(BEFORE), settings(lines + "durability: process\n")) is None


def test_the_order_of_providers_is_told() -> None:
    """It is the order in which a model's places are tried."""
    both = [f"  - {{name: {name}, kind: openai, base_url: 'https://{name}.test/v1'}}\n" for name in ("a", "b")]

    told = changed(settings("providers:\n" + both[0] + both[1]), settings("providers:\n" + both[1] + both[0]))

    assert (told.before, told.after) == ({"providers": ["a", "b"]}, {"providers": ["b", "a"]})


def test_a_long_change_is_bounded_and_says_how_much_more_there_is() -> None:
    """Of so many settings, and of one that is long, which is told as changed beyond what is shown of it."""
    models = "".join(f"  - {{name: m{number}, to: [openai/gpt-4.1]}}\n" for number in range(300))
    grown = changed(settings(BEFORE), settings(BEFORE + "models:\n" + models))
    assert (len(grown.after), grown.after[MORE]) == (PATHS_MAX + 1, "and 401 more")
    assert max(len(json.dumps(value)) for value in grown.after.values()) < CHARACTERS_MAX * 2

    denials = BEFORE + "  denials: {mine: {body: {message: LONG}}}\n"
    denials = denials.replace('{default_output_tokens: "${TOKENS}"}', "")
    told = changed(*(settings(denials.replace("LONG", "x" * 900 + end)) for end in "yz"))
    assert told.before == told.after
    assert list(told.after) == ["limits.denials.mine.body.message"]


def test_where_nobody_knows_what_acted_before_all_is_told() -> None:
    """As at a first start."""
    told = changed(None, settings(BEFORE))
    assert told.before is None
    assert told.after["content.default"] == "metadata"
