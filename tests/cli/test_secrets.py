"""``faregate secrets``: a new pepper in front, an old one out, and no key is lost on the way."""

import json
import stat
from pathlib import Path

import pytest

from commands import command
from faregate.config.peppers import PEPPERS_MAX
from faregate.core import keys


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An installation that never ran, with a key."""
    command("key", "create", "--name", "old", "--json", "--data", tmp_path / "data")
    return tmp_path / "data"


def peppers(data: Path) -> dict[str, bytes]:
    """Id → pepper, as the file has them."""
    return {
        each["id"]: bytes.fromhex(each["key"]) for each in json.loads((data / "secrets.json").read_text())["peppers"]
    }


def counts(data: Path) -> dict[str, int]:
    """Id → how many keys hang on a pepper, the newest first."""
    return {row["id"]: row["keys"] for row in command("secrets", "list", "--json", "--data", data).json}


def test_a_pepper_is_rotated_and_the_old_one_retired_when_no_key_needs_it(data: Path) -> None:
    """Old keys go on opening; each rotated key moves over, its grace included; then the old pepper may go."""
    assert counts(data) == {"p1": 1}
    told = command("secrets", "rotate-pepper", "--json", "--data", data).json
    assert (told["id"], told["peppers"], told["reload"]) == ("p2", ["p2", "p1"], False)
    assert stat.S_IMODE((data / "secrets.json").stat().st_mode) == 0o600
    command("key", "create", "--name", "new", "--data", data)
    assert counts(data) == {"p2": 1, "p1": 1}
    refused = command("secrets", "retire-pepper", "p1", "--yes", "--data", data)
    assert (refused.code, "1 key that can be used hangs on pepper p1" in refused.err) == (4, True)
    command("key", "rotate", "old", "--grace", "3600", "--data", data)
    assert counts(data) == {"p2": 2, "p1": 1}
    assert command("secrets", "retire-pepper", "p1", "--yes", "--data", data).code == 4
    command("key", "rotate", "old", "--grace", "0", "--data", data)
    assert counts(data) == {"p2": 2, "p1": 0}
    assert command("secrets", "retire-pepper", "p1", "--data", data).code == 4
    assert command("secrets", "retire-pepper", "p1", "--yes", "--data", data).out == "pepper p1 is retired\n"
    assert list(peppers(data)) == ["p2"]


def test_a_key_made_under_the_old_pepper_is_still_found(data: Path) -> None:
    """What was handed out before the rotation is known by `key check`; a new key is digested with the new pepper."""
    secret = command("key", "create", "--name", "kept", "--json", "--data", data).json["secret"]
    command("secrets", "rotate-pepper", "--data", data)
    (data.parent / "found.txt").write_text(secret + "\n")
    told = command("key", "check", data.parent / "found.txt", "--json", "--data", data)
    (found,) = told.json["secrets"]
    assert (told.json["found"], found["name"], found["opens"]) == (True, "kept", True)
    assert secret[:20] not in told.out
    assert keys.fingerprint(peppers(data)["p2"]) in command("secrets", "list", "--data", data).out


def test_the_newest_pepper_is_never_retired_and_there_are_few(data: Path) -> None:
    """Nothing would make digests then; and each one is tried for every credential."""
    assert command("secrets", "retire-pepper", "p1", "--yes", "--data", data).code == 4
    assert command("secrets", "retire-pepper", "p9", "--yes", "--data", data).code == 1
    for _ in range(PEPPERS_MAX - 1):
        assert command("secrets", "rotate-pepper", "--data", data).code == 0
    assert command("secrets", "rotate-pepper", "--data", data).code == 1
    assert command("secrets", "rotate-pepper", "--data", data.parent / "none").code == 1
