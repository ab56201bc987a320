"""What the admin API shows as entries of a state file, and the steps of a plan as calls of the admin API."""

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from faregate.cli.client import segment
from faregate.config.services import RULE_FIELDS
from faregate.config.state_file import DEFAULT_ORGANIZATION, UNLIMITED
from faregate.config.state_things import LISTS, USUAL, Entry, key_called, thing_of
from faregate.core.desired_state import Plan, Step, Thing
from faregate.errors import FaregateError, UsageError

#: Whose limits and prices are of people, and may stand in a file; the others come and go with what made them.
_OF_PEOPLE: Final = frozenset({"api", "apply"})

_KIND_LISTS: Final = {kind: name for name, kind in LISTS.items()}

#: Fields of an entry that the API shows under the same name.
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "organization": ("name", "title", "contact", "state"),
    "team": ("organization", "name", "title", "contact", "state"),
    "stage": ("organization", "name", "title", "contact", "cache", "state"),
    "project": ("organization", "name", "team", "title", "contact", "cache", "state"),
    "user": (
        *("organization", "name", "team", "title", "contact", "state"),
        *("models", "operations", "paths", "networks", "priorities"),
    ),
    "product": (
        *("organization", "name", "title", "contact", "state"),
        *("models", "operations", "paths", "networks", "priorities", "expires_at", "content"),
    ),
    "subscription": ("organization", "product", "name", "team", "user", "title", "contact", "state"),
    "key": (
        *("organization", "name", "team", "project", "user", "product", "subscription", "stage", "role", "state"),
        *("models", "operations", "paths", "networks", "priorities", "may_set", "content", "cache", "expires_at"),
    ),
    "limit": (
        *("each", "unit", "amount", "window", "timezone", "mode", "clamp", "contact", "algorithm", "burst"),
        *("year_start", "carry_over", "raises", "from", "until", "estimate", "actions", "denial", "except"),
    ),
    "price": (
        *("provider", "model", "unit", "variant", "service_tier", "region", "above_input_tokens", "per", "price"),
        "effective_from",
    ),
    "provider": (
        *("name", "kind", "base_url", "api_version", "client_gone", "stream_usage", "lookup", "timeouts"),
        *("connections_max", "allow_http", "allow_private", "state"),
    ),
    "deployment": ("name", "provider", "deployment", "model", "max_output_tokens", "region", "state"),
    "pool": ("name", "strategy", "use", "priority", "beyond", "sticky", "breaker", "retry"),
    "model": ("name", "to", "instead", "max_output_tokens", "max_context_tokens"),
    "service": ("name", "base_url", *RULE_FIELDS, "state"),
    "webhook": ("name", "kind", "alerts", "state"),
}

#: Everything of a limit that setting it again leaves alone unless it is named.
_LIMIT_USUAL: Final[Entry] = {
    "timezone": "UTC",
    "mode": "hard",
    "clamp": False,
    "contact": None,
    "algorithm": None,
    "burst": None,
    "year_start": None,
    "carry_over": None,
    "raises": None,
    "from": None,
    "until": None,
    "estimate": None,
    "actions": None,
    "denial": None,
    "except": None,
}
_ACTION_FIELDS: Final = ("do", "at", "on", "to", "models", "requests_per_minute")

#: So many marks are made by one call.
_MARKS_MAX: Final = 1_000


class Api(Protocol):
    """The admin API, as ``cli.client.AdminClient`` speaks it."""

    def call(self, method: str, path: str, body: object = None, query: Mapping[str, str | None] | None = None) -> Any:
        """The JSON of one call."""
        ...

    def pages(self, path: str, query: Mapping[str, str | None] | None = None) -> Iterator[dict[str, Any]]:
        """Every row of a list."""
        ...


class Present(NamedTuple):
    """What is in an installation, by kind: entries as a file has them, and the things that they are."""

    entries: dict[str, list[dict[str, Any]]]
    things: list[Thing]
    #: Limits that are not of people, or of a key that has ended, and are left out of the entries.
    left_out: int = 0
    #: Keys that have expired: nobody could make them again, so they are left out of the entries, too.
    expired: int = 0


def now_text() -> str:
    """The moment, as times are written."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def present(api: Api, lists: Sequence[str], now: str) -> Present:
    """What is there of the lists that are named.

    Raises:
        FaregateError: the API does not tell.
    """
    entries: dict[str, list[dict[str, Any]]] = {}
    things: list[Thing] = []
    left_out = expired = 0
    keys = {row["id"]: row for row in api.pages("/keys")} if {"keys", "limits"} & {*lists} else {}
    subscriptions = _names(api, "subscriptions") if any(row.get("subscription") for row in keys.values()) else {}
    for name in lists:
        kind = LISTS[name]
        rows = list(keys.values()) if kind == "key" else _rows(api, name)
        owned = {row["id"] for row in api.pages(f"/owned/{kind}")} if rows else set()
        shown = []
        for row in rows:
            if kind == "key" and row["state"] == "revoked":
                continue
            if kind == "limit" and (row["source"] not in _OF_PEOPLE or _of_no_key(row, keys)):
                left_out += 1
                continue
            entry = _entry(kind, row, keys, subscriptions)
            owner = "file" if row.get("source") == "file" else "apply" if row["id"] in owned else ""
            things.append(thing_of(kind, entry, now)._replace(id=row["id"], owner=owner))
            if kind == "key" and _has_expired(row, now):
                expired += 1
            elif kind == "limit" and _has_expired(keys.get(row["select"].get("key"), {}), now):
                left_out += 1
            elif owner != "file":
                shown.append(_sparse(kind, entry, now))
        entries[name] = shown
    return Present(entries, things, left_out, expired)


def _has_expired(key: Mapping[str, Any], now: str) -> bool:
    ends = key.get("expires_at")
    return ends is not None and datetime.datetime.fromisoformat(ends) <= datetime.datetime.fromisoformat(now)


def _of_no_key(row: Mapping[str, Any], keys: Mapping[str, Any]) -> bool:
    """Whether a limit is of a key that is no more: by its name it would be another one's."""
    id = row["select"].get("key")
    return id is not None and keys.get(id, {"state": "revoked"})["state"] == "revoked"


def _rows(api: Api, name: str) -> list[dict[str, Any]]:
    return list(api.pages("/prices/own" if name == "prices" else f"/{name}"))


def _names(api: Api, name: str) -> dict[str, str]:
    return {row["id"]: row["name"] for row in api.pages(f"/{name}")}


def _entry(
    kind: str, row: Mapping[str, Any], keys: Mapping[str, Any], subscriptions: Mapping[str, str]
) -> dict[str, Any]:
    """A row of the API in the form of a file."""
    entry = {name: row[name] for name in _FIELDS[kind] if row.get(name) is not None}
    if kind == "key":
        entry.setdefault("organization", "")
    if kind == "key" and "subscription" in entry:
        # The API shows its id.
        entry["subscription"] = subscriptions.get(entry["subscription"], entry["subscription"])
    if kind == "limit":
        entry = {"select": _named_keys(row["select"], keys), **entry}
        entry["except"] = [_named_keys(each, keys) for each in row["except"]]
        entry["amount"] = UNLIMITED if row["amount"] is None else row["amount"]
        entry["actions"] = [{name: each.get(name) for name in _ACTION_FIELDS} for each in row["actions"]]
        if row["estimate"] is None:
            entry.pop("estimate", None)
    if kind == "price" and row["far_off"]:
        entry["confirm_price"] = True
    return entry


def _named_keys(dimensions: Mapping[str, str], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Dimensions and their values, a key by its name."""
    row = keys.get(dimensions.get("key", ""))
    named = {} if row is None else {"key": _key_name(row.get("organization") or "", row["name"])}
    return {**dimensions, **named}


def _key_name(organization: str, name: str) -> Any:
    return name if organization == DEFAULT_ORGANIZATION else {"organization": organization, "name": name}


def _sparse(kind: str, entry: Entry, now: str) -> dict[str, Any]:
    """An entry without what is as usual, its fields in their order."""
    thing = thing_of(kind, entry, now)
    called = {name: entry[name] for name in ("organization", "product", "name") if name in entry}
    if kind == "limit":
        called = {
            "select": entry["select"],
            "each": entry["each"],
            "unit": entry["unit"],
            "window": entry.get("window"),
        }
    elif kind == "price":
        called = {name: entry.get(name) for name in _FIELDS["price"]}
        if not thing.identity[-1]:
            called["effective_from"] = None
    elif kind != "subscription":
        called.pop("product", None)
    # Of a key that opens the console no organization is as usual: it is of the whole installation.
    usual = "" if kind == "key" and "role" in thing.fields else DEFAULT_ORGANIZATION
    if called.get("organization") == usual:
        called.pop("organization")
    fields = {name: value for name, value in thing.fields.items() if name not in called and value != "active"}
    if "timeouts" in fields:
        fields["timeouts"] = {name: f"{value}ms" for name, value in fields["timeouts"].items()}
    more = {"confirm_price": True} if entry.get("confirm_price") else {}
    told = {**called, **fields, **more}
    return {name: value for name, value in told.items() if value not in (None, "", [], {}, 0) or name in _SAY_NOTHING}


#: Fields that say something when they are empty or nothing.
_SAY_NOTHING: Final = frozenset(
    {"amount", "may_set", "models", "operations", "paths", "networks", "priorities", "clamp", "estimate"}
)


class Made(NamedTuple):
    """A key that was made, and its secret, which is told this once."""

    organization: str | None
    name: str
    id: str
    secret: str


class Carried:
    """What was done of a plan; complete also where it ended early."""

    def __init__(self) -> None:
        self.done: list[Step] = []
        self.keys: list[Made] = []
        self.failed: Step | None = None
        #: Kind → ids of what is the file's from now on.
        self.marks: dict[str, list[str]] = {}
        self.marked = False
        #: Why they could not be made, beside what ended the work.
        self.unmarked = ""

    @property
    def complete(self) -> bool:
        """Whether nothing ended it early."""
        return self.marked and self.failed is None

    def mark(self, kind: str, id: str) -> None:
        """It is the file's from now on."""
        self.marks.setdefault(kind, []).append(id)


def carry_out(
    api: Api,
    plan: Plan,
    wanted: Mapping[tuple[str, tuple[str, ...]], Entry],
    there: Sequence[Thing],
    told: Callable[[int], None],
    carried: Carried,
) -> None:
    """Do the steps in their order and mark what is the file's from now on; ``told`` hears how many are done.

    Whatever ends it early, an interrupt too, ``carried`` has each key that was made, with its secret.

    Raises:
        FaregateError: a step was refused, ``carried.failed``; those before it are done, and the rest is not.
    """
    ids = {(each.kind, each.identity): each.id for each in there}
    for thing in plan.taken_over:
        carried.mark(thing.kind, thing.id)
    try:
        for step in plan.steps:
            carried.failed = step
            entry = wanted.get((step.thing.kind, step.thing.identity), {})
            row = _do(api, step, entry, ids, carried)
            if step.action == "create":
                ids[step.thing.kind, step.thing.identity] = row["id"]
            if step.action != "delete":
                carried.mark(step.thing.kind, row["id"])
            carried.done.append(step)
            told(len(carried.done))
        carried.failed = None
    except BaseException:  # Also an interrupt: what was made is the file's, whatever ended the run.
        try:
            _mark(api, carried)
        except FaregateError as error:
            # What went wrong first is what has to be told; the marks are made by the next run.
            carried.unmarked = error.message
        raise
    _mark(api, carried)


def _mark(api: Api, carried: Carried) -> None:
    for kind, ids in carried.marks.items():
        unique = list(dict.fromkeys(ids))
        for start in range(0, len(unique), _MARKS_MAX):
            api.call("PUT", "/owned", {"kind": kind, "ids": unique[start : start + _MARKS_MAX]})
    carried.marked = True


def _do(api: Api, step: Step, entry: Entry, ids: Mapping[tuple[str, tuple[str, ...]], str], carried: Carried) -> Any:
    kind, path = step.thing.kind, f"/{_KIND_LISTS[step.thing.kind]}"
    if step.action == "delete":
        return _remove(api, step.thing, path)
    if kind == "limit":
        return api.call("POST", path, _limit_body(step.thing, entry, ids))
    if kind == "price":
        body = {name: value for name, value in entry.items() if name != "confirm_price"}
        return api.call("PUT", path, {**body, "confirm": bool(entry.get("confirm_price"))})
    if step.action == "change":
        body = {
            change.field: USUAL.get(kind, {}).get(change.field) if change.after is None else change.after
            for change in step.changes
        }
        if kind in ("provider", "service") and "base_url" in body and "api_key" in entry:
            # A secret is bound to where it may go.
            body["api_key"] = entry["api_key"]
        return api.call("PATCH", f"{path}/{segment(step.thing.id)}", body)
    return _create(api, kind, path, entry, ids, carried)


def _create(
    api: Api, kind: str, path: str, entry: Entry, ids: Mapping[tuple[str, tuple[str, ...]], str], carried: Carried
) -> Any:
    body = dict(entry)
    # A thing is made active; what is to rest is put to rest at once.
    state = body.pop("state", "active")
    if kind == "webhook" and "url" not in body:
        raise UsageError(f"webhook {body['name']} needs an address to be made", hint="write url: ${NAME}")
    if kind == "key" and body.get("subscription"):
        identity = (body.get("organization", DEFAULT_ORGANIZATION), body.get("product", ""), body["subscription"])
        body["subscription"] = ids.get(("subscription", identity), body["subscription"])
    row = api.call("POST", path, body)
    # Before anything else that could go wrong: it is there, and a secret is not told a second time.
    if kind == "key":
        carried.keys.append(Made(row["organization"], row["name"], row["id"], row["secret"]))
    carried.mark(kind, row["id"])
    if state != "active":
        row = {**row, **api.call("PATCH", f"{path}/{segment(row['id'])}", {"state": state})}
    return row


def _remove(api: Api, thing: Thing, path: str) -> Any:
    place = f"{path}/{segment(thing.id)}"
    if thing.kind == "key":
        return api.call("POST", f"{place}/revoke", {"reason": "taken out of the state file"})
    if thing.kind == "price" and not thing.identity[-1]:
        # It has begun: taken back, the one that it ended would hold again.
        return api.call("PATCH", place, {"effective_to": now_text()})
    return api.call("DELETE", place)


def _limit_body(thing: Thing, entry: Entry, ids: Mapping[tuple[str, tuple[str, ...]], str]) -> dict[str, Any]:
    amount = entry["amount"]
    body = {**_LIMIT_USUAL, **entry, "amount": None if amount == UNLIMITED else amount}
    body["select"] = _with_key_id(entry.get("select") or {}, ids)
    if entry.get("except"):
        body["except"] = [_with_key_id(each, ids) for each in entry["except"]]
    if entry["unit"] == "usd":
        for name in ("amount", "burst", "carry_over"):
            body[name] = str(body[name]) if body.get(name) is not None else None
    # Those that have ended are of no use, and would be refused.
    body["raises"] = thing.fields.get("raises")
    return body


def _with_key_id(dimensions: Mapping[str, Any], ids: Mapping[tuple[str, tuple[str, ...]], str]) -> dict[str, Any]:
    return {name: _key_id(value, ids) if name == "key" else value for name, value in dimensions.items()}


def _key_id(value: Any, ids: Mapping[tuple[str, tuple[str, ...]], str]) -> str:
    if isinstance(value, str) and value.startswith("key_"):
        return value
    organization, name = key_called(value)
    found = ids.get(("key", (organization, name)))
    if found is None:
        raise FaregateError(
            f"there is no key called {name} in {organization}", code="not_found", hint="make it in the same file"
        )
    return found
