"""What people type for dimensions, amounts and lists, read into what the admin API takes."""

from faregate.errors import UsageError


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


def listed(text: str | None) -> list[str] | None:
    """``a,b`` as a list, ``None`` where nothing was given."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def amount(unit: str, text: str) -> str | int | None:
    """An amount as the API takes it: a text for dollars, a whole number for the rest, ``None`` for ``unlimited``.

    Raises:
        UsageError: not a whole number where one is needed.
    """
    if text == "unlimited":
        return None
    if unit == "usd":
        return text
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise UsageError(f"--amount: {text[:64]!r} is not a whole number of {unit[:32]}; such as 20000", code="value")
    return int(text)


def without_nothing(fields: dict[str, object]) -> dict[str, object]:
    """The fields that were given."""
    return {name: value for name, value in fields.items() if value is not None}
