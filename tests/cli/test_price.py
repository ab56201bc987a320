"""``faregate price``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import command, program, served
from console_parts import Parts, parts
from faregate.config.load import load_text
from faregate.console.doors import trusted

CONFIG = """\
providers:
  - {name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: "${OPENAI_API_KEY}"}
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        yield made


def price(made: Parts, *words: object) -> Any:
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


SET = ("set", "--provider", "openai", "--model", "gpt-4o", "--unit", "input_tokens", "--price")


def test_own_prices_are_found_changed_and_taken_back_by_their_ids(running: Parts) -> None:
    """Also those to come; what a price was until now is kept, and nothing is deleted without a word."""
    price(running, *SET, "3")
    price(running, *SET, "4", "--from", "2027-01-01T00:00:00Z")
    now, later = price(running, "list", "--own", "--json").json
    assert [(each["price"], each["effective_from"]) for each in (now, later)] == [
        ("3", "2026-11-21T12:00:00Z"),
        ("4", "2027-01-01T00:00:00Z"),
    ]
    assert price(running, "list", "--own", "--model", "gpt-4o-mini", "--json").json == []
    listed = price(running, "list", "--own", "--model", "gpt-4o").out.splitlines()
    assert ["id" in listed[0].split(), now["id"] in listed[1], later["id"] in listed[2]] == [True, True, True]

    running.clock.now += 3_600 * 10**9
    changed = price(running, "change", now["id"], "--price", "3.50", "--json").json
    assert (changed["id"], changed["price"], changed["effective_from"]) == (now["id"], "3.5", "2026-11-21T13:00:00Z")
    assert "applied" not in changed
    assert price(running, "show", now["id"], "--json").json == changed
    assert "2026-11-21T13:00:00Z" in price(running, "show", now["id"]).out
    ended = [row for row in running.books.listing("price") if row["effective_to"] == running.clock.now]
    assert [row["pico"] for row in ended] == [3 * 10**12]

    refused = price(running, "delete", later["id"])
    assert (refused.code, "--yes" in refused.err) == (4, True)
    assert price(running, "delete", later["id"], "--yes").out == f"deleted {later['id']}\n"
    assert price(running, "delete", now["id"], "--yes", "--json").json["deleted"] is True
    assert price(running, "show", later["id"]).code == 1


def test_a_change_of_a_price_is_as_careful_as_a_new_one(running: Parts) -> None:
    """It names what it changes, of a price that there is, and one that is far off is confirmed."""
    made = price(running, *SET, "3", "--json").json
    nothing = price(running, "change", made["id"], "--confirm")
    assert (nothing.code, "--price, --per or --until" in nothing.err) == (2, True)
    until = price(running, "change", made["id"], "--until", "2026-12-01T00:00:00Z", "--json").json
    assert (until["price"], until["effective_to"]) == ("3", "2026-12-01T00:00:00Z")
    far = price(running, "change", made["id"], "--per", "1")
    assert (far.code, "times off" in far.err) == (4, True)
    assert price(running, "change", made["id"], "--per", "1", "--confirm", "--json").json["per"] == 1
    for words in (("change", "prc_none", "--price", "1"), ("show", "prc_none"), ("delete", "prc_none", "--yes")):
        gone = price(running, *words)
        assert (gone.code, "no such own price" in gone.err) == (1, True)


def test_a_configuration_that_cannot_be_used_is_pointed_at(tmp_path: Path) -> None:
    """A variable that is not set here makes every provider unknown; the message says where the reason is told."""
    (tmp_path / "faregate.yaml").write_text(CONFIG.replace("OPENAI_API_KEY", "SET_NOWHERE"))
    words = ["--provider", "openai", "--model", "gpt-4o", "--unit", "input_tokens", "--price", "3"]
    told = program(tmp_path, {"FAREGATE_DATA": "data"}, "price", "set", *words)
    assert (told.code, "`faregate check` says why" in told.err) == (2, True)


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


# -- files, and where a price comes from -------------------------------------------------------------------------------

BOOK = """\
provider,model,unit,per,price
openai,gpt-4o,input_tokens,1M,2.40
openai,gpt-4o,output_tokens,1M,9.60
"""


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Parts]:
    """A console whose catalogue is that of a configuration."""
    config = load_text(CONFIG.encode(), "faregate.yaml", {"OPENAI_API_KEY": "up-123456789"}, tmp_path).config
    with parts(tmp_path, config=config) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        yield made


def book(folder: Path, text: str = BOOK, name: str = "book.csv") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_a_file_is_taken_in_with_its_difference_shown(real: Parts, tmp_path: Path) -> None:
    """Each price beside the one in force; a second time there is nothing to do."""
    told = price(real, "import", book(tmp_path))
    assert (told.code, "book.csv:2" in told.out, "2 changed" in told.err) == (0, True, True)
    assert price(real, "import", book(tmp_path), "--json").json["same"] == 2
    assert {row["layer"] for row in price(real, "list", "--model", "gpt-4o", "--json").json} >= {"imported"}


def test_a_dry_run_takes_nothing_in(real: Parts, tmp_path: Path) -> None:
    """It is the same difference."""
    told = price(real, "import", book(tmp_path), "--dry-run")
    assert ("would be taken in" in told.err, real.books.listing("price")) == (True, [])


def test_outliers_want_a_yes(real: Parts, tmp_path: Path) -> None:
    """The line is marked, the exit code says unsafe, and nothing is taken in without the word."""
    file = book(tmp_path, BOOK.replace("input_tokens,1M", "input_tokens,1"))
    told = price(real, "import", file)
    assert (told.code, "! changed" in told.out, "--yes" in told.err) == (4, True, True)
    assert real.books.listing("price") == []
    assert price(real, "import", file, "--yes").code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOOK.replace("2.40", "-1").replace("9.60", "much"), ["book.csv:2", "book.csv:3"]),
        (BOOK.replace("openai", "opnai"), ["book.csv:2", "opnai"]),
        ("", ["book.csv:1"]),
    ],
)
def test_rows_that_cannot_be_are_named_by_their_lines(real: Parts, tmp_path: Path, text: str, said: list[str]) -> None:
    """Exit 2, and nothing half-done."""
    told = price(real, "import", book(tmp_path, text))
    assert (told.code, [each in told.err for each in said]) == (2, [True] * len(said))
    assert real.books.listing("price") == []


def test_a_file_that_cannot_be_read_is_told(real: Parts, tmp_path: Path) -> None:
    """A folder, nothing at all, bytes that are no text."""
    (tmp_path / "b.csv").write_bytes(b"a,b\n\xff")
    for file, said in ((tmp_path, "not a file"), (tmp_path / "no.csv", "not a file"), (tmp_path / "b.csv", "b.csv:2")):
        told = price(real, "import", file)
        assert (told.code, said in told.err) == (2, True)


def test_the_public_list_is_synced_and_explained(real: Parts, tmp_path: Path) -> None:
    """Its models are compared with the last copy, and each rate names where it came from."""
    text = '{"gpt-4o": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 2.4e-06}}'
    told = price(real, "sync", "--from", book(tmp_path, text, "prices.json"))
    assert (told.code, "genai-prices" in told.out, "1 changed" in told.err) == (0, True, True)
    told = price(real, "explain", "gpt-4o", "--usage", '{"input_tokens": 1000}')
    assert [line[:15] for line in told.out.splitlines() if line.startswith("[1] ")][:1] == ["[1] prices.json"]
    assert ("imported" in told.out, "cost 0.0024" in told.out) == (True, True)
    assert price(real, "explain", "gpt-4o", "--usage", "[]").code == 2
    assert price(real, "explain", "gpt-4o", "--json").json["data"][0]["provider"] == "openai"


def test_a_period_is_priced_again_and_corrected(real: Parts, tmp_path: Path) -> None:
    """The what-if says that nothing was booked; the correction wants a reason."""
    words = ["reprice", "--from", "2026-11-01", "--book", book(tmp_path), "--data", real.folder / "data"]
    told = command(*words)
    assert (told.code, "booked_cost" in told.out) == (0, True)
    assert command(*words, "--commit").code == 2
    done = command(*words, "--commit", "--reason", "contract", "--run", "r1", "--json").json
    assert (done["run"], done["committed"]) == ("r1", True)
    assert "before" in command(*words, "--commit", "--reason", "contract", "--run", "r1").err


def test_a_capacity_is_set_split_and_removed(real: Parts) -> None:
    """From the command line as through the API."""
    where = ("--data", real.folder / "data")
    made = command("capacity", "set", "ptu", "--provider", "openai", "--commitment", "5000", *where, "--json").json
    assert (made["name"], made["commitment"]) == ("ptu", "5000")
    assert "5000" in command("capacity", "list", *where).out
    assert "utilisation" in command("capacity", "show", "ptu", *where).out
    assert "idle" in command("capacity", "split", "ptu", "--by", "team,model", *where).out
    assert command("capacity", "remove", "ptu", *where).code == 0
    assert command("capacity", "show", "ptu", *where).code == 1
