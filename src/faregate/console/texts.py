"""What people may write: names, free sentences, times; read strictly and told exactly. And how values are written.

Everything that enters by the API passes through here before it reaches the books.
"""

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from faregate.console.describing import MOMENT_PATTERN
from faregate.core import keys
from faregate.core.attribution import DIMENSIONS
from faregate.core.money import dollars

NAME_CHARACTERS_MAX: Final = 128
SENTENCE_CHARACTERS_MAX: Final = 256

#: No key outlives this from now on: a longer life is a typing error.
EXPIRY_YEARS_MAX: Final = 5

NANOS_PER_SECOND: Final = 1_000_000_000

_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.(\d{1,9}))?(?:[Zz]|[+-]\d\d:\d\d)")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")

#: Marks that change the direction of the text around them, by which a name can be made to read as another.
_BIDI: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def text_fault(text: str, characters_max: int) -> str:
    """What is wrong with a text that people will see, as a sentence; empty where nothing is."""
    if not text.strip():
        return "must not be empty"
    if len(text) > characters_max:
        return f"has at most {characters_max} characters"
    if text != text.strip():
        return "must not begin or end with a space"
    if any(character in _BIDI or not (character.isprintable()) for character in text):
        return "must not hold control or invisible characters"
    return secret_fault(text)


def secret_fault(text: str) -> str:
    """What is wrong with a text that holds a key's secret, as a sentence; empty where it holds none."""
    if keys.holds_one(text):
        return "must not hold a key's secret, for it is shown and kept; name the key by its id, and rotate it"
    return ""


def _name(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    fault = text_fault(text, NAME_CHARACTERS_MAX)
    if fault:
        raise PydanticCustomError("field_range", "{fault}", {"fault": f"a name {fault}"})
    return text


def _sentence(text: str) -> str:
    fault = text_fault(text, SENTENCE_CHARACTERS_MAX)
    if fault:
        raise PydanticCustomError("field_range", "{fault}", {"fault": f"this text {fault}"})
    return text


#: For the document alone: the validators above decide, and tell what is wrong in our words.
_TRIMMED: Final = {"minLength": 1, "pattern": r"^\S(.*\S)?$"}

#: A name: 1 to 128 printable characters in Unicode's composed form, without control or direction marks.
Name = Annotated[
    str,
    AfterValidator(_name),
    Field(
        description=f"1 to {NAME_CHARACTERS_MAX} printable characters",
        json_schema_extra={**_TRIMMED, "maxLength": NAME_CHARACTERS_MAX},
    ),
]

#: A reason or contact: as a name, up to 256 characters.
Sentence = Annotated[
    str,
    AfterValidator(_sentence),
    Field(
        description=f"1 to {SENTENCE_CHARACTERS_MAX} printable characters",
        json_schema_extra={**_TRIMMED, "maxLength": SENTENCE_CHARACTERS_MAX},
    ),
]

#: A time as ``moment`` reads it: RFC 3339 with its zone, or a date.
Moment = Annotated[str, Field(max_length=40, json_schema_extra={"pattern": MOMENT_PATTERN})]

#: Dollars as ``core.money`` reads them: plain decimal digits, at most nine (of prices twelve) of them behind the point.
Dollars = Annotated[str, Field(max_length=32, json_schema_extra={"pattern": r"^(0|[1-9]\d*)(\.\d{1,9})?$"})]
PriceDollars = Annotated[str, Field(max_length=32, json_schema_extra={"pattern": r"^(0|[1-9]\d*)(\.\d{1,12})?$"})]

#: An amount in the unit of its limit.
Amount = Annotated[
    int | str,
    Field(
        description="dollars as a decimal text where the unit is `usd`, otherwise a whole number",
        json_schema_extra={
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^(0|[1-9]\d*)(\.\d{1,9})?$"}]
        },
    ),
]

#: A dimension that limits select and sums are made by.
DIMENSION_PATTERN: Final = rf"^({'|'.join(DIMENSIONS)}|tag\.[A-Za-z0-9_.-]{{1,64}})$"
Dimension = Annotated[str, Field(json_schema_extra={"pattern": DIMENSION_PATTERN})]


def or_left_out() -> Any:
    """A field of a change that may be left out and not be ``null``; the resource says so where it is."""
    return Field(default=None, json_schema_extra=_never_null)


def _never_null(schema: dict[str, Any]) -> None:
    """For the document alone: without the ``null`` that stands for what was left out."""
    choices = [each for each in schema.pop("anyOf", ()) if each.get("type") != "null"]
    schema.pop("default", None)
    schema.update(choices[0] if len(choices) == 1 else {"anyOf": choices})


class Body(BaseModel):
    """Base of request bodies: exact types, no field that is not known."""

    model_config = ConfigDict(strict=True, extra="forbid")


def moment(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time with its zone, or of a date (midnight UTC).

    Raises:
        ValueError: it is neither; the message is a sentence with an example.
    """
    if _DATE.fullmatch(text):
        text += "T00:00:00Z"
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("must be an RFC 3339 time with its zone, such as 2026-11-01T00:00:00Z, or a date")
    whole = text.upper().replace(" ", "T")
    fraction = match[1] or ""
    if fraction:
        whole = whole.replace("." + fraction, "", 1)
    try:
        seconds = (datetime.fromisoformat(whole) - _EPOCH) // timedelta(seconds=1)
    except (ValueError, OverflowError) as problem:
        raise ValueError("is not a time of the calendar, such as 2026-11-01T00:00:00Z") from problem
    return seconds * NANOS_PER_SECOND + int(fraction.ljust(9, "0") or "0")


def second_text(nanos: int) -> str | None:
    """A time as ``time_text`` writes it, to the second."""
    return time_text(nanos // NANOS_PER_SECOND * NANOS_PER_SECOND)


def time_text(nanos: int | None) -> str | None:
    """RFC 3339 UTC with microseconds where there are any; ``None`` for a time that is not set."""
    if not nanos:
        return None
    seconds, rest = divmod(nanos, NANOS_PER_SECOND)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{rest // 1000:06d}" if rest else ""
    return f"{whole}{fraction}Z"


def amount_text(unit: str, amount: int | None) -> str | int | None:
    """An amount as the API writes it: dollars as a decimal string, other units as whole numbers."""
    if amount is None or unit != "usd":
        return amount
    return dollars(amount)


def or_none(value: Any) -> Any:
    """``None`` for the empty text that stands for "not known" inside."""
    return None if value == "" else value
