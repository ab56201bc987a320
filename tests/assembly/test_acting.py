"""What acted last is known to the next start, whatever became of the process or the file in between."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from console_parts import Parts, parts
from faregate.assembly.acting import Acting
from faregate.config.folder import DataFolder
from faregate.config.load import load_text
from faregate.console.audit import all_marks

TEXT = """\
providers: [{name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: "${KEY}"}]
durability: process
"""
SESSION, OTHER = os.urandom(32).hex(), os.urandom(32).hex()


def acting(made: Parts, text: str = TEXT, key: str = "sk-of-the-first-day-0001", session: str = SESSION) -> Acting:
    loaded = load_text(text.encode(), "faregate.yaml", {"KEY": key}, made.folder)
    return Acting(DataFolder(Path(made.console.facts.data_dir)), loaded.config, loaded.references, session)


def started(made: Parts, each: Acting) -> list[dict[str, Any]]:
    """The lines that a start with this configuration leaves."""
    last = made.console.audit.last()
    each.tell_start(made.console)
    return list(made.console.audit.lines(last + 1, made.console.audit.last())) if made.console.audit.last() else []


def test_a_change_that_was_told_and_not_kept_is_told_once_more(tmp_path: Path) -> None:
    """As after a crash between the two: twice rather than never."""
    power = TEXT.replace("durability: process", "durability: power")
    with parts(tmp_path) as made:
        started(made, acting(made))
        assert acting(made, power).tell(made.console) is not None

        (line,) = started(made, acting(made, power))

        assert (line["actor"], line["after"]) == ("start", {"durability": "power"})
        assert started(made, acting(made, power)) == []
        assert made.console.audit.fault(all_marks(made.books), made.console.audit.last()) == ""


@pytest.mark.parametrize("left", [b"", b"{", b'{"durability": 7}', None])
def test_what_cannot_be_read_is_told_as_not_known(tmp_path: Path, left: bytes | None) -> None:
    """A file that was damaged or removed leaves a line itself: nobody changes what acted unseen."""
    with parts(tmp_path) as made:
        file = DataFolder(Path(made.console.facts.data_dir)).acting
        started(made, acting(made))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        file.unlink()
        if left is not None:
            file.write_bytes(left)

        (line,) = started(made, acting(made))

        assert (line["before"], next(iter(line["after"]))) == (None, "providers")


def test_a_secret_that_was_changed_is_told_though_its_mask_is_the_same(tmp_path: Path) -> None:
    """By a mark that only the installation's own secret makes; with another such secret all count as changed."""
    with parts(tmp_path) as made:
        started(made, acting(made))
        (line,) = started(made, acting(made, key="sk-of-another-day-0001"))
        assert line["before"] == line["after"] == {"providers[openai].api_key": "sk-…0001"}

        (line,) = started(made, acting(made, key="sk-of-another-day-0001", session=OTHER))
        assert line["after"] == {"providers[openai].api_key": "sk-…0001"}
