"""What people type for dimensions, amounts, lists and files, read into what the admin API takes."""

import json
from pathlib import Path
from typing import Any

from faregate.errors import Unsafe, UsageError


def pairs(text: str | None) -> dict[str, str]:
    """``team=research,model=gpt-4o`` as a mapping.

    Raises:
        UsageError: a part is no pair, or a name comes twice.
    """
    found: dict[str, str] = {}
    for part in (text or "").split(",") if text else ():
        name, equals, value = part.strip().partition("=")
        if not equals or not name or not value:
            raise UsageError(f"{part.strip()[:64]!r} is not a pair; write name=value,name=value", code="value")
        if name in found:
            raise UsageError(f"{name[:64]} is given twice", code="value")
        found[name] = value
    return found


def numbered(count: int, noun: str) -> str:
    """``1 key``, ``2 keys``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(text: str | None) -> list[str] | None:
    """``a,b`` as a list, ``None`` where nothing was given."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def amount(unit: str, text: str, option: str = "--amount") -> str | int | None:
    """An amount as the API takes it: a text for dollars, a whole number for the rest, ``None`` for ``unlimited``.

    Raises:
        UsageError: not a whole number where one is needed.
    """
    if text == "unlimited":
        return None
    if unit == "usd":
        return text
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise UsageError(f"{option}: {text[:64]!r} is not a whole number of {unit[:32]}; such as 20000", code="value")
    return int(text)


#: The admin API takes no larger price file.
FILE_BYTES_MAX = 7 * 1024 * 1024


def file_text(file: Path) -> str:
    """The text of a file that is named on the command line.

    Raises:
        UsageError: it is not there, is no file, is too large or is not UTF-8.
    """
    try:
        if not file.is_file():
            raise UsageError(f"{file} is not a file", code="value")
        with file.open("rb") as opened:
            content = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {(error.strerror or str(error)).lower()}", code="value") from error
    if len(content) > FILE_BYTES_MAX:
        raise UsageError(f"{file} is larger than {FILE_BYTES_MAX >> 20} MiB", code="value")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{file}:{line} is not UTF-8", code="value") from error


def refuse_special(file: Path) -> None:
    """Refuse to put a file in the place of a device, a pipe or a folder, which replacing would take away.

    Raises:
        Unsafe: it is one.
    """
    if file.exists() and not file.is_file():
        raise Unsafe(f"{file} is no regular file", hint="name another file, or leave --out away for the screen")


def ascii_name(file: Path) -> str:
    """The name of a file as reports and sources of prices call it."""
    return "".join(sign if sign.isascii() and sign.isprintable() else "?" for sign in file.name)[-128:]


def json_object(text: str, option: str, example: str = '{"input_tokens": 1000}') -> dict[str, Any]:
    """A JSON object that was typed for an option.

    Raises:
        UsageError: it is none.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UsageError(f"{option} is not a JSON object such as {example}", code="value")
    return value


def without_nothing(fields: dict[str, object]) -> dict[str, object]:
    """The fields that were given."""
    return {name: value for name, value in fields.items() if value is not None}
