"""``faregate organization|team|project|user|product|stage|subscription``."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import command, served
from console_parts import parts
from faregate.cli.payers import KINDS
from faregate.console.doors import trusted


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """The folder of an installation whose console answers on its socket."""
    with parts(tmp_path) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        yield tmp_path / "data"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "subscription"])
def test_a_payer_goes_through_all_its_verbs(data: Path, kind: str) -> None:
    """Made, listed, shown, changed, disabled, enabled and deleted, by its name."""
    made = command(kind, "create", "one", "--title", "Number one", "--json", "--data", data).json
    assert (made["name"], made["title"]) == ("one", "Number one")
    assert "Number one" in command(kind, "list", "--data", data).out
    assert command(kind, "show", "one", "--json", "--data", data).json["id"] == made["id"]
    changed = command(kind, "set", "one", "--title", "", "--contact", "ada@example.org", "--json", "--data", data).json
    assert (changed["title"], changed["contact"]) == (None, "ada@example.org")
    assert command(kind, "disable", "one", "--data", data).out == f"disabled {made['id']} (one)\n"
    assert [row["id"] for row in command(kind, "list", "--state", "disabled", "--json", "--data", data).json] == [
        made["id"]
    ]
    assert command(kind, "enable", made["id"][:-4], "--json", "--data", data).json["state"] == "active"
    refused = command(kind, "delete", "one", "--data", data)
    assert (refused.code, "--yes" in refused.err) == (4, True)
    assert command(kind, "delete", "one", "--yes", "--data", data).out == f"deleted {made['id']} (one)\n"
    assert command(kind, "show", "one", "--data", data).code == 1


def test_a_product_is_restricted_and_let_go(data: Path) -> None:
    """Lists are joined by commas; an empty text lifts a restriction."""
    made = command(
        "product", "create", "--name", "gold", "--models", "a,b", "--networks", "10.0.0.0/8,192.0.2.1",
        "--paths", "/v1/chat", "--expires", "2030-01-01", "--json", "--data", data,
    ).json  # fmt: skip
    assert (made["models"], made["paths"]) == (["a", "b"], ["/v1/chat"])
    assert made["networks"] == ["10.0.0.0/8", "192.0.2.1/32"]
    assert made["expires_at"].startswith("2030-01-01")
    lifted = command("product", "set", "gold", "--networks", "", "--expires", "", "--json", "--data", data).json
    assert (lifted["networks"], lifted["expires_at"], lifted["models"]) == (None, None, ["a", "b"])


def test_a_subscription_is_made_used_suspended_and_cancelled(data: Path) -> None:
    """A key of it has its product and team; cancelling asks first."""
    command("product", "create", "gold", "--data", data)
    made = command("subscription", "create", "--product", "gold", "--team", "ops", "--json", "--data", data).json
    key = command("key", "create", "--name", "k", "--subscription", made["name"], "--json", "--data", data).json
    assert (key["product"], key["team"], key["subscription"]) == ("gold", "ops", made["id"])
    assert "gold-ops" in command("subscription", "list", "--product", "gold", "--data", data).out
    assert command("subscription", "disable", "gold-ops", "--json", "--data", data).json["state"] == "suspended"
    assert command("subscription", "enable", "gold-ops", "--json", "--data", data).json["state"] == "active"
    assert command("subscription", "cancel", "gold-ops", "--data", data).code == 4
    cancelled = command("subscription", "cancel", "gold-ops", "--yes", "--json", "--data", data)
    assert cancelled.json["state"] == "cancelled"
    assert command("usage", "--by", "subscription", "--json", "--data", data).json == []


def test_what_could_be_several_is_told_with_all_that_it_could_be(data: Path) -> None:
    """A name in two organizations, or the beginning of two ids."""
    ids = [
        command("team", "create", "a", "--organization", name, "--json", "--data", data).json["id"]
        for name in ("one", "two")
    ]
    for wanted in ("a", "team_"):
        told = command("team", "disable", wanted, "--data", data)
        assert told.code == 1
        assert all(each in told.err for each in ids)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("team", "create"), 2, "which name"),
        (("team", "create", "a", "--name", "b"), 2, "given twice"),
        (("team", "create", "a", "--models", "x"), 2, "--models"),
        (("team", "set", "a"), 2, "nothing was given"),
        (("team", "show", "nobody"), 1, "there is no such team"),
        (("team", "delete", "nobody", "--yes"), 1, "there is no such team"),
        (("product", "create", "a", "--networks", "example.org"), 2, "is not a network"),
        (("product", "create", "a", "--expires", "2020-01-01"), 2, "must lie in the future"),
        (("team",), 2, "command"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(data: Path, words: tuple[str, ...], code: int, said: str) -> None:
    """Each with the exit code of its kind."""
    told = command(*words, *(("--data", data) if len(words) > 1 else ()))
    assert (told.code, said in told.err) == (code, True), told.err
