"""The tables of the books, for every engine; the migrations bring a database to exactly this.

Money is integer nano-dollars, times are integer nanoseconds since 1970 UTC, durations microseconds. A column of type
``Json`` holds JSON text and is a plain Python value in the rows that the stores take and give. Changing a table means
a new migration; nothing here is ever created but by them.
"""

from typing import Any, Final

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Computed,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from faregate.core.attribution import DIMENSIONS

#: The newest migration; a file with a later one is refused.
SCHEMA_VERSION: Final = "0006"

#: The dimensions that a set of dimensions names and roll-ups keep apart; ``run`` and tags are only in the records.
SET_DIMENSIONS: Final = (
    "organization",
    "team",
    "project",
    "user",
    "end_user",
    "key",
    "product",
    "stage",
    "model",
    "deployment",
    "provider",
    "service",
)

#: The dimensions of a request record, in the order of ``Attribution``.
REQUEST_DIMENSIONS: Final = DIMENSIONS

#: Leaves of usage, in the order of ``core.usage.Usage`` as far as these are fields of it.
LEAVES: Final = (
    "input_text",
    "input_cached",
    "input_cache_write",
    "input_audio",
    "output_text",
    "output_reasoning",
    "output_audio",
)

#: Sums of the rarer units: tokens of rarer kinds by direction, so that totals are true, and what limits may count.
#: What was used in every unit is in ``other_units`` of the record alone.
RARE: Final = ("input_other", "output_other", "images", "seconds", "characters")

#: What usage sums up, for every group.
SUMS: Final = ("requests", *LEAVES, "cost", "charge", *RARE)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Json(TypeDecorator[Any]):
    """A JSON value in a text column."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """To the database: JSON text."""
        return None if value is None else _encode(value).decode()

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """From the database: the value."""
        return None if value is None else _decode(value)


#: SQLite counts rows only in a column of exactly the type INTEGER.
_Sequence = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default="")


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


def _json(name: str) -> Column[Any]:
    return Column(name, Json, nullable=True)


def _resource(name: str, *columns: Column[Any], unique: tuple[str, ...] = ()) -> Table:
    """A table of resources: what it is called and when it changed, beside its own columns."""
    return Table(
        name,
        metadata,
        Column("id", Text, primary_key=True),
        _text("name"),
        *columns,
        #: Free facts about the resource that decide nothing.
        _json("details"),
        _number("created_at"),
        _number("updated_at"),
        *((UniqueConstraint(*unique),) if unique else ()),
    )


_PAYER = ("organization", "name")

organizations = _resource("organizations", unique=("name",))
teams = _resource("teams", _text("organization"), unique=_PAYER)
projects = _resource("projects", _text("organization"), _text("team"), unique=_PAYER)
users = _resource("users", _text("organization"), _text("team"), _text("email"), unique=_PAYER)
products = _resource("products", _text("organization"), unique=_PAYER)
stages = _resource("stages", _text("organization"), _json("providers"), unique=_PAYER)

keys = _resource(
    "keys",
    _json("digests"),
    _text("organization"),
    _text("team"),
    _text("project"),
    _text("user"),
    _text("product"),
    _text("stage"),
    Column("role", Text, nullable=False, server_default="caller"),
    Column("state", Text, nullable=False, server_default="active"),
    _number("expires_at"),
    _json("models"),
    _json("operations"),
    _json("may_set"),
    _text("first8"),
    _text("last4"),
    _number("revoked_at"),
    _number("rotated_at"),
)
Index("keys_by_name", keys.c.name)

limits = _resource(
    "limits",
    _json("selector"),
    _json("each"),
    _text("unit"),
    Column("amount", BigInteger, nullable=True),
    _text("window"),
    Column("timezone", Text, nullable=False, server_default="UTC"),
    Column("mode", Text, nullable=False, server_default="hard"),
    _text("contact"),
    _number("clamp"),
    #: Who made it: ``api``, ``file`` (owned by the configuration file), ``quota``, or the product itself: ``stop`` and
    #: ``brake``.
    _text("source"),
    #: What it holds by beyond the columns above (``core.limits.terms``), fields that are not as usual.
    _json("terms"),
)

# Setting a limit looks for the one that counts the same.
Index("limits_by_name", limits.c.name)

# What changed a limit's amount or cleared what it had counted, with reason and actor; rows are never changed.
limit_entries = _resource(
    "limit_entries",
    _text("limit_id"),
    #: ``create``, ``deposit``, ``refund``, ``set``, ``raise``, ``mode``, ``stop``, ``lift``, ``report``.
    _text("operation"),
    #: What was added or set, in the unit of the limit, and the amount after it; ``None`` is unlimited.
    Column("amount", BigInteger, nullable=True),
    Column("after", BigInteger, nullable=True),
    _text("actor"),
    _text("reason"),
    #: What makes a repetition one: a second entry of the same limit and reference is none.
    _text("reference"),
)
Index("limit_entries_by_limit", limit_entries.c.limit_id)

# Where alerts go: an address that apprise understands, or a signed webhook.
channels = _resource(
    "channels",
    #: ``apprise`` or ``webhook``.
    _text("kind"),
    _text("url"),
    #: Signs what is sent to a webhook.
    _text("secret"),
    #: Kinds of alerts that go there; ``None`` is all.
    _json("alerts"),
    Column("state", Text, nullable=False, server_default="active"),
    unique=("name",),
)

# An alert that was raised: once for each ``name``, which says what, of whom, at which threshold, in which window.
alerts = _resource(
    "alerts",
    _text("kind"),
    _text("severity"),
    _text("limit_id"),
    _text("key"),
    _text("message"),
    #: ``waiting`` (some channel has not taken it), ``sent``, ``failed`` (given up), ``none`` (there was no channel).
    Column("state", Text, nullable=False, server_default="waiting"),
    #: When it is tried again.
    _number("next_at"),
    _number("tries"),
    #: Channel → when it took the alert.
    _json("delivered"),
    _text("trouble"),
    _number("seen_at"),
    unique=("name",),
)
Index("alerts_by_state", alerts.c.state)

prices = _resource(
    "prices",
    _text("provider"),
    _text("model"),
    _text("unit"),
    #: Pico-dollars for every ``per`` units.
    _number("pico"),
    _number("per"),
    _number("above_input_tokens"),
    _number("effective_from"),
    _number("effective_to"),
    _text("source"),
)

capacities = _resource(
    "capacities",
    _text("provider"),
    #: Names of the deployments that it serves.
    _json("deployments"),
    #: Nano-dollars of a calendar month.
    _number("commitment"),
    #: Units that were bought, and the tokens that all of them serve in a second; 0 where that was not said.
    _number("units"),
    _number("tokens_per_second"),
    Column("timezone", Text, nullable=False, server_default="UTC"),
    Column("split", Text, nullable=False, server_default="tokens"),
    Column("idle", Text, nullable=False, server_default="show"),
    _text("source"),
    unique=("name",),
)

#: What a price list said when it was last looked at, so that the next look can tell what changed.
price_lists = _resource("price_lists", _text("edition"), _json("content"), unique=("name",))

rate_cards = Table(
    "rate_cards",
    metadata,
    Column("version", Text, primary_key=True),
    _text("provider"),
    _text("model"),
    _json("tiers"),
    _number("effective_from"),
    _number("effective_to"),
    _text("source"),
    _text("service_tier"),
    _text("region"),
)

changes = Table(
    "changes",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=True),
    _text("kind"),
    _text("id"),
    _number("at"),
    sqlite_autoincrement=True,
)

dimension_sets = Table(
    "dimension_sets",
    metadata,
    Column("id", _Sequence, primary_key=True),
    *(_text(name) for name in SET_DIMENSIONS),
    UniqueConstraint(*SET_DIMENSIONS),
)

_INPUT = "input_text + input_cached + input_cache_write + input_audio + input_other"
_OUTPUT = "output_text + output_reasoning + output_audio + output_other"

# One row for every call, so what it costs to write decides what projection costs: numbers are nearly free, text is not,
# and an index is dearer than ten columns. What all calls of a caller share is in their set of dimensions, and records
# of a time or a set are found by the range of numbers that the roll-ups name (``queries``).
requests = Table(
    "requests",
    metadata,
    #: Counts the records in the order in which they were made.
    Column("number", _Sequence, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    _number("ended_at"),
    _text("status"),
    _number("http_status"),
    _text("code"),
    *(_number(name) for name in LEAVES),
    _text("usage_source"),
    #: What the provider is owed.
    _number("cost"),
    #: What the payer bears, by ``charge_rule``; nothing where the operator pays.
    _number("charge"),
    _text("price_version"),
    _number("latency_us"),
    _number("first_token_us"),
    #: How long the only attempt took, where it went as the record says; ``attempts`` then holds nothing.
    _number("attempt_us"),
    _json("attempts"),
    _text("answered_model"),
    _text("provider_request_id"),
    _number("overrun"),
    _text("resolution"),
    #: The set of the dimensions that have no column here.
    Column("dimensions", _Sequence, nullable=False),
    _text("run"),
    _json("tags"),
    _text("identity_source"),
    #: When it was admitted (or refused): this decides the window it is charged to.
    _number("created_at"),
    #: What was held for it.
    _number("held"),
    _number("stream"),
    _text("idempotency_key"),
    _number("clamped_to"),
    _text("limit_id"),
    #: JSON of what was used beside the leaves, as ``[unit, variant, quantity]``; empty for nearly every call.
    _text("other_units"),
    *(_number(name) for name in RARE),
    #: How the charge follows from the cost; empty where it is the cost.
    _text("charge_rule"),
    #: JSON of what limits did to it beside holding it; empty for nearly every call.
    _text("notes"),
    Column("input_tokens", BigInteger, Computed(_INPUT, persisted=False)),
    Column("output_tokens", BigInteger, Computed(_OUTPUT, persisted=False)),
)
# Most calls belong to no run, and those cost nothing here.
Index("requests_by_run", requests.c.run, sqlite_where=requests.c.run != "")

accounts = Table(
    "accounts",
    metadata,
    Column("id", _Sequence, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)

#: Each row is a transaction of two postings: the same amount to a debit and from a credit, so that they add up to 0.
transfers = Table(
    "transfers",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=True),
    _text("request_id"),
    #: ``charge``, ``margin``, ``suspense``, ``resolve``, ``late``, or ``adjustment``, whose id is its run's.
    _text("kind"),
    Column("debit", _Sequence, nullable=False),
    Column("credit", _Sequence, nullable=False),
    #: Nano-dollars; negative where money goes back.
    _number("amount"),
    _number("at"),
)

# Evidence that came after the end is rare, and the only kind of transaction that is looked for.
Index("transfers_late", transfers.c.request_id, sqlite_where=transfers.c.kind == "late")

reservations = Table(
    "reservations",
    metadata,
    Column("id", Text, primary_key=True),
    _number("epoch"),
    #: ``dispatched`` or ``unknown``; an ended reservation has no row.
    _text("state"),
    #: Nano-dollars.
    _number("held"),
    _number("output_tokens_seen"),
    #: The whole intent as it was journalled.
    _json("intent"),
    #: Where the end of work that goes on at the provider will be told; null where nothing is awaited.
    _json("awaited"),
    sqlite_with_rowid=False,
)

rollups = Table(
    "rollups",
    metadata,
    #: Start of the slot in which the calls were admitted.
    Column("slot", BigInteger, primary_key=True, autoincrement=False),
    Column("dimensions", _Sequence, primary_key=True, autoincrement=False),
    *(_number(name) for name in SUMS),
    #: All records of this slot and set, those that are in no sum among them, have numbers in this range.
    _number("first_number"),
    _number("last_number"),
    sqlite_with_rowid=False,
)
# A line is made once for a slot and a set, so that this costs a call nothing.
Index("rollups_by_dimensions", rollups.c.dimensions, rollups.c.slot)

#: Facts for sinks, numbered without a gap; those of one batch are one row.
outbox = Table(
    "outbox",
    metadata,
    #: Number of the first of the facts.
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    #: Number of the last of them.
    _number("last"),
    #: Pairs of a kind (``settled``, ``refused``, ``unknown``, ``pending``, ``resolved`` or ``late``) and the id of a
    #: request.
    _json("facts"),
    #: When they had been copied to every sink, 0 while they wait. The newest row stays, so that no number comes twice.
    _number("sent_at"),
)

#: Runs that corrected what was booked. They are no fold of the journal: the trail of changes is what proves them.
adjustments = Table(
    "adjustments",
    metadata,
    Column("id", Text, primary_key=True),
    #: ``reprice``, or ``true_up`` of provisional prices.
    _text("kind"),
    _text("reason"),
    #: Digest of what was asked, so that the same id is not used for something else.
    _text("question"),
    _number("since"),
    _number("until"),
    _number("at"),
    #: Records that were corrected, and by how many nano-dollars in all.
    _number("requests"),
    _number("cost"),
    _number("charge"),
    #: Digest of all lines in the order of their request ids.
    _text("digest"),
    _json("details"),
)

#: By how many nano-dollars a run corrected a record, and the price version that it went by.
adjustment_lines = Table(
    "adjustment_lines",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("run", Text, primary_key=True),
    _number("cost"),
    _number("charge"),
    _text("price_version"),
    sqlite_with_rowid=False,
)
Index("adjustment_lines_by_run", adjustment_lines.c.run)

segments = Table(
    "segments",
    metadata,
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    _number("end"),
    _number("sequence"),
    _number("records"),
    _number("charge"),
    _number("held"),
    _text("sha256"),
)

meta = Table(
    "meta",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    #: The journal position, its record number and its epoch, up to which everything is in the books.
    _number("position"),
    _number("sequence"),
    _number("epoch"),
)

#: Kind of resource → its table.
RESOURCES: Final = {
    "organization": organizations,
    "team": teams,
    "project": projects,
    "user": users,
    "product": products,
    "stage": stages,
    "key": keys,
    "limit": limits,
    "price": prices,
    "price_list": price_lists,
    "capacity": capacities,
    "limit_entry": limit_entries,
    "channel": channels,
    "alert": alerts,
}
