"""Bad inputs about versions and changes (A64 to A68), lists, sums and many at once (A71 to A84), and about how it is
asked (A86 to A90)."""

from __future__ import annotations

from collections.abc import Iterator

from bad_input.admin_row import API, CANARY, KEYS, Row

LIMITS = f"{API}/limits"
REQUESTS = f"{API}/requests"
USAGE = f"{API}/usage"
ONE = f"{KEYS}/{{taken}}"


def question(row: str, path: str, code: str, field: str, has: str, *, sender: str = "admin") -> Row:
    """A list or sum that cannot be asked for."""
    return Row(row, "GET", path, None, 400, code, field, has, sender)


def _versions() -> Iterator[Row]:
    change = {"contact": "finance"}
    yield Row("A64", "PATCH", f"{LIMITS}/{{dollars}}", change, 200, shows=change)
    stale = {"if-match": '"0123456789abcdef"'}
    for name, path in (("key", ONE), ("limit", f"{LIMITS}/{{dollars}}"), ("provider", f"{API}/providers/{{provider}}")):
        body = {"name": "other"} if name == "key" else {"mode": "soft"} if name == "limit" else {"state": "disabled"}
        yield Row(f"A65 {name}", "PATCH", path, body, 412, "stale_version", has="read it again", headers=stale)
    no_tag = {"if-match": CANARY}
    yield Row("A65 tag", "PATCH", ONE, {"name": "other"}, 400, "header_invalid", "If-Match", "versions", headers=no_tag)
    yield Row("A65 none", "POST", KEYS, {"name": "o"}, 400, "header_invalid", "If-Match", "no version", headers=stale)
    wrong: tuple[object, ...] = ([], [{"name": "other"}], "text", 5)
    for sent in wrong:
        yield Row(f"A66 {sent}", "PATCH", ONE, sent, 422, "field_type")
    yield Row("A67", "PATCH", ONE, {"name": None}, 422, "field_range", "name", "must not be null")
    yield Row("A67 limit", "PATCH", f"{LIMITS}/{{dollars}}", {"mode": None}, 422, "field_range", "mode", "not be null")
    other = {"id": "key_01K00000000000000000000000", "name": "other"}
    yield Row("A68", "PATCH", ONE, other, 422, "field_forbidden", "id", "is set by Faregate")


def _pages() -> Iterator[Row]:
    for limit in ("0", "-1", "1001", "abc", "1e2", "%D9%A3"):
        for path in (KEYS, REQUESTS):
            yield question(f"A71 {limit} {path}", f"{path}?limit={limit}", "page_invalid", "limit", "from 1 to 1000")
    for row, cursor in (("word", CANARY), ("sign", "x{cursor}"), ("less", "{shorter}"), ("null", "%00")):
        code = "filter_invalid" if row == "null" else "page_invalid"
        yield question(f"A72 {row}", f"{KEYS}?cursor={cursor}", code, "cursor", "")
    strange = "does not belong to this list"
    yield question("A73 list", f"{LIMITS}?cursor={{cursor}}", "page_invalid", "cursor", strange)
    yield question("A73 filter", f"{KEYS}?role=admin&cursor={{cursor}}", "page_invalid", "cursor", strange)
    yield question("A73 scope", f"{KEYS}?cursor={{cursor}}", "page_invalid", "cursor", strange, sender="manager")
    yield question("A80", f"{REQUESTS}?limit=1000000000", "page_invalid", "limit", "from 1 to 1000")


def _filters() -> Iterator[Row]:
    yield question("A74", f"{REQUESTS}?sort=password", "filter_invalid", "sort", "expected one of date, cost")
    yield question("A74 list", f"{KEYS}?sort={CANARY}", "filter_invalid", "", "unknown parameter")
    nothing: dict[str, object] = {"data": []}
    for row, text in (
        ("A75 percent", "%25" * 6),
        ("A75 line", "_" * 128),
        ("A76", "(p%2B)%2B%24"),
        ("A76 any", "p.*d"),
    ):
        yield Row(row, "GET", f"{REQUESTS}?text={text}", None, 200, shows=nothing)
    yield Row("A75 name", "GET", f"{KEYS}?name=%25%25", None, 200, shows=nothing)
    yield question("A75 long", f"{REQUESTS}?text={'_' * 1_000}", "filter_invalid", "text", "at most 128 characters")
    yield question("A77", f"{USAGE}?from=2026-11-02&to=2026-11-01", "filter_invalid", "from", "from lies after to")
    yield question(
        "A77 list", f"{REQUESTS}?since=2026-11-02&until=2026-11-01", "filter_invalid", "since", "after until"
    )
    yield question("A77 day", f"{USAGE}?from=2026-02-30", "filter_invalid", "from", "calendar")
    century = f"{USAGE}?from=1976-01-01&to=2026-01-01&interval"
    yield question("A78", f"{century}=hour", "filter_invalid", "interval", "more than 10000 points")
    yield question("A78 minute", f"{century}=minute", "filter_invalid", "interval", "expected one of hour, day, month")
    yield question("A79", f"{USAGE}?by=password", "filter_invalid", "by", "unknown dimension")
    yield question("A79 twice", f"{USAGE}?by=team,team", "filter_invalid", "by", "each once")
    yield question("A81 sums", f"{USAGE}?format=xlsx.exe", "filter_invalid", "", "unknown parameter")


def _many() -> Iterator[Row]:
    many = {"items": [{"name": f"many-{place}"} for place in range(1_001)]}
    yield Row("A82", "POST", f"{KEYS}/bulk", many, 422, "field_range", "items", "1000")
    yield Row("A82 none", "POST", f"{KEYS}/bulk", {"items": []}, 422, "field_range", "items")
    for row, bad, code, field, has in (
        ("name", {"name": "taken"}, "conflict", "items.1.name", "nothing was made"),
        ("field", {"name": "b", "modles": []}, "field_unknown", "items.1.modles", "did you mean models?"),
    ):
        items = {"items": [{"name": f"a83-{row}"}, bad]}
        yield Row(f"A83 {row}", "POST", f"{KEYS}/bulk", items, 409 if code == "conflict" else 422, code, field, has)


def _labels() -> Iterator[Row]:
    """What may be told of a thing in pairs of names and values: here whom a limit is for."""
    for row, select, code, field in (
        ("A84 large", {"tag.note": "x" * 17 * 1_024}, "field_range", "select"),
        ("A84 many", {f"tag.n{place}": "x" for place in range(65)}, "field_range", "select"),
        ("A84 some", {f"tag.n{place}": "x" for place in range(9)}, "field_range", "select"),
        ("A84 nested", {"tag.note": {"more": "x"}}, "field_type", "select.tag.note"),
    ):
        yield Row(
            row, "POST", LIMITS, {"select": select, "unit": "usd", "amount": "1", "window": "day"}, 422, code, field
        )


def _asked() -> Iterator[Row]:
    spoofed = {"x-forwarded-for": "10.0.0.1", "x-real-ip": "10.0.0.1", "forwarded": "for=10.0.0.1"}
    invitations = f"{API}/invitations"
    for number, body in (("A86", {"email": "a@b\r\n"}), ("A87", {"email": "ann@example.com", "role": "root"})):
        yield Row(number, "POST", invitations, body, 404, "not_found", has="nothing at this path")
    yield Row("A88", "GET", KEYS, None, 403, "ip_denied", has="network", sender="near", headers=spoofed)
    form = {"content-type": "application/x-www-form-urlencoded"}
    yield Row(
        "A89", "POST", KEYS, f"name={CANARY}".encode(), 415, "media_unsupported", has="application/json", headers=form
    )
    for row, token in (("A90", {}), ("A90 token", {"x-csrf-token": "0" * 64})):
        cookie = {"cookie": "{cookie}", **token}
        yield Row(
            row, "POST", KEYS, {"name": "ci"}, 403, "csrf_failed", has="x-csrf-token", sender="stranger", headers=cookie
        )


ROWS = (*_versions(), *_pages(), *_filters(), *_many(), *_labels(), *_asked())
