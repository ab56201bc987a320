"""The truth log: appended only, found again, whole after any crash."""

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faregate.simulator.truth import Record, TruthLog


def record(request_id: str) -> Record:
    """A record of a call that was served."""
    usage = {"prompt_tokens": 1}
    return Record(0, request_id, "", "/p", "m", False, 200, True, True, usage, 0, "", None, [], "2026-01-01T00:00:00Z")


async def write(path: Path, ids: list[str]) -> None:
    """Write records at once, so that they share groups."""
    log = TruthLog(path)
    assert all(await asyncio.gather(*(log.write(record(request_id)) for request_id in ids)))
    await log.close()


async def shown(path: Path | None) -> list[tuple[int, str]]:
    """Number and request id of all records of a log."""
    log = TruthLog(path)
    lines = [json.loads(line) for line in log.lines(limit=10_000)]
    await log.close()
    return [(line["seq"], line["request_id"]) for line in lines]


def test_continued_after_a_restart(tmp_path: Path) -> None:
    """A log that exists goes on with the next number."""
    path = tmp_path / "deep" / "truth.jsonl"
    asyncio.run(write(path, ["a", "b"]))
    asyncio.run(write(path, ["c"]))

    assert asyncio.run(shown(path)) == [(1, "a"), (2, "b"), (3, "c")]
    assert path.stat().st_mode & 0o777 == 0o600


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 400))
def test_torn_tail_is_cut_to_whole_records(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """Whatever is missing at the end, what is left is a prefix, and new records follow it."""
    path = tmp_path_factory.mktemp("truth") / "truth.jsonl"
    asyncio.run(write(path, ["a", "b", "c"]))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - cut])
    kept = path.read_bytes().count(b"\n")

    asyncio.run(write(path, ["d"]))

    assert asyncio.run(shown(path)) == [*enumerate("abc"[:kept], 1), (kept + 1, "d")]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """A file that is no truth log is refused and not touched."""
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n")

    with pytest.raises(ValueError, match="line 1"):
        asyncio.run(shown(path))
    assert path.read_text() == "my notes\n"


def test_a_log_without_a_path_works_alike() -> None:
    """Tests that need no file get one that nobody sees."""

    async def ids() -> list[str]:
        log = TruthLog()
        await log.write(record("a"))
        await log.write(record("b"))
        found = [one.request_id for one in log.records("b")]
        await log.close()
        return found

    assert asyncio.run(ids()) == ["b"]
