"""Many things of one file: what ``--from-file`` reads, for the admin API's ``…/bulk``."""

import csv
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from faregate.cli.words import file_text
from faregate.core.desired_state import ITEMS_MAX
from faregate.errors import UsageError


def items_of(file: Path, lists: Collection[str] = ()) -> list[dict[str, Any]]:
    """The things that a file names, as the admin API takes them.

    JSON is a list of objects with the API's fields, or such a list as ``items`` of an object. CSV has the fields as its
    first line; an empty cell is a field that is left out, and the fields among ``lists`` hold several values, joined by
    spaces or commas.

    Raises:
        UsageError: it cannot be read, or names none or too many.
    """
    text = file_text(file)
    if file.suffix.lower() == ".json":
        found = _of_json(file, text)
    elif file.suffix.lower() == ".csv":
        found = _of_csv(file, text, lists)
    else:
        raise UsageError(f"{file} is neither .json nor .csv by its name", code="value")
    if not 1 <= len(found) <= ITEMS_MAX:
        raise UsageError(f"{file} names {len(found)} things; 1 to {ITEMS_MAX} are made at once", code="value")
    return found


def _of_json(file: Path, text: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not JSON: {error}", code="value") from error
    if isinstance(found, dict) and found.keys() == {"items"}:
        found = found["items"]
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise UsageError(f"{file} is not a list of objects", code="value")
    return found


def _of_csv(file: Path, text: str, lists: Collection[str]) -> list[dict[str, Any]]:
    rows = csv.reader(text.splitlines(), strict=True)
    found: list[dict[str, Any]] = []
    try:
        names = [name.strip() for name in next(rows, [])]
        if not all(names) or len(set(names)) != len(names):
            raise UsageError(f"{file}:1 is no line of fields, each once", code="value")
        for cells in rows:
            if not any(cells):
                continue
            if len(cells) != len(names):
                rule = f"{file}:{rows.line_num} has {len(cells)} cells; the first line has {len(names)}"
                raise UsageError(rule, code="value")
            told = {name: cell.strip() for name, cell in zip(names, cells, strict=True)}
            found.append({name: _value(name, cell, lists) for name, cell in told.items() if cell})
    except csv.Error as error:
        raise UsageError(f"{file}:{rows.line_num} is not CSV: {error}", code="value") from error
    return found


def _value(name: str, cell: str, lists: Collection[str]) -> str | list[str]:
    return cell.replace(",", " ").split() if name in lists else cell
