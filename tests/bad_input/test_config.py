"""Every bad configuration of the catalogue: its code, its place, the way out, and that nothing is begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_input.config_rows import CANARY, ENVIRONMENT, GOOD, ROWS, Content, Row
from commands import command

#: Rows that are a file's content, which `check` and `serve` can be given.
FILES = [row for row in ROWS if isinstance(row.build, Content) and row.code and not row.warns]


def test_the_configuration_that_rows_change_is_good(tmp_path: Path) -> None:
    """Without a change nothing is found."""
    trial = Content(GOOD.encode(), ENVIRONMENT)(tmp_path)

    assert (trial.refused, trial.warned) == ((), ())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_row_is_told_with_its_code_its_place_and_a_way_out(row: Row, tmp_path: Path) -> None:
    """What must be refused is, what must be taken is taken without a word, and no secret is shown."""
    trial = row.build(tmp_path)
    said = [each.words for each in (*trial.refused, *trial.warned)]

    assert not any(CANARY in words or (row.hasnt and row.hasnt in words) for words in said)
    if not row.code and not row.has:
        assert said == []
        return
    told = trial.warned if row.warns else trial.refused
    fitting = [each for each in told if row.code in ("", each.code) and row.line in (0, each.line)]
    assert any(row.has in each.words for each in fitting), said
    assert not (row.warns and trial.refused)


@pytest.mark.parametrize("row", FILES, ids=lambda row: row.id)
def test_check_and_serve_refuse_it_alike_and_begin_nothing(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 2 from both, the same lines on standard error, and no data folder afterwards."""
    assert isinstance(row.build, Content)
    for name, value in row.build.environment.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "faregate.yaml"
    file.write_bytes(row.build.content)
    file.chmod(0o600)

    checked = command("check", "--config", file)
    served = command("serve", "--config", file, "--data", tmp_path / "data")

    assert (checked.code, served.code) == (2, 2)
    assert row.code in checked.err
    assert served.err == checked.err
    assert checked.out == served.out == ""
    assert not (tmp_path / "data").exists()
