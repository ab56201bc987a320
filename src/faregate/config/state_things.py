"""A state file → things to be planned with, and things → a state file. Both sides of a comparison pass through here.

An *entry* is one item of a list of the file as plain values; what the admin API shows is brought into the same form by
whoever asks it. A thing's fields are an entry's without what it is called by and without what is as usual.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import SecretStr

from faregate.config import services
from faregate.config.findings import Finding, Invalid, Path, key_text
from faregate.config.pools import Pool, rule_in_short
from faregate.config.references import escaped as escaped_reference
from faregate.config.services import PlainService
from faregate.config.state_file import DEFAULT_ORGANIZATION, UNLIMITED, ReadState, StateFile
from faregate.core import money
from faregate.core.desired_state import Thing
from faregate.core.limits.kinds import escaped

Entry = Mapping[str, Any]

#: Lists of the file, in its order, and the kind of thing that each holds.
LISTS: Final[Mapping[str, str]] = {
    "organizations": "organization",
    "teams": "team",
    "projects": "project",
    "users": "user",
    "products": "product",
    "stages": "stage",
    "subscriptions": "subscription",
    "keys": "key",
    "limits": "limit",
    "prices": "price",
    "providers": "provider",
    "deployments": "deployment",
    "pools": "pool",
    "models": "model",
    "services": "service",
    "webhooks": "webhook",
}

#: Kind → the names in an entry that it is called by.
CALLED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "organization": ("name",),
    **dict.fromkeys(("team", "project", "user", "product", "stage", "key"), ("organization", "name")),
    "subscription": ("organization", "product", "name"),
    "limit": ("select", "each", "unit", "window"),
    "price": (
        *("provider", "model", "unit", "variant", "service_tier", "region", "above_input_tokens"),
        "effective_from",
    ),
    **dict.fromkeys(("provider", "deployment", "pool", "model", "service", "webhook"), ("name",)),
}

#: What is as usual beside nothing at all.
USUAL: Final[Mapping[str, Entry]] = {
    "key": {"role": "caller", "may_set": ["user", "tags", "run"]},
    "limit": {"timezone": "UTC", "mode": "hard", "clamp": False, "estimate": True},
    "provider": {
        "stream_usage": True,
        "connections_max": 2_000,
        "allow_http": False,
        "allow_private": False,
        "timeouts": {"connect": 5_000, "first_byte": 60_000, "idle": 60_000, "total": 600_000},
    },
    "deployment": {"region": "global"},
    "pool": {"strategy": "ordered", "priority": [], "beyond": "clamp"},
    "model": {"instead": []},
    "service": services.usual_rule(),
}

#: Fields that nobody can compare: what is secret is never shown, and a confirmation is no state.
_NOT_COMPARED: Final[Mapping[str, frozenset[str]]] = {
    "webhook": frozenset({"url", "secret"}),
    "price": frozenset({"confirm_price"}),
    "provider": frozenset({"api_key"}),
    "service": frozenset({"api_key"}),
}

_AMOUNTS: Final = ("amount", "burst", "carry_over")
_ACTION_USUAL: Final[Entry] = {"on": "actual"}


def entries_of(state: StateFile) -> dict[str, list[dict[str, Any]]]:
    """The lists that a file has, as entries of plain values, secrets included."""
    lists = {
        name: [_plain(entry.model_dump(by_alias=True, exclude_none=True)) for entry in getattr(state, name)]
        for name in LISTS
        if name in state.model_fields_set
    }
    for entry in lists.get("providers", ()):
        # As the API has them: durations are written with their unit, also out of a model.
        entry["timeouts"] = {name: int(text.removesuffix("ms")) for name, text in entry["timeouts"].items()}
    for kind in _SHORTENED:
        for entry in lists.get(f"{kind}s", ()):
            _shorten(kind, entry)
    return lists


#: Kinds of which no more is said than has to be, so that one is the same however it was written.
_SHORTENED: Final = ("pool", "service")


def _shorten(kind: str, entry: dict[str, Any]) -> None:
    """Say no more of a pool or service than has to be said."""
    if kind == "pool":
        pool = Pool.model_validate(entry)
        entry.clear()
        entry |= {"name": pool.name, **rule_in_short(pool)}
    else:
        beside: Entry = {name: entry.pop(name) for name in ("api_key", "state") if name in entry}
        service = PlainService.model_validate(entry)
        entry.clear()
        entry |= {"name": service.name, "base_url": service.base_url, **services.rule_in_short(service), **beside}


def things_in(read: ReadState, now: str) -> list[Thing]:
    """The things that a file wants; ``now`` is the moment, as times are written.

    Raises:
        Invalid: one is there twice.
    """
    things: list[Thing] = []
    seen: dict[tuple[str, tuple[str, ...]], str] = {}
    findings: list[Finding] = []
    for name, entries in entries_of(read.state).items():
        for index, entry in enumerate(entries):
            path: Path = (name, index)
            thing = thing_of(LISTS[name], entry, now)._replace(place=str(read.tree.place(path)))
            called = (thing.kind, thing.identity)
            if called in seen and thing.kind == "price" and "effective_from" in entry:
                # What was to come when it was written has come, and took the place of the one before.
                things = [each for each in things if (each.kind, each.identity) != called]
            elif called in seen:
                problem = f"{thing.title} stands at {seen[called]} already"
                findings.append(Finding("CFG-CONFLICT", read.tree.place(path), key_text(path), problem))
            seen.setdefault(called, thing.place)
            things.append(thing)
    if findings:
        raise Invalid(findings)
    return things


def thing_of(kind: str, entry: Entry, now: str) -> Thing:
    """One entry as a thing. What has ended by ``now`` is left out of it."""
    entry = {**entry}
    if "organization" in CALLED_BY[kind]:
        # A key that opens the console is of the whole installation unless somebody says otherwise.
        whole = kind == "key" and entry.get("role", "caller") != "caller"
        entry.setdefault("organization", "" if whole else DEFAULT_ORGANIZATION)
    if kind == "limit":
        entry = _limit_entry(entry, now)
    elif kind == "deployment" and entry.get("deployment") == entry["model"]:
        del entry["deployment"]
    elif kind in _SHORTENED:
        _shorten(kind, entry)
    elif kind == "price":
        entry["price"] = money.dollars_of_picos(money.picos(str(entry["price"])))
        if entry.get("effective_from", "") <= now:
            entry.pop("effective_from", None)
    identity = tuple(_called(kind, name, entry.get(name)) for name in CALLED_BY[kind])
    usual, skipped = USUAL.get(kind, {}), _NOT_COMPARED.get(kind, frozenset())
    fields = {
        name: _sorted(name, value)
        for name, value in entry.items()
        if name not in CALLED_BY[kind] and name not in skipped
        if value not in (None, "") and not (value == [] and name not in _EMPTY_SAYS) and usual.get(name) != value
    }
    return Thing(kind, identity, fields, _title(kind, entry), needs=tuple(_needed(kind, entry)))


#: Lists of which an empty one says something: nothing is allowed.
_EMPTY_SAYS: Final = frozenset({"may_set", "models", "operations", "paths", "networks", "priorities"})
#: Lists whose order says nothing.
_SETS: Final = frozenset({"may_set", "models", "operations", "paths", "networks", "priorities", "alerts"})


def _sorted(name: str, value: Any) -> Any:
    return sorted(value) if name in _SETS else value


def _limit_entry(entry: dict[str, Any], now: str) -> dict[str, Any]:
    unit = entry["unit"]
    for name in _AMOUNTS:
        if entry.get(name) is not None:
            entry[name] = amount_text(unit, entry[name])
    raises = [
        {**each, "amount": amount_text(unit, each["amount"])} for each in entry.get("raises", ()) if each["until"] > now
    ]
    actions = [
        {
            name: value
            for name, value in each.items()
            if value not in (None, "", []) and _ACTION_USUAL.get(name) != value
        }
        for each in entry.get("actions", ())
    ]
    return {**entry, "raises": raises, "actions": actions}


def amount_text(unit: str, amount: str | int) -> str | int:
    """An amount in the one form in which it is compared and written."""
    if unit == "usd" and amount != UNLIMITED:
        return money.dollars(money.nanos(str(amount)))
    return amount


def key_called(value: Any) -> tuple[str, str]:
    """Organization and name of the key that a selector names."""
    if isinstance(value, Mapping):
        return str(value.get("organization") or DEFAULT_ORGANIZATION), str(value["name"])
    return DEFAULT_ORGANIZATION, str(value)


def _called(kind: str, name: str, value: Any) -> str:
    if name == "select":
        return ",".join(
            f"{dimension}={_selected(dimension, each)}" for dimension, each in sorted((value or {}).items())
        )
    if name == "each":
        return ",".join(sorted(value or ()))
    return "" if value is None else str(value)


def _selected(dimension: str, value: Any) -> str:
    if dimension == "key":
        organization, name = key_called(value)
        return f"{escaped(organization)}/{escaped(name)}"
    return escaped(str(value))


def _needed(kind: str, entry: Entry) -> Iterator[tuple[str, tuple[str, ...]]]:
    if kind == "limit" and "key" in (entry.get("select") or {}):
        yield "key", key_called(entry["select"]["key"])
    if kind == "limit":
        for spared in entry.get("except") or ():
            if "key" in spared:
                yield "key", key_called(spared["key"])
        for action in entry.get("actions") or ():
            if action.get("do") == "downgrade" and action.get("to"):
                yield "model", (str(action["to"]),)
    # What calls may be restricted to has to be there; the gateway's own operations are.
    yield from (("service", (str(name),)) for name in entry.get("operations") or ())
    if kind == "key" and entry.get("subscription"):
        yield "subscription", (str(entry["organization"]), str(entry.get("product", "")), str(entry["subscription"]))


def _title(kind: str, entry: Entry) -> str:
    if kind == "limit":
        called = [_called(kind, "select", entry.get("select")) or "everything"]
        called += [f"each {','.join(entry['each'])}"] if entry.get("each") else []
        return " ".join([kind, *called, entry["unit"], entry.get("window") or ""]).rstrip()
    if kind == "price":
        finer = [str(entry[name]) for name in ("variant", "service_tier", "region") if entry.get(name)]
        above = [f"above {entry['above_input_tokens']}"] if entry.get("above_input_tokens") else []
        begins = [f"from {entry['effective_from']}"] if entry.get("effective_from") else []
        place = f"{entry['provider']}/{entry['model']}.{entry['unit']}"
        return " ".join([kind, place, *finer, *above, *begins])
    organization = entry.get("organization") or ""
    of = f" of {organization}" if organization not in ("", DEFAULT_ORGANIZATION) else ""
    return f"{kind} {entry['name']}{of}"


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return {name: _plain(below) for name, below in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(below) for below in value]
    return value


# -- writing -----------------------------------------------------------------------------------------------------------

_BARE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./ -]*[A-Za-z0-9]|[A-Za-z]")
#: Words that YAML takes for something else.
_TAKEN: Final = frozenset("y yes n no on off true false null".split())


def written(lists: Mapping[str, Sequence[Entry]]) -> str:
    """The text of a state file with these entries, in the order that is given."""
    parts: list[str] = []
    for name in LISTS:
        if name not in lists:
            continue
        entries = lists[name]
        parts.append(f"{name}:" if entries else f"{name}: []")
        for entry in entries:
            lines = [f"{field}: {_flow(value)}" for field, value in entry.items() if value is not None]
            parts += [f"  - {lines[0]}", *(f"    {line}" for line in lines[1:])]
    return "\n".join(parts) + "\n"


def _flow(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(str(name))}: {_flow(below)}" for name, below in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _text(escaped_reference(str(value)))


def _text(text: str) -> str:
    if _BARE.fullmatch(text) and text.lower() not in _TAKEN:
        return text
    return '"' + "".join(map(_quoted, text)) + '"'


def _quoted(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    number = ord(character)
    if 0x20 <= number < 0x7F or (0xA0 <= number < 0xD800 and number not in (0x2028, 0x2029)):
        return character
    return f"\\U{number:08X}" if number > 0xFFFF else f"\\u{number:04X}"


def in_order(entries: Iterable[Entry], kind: str) -> list[Entry]:
    """Entries in an order of their own, so that two exports of the same state are the same text."""
    return sorted(entries, key=lambda entry: [_called(kind, name, entry.get(name)) for name in CALLED_BY[kind]])
