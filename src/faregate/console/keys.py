"""``/api/v1/keys``: make, look at, change, rotate and revoke gateway keys.

A secret is in exactly one answer, the one that made it; the books hold its digest. Names of payers that do not exist
yet are created with the first key that names them.
"""

from typing import Any, ClassVar, Final, Literal

from fastapi import APIRouter, Request
from pydantic import Field

from faregate.console.accounts import PEPPER_NOTE
from faregate.console.paging import page_of, read_page
from faregate.console.payers import ensure
from faregate.console.prices import compiled
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.state import Console
from faregate.console.texts import (
    EXPIRY_YEARS_MAX,
    NANOS_PER_SECOND,
    Body,
    Name,
    Sentence,
    moment,
    or_none,
    time_text,
)
from faregate.console.writing import acted, console_of, locked
from faregate.console.writing import put as put_row
from faregate.core import keys
from faregate.dialects.operations import BY_NAME
from faregate.errors import Conflict, NotFound
from faregate.ports import Row

router = APIRouter(prefix="/keys", tags=["keys"])

DEFAULT_ORGANIZATION: Final = "default"
RIGHTS: Final = ("user", "tags", "run")

#: Longer lists of allowed models are a sign that a rule by another dimension is wanted.
ALLOWED_MAX: Final = 200
GRACE_SECONDS_DEFAULT: Final = 24 * 3600
GRACE_SECONDS_MAX: Final = 90 * 24 * 3600

#: The list of models, which is looked at and not metered.
_LISTING: Final = "models"

_YEAR_NANOS: Final = 366 * 86_400 * NANOS_PER_SECOND
_PAYERS: Final = ("organization", "team", "project", "user", "product", "stage")

Right = Literal["user", "tags", "run", "project", "stage"]


class KeyChange(Body):
    """What may be changed of a key."""

    READ_ONLY: ClassVar[frozenset[str]] = frozenset(
        {"id", "created_at", "updated_at", "secret", "key", "hash", "digests", "spent", "first8"}
    )

    name: Name | None = None
    state: Literal["active", "disabled"] | None = None
    models: list[Name] | None = Field(default=None, max_length=ALLOWED_MAX)
    operations: list[Name] | None = Field(default=None, max_length=ALLOWED_MAX)
    may_set: list[Right] | None = None
    expires_at: str | None = Field(default=None, max_length=40)


class NewKey(Body):
    """A key to be made."""

    READ_ONLY: ClassVar[frozenset[str]] = KeyChange.READ_ONLY | {"state"}

    name: Name
    organization: Name = DEFAULT_ORGANIZATION
    team: Name | None = None
    project: Name | None = None
    user: Name | None = None
    product: Name | None = None
    stage: Name | None = None
    role: Literal["caller", "admin"] = "caller"
    models: list[Name] | None = Field(default=None, max_length=ALLOWED_MAX)
    operations: list[Name] | None = Field(default=None, max_length=ALLOWED_MAX)
    may_set: list[Right] | None = None
    expires_at: str | None = Field(default=None, max_length=40)


class Rotation(Body):
    """How long the old secret opens beside the new one."""

    grace_seconds: int = Field(default=GRACE_SECONDS_DEFAULT, ge=0, le=GRACE_SECONDS_MAX)


class Revocation(Body):
    """Why a key is revoked."""

    reason: Sentence | None = None


def shape(row: Row) -> dict[str, Any]:
    """A key as the API shows it."""
    details = row["details"] or {}
    return {
        "id": row["id"],
        "name": row["name"],
        "key": row["first8"] + keys.MASK,
        "last4": row["last4"],
        **{name: or_none(row[name]) for name in _PAYERS},
        "role": row["role"],
        "state": row["state"],
        "models": row["models"],
        "operations": row["operations"],
        "may_set": row["may_set"],
        "expires_at": time_text(row["expires_at"]),
        "created_at": time_text(row["created_at"]),
        "updated_at": time_text(row["updated_at"]),
        "rotated_at": time_text(row["rotated_at"]),
        "revoked_at": time_text(row["revoked_at"]),
        "revoked_reason": details.get("revoked_reason"),
        "revoked_by": details.get("revoked_by"),
    }


def _expiry(text: str | None, now: int) -> int:
    if text is None:
        return 0
    try:
        at = moment(text)
    except ValueError as problem:
        raise ApiProblem("field_type", str(problem), field="expires_at") from problem
    if not now < at <= now + EXPIRY_YEARS_MAX * _YEAR_NANOS:
        rule = f"must lie in the future, at most {EXPIRY_YEARS_MAX} years ahead"
        raise ApiProblem("field_range", rule, field="expires_at")
    return at


def _check_operations(console: Console, wanted: list[str] | None) -> None:
    """Refuse names of operations that nothing has: neither what the gateway declares nor a service behind it."""
    unknown = [name for name in wanted or () if name not in BY_NAME and name != _LISTING]
    if not unknown:
        return
    services = {each.name for each in compiled(console).deployments if each.service is not None}
    for name in unknown:
        if name not in services:
            known = ", ".join(sorted((*BY_NAME, _LISTING, *services)))
            raise ApiProblem("field_enum", f"no such operation or service; expected any of {known}", field="operations")


def _named(console: Console, key_id: str) -> Row:
    row = console.books.get("key", key_id) if len(key_id) <= 64 else None
    if row is None:
        raise NotFound("there is no such key")
    return row


def _refuse_twin(console: Console, organization: str, name: str) -> None:
    twins = console.books.listing("key", name=name, organization=organization, limit=100)
    if any(twin["state"] != "revoked" for twin in twins):
        raise ApiProblem("conflict", "a key of this name exists; choose another name or rotate that one", field="name")


def _new_secret(console: Console) -> tuple[str, str, dict[str, str]]:
    """A fresh secret, its digest under the newest pepper, and what the key's details note of that pepper."""
    secret, pepper = keys.make(console.random(keys.SECRET_BYTES)), console.secrets.pepper_keys[0]
    return secret, keys.digest(pepper, secret), {PEPPER_NOTE: keys.fingerprint(pepper)}


def create(console: Console, wanted: NewKey) -> tuple[Row, str]:
    """Make a key: its row and, this once, its secret.

    Raises:
        ApiProblem: the name is taken or the expiry cannot be.
    """
    now = console.clock.wall_nanos()
    expires_at = _expiry(wanted.expires_at, now)
    _refuse_twin(console, wanted.organization, wanted.name)
    _check_operations(console, wanted.operations)
    payers = {name: getattr(wanted, name) or "" for name in _PAYERS}
    ensure(console, payers)
    secret, digest, pepper = _new_secret(console)
    row: Row = {
        "id": console.new_id("key_"),
        "name": wanted.name,
        "digests": {digest: 0},
        **payers,
        "role": wanted.role,
        "state": "active",
        "expires_at": expires_at,
        "models": wanted.models,
        "operations": wanted.operations,
        "may_set": list(RIGHTS) if wanted.may_set is None else list(wanted.may_set),
        "first8": secret[: keys.SHOWN_CHARACTERS],
        "last4": keys.last4(secret),
        "revoked_at": 0,
        "rotated_at": 0,
        "details": pepper,
        "created_at": now,
        "updated_at": now,
    }
    put_row(console, "key", row)
    return row, secret


def change(console: Console, key_id: str, wanted: KeyChange) -> Row:
    """Change what was sent and nothing else.

    Raises:
        NotFound: no such key.
        Conflict: it was revoked.
        ApiProblem: a value that cannot be.
    """
    row, now = _named(console, key_id), console.clock.wall_nanos()
    if row["state"] == "revoked":
        row = _lifted(console, row, wanted)
    sent = {name: getattr(wanted, name) for name in wanted.model_fields_set}
    for name in ("name", "state", "may_set"):
        if name in sent and sent[name] is None:
            raise ApiProblem("field_range", "must not be null", field=name)
    if "name" in sent and sent["name"] != row["name"]:
        _refuse_twin(console, row["organization"], sent["name"])
    if "operations" in sent:
        _check_operations(console, sent["operations"])
    if "expires_at" in sent:
        sent["expires_at"] = _expiry(sent["expires_at"], now)
    row = {**row, **sent, "updated_at": now}
    put_row(console, "key", row)
    return row


def _lifted(console: Console, row: Row, wanted: KeyChange) -> Row:
    """The row of a key that a limit revoked, made active again; the limit goes on holding, and tells no second time.

    Raises:
        Conflict: somebody revoked it, or it is not asked to be active.
        ApiProblem: its name is another key's by now.
    """
    details = dict(row["details"] or {})
    if not details.get("revoked_by"):
        raise Conflict("a revoked key stays revoked; create a new one")
    if "state" not in wanted.model_fields_set or wanted.state != "active":
        raise Conflict('a limit revoked this key; send {"state": "active"} to lift that')
    if "name" not in wanted.model_fields_set:
        _refuse_twin(console, row["organization"], row["name"])
    for name in ("revoked_by", "revoked_reason"):
        details.pop(name, None)
    return {**row, "state": "active", "revoked_at": 0, "details": details}


def rotate(console: Console, key_id: str, grace_seconds: int) -> tuple[Row, str]:
    """Give a key a new secret; the old one opens for ``grace_seconds`` more.

    Raises:
        NotFound: no such key.
        Conflict: it was revoked, or an earlier rotation's grace still runs and this one has a grace too.
    """
    row, now = _named(console, key_id), console.clock.wall_nanos()
    if row["state"] == "revoked":
        raise Conflict("a revoked key stays revoked; create a new one")
    current = next(digest for digest, until in row["digests"].items() if until == 0)
    waiting = [until for until in row["digests"].values() if until > now]
    if waiting and grace_seconds:
        until_text = time_text(max(waiting))
        raise Conflict(f"the secret before is still good until {until_text}; rotate with grace_seconds 0 to end it now")
    secret, digest, pepper = _new_secret(console)
    digests = {digest: 0}
    if grace_seconds:
        digests[current] = now + grace_seconds * NANOS_PER_SECOND
    row = {
        **row,
        "digests": digests,
        "first8": secret[: keys.SHOWN_CHARACTERS],
        "last4": keys.last4(secret),
        "rotated_at": now,
        "details": {**(row["details"] or {}), **pepper},
        "updated_at": now,
    }
    put_row(console, "key", row)
    return row, secret


def revoke(console: Console, key_id: str, reason: str, *, by_limit: str = "") -> Row:
    """End a key for good; a second time changes nothing. What a limit revoked, an admin can lift.

    Raises:
        NotFound: no such key.
    """
    row, now = _named(console, key_id), console.clock.wall_nanos()
    known = row["details"] or {}
    if row["state"] == "revoked":
        if known.get("revoked_by") and not by_limit:
            # Somebody means it for good: there is nothing left to lift.
            kept = {name: value for name, value in known.items() if name != "revoked_by"}
            row = {**row, "updated_at": now, "details": {**kept, "revoked_reason": reason or known["revoked_reason"]}}
            put_row(console, "key", row)
        return row
    told = {"revoked_reason": reason, "revoked_by": by_limit}
    details = {**known, **{name: value for name, value in told.items() if value}}
    row = {**row, "state": "revoked", "revoked_at": now, "updated_at": now, "details": details}
    put_row(console, "key", row)
    return row


@router.post("", status_code=201)
async def create_key(request: Request, wanted: NewKey) -> dict[str, Any]:
    """Make a key. The answer holds its secret; no later one does."""
    console = console_of(request)
    row, secret = await locked(console, lambda: create(console, wanted))
    return await acted(console, {**shape(row), "secret": secret})


@router.get("")
async def list_keys(request: Request) -> dict[str, Any]:
    """Keys, oldest first; filters: any payer, ``name``, ``role``, ``state``."""
    console = console_of(request)
    page = read_page(request, (*_PAYERS, "name", "role", "state"))
    rows = await in_thread(lambda: console.books.listing("key", after=page.after, limit=page.limit + 1, **page.filters))
    return page_of(request, page, rows, shape)


@router.get("/{key_id}")
async def read_key(request: Request, key_id: str) -> dict[str, Any]:
    """One key."""
    console = console_of(request)
    return shape(await in_thread(lambda: _named(console, key_id)))


@router.patch("/{key_id}")
async def change_key(request: Request, key_id: str, wanted: KeyChange) -> dict[str, Any]:
    """Rename, disable, enable or restrict a key, or lift a revocation by a limit (`state: active`)."""
    console = console_of(request)
    row = await locked(console, lambda: change(console, key_id, wanted))
    return await acted(console, shape(row))


@router.post("/{key_id}/rotate")
async def rotate_key(request: Request, key_id: str, wanted: Rotation | None = None) -> dict[str, Any]:
    """Give a key a new secret; limits and history stay."""
    console = console_of(request)
    grace = GRACE_SECONDS_DEFAULT if wanted is None else wanted.grace_seconds
    row, secret = await locked(console, lambda: rotate(console, key_id, grace))
    return await acted(console, {**shape(row), "secret": secret})


@router.post("/{key_id}/revoke")
async def revoke_key(request: Request, key_id: str, wanted: Revocation | None = None) -> dict[str, Any]:
    """End a key for good, at once."""
    console = console_of(request)
    reason = (wanted.reason or "") if wanted else ""
    row = await locked(console, lambda: revoke(console, key_id, reason))
    return await acted(console, shape(row))


@router.delete("/{key_id}")
async def delete_key(request: Request, key_id: str) -> dict[str, Any]:
    """The same as revoke: history keeps naming the key."""
    return await revoke_key(request, key_id)
