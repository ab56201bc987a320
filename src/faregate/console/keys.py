"""``/api/v1/keys``: make, look at, change, rotate and revoke gateway keys.

A secret is in exactly one answer, the one that made it; the books hold its digest. Names of payers that do not exist
yet are created with the first key that names them.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, Literal

from fastapi import APIRouter, Request
from pydantic import Field

from faregate.console.accounts import PEPPER_NOTE
from faregate.console.cache_words import Word, check_word
from faregate.console.content_modes import Mode, check_mode
from faregate.console.describing import answers, choice, lists, text
from faregate.console.grants import (
    GRANTED,
    check_change,
    check_ending,
    check_handing_out,
    check_lifting,
    check_new,
    completed,
    restated,
)
from faregate.console.paging import page_of, read_page
from faregate.console.payer_rules import Stopped, stopped_among, stopped_by
from faregate.console.payers import check_return, ensure, placed
from faregate.console.peppers import PEPPER_BEFORE
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.restriction_fields import (
    Models,
    Networks,
    Operations,
    Paths,
    Priorities,
    as_kept,
    check_operations,
    expiry_of,
)
from faregate.console.rights import needs
from faregate.console.shapes import payers as shapes
from faregate.console.state import Console
from faregate.console.subscriptions import check_uncancelled, subscribed
from faregate.console.texts import NANOS_PER_SECOND, Body, Moment, Name, Sentence, or_left_out, or_none, time_text
from faregate.console.versions import only_if_unchanged, versioned
from faregate.console.writing import acted, console_of, locked
from faregate.console.writing import put as put_row
from faregate.core import keys
from faregate.core.access import CALLER, ROLES
from faregate.core.restrictions import RESTRICTIONS
from faregate.errors import Conflict, NotFound
from faregate.ports import Row

router = APIRouter(prefix="/keys", tags=["keys"])

RIGHTS: Final = ("user", "tags", "run")

GRACE_SECONDS_DEFAULT: Final = 24 * 3600
GRACE_SECONDS_MAX: Final = 90 * 24 * 3600

#: No secret is longer, whatever was found where one might be.
FOUND_CHARACTERS_MAX: Final = 512

_READ_ONLY: Final = frozenset(
    {"id", "created_at", "updated_at", "secret", "key", "hash", "digests", "spent", "first8", "made_by"}
)
_PAYERS: Final = ("organization", "team", "project", "user", "product", "stage")

Right = Literal["user", "tags", "run", "project", "stage"]

Role = Literal["caller", "root", "admin", "manager", "finance", "user", "auditor"]


class KeyChange(Body):
    """What may be changed of a key."""

    READ_ONLY: ClassVar[frozenset[str]] = _READ_ONLY | {*_PAYERS, "subscription"}

    name: Name | None = or_left_out()
    role: Role | None = or_left_out()
    state: Literal["active", "disabled"] | None = or_left_out()
    models: Models = None
    operations: Operations = None
    paths: Paths = None
    networks: Networks = None
    priorities: Priorities = None
    may_set: list[Right] | None = or_left_out()
    content: Mode | None = None
    cache: Word | None = None
    expires_at: Moment | None = None


class NewKey(Body):
    """A key to be made."""

    READ_ONLY: ClassVar[frozenset[str]] = _READ_ONLY | {"state"}

    name: Name
    organization: Name | None = None
    team: Name | None = None
    project: Name | None = None
    user: Name | None = None
    product: Name | None = None
    stage: Name | None = None
    #: Id or name of the subscription that it belongs to: its product, team and user are the key's.
    subscription: Name | None = None
    role: Role = CALLER
    models: Models = None
    operations: Operations = None
    paths: Paths = None
    networks: Networks = None
    priorities: Priorities = None
    may_set: list[Right] | None = None
    content: Mode | None = None
    cache: Word | None = None
    expires_at: Moment | None = None


class Rotation(Body):
    """How long the old secret opens beside the new one."""

    grace_seconds: int = Field(default=GRACE_SECONDS_DEFAULT, ge=0, le=GRACE_SECONDS_MAX)


class Revocation(Body):
    """Why a key is revoked."""

    reason: Sentence | None = None


class FoundSecret(Body):
    """What looks like a key and was found where none should be."""

    secret: str = Field(min_length=1, max_length=FOUND_CHARACTERS_MAX)


def shown(console: Console, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Keys as the API shows them, with what stops them; for threads."""
    stopped = stopped_among(console.all_books, rows)
    return [_shape(row, stopped) for row in rows]


def _shape(row: Row, stopped: Stopped) -> dict[str, Any]:
    details = row["details"] or {}
    return {
        "id": row["id"],
        "name": row["name"],
        "key": row["first8"] + keys.MASK,
        "last4": row["last4"],
        **{name: or_none(row[name]) for name in (*_PAYERS, "subscription")},
        "role": row["role"],
        "state": row["state"],
        "stopped_by": stopped_by(row, stopped) or None,
        "models": row["models"],
        "operations": row["operations"],
        "paths": row["paths"],
        "networks": row["networks"],
        "priorities": row["priorities"],
        "may_set": row["may_set"],
        "content": or_none(row["content"]),
        "cache": or_none(row["cache"]),
        "expires_at": time_text(row["expires_at"]),
        "created_at": time_text(row["created_at"]),
        "updated_at": time_text(row["updated_at"]),
        "rotated_at": time_text(row["rotated_at"]),
        "revoked_at": time_text(row["revoked_at"]),
        "revoked_reason": details.get("revoked_reason"),
        "revoked_by": details.get("revoked_by"),
    }


def _named(console: Console, key_id: str) -> Row:
    row = console.books.get("key", key_id) if len(key_id) <= 64 else None
    if row is None or row["deleted_at"]:
        raise NotFound("there is no such key")
    return row


def _refuse_twin(console: Console, organization: str, name: str) -> None:
    usable = ["active", "disabled"]
    if console.all_books.listing("key", name=name, organization=organization, state=usable, limit=1):
        raise ApiProblem("conflict", "a key of this name exists; choose another name or rotate that one", field="name")


def _new_secret(console: Console) -> tuple[str, str, dict[str, str]]:
    """A fresh secret, its digest under the newest pepper, and what the key's details note of that pepper."""
    secret, pepper = keys.make(console.random(keys.SECRET_BYTES)), console.secrets.pepper_keys[0]
    return secret, keys.digest(pepper, secret), {PEPPER_NOTE: keys.fingerprint(pepper)}


def create(console: Console, wanted: NewKey) -> tuple[Row, str]:
    """Make a key: its row and, this once, its secret. What was left out it has of its maker.

    Raises:
        ApiProblem: the name is taken, the expiry cannot be, or it would be more than its maker may give.
    """
    now = console.clock.wall_nanos()
    check_operations(console, wanted.operations)
    check_mode(console, wanted.content)
    check_word(console, wanted.cache)
    given = {name: getattr(wanted, name) for name in (*GRANTED, *_PAYERS)}
    given["expires_at"] = expiry_of(wanted.expires_at, now)
    given = completed(console, given, wanted.model_fields_set)
    payers = {name: given[name] or "" for name in _PAYERS}
    subscription = ""
    if given["subscription"] is not None:
        subscription, payers = subscribed(console, given["subscription"], payers)
    check_new(console, {**given, "subscription": subscription})
    _refuse_twin(console, given["organization"], wanted.name)
    payers = placed(console, payers)
    ensure(console, payers)
    secret, digest, pepper = _new_secret(console)
    row: Row = {
        "id": console.new_id("key_"),
        "name": wanted.name,
        "digests": {digest: 0},
        **payers,
        "subscription": subscription,
        "role": wanted.role,
        "state": "active",
        "expires_at": given["expires_at"],
        **{name: given[name] for name in RESTRICTIONS},
        "may_set": list(RIGHTS if given["may_set"] is None else given["may_set"]),
        "content": wanted.content or "",
        "cache": wanted.cache or "",
        "first8": secret[: keys.SHOWN_CHARACTERS],
        "last4": keys.last4(secret),
        "revoked_at": 0,
        "rotated_at": 0,
        "details": pepper,
        "made_by": console.principal.id,
        "deleted_at": 0,
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
        ApiProblem: a value that cannot be, or it was disabled or revoked above whoever asks.
    """
    before, now = _named(console, key_id), console.clock.wall_nanos()
    row = _lifted(console, before, wanted) if before["state"] == "revoked" else before
    sent = {name: getattr(wanted, name) for name in wanted.model_fields_set}
    for name in ("name", "role", "state", "may_set"):
        if name in sent and sent[name] is None:
            raise ApiProblem("field_range", "must not be null", field=name)
    if "name" in sent and sent["name"] != row["name"]:
        _refuse_twin(console, row["organization"], sent["name"])
    sent = as_kept(console, sent, now)
    check_change(console, before, sent)
    if "state" in sent:
        row = restated(console, row, sent["state"])
    row = {**row, **sent, "updated_at": now}
    put_row(console, "key", row)
    return row


def _lifted(console: Console, row: Row, wanted: KeyChange) -> Row:
    """The row of a key that a limit revoked, made active again; the limit goes on holding, and tells no second time.

    Raises:
        Conflict: somebody revoked it, it is not asked to be active, or what it belonged to is gone.
        ApiProblem: its name is another key's by now, or the limit was set above whoever asks.
    """
    details = dict(row["details"] or {})
    if not details.get("revoked_by"):
        raise Conflict("a revoked key stays revoked; create a new one")
    if "state" not in wanted.model_fields_set or wanted.state != "active":
        raise Conflict('a limit revoked this key; send {"state": "active"} to lift that')
    check_lifting(console, details["revoked_by"])
    if "name" not in wanted.model_fields_set:
        _refuse_twin(console, row["organization"], row["name"])
    # While it was revoked it kept nothing of this from being cancelled, removed or moved.
    if row["subscription"]:
        check_uncancelled(console, row["subscription"])
    check_return(console, {name: row[name] for name in _PAYERS})
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
    check_handing_out(console, row)
    if row["state"] == "revoked":
        raise Conflict("a revoked key stays revoked; create a new one")
    current = next(digest for digest, until in row["digests"].items() if until == 0)
    waiting = [until for until in row["digests"].values() if until > now]
    if waiting and grace_seconds:
        until_text = time_text(max(waiting))
        raise Conflict(f"the secret before is still good until {until_text}; rotate with grace_seconds 0 to end it now")
    secret, digest, pepper = _new_secret(console)
    digests, details = {digest: 0}, dict(row["details"] or {})
    details.pop(PEPPER_BEFORE, None)
    if grace_seconds:
        digests[current] = now + grace_seconds * NANOS_PER_SECOND
        details[PEPPER_BEFORE] = [details.get(PEPPER_NOTE, ""), digests[current]]
    row = {
        **row,
        "digests": digests,
        "first8": secret[: keys.SHOWN_CHARACTERS],
        "last4": keys.last4(secret),
        "rotated_at": now,
        "details": {**details, **pepper},
        "updated_at": now,
    }
    put_row(console, "key", row)
    return row, secret


def delete(console: Console, key_id: str) -> Row:
    """Revoke a key and take it out of every list; history goes on naming it.

    Raises:
        NotFound: no such key.
    """
    row = revoke(console, key_id, "")
    row = {**row, "deleted_at": console.clock.wall_nanos()}
    put_row(console, "key", row)
    return row


def check(console: Console, secret: str) -> dict[str, Any]:
    """Whether a secret that was found somewhere is a key of ours, and of which one; nothing of it is repeated or kept.

    ``opens`` is whether it could be used now, as far as its key alone says.
    """
    now, secret = console.clock.wall_nanos(), secret.strip()
    row = console.ring.holder(secret)
    if row is None:
        return {"found": False, "well_formed": keys.is_well_formed(secret)}
    digests = (keys.digest(pepper, secret) for pepper in console.secrets.pepper_keys)
    until = next(row["digests"][digest] for digest in digests if digest in row["digests"])
    ends = [each for each in (until, row["expires_at"]) if each]
    opens = row["state"] == "active" and (not ends or now < min(ends))
    names = ("id", "name", "role", "state", "organization", "team", "project", "user", "product")
    shown = {name: or_none(row[name]) for name in names}
    return {"found": True, "well_formed": True, **shown, "opens": opens, "expires_at": time_text(min(ends, default=0))}


def revoke(console: Console, key_id: str, reason: str, *, by_limit: str = "") -> Row:
    """End a key for good; a second time changes nothing. Whoever may change the limit lifts what a limit revoked.

    Raises:
        NotFound: no such key.
    """
    row, now = _named(console, key_id), console.clock.wall_nanos()
    check_ending(console, row)
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
@needs("keys.write")
@answers(shapes.MadeKey)
async def create_key(request: Request, wanted: NewKey) -> dict[str, Any]:
    """Make a key. The answer holds its secret; no later one does."""
    console = console_of(request)

    def alone() -> dict[str, Any]:
        row, secret = create(console, wanted)
        return {**shown(console, [row])[0], "secret": secret}

    return await acted(console, await locked(console, alone))


@router.get("")
@needs("keys.read")
@lists(
    *(text(name, f"Name of its {name}.") for name in _PAYERS),
    text("subscription", "Id of its subscription."),
    text("name", "Its name."),
    choice("role", tuple(ROLES), "What it may do."),
    choice("state", ("active", "disabled", "revoked"), "Whether it can be used."),
)
@answers(shapes.Keys)
async def list_keys(request: Request) -> dict[str, Any]:
    """Keys, oldest first; filters: any payer, ``subscription`` (id), ``name``, ``role``, ``state``."""
    console = console_of(request)
    page = read_page(request)

    def look() -> tuple[list[Row], Stopped]:
        # Deleted ones are named by history alone.
        rows = console.books.listing("key", after=page.after, limit=page.limit + 1, deleted_at=0, **page.filters)
        return rows, stopped_among(console.all_books, rows)

    rows, stopped = await in_thread(look)
    return page_of(request, page, rows, lambda row: _shape(row, stopped))


@router.post("/check")
@needs("keys.check")
@answers(shapes.CheckedSecret)
async def check_key(request: Request, wanted: FoundSecret) -> dict[str, Any]:
    """Whether a secret that was found somewhere is a key of this installation, and which; it is not repeated."""
    console = console_of(request)
    return await in_thread(lambda: check(console, wanted.secret))


@router.get("/{key_id}")
@needs("keys.read")
@answers(shapes.Key, versioned=True)
async def read_key(request: Request, key_id: str) -> dict[str, Any]:
    """One key."""
    console = console_of(request)

    def look() -> dict[str, Any]:
        return shown(console, [versioned(request, _named(console, key_id))])[0]

    return await in_thread(look)


async def _written(
    request: Request, key_id: str, write: Callable[[Console], tuple[Row, dict[str, Any]]]
) -> dict[str, Any]:
    """The answer to a change of a key, with what else ``write`` tells; only of the version that ``If-Match`` names."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: _named(console, key_id))

    def alone() -> dict[str, Any]:
        row, told = write(console)
        if request.method != "DELETE":
            versioned(request, row)
        return {**shown(console, [row])[0], **told}

    return await acted(console, await locked(console, alone, unchanged))


@router.patch("/{key_id}")
@needs("keys.write")
@answers(shapes.ChangedKey, versioned=True)
async def change_key(request: Request, key_id: str, wanted: KeyChange) -> dict[str, Any]:
    """Rename, disable, enable or restrict a key, or lift a revocation by a limit (`state: active`)."""
    return await _written(request, key_id, lambda console: (change(console, key_id, wanted), {}))


@router.post("/{key_id}/rotate")
@needs("keys.write")
@answers(shapes.MadeKey, versioned=True)
async def rotate_key(request: Request, key_id: str, wanted: Rotation | None = None) -> dict[str, Any]:
    """Give a key a new secret; limits and history stay."""
    grace = GRACE_SECONDS_DEFAULT if wanted is None else wanted.grace_seconds

    def turn(console: Console) -> tuple[Row, dict[str, Any]]:
        row, secret = rotate(console, key_id, grace)
        return row, {"secret": secret}

    return await _written(request, key_id, turn)


@router.post("/{key_id}/revoke")
@needs("keys.write")
@answers(shapes.ChangedKey, versioned=True)
async def revoke_key(request: Request, key_id: str, wanted: Revocation | None = None) -> dict[str, Any]:
    """End a key for good, at once."""
    reason = (wanted.reason or "") if wanted else ""
    return await _written(request, key_id, lambda console: (revoke(console, key_id, reason), {}))


@router.delete("/{key_id}")
@needs("keys.write")
@answers(shapes.ChangedKey, versioned=True, refusals=(422,))
async def delete_key(request: Request, key_id: str) -> dict[str, Any]:
    """Revoke a key and take it out of every list: history keeps naming it."""
    return await _written(request, key_id, lambda console: (delete(console, key_id), {}))
