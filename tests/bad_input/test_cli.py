"""Every bad input of section e6, from the data file: its message, its code, its exit, and that nothing is changed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bad_input.cli_places import CANARY, Place, World, all_rows, booked, world
from bad_input.cli_rows import EXITS, ROWS, Row
from commands import Told, command
from faregate.errors import Unsafe
from faregate.supervise import MADE_AT_SECONDS, check_clock


@pytest.fixture(scope="module")
def installations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("cli")) as made:
        yield made


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_row_is_told_for_people_and_for_scripts(
    row: Row, installations: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same code both times, the message on standard error alone, no secret anywhere, and nothing is changed."""
    for name in [name for name in os.environ if name.startswith("FAREGATE_")]:
        monkeypatch.delenv(name)
    for name, value in row.environment.items():
        monkeypatch.setenv(name, value)
    for as_json in (False, True) if row.json else (False,):
        folder = tmp_path / ("json" if as_json else "plain")
        folder.mkdir()
        _tried(row, Place(folder, installations), as_json=as_json)


def _tried(row: Row, place: Place, *, as_json: bool) -> None:
    names = {**place.world.names, "name": f"{row.id[:3].lower()}-{place.folder.name}"}
    words = [word.format_map(names) for word in row.words]
    if as_json:
        # Before any option, for one that is given no value would take it.
        words.insert(next((at for at, word in enumerate(words) if word.startswith("-")), len(words)), "--json")
    row.build(place)
    before = _state(place, row)
    with contextlib.chdir(place.folder):
        told = command(*words, typed=row.typed.format_map(names))
    said = told.out + told.err

    assert told.code == EXITS.get(row.code, 2), said
    assert "Traceback" not in said
    assert CANARY not in said
    assert names["secret"] not in said
    assert not (row.hasnt and row.hasnt in said)
    if row.code and not row.report:
        assert told.out == ""
    if as_json:
        _told_for_scripts(told, row)
    if not as_json or (row.code and not row.report):
        where = said if row.report or not row.code else told.err
        assert [each for each in row.has if each.format_map(names) not in where] == [], where
    if row.left is not None:
        assert row.left(place)
    if not row.changes:
        assert _state(place, row) == before


def _told_for_scripts(told: Told, row: Row) -> None:
    """An error on standard error, or a result on standard output, which has problems or names what failed."""
    if row.code and not row.report:
        error = json.loads(told.err.splitlines()[-1])["error"]
        assert row.code in {error["code"], *(problem["code"] for problem in error.get("problems", ()))}, told.err
        return
    result = json.loads(told.out)
    if row.failed:
        looked = [*result.get("checks", ()), *result.get("looks", ())]
        failed = {each["name"] for each in looked if each.get("ok") is False or each.get("state") == "failed"}
        assert (result["ok"], failed) == (False, {*row.failed}), told.out
    elif row.code:
        assert row.code in {problem["code"] for problem in result["problems"]}, told.out


def _state(place: Place, row: Row) -> tuple[object, ...]:
    """Both books, and what lies in the folder where the command must leave nothing."""
    files = None if row.left else {file.name: file.is_file() and file.read_bytes() for file in place.folder.iterdir()}
    return all_rows(place.world.data / "books.sqlite3"), all_rows(place.books), files


def bounded(bound: str, folder: Path, *words: object) -> Told:
    """A command as a program that gets less of something, as a shell can say."""
    program = str(Path(sys.executable).with_name("faregate"))
    done = subprocess.run(
        ["/bin/sh", "-c", f'ulimit {bound}; exec "$@"', "sh", program, *map(str, words)],
        cwd=folder, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return Told(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("before", ["", "precious"])
def test_an_export_for_which_there_is_no_room_leaves_what_was_there(
    before: str, installations: World, tmp_path: Path
) -> None:
    """L59: neither half a file nor a draft of one stays, and a file that was to be replaced is whole."""
    if before:
        (tmp_path / "state.yaml").write_text(before)
    told = bounded("-f 0", tmp_path, "export", "--out", "state.yaml", "--force", "--data", installations.data)

    assert (told.code, told.out, "too large" in told.err) == (1, "", True)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == ({"state.yaml": before} if before else {})


def test_secrets_for_which_there_is_no_room_are_shown_instead(installations: World, tmp_path: Path) -> None:
    """L59: their keys are made by then, and nobody can show them again; no empty file stays either."""
    (tmp_path / "state.yaml").write_text("keys: [{name: no room}]\n")
    words = ("apply", "-f", "state.yaml", "--yes", "--json", "--out", "secrets", "--data", installations.data)
    told = bounded("-f 0", tmp_path, *words)

    (key,) = json.loads(told.out)["keys"]
    assert (told.code, key["name"], key["secret"][:6]) == (1, "no room", "sk-fg-")
    assert "could not be written to secrets: file too large" in told.err
    assert [file.name for file in tmp_path.iterdir()] == ["state.yaml"]


def test_a_result_for_which_there_is_no_room_is_a_failure(installations: World, tmp_path: Path) -> None:
    """L59: also where a shell writes it, because a file that is cut off looks whole."""
    told = bounded("-t 60; exec > /dev/full", tmp_path, "usage", "--data", installations.data)

    assert (told.code, told.err) == (1, "faregate: no space left on device\n")


def test_a_backup_for_which_there_is_no_room_leaves_none(installations: World, tmp_path: Path) -> None:
    """L69: neither half of it nor what it was made from."""
    place = Place(tmp_path, installations)
    booked(place)
    # In blocks of 512 bytes: the books fit, and a file that holds them does not.
    room = place.books.stat().st_size // 512 + 2
    told = bounded(f"-f {room}", tmp_path, "backup", "copy.tar", "--data", "data")

    assert (told.code, "could not be written" in told.err) == (1, True), told.err
    assert [file.name for file in tmp_path.iterdir()] == ["data"]
    assert not list((tmp_path / "data").glob(".backup*"))


def test_few_open_files_are_warned_of_with_their_number(tmp_path: Path) -> None:
    """L27: each call holds two."""
    told = bounded("-n 512", tmp_path, "doctor", "--data", "data")

    assert "warn  open files     512 open files" in told.out


def test_a_clock_from_before_this_version_is_refused() -> None:
    """L28: whatever is booked would stand in the past; the exit code is 4."""
    check_clock(MADE_AT_SECONDS)
    with pytest.raises(Unsafe, match="before the day this version was made"):
        check_clock(MADE_AT_SECONDS - 1)
