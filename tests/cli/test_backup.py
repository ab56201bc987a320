"""``faregate backup``."""

import hashlib
from pathlib import Path

from commands import command


def test_a_backup_of_a_stopped_installation_has_the_digest_that_is_told(tmp_path: Path) -> None:
    """The file is whole."""
    data, file = tmp_path / "data", tmp_path / "copy.backup"
    command("key", "create", "--name", "a", "--data", data)
    told = command("backup", file, "--json", "--data", data).json
    assert told["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_backup_that_would_do_harm_is_refused(tmp_path: Path) -> None:
    """Onto a file that exists, or into the data folder itself."""
    data, file = tmp_path / "data", tmp_path / "copy.backup"
    command("key", "create", "--name", "a", "--data", data)
    file.write_text("precious")
    refused = command("backup", file, "--data", data)
    assert (refused.code, file.read_text()) == (4, "precious")
    assert command("backup", data / "books.sqlite3", "--force", "--data", data).code == 4
    assert command("backup", file, "--force", "--data", data).code == 0


def test_a_backup_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A folder that is not there is told."""
    data = tmp_path / "data"
    command("key", "create", "--name", "a", "--data", data)
    told = command("backup", tmp_path / "nowhere" / "copy", "--data", data)
    assert told.code == 1
    assert command("backup", "--data", data).code == 2
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data"]
