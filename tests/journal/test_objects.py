"""Whose objects are: found by their owner only, across restarts, torn records and full shelves."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faregate.journal import objects
from faregate.journal.objects import FileObjectStore
from faregate.ports import KeptObject, Owner

NOW = 1_790_000_000_000_000_000
DAY = 24 * 3600 * 1_000_000_000
MINE = Owner("acme", "research", "search")


def kept(id: str = "resp_1", owner: Owner = MINE, kind: str = "response", **fields: object) -> KeptObject:
    told = {"provider": "sim", "deployment": "sim/sim-1", "model": "sim-1", "request_id": "req_1", "made_at": NOW}
    return KeptObject(id, kind, owner, **{**told, **fields})  # type: ignore[arg-type]


def test_an_object_is_found_by_its_owner_alone(tmp_path: Path) -> None:
    """Whoever differs in organization, team or project finds nothing, and neither does anybody by another id."""
    store = FileObjectStore(tmp_path, NOW)
    store.keep(kept())
    assert store.find(MINE, "resp_1") == kept()
    assert store.owns(MINE, "resp_1")
    strangers = [Owner("other", "research", "search"), Owner("acme", "other", "search"), Owner("acme", "research")]
    assert [store.find(owner, "resp_1") for owner in strangers] == [None] * 3
    assert not any(store.owns(owner, "resp_1") for owner in strangers)
    assert store.find(MINE, "resp_2") is None


@pytest.mark.parametrize("kind", ["response", "file", "batch"])
def test_objects_outlive_the_process(tmp_path: Path, kind: str) -> None:
    """Nothing is closed or flushed before the next process looks: what was kept is there, what was forgotten is not."""
    store = FileObjectStore(tmp_path, NOW)
    for number in range(5):
        store.keep(kept(f"id_{number}", kind=kind, facts=b"\x00" * number))
    store.forget(MINE, "id_3")
    again = FileObjectStore(tmp_path, NOW + 1)
    assert [again.owns(MINE, f"id_{number}") for number in range(5)] == [True, True, True, False, True]
    found = again.find(MINE, "id_4")
    assert found is not None
    assert found.facts == b"\x00" * 4


def test_files_are_the_owners_alone(tmp_path: Path) -> None:
    """Who else is on this machine cannot read who made what."""
    store = FileObjectStore(tmp_path / "objects", NOW)
    store.keep(kept())
    assert os.stat(tmp_path / "objects").st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "objects").iterdir()} == {0o600}


def test_every_torn_end_is_cut(tmp_path: Path) -> None:
    """Wherever the last record is cut off, those before it stand, and new ones go on behind it."""
    store = FileObjectStore(tmp_path, NOW)
    store.keep(kept("first"))
    (file,) = tmp_path.glob("*.responses")
    whole = file.stat().st_size
    store.keep(kept("second"))
    data = file.read_bytes()
    for size in range(whole, len(data)):
        file.write_bytes(data[:size])
        again = FileObjectStore(tmp_path, NOW + 1)
        assert again.owns(MINE, "first")
        assert not again.owns(MINE, "second")
        again.keep(kept("third"))
        once_more = FileObjectStore(tmp_path, NOW + 2)
        assert once_more.owns(MINE, "third")
        for other in set(tmp_path.glob("*.responses")) - {file}:
            other.unlink()


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_damage_is_nobodys_object(tmp_path_factory: pytest.TempPathFactory, at: int, flip: int) -> None:
    """A changed byte may lose objects; it never gives one to somebody else, and nothing raises."""
    folder = tmp_path_factory.mktemp("objects")
    store = FileObjectStore(folder, NOW)
    for number in range(4):
        store.keep(kept(f"id_{number}"))
    (file,) = folder.glob("*.responses")
    data = bytearray(file.read_bytes())
    data[at % len(data)] ^= flip
    file.write_bytes(data)
    again = FileObjectStore(folder, NOW + 1)
    for number in range(4):
        assert again.find(MINE, f"id_{number}") in (None, kept(f"id_{number}"))


def test_responses_never_push_out_files(tmp_path: Path) -> None:
    """Each shelf has its own bound: beyond it the oldest of that shelf go, file by file."""
    store = FileObjectStore(tmp_path, NOW, bytes_max=400_000)
    store.keep(kept("file_1", kind="file"))
    for number in range(6_000):
        store.keep(kept(f"resp_{number:06d}", made_at=NOW + number))
    assert store.owns(MINE, "file_1")
    assert not store.owns(MINE, "resp_000000")
    assert store.find(MINE, "resp_000000") is None
    assert store.owns(MINE, "resp_005999")
    assert sum(path.stat().st_size for path in tmp_path.glob("*.responses")) <= 400_000 + 65_536


def test_what_fell_off_a_shelf_leaves_memory(tmp_path: Path) -> None:
    """Whoever makes no more objects does not keep the old ones in memory for ever."""
    store = FileObjectStore(tmp_path, NOW, bytes_max=400_000)
    silent = Owner("silent")
    for number in range(50):
        store.keep(kept(f"old_{number}", silent))
    for number in range(6_000):
        store.keep(kept(f"resp_{number:06d}", made_at=NOW + number))
    store.expire(NOW + 120 * 1_000_000_000)
    assert not store.owns(silent, "old_49")
    assert silent not in store._responses._index
    assert sum(map(len, store._responses._index.values())) < 6_000


def test_responses_expire_and_files_stay(tmp_path: Path) -> None:
    """A month later no provider keeps a response; a file is there until it is deleted."""
    store = FileObjectStore(tmp_path, NOW)
    store.keep(kept("resp_1"))
    store.keep(kept("file_1", kind="file"))
    store.close()
    later = FileObjectStore(tmp_path, NOW + 33 * DAY)
    assert not later.owns(MINE, "resp_1")
    assert later.owns(MINE, "file_1")
    assert list(tmp_path.glob("*.responses")) == []


def test_a_clock_that_goes_back_loses_nothing(tmp_path: Path) -> None:
    """A process that starts at an earlier time writes into a file of its own, behind all others."""
    store = FileObjectStore(tmp_path, NOW)
    store.keep(kept("first"))
    back = FileObjectStore(tmp_path, NOW - DAY)
    back.keep(kept("second", made_at=NOW - DAY))
    back.forget(MINE, "first")
    again = FileObjectStore(tmp_path, NOW)
    assert (again.owns(MINE, "first"), again.owns(MINE, "second")) == (False, True)


def test_a_disk_that_takes_nothing_leaves_memory(tmp_path: Path) -> None:
    """Where nothing can be written the object is its owner's for as long as this process lives."""
    store = FileObjectStore(tmp_path / "gone", NOW)
    (tmp_path / "gone").rmdir()
    store.keep(kept())
    assert store.find(MINE, "resp_1") == kept()
    store.forget(MINE, "resp_1")
    assert not store.owns(MINE, "resp_1")


def test_what_is_too_large_for_a_record_stays_in_memory(tmp_path: Path) -> None:
    """No reader would take a record over its bound, so none is written."""
    store = FileObjectStore(tmp_path, NOW)
    store.keep(kept(facts=b"x" * objects.RECORD_BYTES_MAX))
    assert store.owns(MINE, "resp_1")
    assert not FileObjectStore(tmp_path, NOW).owns(MINE, "resp_1")
