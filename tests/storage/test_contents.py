"""Prompts and answers in a file of their own: taken in once, found, and gone for good."""

import os
import sqlite3
from pathlib import Path

import pytest

from faregate.errors import Failed, Unavailable
from faregate.jobs.keep_contents import ContentKeeper
from faregate.journal.contents import ContentSpool, SpooledContents
from faregate.ports import ContentRecord, KeptText
from faregate.storage.contents import ContentStore

NOW = 1_800_000_000_000_000_000
DAY = 86_400 * 1_000_000_000


def record(number: int, prompt: str = "Say hello.", answer: str = "Hello.", at: int = NOW) -> ContentRecord:
    return ContentRecord(
        f"req_{number:04d}",
        at,
        "full",
        False,
        200,
        "",
        KeptText(prompt, len(prompt), len(prompt) + 40),
        KeptText(answer, len(answer), len(answer) + 80, True),
        (("email", "redact", "request", 2),),
    )


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "contents.sqlite3")


def test_what_was_taken_in_comes_back_as_it_was(store: ContentStore) -> None:
    """Every fact of it."""
    store.take("a", [record(1), record(2, "ä\n\t𝄞", "")])

    assert store.get("req_0001") == record(1)
    assert store.get("req_0002") == record(2, "ä\n\t𝄞", "")
    assert store.get("req_0003") is None


def test_a_file_is_taken_in_once(store: ContentStore) -> None:
    """A crash between taking it in and removing it does not bring back what was deleted meanwhile."""
    store.take("a", [record(1)])
    store.remove("req_0001")
    again = store.take("a", [record(1)])

    assert (again, store.get("req_0001")) == (0, None)


def test_what_was_removed_is_on_the_disk_no_more(store: ContentStore) -> None:
    """Neither in the file nor beside it."""
    store.take("a", [record(n, f"CANARY-{n} " * 50) for n in range(200)])
    for n in range(200):
        store.remove(f"req_{n:04d}")
    left = b"".join(path.read_bytes() for path in store.path.parent.iterdir())

    assert b"CANARY" not in left
    assert store.newest("", 10) == []


def test_what_is_past_its_time_goes_and_the_rest_stays(store: ContentStore) -> None:
    """The oldest first, so many at once."""
    store.take("a", [record(n, at=NOW + n) for n in range(10)])

    assert store.remove_before(NOW + 6, 4) == 4
    assert store.remove_before(NOW + 6, 4) == 2
    assert [each.id for each in store.newest("", 100)] == [f"req_{n:04d}" for n in (9, 8, 7, 6)]


@pytest.mark.parametrize(
    ("text", "found"),
    [("HELLO", [1]), ("50%", [2]), ("%", [2]), ("_", [3]), ("\\", [4]), ("nothing", []), ("100%%", []), ("ans", [5])],
)
def test_a_text_is_found_as_it_stands(store: ContentStore, text: str, found: list[int]) -> None:
    """Signs that mean something elsewhere mean themselves; the case of ASCII letters means nothing."""
    texts = {1: "Say hello.", 2: "It is 50% off", 3: "snake_case", 4: "back\\slash", 5: "x"}
    store.take("a", [record(n, each, "the answer" if n == 5 else "") for n, each in texts.items()])

    assert store.containing(text, "", 100) == ([f"req_{n:04d}" for n in found], "")


def test_a_search_goes_on_where_it_stopped(store: ContentStore) -> None:
    """It looks at so many, and names the last one it looked at until there are no more."""
    store.take("a", [record(n, "needle" if n % 2 else "hay") for n in range(10)])

    first, last = store.containing("needle", "", 4)
    rest, end = store.containing("needle", last, 100, since=NOW, until=NOW + 1)
    assert (first, last) == (["req_0009", "req_0007"], "req_0006")
    assert (rest, end) == (["req_0005", "req_0003", "req_0001"], "")


def test_asking_makes_no_file_and_writing_makes_the_owners(store: ContentStore) -> None:
    """Where nothing was ever kept there is nothing; what is made is 0600."""
    assert (store.get("req_1"), store.newest("", 1), store.containing("x", "", 1)) == (None, [], ([], ""))
    assert (store.remove("req_1"), store.remove_before(NOW, 1), store.path.exists()) == (False, 0, False)
    store.take("a", [record(1)])
    assert oct(store.path.stat().st_mode & 0o777) == "0o600"


def test_a_file_of_another_version_is_refused(store: ContentStore) -> None:
    """With a sentence that says what to do."""
    with sqlite3.connect(store.path) as driver:
        driver.execute("PRAGMA user_version=99")
    driver.close()

    with pytest.raises(Failed, match="another version"):
        store.get("req_1")


def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    """And nobody learns more than that."""
    (tmp_path / "contents.sqlite3").mkdir()
    with pytest.raises((Unavailable, Failed, OSError)):
        ContentStore(tmp_path / "contents.sqlite3").get("req_1")


# -- on the way there --------------------------------------------------------------------------------------------------


def spool(folder: Path, at: int = NOW) -> ContentSpool:
    return ContentSpool(folder / "left", lambda: at)


def test_what_the_gate_left_is_fetched_once_and_removed(tmp_path: Path, store: ContentStore) -> None:
    """Only whole files are; what is still written to waits."""
    writer, left = spool(tmp_path), SpooledContents(tmp_path / "left")
    keeper = ContentKeeper(store, left, lambda: NOW, 0)
    writer.append(record(1))
    before = keeper.fetch()
    writer.hand_over()
    fetched = keeper.fetch(), keeper.fetch()

    assert (before, fetched, store.get("req_0001")) == (0, (1, 0), record(1))
    assert list((tmp_path / "left").iterdir()) == []


def test_the_files_on_the_way_are_the_owners(tmp_path: Path) -> None:
    """Folder 0700, files 0600."""
    spool(tmp_path).append(record(1))
    modes = {
        path.name[-5:]: oct(path.stat().st_mode & 0o777) for path in [tmp_path / "left", *(tmp_path / "left").iterdir()]
    }

    assert modes == {"left": "0o700", ".open": "0o600"}


def test_a_gate_that_died_leaves_what_it_wrote(tmp_path: Path) -> None:
    """The next one calls it whole; a torn record ends the file."""
    spool(tmp_path).append(record(1))
    (torn,) = (tmp_path / "left").glob("*.open")
    with torn.open("ab") as file:
        file.write(os.urandom(100))
    spool(tmp_path, NOW + 1)
    left = SpooledContents(tmp_path / "left")

    assert [list(left.read(file)) for file in left.files()] == [[record(1)]]


def test_the_oldest_go_before_their_time_where_there_is_too_much(tmp_path: Path, store: ContentStore) -> None:
    """So that contents never fill the disk of the journal."""
    writer, left = spool(tmp_path), SpooledContents(tmp_path / "left")
    for n in range(1_000):
        writer.append(record(n, "x" * 4_000, at=NOW + n))
    writer.hand_over()
    ContentKeeper(store, left, lambda: NOW, 86_400_000, bytes_max=2**21).fetch()

    kept = [each.id for each in store.newest("", 1_000)]
    assert store.size <= 2**21
    assert kept == [f"req_{n:04d}" for n in range(999, 999 - len(kept), -1)]
    assert len(kept) >= 200


def test_contents_are_forgotten_after_their_time_and_not_before(tmp_path: Path, store: ContentStore) -> None:
    """By the clock that is passed in."""
    store.take("a", [record(1, at=NOW - 8 * DAY), record(2, at=NOW - 6 * DAY)])
    keeper = ContentKeeper(store, SpooledContents(tmp_path / "left"), lambda: NOW, 7 * 86_400_000)

    assert keeper.forget() == 1
    assert [each.id for each in store.newest("", 10)] == ["req_0002"]
