"""Price files of our own, CSV and YAML, and the choice between the formats: text in, exact integer prices out.

Everything is read from the digits that stand in the file; no price is ever a binary fraction. A file is used whole or
not at all: what cannot be read is named by its place, as ``file:line``. The public price list of LiteLLM is read in
``litellm``. Nothing is opened here, and nothing decides what becomes of the prices.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from itertools import chain
from typing import Final

import yaml

from faregate.catalogue import litellm
from faregate.core.money import PICOS_PER_DOLLAR, PRICE_DOLLARS_MAX
from faregate.core.pricing.card import PRICED_UNITS, REGIONS, SERVICE_TIERS
from faregate.core.pricing.listing import PriceEntry, PriceFault, PriceFile

FORMATS: Final = ("auto", "litellm", "csv", "yaml")

#: A price list of every model there is has some thousand rows; beyond this it is something else.
ROWS_MAX: Final = 50_000

#: A YAML parser takes a hundred times as long as a CSV one; nobody writes more than this by hand.
YAML_CHARACTERS_MAX: Final = 1024 * 1024

#: Faults that are named; a file with more is of another format.
FAULTS_MAX: Final = 50

#: The columns of a CSV file and the keys of an entry in a YAML file.
COLUMNS: Final = (
    "provider",
    "model",
    "unit",
    "per",
    "price",
    "variant",
    "service_tier",
    "region",
    "above_input_tokens",
    "effective_from",
    "effective_to",
    "source",
)
_NEEDED: Final = ("provider", "model", "unit", "per", "price")

PER_MAX: Final = 1_000_000_000
_TEXT_MAX: Final = 128

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Later moments do not fit into 8 bytes of nanoseconds for long, and mean that a price has no end.
_YEAR_MAX: Final = 2200
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
_WHOLE: Final = re.compile(r"[0-9]{1,10}")
_DIGITS: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,18})?")

#: How people write the usual amounts of units.
_PER_WORDS: Final = {"1k": 1_000, "1m": 1_000_000, "k": 1_000, "m": 1_000_000}


def read_prices(text: str, name: str, format: str = "auto") -> PriceFile:
    """The prices of a file's ``text``; ``name`` is what its places are called after.

    ``format`` is one of ``FORMATS``; ``auto`` goes by the name's ending and, failing that, by the first character.

    Raises:
        ValueError: no such format.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format {format[:32]!r}; expected one of {', '.join(FORMATS)}")
    chosen = _format_of(text, name) if format == "auto" else format
    if chosen == "litellm":
        return litellm.read(text, name)
    rows = _csv_rows if chosen == "csv" else _yaml_rows
    return _read_own(rows, text, name, chosen)


def _format_of(text: str, name: str) -> str:
    ending = name.rpartition(".")[2].lower()
    if ending in ("csv", "tsv"):
        return "csv"
    if ending in ("yaml", "yml"):
        return "yaml"
    if ending == "json" or text.lstrip("\ufeff \t\r\n").startswith("{"):
        return "litellm"
    return "csv"


#: One row: the line it begins on, and its cells by column.
_Rows = Callable[[str], Iterator[tuple[int, Mapping[str, str]]]]


class _Unreadable(Exception):
    """The file cannot be read any further; the line and a sentence."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


def _read_own(rows: _Rows, text: str, name: str, format: str) -> PriceFile:
    entries: list[PriceEntry] = []
    faults: list[PriceFault] = []
    seen: dict[tuple[object, ...], str] = {}
    try:
        for number, (line, row) in enumerate(rows(text), start=1):
            where = f"{name}:{line}"
            if number > ROWS_MAX:
                raise _Unreadable(line, f"a price file has at most {ROWS_MAX} rows")
            entry = _entry(row, where)
            if isinstance(entry, str):
                faults.append(PriceFault(where, entry))
            elif (identity := entry._replace(per=0, pico=0, source="", where="", effective_to=0)) in seen:
                faults.append(PriceFault(where, f"the same price stands in {seen[identity]} already"))
            else:
                seen[identity] = where
                entries.append(entry)
            if len(faults) >= FAULTS_MAX:
                break
    except _Unreadable as end:
        faults.append(PriceFault(f"{name}:{end.line}", end.problem))
    if not entries and not faults:
        faults.append(PriceFault(f"{name}:1", "there is no price in this file"))
    return PriceFile(format, tuple(entries), tuple(faults))


def _csv_rows(text: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    # newline="" keeps line ends within quotes; strict names a quote that is never closed.
    lines = io.StringIO(text.removeprefix("\ufeff"), newline="")
    head, before = "", 0
    for head in lines:
        if head.strip() and not head.startswith("#"):
            break
        before += 1
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(chain((head,), lines), delimiter=delimiter, strict=True)
    try:
        columns = [cell.strip().lower() for cell in next(reader, [])]
        _check_columns(columns, before + 1)
        while True:
            line = before + reader.line_num + 1
            cells = next(reader, None)
            if cells is None:
                return
            if not any(cell.strip() for cell in cells) or cells[0].lstrip().startswith("#"):
                continue
            if len(cells) != len(columns):
                raise _Unreadable(line, f"has {len(cells)} cells, the first line names {len(columns)} columns")
            yield line, {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}
    except csv.Error as error:
        raise _Unreadable(before + reader.line_num, f"is no CSV: {error}") from error


def _check_columns(columns: list[str], line: int) -> None:
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise _Unreadable(line, f"the first line names the columns; missing: {', '.join(missing)}")
    for name in columns:
        if name not in COLUMNS:
            raise _Unreadable(line, f"unknown column {name[:32]!r}; expected any of {', '.join(COLUMNS)}")
        if columns.count(name) > 1:
            raise _Unreadable(line, f"the column {name} stands there twice")


def _yaml_rows(text: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The mappings of a list, or of the list under ``prices``. Scalars stay the text that they are written as."""
    if len(text) > YAML_CHARACTERS_MAX:
        raise _Unreadable(1, f"a YAML file has at most {YAML_CHARACTERS_MAX} characters; write CSV")
    try:
        # Nodes only: nothing is constructed, so that 2.50 stays "2.50" and no tag does anything.
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        raise _Unreadable(line, f"is no YAML: {getattr(error, 'problem', None) or 'cannot be read'}") from error
    except RecursionError as error:
        raise _Unreadable(1, "is nested too deeply") from error
    except ValueError as error:
        # The scanner makes numbers of escapes and of the version before it looks at them.
        raise _Unreadable(1, "is no YAML: an escape or a version stands there that is none") from error
    if isinstance(root, yaml.MappingNode):
        named = {key.value: value for key, value in root.value if isinstance(key, yaml.ScalarNode)}
        if set(named) != {"prices"}:
            raise _Unreadable(root.start_mark.line + 1, "a price file is a list, or has the one key `prices`")
        root = named["prices"]
    if root is None:
        return
    if not isinstance(root, yaml.SequenceNode):
        raise _Unreadable(root.start_mark.line + 1, "prices are a list of mappings")
    for node in root.value:
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.MappingNode):
            raise _Unreadable(line, "a price is a mapping")
        row: dict[str, str] = {}
        for key, value in node.value:
            if not (isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)):
                raise _Unreadable(key.start_mark.line + 1, "a price has plain values only")
            if key.value in row:
                raise _Unreadable(key.start_mark.line + 1, f"{key.value[:32]} stands there twice")
            if key.value not in COLUMNS:
                expected = f"expected any of {', '.join(COLUMNS)}"
                raise _Unreadable(key.start_mark.line + 1, f"unknown key {key.value[:32]!r}; {expected}")
            null = value.tag == "tag:yaml.org,2002:null"
            row[key.value] = "" if null else value.value.strip()
        yield line, row


def _entry(row: Mapping[str, str], where: str) -> PriceEntry | str:
    """One row as a price, or what is wrong with it."""
    missing = [name for name in _NEEDED if not row.get(name)]
    if missing:
        return f"{missing[0]} is missing"
    long = next((name for name, cell in row.items() if len(cell) > _TEXT_MAX or not cell.isprintable()), "")
    if long:
        return f"{long} has at most {_TEXT_MAX} printable characters"
    if row["unit"] not in PRICED_UNITS:
        return f"unit {row['unit'][:32]!r} cannot be priced; expected one of {', '.join(PRICED_UNITS)}"
    tier = row.get("service_tier", "")
    if tier in ("standard", "default"):
        tier = ""
    if tier not in SERVICE_TIERS:
        return f"service_tier {tier[:32]!r} is unknown; expected one of {', '.join(SERVICE_TIERS[1:])}, or nothing"
    region = row.get("region", "")
    if region not in REGIONS:
        return f"region {region[:32]!r} is unknown; expected one of {', '.join(REGIONS[1:])}, or nothing"
    try:
        per = _per(row["per"])
        pico = picos_of(row["price"])
        above = _whole("above_input_tokens", row.get("above_input_tokens", ""))
        begins = _moment("effective_from", row.get("effective_from", ""))
        ends = _moment("effective_to", row.get("effective_to", ""))
    except ValueError as problem:
        return str(problem)
    if ends and ends <= begins:
        return "effective_to lies before effective_from"
    return PriceEntry(
        row["model"],
        row["unit"],
        per,
        pico,
        provider=row["provider"],
        variant=row.get("variant", ""),
        service_tier=tier,
        region=region,
        above_input_tokens=above,
        effective_from=begins,
        effective_to=ends,
        source=row.get("source", ""),
        where=where,
    )


def picos_of(text: str) -> int:
    """Pico-dollars of a price in dollars as plain decimal digits.

    Raises:
        ValueError: it is none, is negative or too large, or has more decimals than a price holds.
    """
    if text.startswith("-"):
        raise ValueError(f"price {text[:24]!r} is negative")
    if _DIGITS.fullmatch(text) is None:
        raise ValueError(f"price {text[:24]!r} is not an amount; write plain decimal digits in dollars such as 2.50")
    try:
        picos = Decimal(text) * PICOS_PER_DOLLAR
    except InvalidOperation as error:
        raise ValueError(f"price {text[:24]!r} is not an amount") from error
    if picos != picos.to_integral_value():
        raise ValueError(f"price {text[:24]!r} has more than twelve decimals; price more units at once with per")
    if picos > PRICE_DOLLARS_MAX * PICOS_PER_DOLLAR:
        raise ValueError(f"price {text[:24]!r} is more than {PRICE_DOLLARS_MAX} dollars")
    return int(picos)


def _per(text: str) -> int:
    plain = text.replace("_", "").replace(" ", "").lower()
    per = _PER_WORDS.get(plain) or (int(plain) if _WHOLE.fullmatch(plain) else 0)
    if not 1 <= per <= PER_MAX:
        raise ValueError(f"per {text[:24]!r} is not a number of units from 1 to {PER_MAX}, such as 1000000 or 1M")
    return per


def _whole(name: str, text: str) -> int:
    if not text:
        return 0
    if _WHOLE.fullmatch(text) is None:
        raise ValueError(f"{name} {text[:24]!r} is not a whole number")
    return int(text)


def _moment(name: str, text: str) -> int:
    """Nanoseconds since 1970 of a date (midnight UTC) or a time with its zone; 0 for nothing."""
    if not text:
        return 0
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{name} {text[:40]!r} is not a time such as 2026-12-01 or 2026-12-01T00:00:00Z") from error
    if _DATE.fullmatch(text):
        at = at.replace(tzinfo=UTC)
    if at.tzinfo is None:
        raise ValueError(f"{name} {text[:40]!r} has no time zone; write 2026-12-01T00:00:00Z")
    nanos = (at - _EPOCH) // timedelta(microseconds=1) * 1_000
    if nanos <= 0:
        raise ValueError(f"{name} {text[:40]!r} is not after 1970 began")
    if at.year > _YEAR_MAX:
        raise ValueError(f"{name} {text[:40]!r} lies after {_YEAR_MAX}; leave effective_to empty for an open end")
    return nanos
