"""Reads the catalogue of bad inputs: what can be sent, set or typed wrongly on each surface, and how it is answered.

The file is data for two readers: ``test_catalogue`` holds it to the rows that try the inputs, and
``docs/reference/write.py`` writes the examples of the error reference from it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

FILE: Final = Path(__file__).with_name("catalogue.toml")

_FIELDS: Final = frozenset(("what", "codes", "instead", "proven"))


class Input(NamedTuple):
    """One bad input: its number, and for each code that it gets what of it gets that; none where it is taken."""

    id: str
    what: str
    codes: Mapping[str, str]
    #: Node ids of tests elsewhere that show it.
    proven: Sequence[str]
    instead: str


def catalogue() -> Mapping[str, Sequence[Input]]:
    """The inputs of each surface, in the order of their numbers.

    Raises:
        ValueError: an entry says too little, or something that no entry says.
    """
    surfaces = tomllib.loads(FILE.read_text())
    return {surface: [_input(id, told) for id, told in entries.items()] for surface, entries in surfaces.items()}


def _input(id: str, told: Mapping[str, Any]) -> Input:
    codes, what = told.get("codes", ()), told.get("what", "")
    by_code = dict(codes) if isinstance(codes, dict) else dict.fromkeys(codes, what)
    proven = told.get("proven", ())
    if told.keys() - _FIELDS or not (what or by_code) or "codes" not in told:
        raise ValueError(f"{FILE.name}: {id} is not an input of a known form")
    return Input(id, what, by_code, (proven,) if isinstance(proven, str) else tuple(proven), told.get("instead", ""))
