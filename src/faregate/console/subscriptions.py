"""``/api/v1/subscriptions``: the right of a team or a user to a product, by which they hold keys.

A key that names a subscription is of its product and of its team or user. A suspended subscription stops its keys
alone; a cancelled one for good. What the product restricts, and every limit on the product, holds for all of them.
Records do not name it: a report by subscription finds it by the key.
"""

from typing import Any, ClassVar, Final, Literal

from fastapi import APIRouter, Request

from faregate.console.describing import answers, choice, lists, text
from faregate.console.paging import page_of, read_page
from faregate.console.payers import (
    Contact,
    Title,
    ensure,
    find,
    named,
    organization_of,
    placed,
    refuse_outside,
    refuse_rename,
)
from faregate.console.problems import ApiProblem
from faregate.console.reading import each_row, in_thread
from faregate.console.rights import needs
from faregate.console.shapes import payers as shapes
from faregate.console.shapes.values import Removed
from faregate.console.state import Console
from faregate.console.texts import NAME_CHARACTERS_MAX, Body, Name, or_left_out, or_none, time_text
from faregate.console.versions import only_if_unchanged, versioned
from faregate.console.writing import acted, console_of, locked
from faregate.console.writing import put as put_row
from faregate.console.writing import remove as remove_row
from faregate.errors import Conflict
from faregate.ports import Row

router = APIRouter(tags=["subscriptions"])

KIND: Final = "subscription"

#: State → the states that may follow it.
FOLLOWS: Final = {"active": ("suspended", "cancelled"), "suspended": ("active", "cancelled"), "cancelled": ()}

_READ_ONLY: Final = frozenset({"id", "created_at", "updated_at"})


class NewSubscriptionTo(Body):
    """A subscription to be made to a product that the path names; of a team, a user, or a user in a team."""

    READ_ONLY: ClassVar[frozenset[str]] = _READ_ONLY | {"state", "product", "organization"}

    name: Name | None = None
    team: Name | None = None
    user: Name | None = None
    title: Title | None = None
    contact: Contact | None = None


class NewSubscription(NewSubscriptionTo):
    """A subscription to be made."""

    READ_ONLY: ClassVar[frozenset[str]] = _READ_ONLY | {"state"}

    product: Name
    organization: Name | None = None


class SubscriptionChange(Body):
    """What may be changed of a subscription; a ``name`` may be sent, but not another one."""

    READ_ONLY: ClassVar[frozenset[str]] = _READ_ONLY | {"organization", "product", "team", "user"}

    name: Name | None = or_left_out()
    state: Literal["active", "suspended", "cancelled"] | None = or_left_out()
    title: Title | None = None
    contact: Contact | None = None


def shape(row: Row) -> dict[str, Any]:
    """A subscription as the API shows it."""
    return {
        **{name: row[name] for name in ("id", "name", "organization", "product")},
        **{name: or_none(row[name]) for name in ("team", "user")},
        "state": row["state"],
        **{name: or_none(row[name]) for name in ("title", "contact")},
        "created_at": time_text(row["created_at"]),
        "updated_at": time_text(row["updated_at"]),
    }


def create(console: Console, product: Row, wanted: NewSubscriptionTo) -> Row:
    """Make a subscription to a product.

    Raises:
        ApiProblem: it is nobody's, its name is taken, or its user is of another team.
    """
    if wanted.team is None and wanted.user is None:
        raise ApiProblem("field_missing", "a subscription is of a team or a user; name one", field="team")
    now, organization = console.clock.wall_nanos(), product["organization"]
    payers = {"organization": organization, "team": wanted.team or "", "user": wanted.user or ""}
    payers = placed(console, payers)
    name = wanted.name or f"{product['name']}-{wanted.user or wanted.team}"[:NAME_CHARACTERS_MAX]
    if console.all_books.listing(KIND, name=name, organization=organization, limit=1):
        raise ApiProblem("conflict", "a subscription of this name exists already; choose another name", field="name")
    row: Row = {
        "id": console.new_id("sub_"),
        "name": name,
        **payers,
        "product": product["name"],
        "state": "active",
        "title": wanted.title or "",
        "contact": wanted.contact or "",
        "details": {},
        "created_at": now,
        "updated_at": now,
    }
    refuse_outside(console, KIND, row)
    ensure(console, payers)
    put_row(console, KIND, row)
    return row


def change(console: Console, subscription_id: str, wanted: SubscriptionChange) -> Row:
    """Change what was sent and nothing else.

    Raises:
        NotFound: no such subscription.
        Conflict: it was cancelled.
        ApiProblem: a value that cannot be.
    """
    row = named(console, KIND, subscription_id)
    sent: dict[str, Any] = {name: getattr(wanted, name) for name in wanted.model_fields_set}
    refuse_rename(KIND, row, sent)
    if "state" in sent and sent["state"] is None:
        raise ApiProblem("field_range", "must not be null", field="state")
    state = sent.get("state", row["state"])
    if state != row["state"] and state not in FOLLOWS[row["state"]]:
        raise Conflict("a cancelled subscription stays cancelled; make another one")
    for name in ("title", "contact"):
        if name in sent:
            sent[name] = sent[name] or ""
    row = {**row, **sent, "updated_at": console.clock.wall_nanos()}
    put_row(console, KIND, row)
    return row


def remove(console: Console, subscription_id: str) -> None:
    """Remove a subscription without keys.

    Raises:
        NotFound: no such subscription.
        Conflict: keys that are not revoked have it.
    """
    row = named(console, KIND, subscription_id)
    keys = each_row(console.all_books, "key", product=row["product"], subscription=row["id"])
    count = sum(key["state"] != "revoked" for key in keys)
    if count:
        raise Conflict(f"{count} key{'s' * (count > 1)} of this subscription can be used; revoke or cancel first")
    remove_row(console, KIND, row["id"])


def subscribed(console: Console, wanted: str, payers: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Id of the subscription of this id or name, and ``payers`` with its product, team and user.

    Raises:
        ApiProblem: there is no such subscription, it is cancelled, or it is of another product, team or user.
    """
    row = console.books.get(KIND, wanted) if len(wanted) <= 64 else None
    if row is None:
        row = next(iter(console.books.listing(KIND, name=wanted, organization=payers["organization"], limit=1)), None)
    if row is None or row["organization"] != payers["organization"]:
        raise ApiProblem("field_range", "there is no such subscription in this organization", field=KIND)
    if row["state"] == "cancelled":
        raise ApiProblem("invariant", "this subscription was cancelled; make another one", field=KIND)
    for name in ("product", "team", "user"):
        if payers.get(name) and row[name] and payers[name] != row[name]:
            rule = f"this subscription is of {name} {row[name]}; leave {name} out, or name that one"
            raise ApiProblem("invariant", rule, field=name)
    return row["id"], payers | {name: row[name] for name in ("product", "team", "user") if row[name]}


def check_uncancelled(console: Console, subscription_id: str) -> None:
    """Refuse to let a key of a subscription come back that was cancelled or removed meanwhile.

    Raises:
        Conflict: it was.
    """
    row = console.all_books.get(KIND, subscription_id)
    if row is None or row["state"] == "cancelled":
        raise Conflict("the subscription of this key was cancelled; create a new key")


_STATE_ASKED: Final = choice("state", tuple(FOLLOWS), "Whether its keys can be used.")


@router.post("/subscriptions", status_code=201)
@needs("payers.write")
@answers(shapes.Subscription)
async def create_subscription(request: Request, wanted: NewSubscription) -> dict[str, Any]:
    """Give a team or a user the right to a product's keys."""
    console = console_of(request)

    def alone() -> Row:
        product = find(console, "product", wanted.product, organization_of(console, wanted.organization))
        if product is None:
            raise ApiProblem("field_range", "there is no such product in this organization", field="product")
        return create(console, product, wanted)

    return await acted(console, shape(await locked(console, alone)))


@router.post("/products/{payer_id}/subscriptions", status_code=201)
@needs("payers.write")
@answers(shapes.Subscription)
async def create_subscription_to(request: Request, payer_id: str, wanted: NewSubscriptionTo) -> dict[str, Any]:
    """Give a team or a user the right to this product's keys."""
    console = console_of(request)
    row = await locked(console, lambda: create(console, named(console, "product", payer_id), wanted))
    return await acted(console, shape(row))


@router.get("/subscriptions")
@needs("payers.read")
@lists(
    text("name", "Its name."),
    *(text(name, f"Name of its {name}.") for name in ("organization", "product", "team", "user")),
    _STATE_ASKED,
)
@answers(shapes.Subscriptions)
async def list_subscriptions(request: Request) -> dict[str, Any]:
    """Subscriptions, oldest first; filters: ``name``, ``organization``, ``product``, ``team``, ``user``, ``state``."""
    console = console_of(request)
    page = read_page(request)
    rows = await in_thread(lambda: console.books.listing(KIND, after=page.after, limit=page.limit + 1, **page.filters))
    return page_of(request, page, rows, shape)


@router.get("/products/{payer_id}/subscriptions")
@needs("payers.read")
@lists(*(text(name, f"Name of its {name}.") for name in ("team", "user")), _STATE_ASKED)
@answers(shapes.Subscriptions)
async def list_subscriptions_to(request: Request, payer_id: str) -> dict[str, Any]:
    """Subscriptions to this product, oldest first; filters: ``team``, ``user``, ``state``."""
    console = console_of(request)
    page = read_page(request)

    def look() -> list[Row]:
        product = named(console, "product", payer_id)
        within = {"organization": product["organization"], "product": product["name"]}
        return console.books.listing(KIND, after=page.after, limit=page.limit + 1, **within, **page.filters)

    return page_of(request, page, await in_thread(look), shape)


@router.get("/subscriptions/{subscription_id}")
@needs("payers.read")
@answers(shapes.Subscription, versioned=True)
async def read_subscription(request: Request, subscription_id: str) -> dict[str, Any]:
    """One subscription."""
    console = console_of(request)
    return shape(versioned(request, await in_thread(lambda: named(console, KIND, subscription_id))))


@router.patch("/subscriptions/{subscription_id}")
@needs("payers.write")
@answers(shapes.Subscription, versioned=True)
async def change_subscription(request: Request, subscription_id: str, wanted: SubscriptionChange) -> dict[str, Any]:
    """Suspend a subscription, which stops its keys alone; resume it, or cancel it for good."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: named(console, KIND, subscription_id))
    row = await locked(console, lambda: change(console, subscription_id, wanted), unchanged)
    return await acted(console, shape(versioned(request, row)))


@router.delete("/subscriptions/{subscription_id}")
@needs("payers.write")
@answers(Removed, versioned=True)
async def delete_subscription(request: Request, subscription_id: str) -> dict[str, Any]:
    """Remove a subscription whose keys are all revoked."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: named(console, KIND, subscription_id))
    await locked(console, lambda: remove(console, subscription_id), unchanged)
    return await acted(console, {"id": subscription_id, "deleted": True})
