"""The catalogue is whole: every number is there once, is tried or proven, and gets the codes that the file tells."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from bad_input import admin_rows, cli_rows, config_rows, rows
from bad_input.catalogue import Input, catalogue

ROOT = Path(__file__).parent.parent.parent

INPUTS = catalogue()

#: Surface → the letter of its numbers, and how many there are.
NUMBERS = {"gateway": ("P", 96), "admin": ("A", 90), "config": ("C", 90), "cli": ("L", 86)}

#: Surface → the id and the codes of each of its rows.
TRIED: Mapping[str, Sequence[tuple[str, Iterable[str]]]] = {
    "gateway": [(row.id, row.codes) for row in rows.ROWS],
    "admin": [(row.id, (row.code,)) for row in admin_rows.ROWS],
    "config": [(row.id, (row.code,)) for row in config_rows.ROWS],
    "cli": [(row.id, (row.code,)) for row in cli_rows.ROWS],
}


def codes_of_rows(surface: str) -> dict[str, set[str]]:
    """Number → the codes that its rows expect; rows without a number are extra."""
    letter, _ = NUMBERS[surface]
    found: dict[str, set[str]] = {}
    for id, codes in TRIED[surface]:
        if number := re.match(rf"{letter}\d\d(?!\d)", id):
            found.setdefault(number[0], set()).update(code for code in codes if code)
    return found


def exists(test: str) -> bool:
    """Whether there is a test with this node id, written without its class."""
    file, _, name = test.partition("::")
    path = ROOT / file
    return path.is_file() and any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
        for node in ast.walk(ast.parse(path.read_text()))
    )


def told_wrongly(each: Input, tried: Mapping[str, set[str]]) -> bool:
    """Whether the file and the rows say different things of one input."""
    if each.id not in tried:
        return not each.proven
    # Tests elsewhere may show what no row can: then the rows have some of the codes.
    told = set(each.codes)
    return not tried[each.id] <= told if each.proven else tried[each.id] != told


@pytest.mark.parametrize("surface", NUMBERS)
def test_every_number_stands_in_the_file_once_and_in_order(surface: str) -> None:
    """No input is forgotten and none is made up."""
    letter, count = NUMBERS[surface]

    assert [each.id for each in INPUTS[surface]] == [f"{letter}{number:02d}" for number in range(1, count + 1)]


@pytest.mark.parametrize("surface", NUMBERS)
def test_every_input_is_tried_and_gets_the_codes_of_the_file(surface: str) -> None:
    """Rows and file agree both ways; what has no row is proven elsewhere."""
    tried = codes_of_rows(surface)

    assert [each.id for each in INPUTS[surface] if told_wrongly(each, tried)] == []
    assert sorted(tried.keys() - {each.id for each in INPUTS[surface]}) == []


def test_every_test_that_is_named_exists() -> None:
    """A proof that was renamed is a proof no longer."""
    named = {test for inputs in INPUTS.values() for each in inputs for test in each.proven}

    assert sorted(test for test in named if not exists(test)) == []


def test_the_file_holds_no_other_surface() -> None:
    """Each of its tables is held to rows."""
    assert list(INPUTS) == list(NUMBERS)
