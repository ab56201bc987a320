"""Bad inputs about keys (A01 to A17, A38 to A44, A69, A70): who asks, strange ids, names, fields, moments, networks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bad_input.admin_row import API, CANARY, KEYS, Row


def new_key(
    row: str, code: str, field: str, has: str, body: dict[str, Any], *, status: int = 422, sender: str = "admin"
) -> Row:
    """A key that cannot be made; ``body`` are its fields beside a name."""
    return Row(row, "POST", KEYS, {"name": "ci", **body}, status, code, field, has, sender)


def _not_allowed() -> Iterator[Row]:
    wanted = {"name": "ci"}
    yield Row("A01", "POST", KEYS, wanted, 401, "auth_missing", has="Bearer", sender="stranger")
    yield Row("A01 read", "GET", KEYS, None, 401, "auth_missing", has="Bearer", sender="stranger")
    yield Row("A02", "GET", KEYS, None, 403, "role_forbidden", has="another role", sender="caller")
    yield Row("A02 path", "GET", "/api/v1/nothing", None, 403, "role_forbidden", has="another role", sender="caller")
    yield Row("A03", "POST", KEYS, wanted, 403, "role_forbidden", has="keys.write", sender="auditor")
    yield Row("A03 delete", "DELETE", f"{KEYS}/{{taken}}", None, 403, "role_forbidden", has="auditor", sender="auditor")
    for id in ("{foreign}", "key_01K00000000000000000000000"):
        yield Row(f"A04 {id}", "GET", f"{KEYS}/{id}", None, 404, "not_found", has="no such key", sender="manager")
    for row, body, field in (("A70", {"role": "auditor"}, "role"), ("A70 state", {"state": "disabled"}, "")):
        yield Row(row, "PATCH", f"{KEYS}/{{last}}", body, 422, "invariant", field, "the last key")
    yield Row("A69", "DELETE", f"{KEYS}/{{last}}", None, 422, "invariant", has="the last key")


def _strange_ids() -> Iterator[Row]:
    ids = ("0", "-1", "abc", "x" * 10_240, "%00", "%7B123e4567-e89b-12d3-a456-426614174000%7D", "{deleted}")
    for place, id in enumerate(ids):
        row = "A06" if id == "{deleted}" else f"A05 {place}"
        yield Row(f"{row} GET", "GET", f"{KEYS}/{id}", None, 404, "not_found", has="there is no such key")
        yield Row(f"{row} PATCH", "PATCH", f"{KEYS}/{id}", {"name": "x"}, 404, "not_found", has="there is no such key")
    # Ids of other things are looked for in the same way, and told in the same words.
    for kind, told in (
        ("limits", "no such limit"),
        ("providers", "no such provider"),
        ("deployments", "no such deployment"),
        ("requests", "no such request"),
        ("requests/{id}/content", "no such request"),
        ("webhooks", "no such webhook"),
        ("alerts", "no such alert"),
        ("teams", "no such team"),
        ("subscriptions", "no such subscription"),
        ("capacities", "there is no capacity"),
        ("adjustments", "there is no such run"),
    ):
        for place, id in enumerate(("0", "-1", "x" * 10_240, "%00", "%F0%9F%92%A9")):
            path = f"{API}/{kind}" if "{id}" in kind else f"{API}/{kind}/{{id}}"
            yield Row(f"A05 {kind} {place}", "GET", path.replace("{id}", id), None, 404, "not_found", has=told)


def _names() -> Iterator[Row]:
    for variant, name in (("a", ""), ("b", "x" * 300), ("c", "   "), ("d", "a\x07b"), ("e", f"{CANARY}\u202e")):
        yield new_key(f"A08{variant}", "field_range", "name", "a name", {"name": name})
    for row, name in (("A09", "=HYPERLINK(1)"), ("A10", "<script>alert(1)</script>")):
        yield Row(row, "POST", KEYS, {"name": name}, 201, shows={"name": name})
    yield new_key("A11", "conflict", "name", "exists", {"name": "taken"}, status=409)


def _forbidden_fields() -> Iterator[Row]:
    for field in ("secret", "key", "hash", "digests"):
        yield new_key(f"A12 {field}", "field_forbidden", field, "is set by Faregate", {field: CANARY})
    for field in ("id", "created_at", "spent"):
        yield new_key(f"A13 {field}", "field_forbidden", field, "is set by Faregate", {field: CANARY})
    yield new_key("A17", "field_unknown", "modles", "did you mean models?", {"modles": ["a"]})
    yield Row("A17 patch", "PATCH", f"{KEYS}/{{taken}}", {"stat": "disabled"}, 422, "field_unknown", "stat", "state?")


def _beyond_ones_own() -> Iterator[Row]:
    """What a restricted manager asks for, who may give no more than he has."""
    own: dict[str, Any] = {"organization": "default", "team": "research", "models": ["gpt-4o"], "paths": ["/v1/chat"]}
    for row, field, value in (
        ("A14", "role", "admin"),
        ("A15 all", "paths", ["/"]),
        ("A15 wider", "paths", ["/v1"]),
        ("A15 none", "paths", None),
        ("A16 more", "models", ["gpt-4o", "o3"]),
        ("A16 none", "models", None),
        ("A16 operations", "operations", ["embeddings"]),
    ):
        has = "" if field == "role" else field
        yield new_key(row, "role_forbidden", "", has, {**own, field: value}, status=403, sender="manager")


def _moments() -> Iterator[Row]:
    for id, text, code, has in (
        ("A38", "2020-01-01T00:00:00Z", "field_range", "in the future"),
        ("A39", "2026-02-30", "field_type", "calendar"),
        ("A40", "1795262400", "field_type", "RFC 3339"),
        ("A41", "2027-01-01T00:00:00", "field_type", "zone"),
        ("A42", "9999-01-01T00:00:00Z", "field_range", "5 years"),
    ):
        yield new_key(id, code, "expires_at", has, {"expires_at": text})
        yield Row(f"{id} patch", "PATCH", f"{KEYS}/{{taken}}", {"expires_at": text}, 422, code, "expires_at", has)


def _networks() -> Iterator[Row]:
    for place, text in enumerate(("10.0.0.1/33", "::/129", "example.org")):
        yield new_key(f"A43 {place}", "field_type", "networks.0", "not a network", {"networks": [text]})
    yield new_key("A43 bits", "field_type", "networks.0", "did you mean 10.0.0.0/8?", {"networks": ["10.0.0.1/8"]})
    yield new_key("A44", "field_range", "networks", "use null for any", {"networks": []})


ROWS = (
    *_not_allowed(),
    *_strange_ids(),
    Row("A07", "POST", KEYS, {}, 422, "field_missing", "name", "required"),
    *_names(),
    *_forbidden_fields(),
    *_beyond_ones_own(),
    *_moments(),
    *_networks(),
)
