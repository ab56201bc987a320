"""``faregate content``, and ``faregate requests`` as far as it searches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import command, served
from console_parts import NOON, SECOND, WHO, Parts, opened, parts, settled_call
from faregate.console.doors import trusted
from faregate.ports import ContentRecord, KeptText
from faregate.storage.contents import ContentStore


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        texts = ("Say hello.", "Find the needle.", "Find the needle again.")
        made.journal.add(opened())
        records = []
        for number, text in enumerate(texts, 1):
            who = WHO._replace(tags=(("event_id", f"order-{number}"),))
            made.journal.add(
                *settled_call(f"req_{number}", who=who, at=NOON + number * SECOND, cost=number % 3 * 1_000)
            )
            kept = KeptText(text, len(text), 100), KeptText("An answer.", 40_000, 50_000, True)
            found = (("email", "redact", "request", 1),)
            records.append(ContentRecord(f"req_{number}", NOON, "full", False, 200, "", *kept, found))
        made.project()
        store = made.console.contents
        assert isinstance(store, ContentStore)
        store.take("a", records)
        yield made


def content(made: Parts, *words: str) -> Any:
    return command("content", *words, "--data", made.folder / "data")


def requests(made: Parts, *words: str) -> Any:
    return command("requests", *words, "--data", made.folder / "data")


def test_prompt_and_answer_are_shown(running: Parts) -> None:
    """As text for people, and as they are for programs."""
    told = content(running, "show", "req_2").out
    assert "--- prompt: 16 characters\nFind the needle.\n" in told
    assert "--- answer: 40000 characters, of which 10 are kept\nAn answer.\n" in told
    assert "rule email: redact, 1 in the request" in told
    assert content(running, "show", "req_2", "--json").json["prompt"]["text"] == "Find the needle."


def test_contents_are_listed_and_searched(running: Parts) -> None:
    """Newest first, with the start of both texts."""
    assert [row["id"] for row in content(running, "list", "--json").json] == ["req_3", "req_2", "req_1"]
    assert [row["id"] for row in content(running, "list", "--text", "HELLO", "--json").json] == ["req_1"]
    assert [row["id"] for row in content(running, "list", "--select", "event_id=order-2", "--json").json] == ["req_2"]
    assert "Find the needle again." in content(running, "list", "--limit", "1").out


def test_a_text_that_is_cut_in_the_list_says_so(running: Parts) -> None:
    """What is longer than its column ends with a mark."""
    store = running.console.contents
    assert isinstance(store, ContentStore)
    running.journal.add(*settled_call("req_9", who=WHO, at=NOON + 9 * SECOND))
    running.project()
    kept = KeptText("Tell " * 40, 200, 200), KeptText("It is told.", 11, 11)
    store.take("b", [ContentRecord("req_9", NOON, "full", False, 200, "", *kept, ())])
    (line,) = [line for line in content(running, "list").out.splitlines() if "req_9" in line]

    assert line.endswith("Tell Tell Tell Tell Tell Tell Tell Tell Tell Tell Tell Tell…  It is told.")


def test_requests_are_found_by_text_and_put_in_order(running: Parts) -> None:
    """The dearest first, or the cheapest."""
    assert [row["id"] for row in requests(running, "--text", "needle", "--json").json] == ["req_3", "req_2"]
    assert [row["id"] for row in requests(running, "--sort", "cost", "--json").json] == ["req_2", "req_1", "req_3"]
    cheapest = requests(running, "--sort", "cost", "--order", "asc", "--limit", "1", "--json").json
    assert [row["id"] for row in cheapest] == ["req_3"]


def test_a_content_is_deleted_by_those_who_mean_it(running: Parts) -> None:
    """Nobody is asked where there is no terminal; the record stays."""
    refused = content(running, "delete", "req_1")
    assert refused.code == 4
    assert content(running, "delete", "req_1", "--yes").out == "deleted the content of req_1\n"
    assert content(running, "show", "req_1").code == 1
    assert requests(running, "req_1", "--json").json["id"] == "req_1"


def test_what_comes_in_is_not_put_in_order(running: Parts) -> None:
    """It is shown as it comes."""
    assert requests(running, "--follow", "--sort", "cost").code == 2
