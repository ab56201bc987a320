"""``/api/v1/webhooks``: where alerts go, beside what the configuration file declares.

An ``http`` or ``https`` address is a webhook, which is sent signed JSON; anything else is an address that apprise
understands. Addresses hold credentials (a token in the path, a password), so only their beginning is ever shown, and a
secret is in exactly one answer, the one that made it.
"""

import base64
import re
from typing import Any, ClassVar, Final, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from pydantic import Field

from faregate.console.describing import answers, choice, lists, text
from faregate.console.paging import page_of, read_page
from faregate.console.problems import ApiProblem
from faregate.console.reading import in_thread
from faregate.console.rights import needs
from faregate.console.sealing import channel_sealed, channel_shown
from faregate.console.shapes import care as shapes
from faregate.console.shapes.values import Removed
from faregate.console.state import Console
from faregate.console.texts import Body, Name, or_left_out, time_text
from faregate.console.versions import only_if_unchanged, versioned
from faregate.console.writing import console_of, locked
from faregate.console.writing import put as put_row
from faregate.console.writing import remove as remove_row
from faregate.core.alerts import CHANNEL_SECRET_CHARACTERS, CHANNEL_URL_CHARACTERS_MAX, KINDS
from faregate.errors import Conflict, NotFound
from faregate.ports import DECLARED, Row

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

#: Channels of an installation; each alert is offered to all of them.
CHANNELS_MAX: Final = 256

_SECRET_BYTES: Final = 32
_MADE_BEGINS: Final = "whs-"

_ADDRESS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31})://[\x21-\x7e]*")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")

_READ_ONLY: Final = frozenset({"id", "created_at", "updated_at", "source"})


class ChannelChange(Body):
    """What may be changed of a channel."""

    READ_ONLY: ClassVar[frozenset[str]] = _READ_ONLY | {"kind"}

    name: Name | None = or_left_out()
    url: str | None = Field(default=None, max_length=CHANNEL_URL_CHARACTERS_MAX)
    secret: str | None = Field(default=None, max_length=CHANNEL_SECRET_CHARACTERS[1])
    #: Makes a secret, which the answer shows.
    new_secret: bool = False
    #: Kinds that go there; ``null`` is all.
    alerts: list[Literal[tuple(KINDS)]] | None = Field(  # type: ignore[valid-type]
        default=None, min_length=1, max_length=len(KINDS)
    )
    state: Literal["active", "disabled"] | None = or_left_out()


class NewChannel(Body):
    """A channel to be made."""

    READ_ONLY: ClassVar[frozenset[str]] = _READ_ONLY | {"state"}

    name: Name
    url: str = Field(max_length=CHANNEL_URL_CHARACTERS_MAX, json_schema_extra={"pattern": f"^{_ADDRESS.pattern}$"})
    #: By the address where it is not said.
    kind: Literal["webhook", "apprise"] | None = None
    secret: str | None = Field(default=None, max_length=CHANNEL_SECRET_CHARACTERS[1])
    #: Kinds that go there; ``null`` is all.
    alerts: list[Literal[tuple(KINDS)]] | None = Field(  # type: ignore[valid-type]
        default=None, min_length=1, max_length=len(KINDS)
    )


def kind_of(url: str) -> str:
    """What an address is unless somebody says otherwise."""
    return "webhook" if urlsplit(url).scheme.lower() in ("http", "https") else "apprise"


def address_shown(kind: str, url: str) -> str:
    """As much of an address as is no secret: of a webhook scheme, host and port, of others the scheme."""
    scheme, _, rest = url.partition("://")
    if kind != "webhook":
        return f"{scheme}://…"
    return f"{scheme}://{rest.partition('/')[0].partition('?')[0].rpartition('@')[2]}/…"


def shape(row: Row) -> dict[str, Any]:
    """A channel as the API shows it."""
    return {
        "id": row["id"],
        "name": row["name"],
        "kind": row["kind"],
        "url": address_shown(row["kind"], row["url"]),
        "alerts": row["alerts"],
        "state": row["state"],
        "source": "file" if row["id"].startswith(DECLARED) else "api",
        "created_at": time_text(row.get("created_at")),
        "updated_at": time_text(row.get("updated_at")),
    }


def _check_url(console: Console, kind: str, url: str) -> None:
    if _ADDRESS.fullmatch(url) is None:
        rule = "expected an address such as https://example.com/alerts or mailto://…, without spaces"
        raise ApiProblem("field_range", rule, field="url")
    if kind == "webhook" and kind_of(url) != "webhook":
        raise ApiProblem("field_range", "a webhook has an http or https address", field="url")
    fault = console.check_address(kind, url) if console.check_address is not None else None
    if fault is not None:
        raise ApiProblem(fault.code, fault.message, field="url")


def _check_secret(kind: str, secret: str | None) -> None:
    if secret is None:
        return
    if kind != "webhook":
        raise ApiProblem("field_conflict", "only what is sent to a webhook is signed", field="secret")
    if len(secret) < CHANNEL_SECRET_CHARACTERS[0] or _VISIBLE.fullmatch(secret) is None:
        fewest, most = CHANNEL_SECRET_CHARACTERS
        rule = f"must have {fewest} to {most} visible ASCII characters"
        raise ApiProblem("field_range", f"{rule}; leave it out to have one made", field="secret")


def _new_secret(console: Console) -> str:
    return _MADE_BEGINS + base64.urlsafe_b64encode(console.random(_SECRET_BYTES)).decode().rstrip("=")


def _refuse_twin(console: Console, name: str) -> None:
    declared = any(each["name"] == name for each in console.channels)
    if declared or console.books.listing("channel", name=name, limit=1):
        raise ApiProblem("conflict", "a channel of this name exists; choose another name", field="name")


def create(console: Console, wanted: NewChannel) -> tuple[Row, str]:
    """Make a channel: its row and, where one was made, its secret.

    Raises:
        ApiProblem: the name is taken, or nothing may be sent to the address.
        Conflict: there are too many.
    """
    kind = wanted.kind or kind_of(wanted.url)
    _refuse_twin(console, wanted.name)
    _check_secret(kind, wanted.secret)
    _check_url(console, kind, wanted.url)
    if len(console.books.listing("channel", limit=CHANNELS_MAX)) >= CHANNELS_MAX:
        raise Conflict(f"there are {CHANNELS_MAX} channels already; remove one first")
    made = _new_secret(console) if kind == "webhook" and wanted.secret is None else ""
    now = console.clock.wall_nanos()
    row: Row = {
        "id": console.new_id("chn_"),
        "name": wanted.name,
        "kind": kind,
        "url": wanted.url,
        "secret": wanted.secret or made,
        "alerts": None if wanted.alerts is None else sorted(set(wanted.alerts)),
        "state": "active",
        "details": {},
        "created_at": now,
        "updated_at": now,
    }
    put_row(console, "channel", channel_sealed(console.box, row))
    return row, made


def _named(console: Console, channel_id: str) -> Row:
    """The channel of an id, declared ones included.

    Raises:
        NotFound: there is none.
    """
    for each in console.channels:
        if each["id"] == channel_id:
            return each
    row = console.books.get("channel", channel_id) if len(channel_id) <= 64 else None
    if row is None:
        raise NotFound("there is no such webhook")
    return channel_shown(console.box, row)


def _own(console: Console, channel_id: str) -> Row:
    """A channel that may be changed here.

    Raises:
        NotFound: there is none.
        Conflict: the configuration file declares it.
    """
    row = _named(console, channel_id)
    if row["id"].startswith(DECLARED):
        raise Conflict("this channel is declared in the configuration file; change it there")
    return row


def change(console: Console, channel_id: str, wanted: ChannelChange) -> tuple[Row, str]:
    """Change what was sent: the row and, where one was made, the new secret.

    Raises:
        NotFound: no such channel.
        Conflict: the configuration file declares it.
        ApiProblem: a value that cannot be.
    """
    row = dict(_own(console, channel_id))
    sent = {name: getattr(wanted, name) for name in wanted.model_fields_set - {"new_secret"}}
    for name in ("name", "url", "secret", "state"):
        if name in sent and sent[name] is None:
            raise ApiProblem("field_range", "must not be null", field=name)
    if "name" in sent and sent["name"] != row["name"]:
        _refuse_twin(console, sent["name"])
    _check_secret(row["kind"], sent.get("secret"))
    if "url" in sent:
        _check_url(console, row["kind"], sent["url"])
    made = ""
    if wanted.new_secret:
        if "secret" in sent or row["kind"] != "webhook":
            rule = "only webhooks have a secret, and it is either sent or made"
            raise ApiProblem("field_conflict", rule, field="new_secret")
        made = sent["secret"] = _new_secret(console)
    if sent.get("alerts") is not None:
        sent["alerts"] = sorted(set(sent["alerts"]))
    if "url" not in sent and not row["url"]:
        rule = "the key that its address was encrypted with is not here; send url, and secret or new_secret, again"
        raise ApiProblem("field_missing", rule, field="url")
    now = console.clock.wall_nanos()
    row |= {**sent, "updated_at": now}
    if sent.keys() & {"url", "secret"}:
        # Neither is in the trail: that they were changed is.
        row["details"] = {**(row["details"] or {}), "secret_at": now}
    put_row(console, "channel", channel_sealed(console.box, row))
    return row, made


def _with_secret(row: Row, made: str) -> dict[str, Any]:
    return {**shape(row), **({"secret": made} if made else {})}


@router.post("", status_code=201)
@needs("alerts.write")
@answers(shapes.MadeWebhook)
async def create_webhook(request: Request, wanted: NewChannel) -> dict[str, Any]:
    """Make a channel for alerts. A secret that was made for it is in this answer and in no later one."""
    console = console_of(request)
    return _with_secret(*await locked(console, lambda: create(console, wanted)))


@router.get("")
@needs("alerts.read")
@lists(
    text("name", "Its name."),
    choice("kind", ("webhook", "apprise"), "How it is told."),
    choice("state", ("active", "disabled"), "Whether it is told anything."),
)
@answers(shapes.Webhooks)
async def list_webhooks(request: Request) -> dict[str, Any]:
    """Channels, those of the configuration file first; filters: ``name``, ``kind``, ``state``."""
    console = console_of(request)
    page = read_page(request)
    declared = [
        each
        for each in console.channels
        if not page.after and all(each[name] == value for name, value in page.filters.items())
    ]
    rows = await in_thread(
        lambda: console.books.listing("channel", after=page.after, limit=page.limit + 1, **page.filters)
    )
    answer = page_of(request, page, [channel_shown(console.box, row) for row in rows], shape)
    return {**answer, "data": [*map(shape, declared), *answer["data"]]}


@router.get("/{channel_id}")
@needs("alerts.read")
@answers(shapes.Webhook, versioned=True)
async def read_webhook(request: Request, channel_id: str) -> dict[str, Any]:
    """One channel, without its secret and the secret part of its address."""
    console = console_of(request)
    return shape(versioned(request, await in_thread(lambda: _named(console, channel_id))))


@router.patch("/{channel_id}")
@needs("alerts.write")
@answers(shapes.MadeWebhook, versioned=True)
async def change_webhook(request: Request, channel_id: str, wanted: ChannelChange) -> dict[str, Any]:
    """Rename a channel, send it elsewhere, sign otherwise, or let it rest."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: _named(console, channel_id))
    row, secret = await locked(console, lambda: change(console, channel_id, wanted), unchanged)
    return _with_secret(versioned(request, row), secret)


@router.delete("/{channel_id}")
@needs("alerts.write")
@answers(Removed, versioned=True)
async def delete_webhook(request: Request, channel_id: str) -> dict[str, Any]:
    """Remove a channel; what it has not taken yet it never gets."""
    console = console_of(request)
    unchanged = only_if_unchanged(request, lambda: _named(console, channel_id))

    def alone() -> None:
        remove_row(console, "channel", _own(console, channel_id)["id"])

    await locked(console, alone, unchanged)
    return {"id": channel_id, "deleted": True}
