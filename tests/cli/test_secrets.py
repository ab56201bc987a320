"""``faregate secrets``: a new pepper in front, an old one out, and no key is lost on the way."""

import json
import os
import stat
from pathlib import Path

import pytest

from commands import command
from faregate.config.peppers import PEPPERS_MAX
from faregate.config.secrets import keep_secrets
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


def test_each_change_of_the_peppers_leaves_a_line(data: Path) -> None:
    """Who did it, and which peppers there were and are, by their ids; what is refused leaves none."""
    command("secrets", "rotate-pepper", "--data", data)
    assert command("secrets", "retire-pepper", "p1", "--yes", "--data", data).code == 4
    command("key", "rotate", "old", "--grace", "0", "--data", data)
    command("secrets", "retire-pepper", "p1", "--yes", "--data", data)

    told = command("audit", "--kind", "pepper", "--json", "--data", data)

    assert [(line["actor"], line["id"], line["before"], line["after"]) for line in told.json] == [
        ("local", "p1", {"peppers": ["p2", "p1"]}, {"peppers": ["p2"]}),
        ("local", "p2", {"peppers": ["p1"]}, {"peppers": ["p2", "p1"]}),
    ]
    assert not [key for key in peppers(data).values() if key.hex() in told.out]
    assert command("verify", "--data", data).code == 0


def test_peppers_are_rotated_before_the_first_start(tmp_path: Path) -> None:
    """`faregate init` makes secrets and no books yet."""
    (tmp_path / "data").mkdir(mode=0o700)
    keep_secrets(tmp_path / "data" / "secrets.json", os.urandom)

    assert command("secrets", "rotate-pepper", "--data", tmp_path / "data").code == 0

    assert list(peppers(tmp_path / "data")) == ["p2", "p1"]


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
