"""``faregate price``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import command, program, served
from console_parts import Parts, parts
from faregate.console.doors import trusted

CONFIG = """\
providers:
  - {name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: "${OPENAI_API_KEY}"}
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        yield made


def price(made: Parts, *words: str) -> Any:
    return command("price", *words, "--data", made.folder / "data")


def test_a_price_is_set_and_listed(running: Parts) -> None:
    """The list says which prices are own ones."""
    told = price(running, "set", "--provider", "openai", "--model", "gpt-4o", "--unit", "input_tokens", "--price", "3",
                 "--json").json  # fmt: skip
    assert (told["price"], told["per"]) == ("3", 1_000_000)
    rows = price(running, "list", "--model", "gpt-4o", "--json").json
    assert [(row["unit"], row["price"], row["source"]) for row in rows] == [
        ("input_tokens", "3", "api"),
        ("output_tokens", "10", "list"),
    ]


def test_a_price_that_is_far_off_wants_a_confirmation(running: Parts) -> None:
    """Per token where per million was meant is refused as unsafe."""
    words = ["set", "--provider", "openai", "--model", "gpt-4o", "--unit", "input_tokens", "--price", "3", "--per", "1"]
    told = price(running, *words)
    assert (told.code, "times off" in told.err) == (4, True)
    assert price(running, *words, "--confirm").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--provider", "opnai"], "openai"),
        (["--price", "-1"], "negative"),
        (["--price", "three"], "12.50"),
        (["--per", "0"], "per"),
        (["--per", "abc"], "per"),
        (["--unit", "words"], "output_tokens"),
        (["--from", "tomorrow"], "RFC 3339"),
    ],
)
def test_a_value_that_cannot_be_names_the_rule(running: Parts, words: list[str], said: str) -> None:
    """Exit 2 and nothing stored."""
    given = {"--provider": "openai", "--model": "gpt-4o", "--unit": "input_tokens", "--price": "3", words[0]: words[1]}
    told = price(running, "set", *[part for pair in given.items() for part in pair])
    assert told.code == 2, told.err
    assert said in told.err
    assert running.books.listing("price") == []


def test_bundled_prices_are_listed_without_anything_running(tmp_path: Path) -> None:
    """The configuration beside the command names the provider; its models have the prices that ship with Faregate."""
    (tmp_path / "faregate.yaml").write_text(CONFIG)
    environment = {"OPENAI_API_KEY": "up-123456789"}
    assert program(tmp_path, environment, "key", "create", "--name", "a", "--data", "data").code == 0
    told = program(tmp_path, environment, "price", "list", "--model", "gpt-4o", "--json", "--data", "data")
    assert {row["unit"] for row in told.json} >= {"input_tokens", "output_tokens"}
    assert "up-123456789" not in told.out
