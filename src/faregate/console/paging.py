"""Pages and filters of lists: read strictly, with cursors that cannot be forged or moved to another list."""

import base64
import binascii
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from fastapi import Request

from faregate.console.describing import PAGE_DEFAULT, PAGE_MAX, VALUE_CHARACTERS_MAX, Parameter, asked_of
from faregate.console.problems import ApiProblem
from faregate.console.texts import NANOS_PER_SECOND, moment
from faregate.console.writing import console_of
from faregate.core.attribution import METADATA_PREFIX, TAG_PREFIX

#: The beginning of 2262: times are 8-byte numbers of nanoseconds, which end in that year.
LAST_MOMENT: Final = 9_214_646_400 * NANOS_PER_SECOND

_MAC_BYTES: Final = 12

#: What names of tags, and of facts that callers tell of their calls, begin with.
_PREFIXES: Final = (TAG_PREFIX, METADATA_PREFIX)


class Page(NamedTuple):
    """What part of a list is asked for: rows after this id, at most so many, that fit the filters."""

    after: str
    limit: int
    filters: dict[str, Any]


def _list_of(request: Request) -> str:
    """Which list a cursor belongs to: the path, and the part of it that whoever asks sees."""
    return "\0".join([request.url.path, *console_of(request).principal.scope])


def _mac(key: bytes, path: str, filters: Mapping[str, Any], after: str) -> bytes:
    message = "\0".join([path, *(f"{name}={value}" for name, value in sorted(filters.items())), after])
    return hmac.digest(key, message.encode(), "sha256")[:_MAC_BYTES]


def _after(cursor: str, key: bytes, path: str, filters: Mapping[str, Any]) -> str:
    problem = ApiProblem("page_invalid", "this cursor does not belong to this list; start without one", field="cursor")
    try:
        raw = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4))
        after = raw[_MAC_BYTES:].decode()
    except (binascii.Error, ValueError) as error:
        raise problem from error
    if not after or not hmac.compare_digest(raw[:_MAC_BYTES], _mac(key, path, filters, after)):
        raise problem
    return after


def single_values(request: Request) -> dict[str, str]:
    """The query's parameters that the route declares (``describing``), each given once and within its bounds.

    Raises:
        ApiProblem: ``filter_invalid``.
    """
    query = asked_of(request)
    known = query.by_name
    values: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        is_tag = query.tags and any(name.startswith(each) and len(name) > len(each) for each in _PREFIXES)
        if name not in known and not is_tag:
            rule = f"expected any of {', '.join(sorted(known))}" if known else "there are none here"
            raise ApiProblem("filter_invalid", f"unknown parameter; {rule}")
        if name in values:
            raise ApiProblem("filter_invalid", "give each parameter once", field=name)
        fault = _fault(known.get(name), value)
        if fault:
            raise ApiProblem("filter_invalid", fault, field=name)
        values[name] = value
    return values


def _fault(parameter: Parameter | None, value: str) -> str:
    """What is wrong with a value, as a sentence; ``parameter`` is ``None`` for a tag."""
    most = parameter.characters_max if parameter is not None else VALUE_CHARACTERS_MAX
    if parameter is not None and parameter.any_text:
        return f"at most {most} characters" if len(value) > most else ""
    if len(value) > most or not (value == "" or value.isprintable()):
        return f"at most {most} printable characters"
    if parameter is not None and parameter.values and value not in parameter.values:
        return f"expected one of {', '.join(parameter.values)}"
    return ""


def read_page(request: Request) -> Page:
    """The page that a request asks for, by what its route declares with ``lists``; times are read into nanoseconds.

    Raises:
        ApiProblem: ``page_invalid`` or ``filter_invalid``.
    """
    values: dict[str, Any] = dict(single_values(request))
    limit_text, cursor = values.pop("limit", str(PAGE_DEFAULT)), values.pop("cursor", "")
    if not (limit_text.isascii() and limit_text.isdigit() and len(limit_text) < 6 and 1 <= int(limit_text) <= PAGE_MAX):
        raise ApiProblem("page_invalid", f"expected a whole number from 1 to {PAGE_MAX}", field="limit")
    for name in ("since", "until"):
        if name in values:
            values[name] = read_moment(name, values[name])
    if values.get("until") == 0:
        # 0 would leave the end open, and nothing was before 1970.
        values["until"] = 1
    if values.get("since", 0) > values.get("until", values.get("since", 0)):
        raise ApiProblem("filter_invalid", "since lies after until", field="since")
    after = ""
    if cursor:
        after = _after(cursor, console_of(request).secrets.session, _list_of(request), values)
    return Page(after, int(limit_text), values)


def read_moment(name: str, text: str) -> int:
    """Nanoseconds of a time in the query, from 0 to ``LAST_MOMENT``: beyond these nothing lies.

    Raises:
        ApiProblem: ``filter_invalid``.
    """
    try:
        return min(max(moment(text), 0), LAST_MOMENT)
    except ValueError as problem:
        raise ApiProblem("filter_invalid", str(problem), field=name) from problem


def page_of(
    request: Request, page: Page, rows: Sequence[Any], shown: Callable[[Any], dict[str, Any]]
) -> dict[str, Any]:
    """The answer for ``rows``, of which one more than ``page.limit`` was asked for to know whether there are more."""
    kept = rows[: page.limit]
    after = kept[-1]["id"] if len(rows) > page.limit else ""
    return sealed_page(request, page, [shown(row) for row in kept], after)


def page_in_order(
    request: Request, page: Page, rows: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], Sequence[str | int]]
) -> dict[str, Any]:
    """The answer for ``rows`` that are made anew for each page, in the order of ``key``, which tells them apart."""
    keyed = [(list(key(row)), row) for row in rows]
    if page.after:
        behind = msgspec.json.decode(page.after)
        keyed = [each for each in keyed if each[0] > behind]
    kept = keyed[: page.limit]
    after = msgspec.json.encode(kept[-1][0]).decode() if len(keyed) > page.limit else ""
    return sealed_page(request, page, [row for _, row in kept], after)


def sealed_page(request: Request, page: Page, data: Sequence[dict[str, Any]], after: str) -> dict[str, Any]:
    """The answer for ``data``, with a cursor that goes on behind ``after``; empty at the end of the list."""
    cursor = None
    if after:
        mac = _mac(console_of(request).secrets.session, _list_of(request), page.filters, after)
        cursor = base64.urlsafe_b64encode(mac + after.encode()).decode().rstrip("=")
    return {"data": list(data), "next_cursor": cursor}
