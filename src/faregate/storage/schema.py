"""The tables of the books, for every engine; the migrations bring a database to exactly this.

Money is integer nano-dollars, times are integer nanoseconds since 1970 UTC, durations microseconds. A column of type
``Json`` holds JSON text and is a plain Python value in the rows that the stores take and give. Changing a table means
a new migration; nothing here is ever created but by them. It is one file because tables are read against each other.
"""

from typing import Any, Final

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Computed,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    and_,
    func,
    literal_column,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from faregate.core.attribution import DIMENSIONS
from faregate.core.restrictions import RESTRICTIONS

#: The newest migration; a file with a later one is refused.
SCHEMA_VERSION: Final = "0014"

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

#: Sums of what the response cache did: calls that it answered, calls that it could not answer, and what it saved.
CACHE_SUMS: Final = ("cache_hits", "cache_misses", "saved_cost")

#: Those that count records, by the word of a record that they count.
CACHE_WORDS: Final = {"cache_hits": "hit", "cache_misses": "miss"}

#: What usage sums up, for every group.
SUMS: Final = ("requests", *LEAVES, "cost", "charge", *RARE, *CACHE_SUMS)

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


def _payer(name: str, *columns: Column[Any], unique: tuple[str, ...] = _PAYER) -> Table:
    """A table of names that calls are charged to."""
    table = _resource(
        name,
        *columns,
        #: ``active`` or ``disabled``, which stops the keys that name it; of subscriptions ``suspended``, ``cancelled``.
        Column("state", Text, nullable=False, server_default="active"),
        #: What people call it, where that is more than its name, and whom to ask about it.
        _text("title"),
        _text("contact"),
        unique=unique,
    )
    # Every change of a payer asks which ones are stopped, and few are.
    Index(f"{name}_by_state", table.c.state)
    return table


def _rules() -> tuple[Column[Any], ...]:
    """What the keys of a payer are restricted to beside their own restrictions; null allows all.

    ``restricted`` is 1 where any of it restricts: such payers are few among many.
    """
    return *(_json(name) for name in RESTRICTIONS), _number("restricted")


organizations = _payer("organizations", unique=("name",))
teams = _payer("teams", _text("organization"))
projects = _payer("projects", _text("organization"), _text("team"), _text("cache"))
users = _payer("users", _text("organization"), _text("team"), _text("email"), *_rules())
products = _payer("products", _text("organization"), *_rules(), _number("expires_at"), _text("content"))
Index("users_by_restricted", users.c.restricted)
Index("products_by_restricted", products.c.restricted)
stages = _payer("stages", _text("organization"), _json("providers"), _text("cache"))

# The right of a team or a user to a product's keys.
subscriptions = _payer("subscriptions", *(_text(name) for name in ("organization", "product", "team", "user")))
Index("subscriptions_by_product", subscriptions.c.product)

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
    #: Id of the subscription by which it has its product.
    _text("subscription"),
    #: Beginnings of paths, and networks, that its calls are restricted to; null allows all.
    _json("paths"),
    _json("networks"),
    #: Id of the key that made it, ``local`` for the socket; empty for what is older than this column.
    _text("made_by"),
    #: What is kept of its calls' contents; empty as its product says.
    _text("content"),
    #: When it was deleted: it is revoked and in no list, and history goes on naming it.
    _number("deleted_at"),
    #: Whether its calls use the response cache, ``on`` or ``off``; empty as its project and stage say.
    _text("cache"),
    #: Ranges of ``Priority`` that its calls may use; null allows all.
    _json("priorities"),
)
Index("keys_by_name", keys.c.name)
Index("keys_by_product", keys.c.product)

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

# Accounts at model services, places to send calls to and names that callers may use, beside those of the configuration.
providers = _resource(
    "providers",
    _text("kind"),
    _text("base_url"),
    #: Sealed (``config.secret_box``), and as much of it as may be shown.
    _text("secret"),
    _text("masked"),
    _text("api_version"),
    Column("state", Text, nullable=False, server_default="active"),
    #: What else may be set of a provider, where it is not as usual.
    _json("settings"),
    unique=("name",),
)
deployments = _resource(
    "deployments",
    _text("provider"),
    #: What the provider calls it, and the model that it is and is priced as.
    _text("deployment"),
    _text("model"),
    _number("max_output_tokens"),
    Column("region", Text, nullable=False, server_default="global"),
    Column("state", Text, nullable=False, server_default="active"),
    unique=("name",),
)
pools = _resource(
    "pools",
    #: What was sent of it, in the form of the configuration.
    _json("rule"),
    unique=("name",),
)
models = _resource(
    "models",
    #: Names of pools, deployments, ``{provider}/{model}`` or other models, in order.
    _json("to"),
    _number("max_output_tokens"),
    _number("max_context_tokens"),
    #: Where it leads for some callers, in the form of the configuration.
    _json("instead"),
    unique=("name",),
)

services = _resource(
    "services",
    _text("base_url"),
    #: As of a provider.
    _text("secret"),
    _text("masked"),
    Column("state", Text, nullable=False, server_default="active"),
    #: How far connections to it may lead (``dialects.urls.REACHES``).
    Column("reach", Text, nullable=False, server_default="public"),
    #: What else was sent of it, in the form of the configuration.
    _json("rule"),
    unique=("name",),
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
    #: Digest of the row as this change left it (``storage/sqlite/chain``); empty where it removed the row.
    _text("digest"),
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
    #: ``hit``, ``miss`` or ``refresh`` where the response cache was to be used, and what a hit saved.
    _text("cache"),
    _number("saved_cost"),
    Column("input_tokens", BigInteger, Computed(_INPUT, persisted=False)),
    Column("output_tokens", BigInteger, Computed(_OUTPUT, persisted=False)),
)
# Most calls belong to no run, and those cost nothing here.
Index("requests_by_run", requests.c.run, sqlite_where=requests.c.run != "")

#: What a caller calls the event, and that it was called something: nearly every call is not, and costs nothing here.
EVENT_OF: Final = func.json_extract(requests.c.tags, literal_column("'$.event_id'"), type_=Text)
EVENTS_KNOWN: Final = and_(literal_column("requests.tags", Text) != literal_column("'{}'", Text), EVENT_OF.is_not(None))
Index(
    "requests_by_event",
    EVENT_OF,
    sqlite_where=text("tags <> '{}' AND json_extract(tags, '$.event_id') IS NOT NULL"),
)

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

#: One row for each transaction that booked something. Its hash covers all that the transaction added and the row before
#: it, so that nothing booked can be edited, removed, moved or put in between unseen. What is hashed how is in
#: ``storage/sqlite/chain``. Ranges are first and last number, 0 where nothing of the kind was added.
chain = Table(
    "chain",
    metadata,
    Column("number", _Sequence, primary_key=True),
    #: The rules by which it was hashed.
    _number("form"),
    _number("at"),
    #: Where the journal stood after it; 0 where it was no batch of the journal.
    _number("position"),
    _number("sequence"),
    _number("epoch"),
    *(
        _number(f"{part}_{end}")
        for part in ("requests", "transfers", "sets", "accounts", "changes", "trail")
        for end in ("first", "last")
    ),
    #: Hash of the last of the lines of the trail of changes that told of it.
    _text("trail_hash"),
    #: Unknown records that it ended.
    _number("ended"),
    #: Rows of tables without numbers that it added, as ``[table, key]``.
    _json("named"),
    #: Four bytes for each row it covers, so that a row that was changed can be named.
    Column("marks", LargeBinary, nullable=False, server_default=""),
    _text("hash"),
)

# The trail is compared with the chain at every start, and has few lines beside the calls.
Index("chain_by_trail", chain.c.trail_last, chain.c.trail_first, sqlite_where=chain.c.trail_last > 0)

#: Records whose end was not known when they were booked, the only ones that ever change.
unsettled = Table(
    "unsettled",
    metadata,
    #: Of the record.
    Column("number", _Sequence, primary_key=True),
    #: Of the record and its reservation as they were booked.
    _text("digest"),
    #: Number of the row of the chain that ended it; 0 while its end is unknown.
    _number("ended_by"),
)
Index("unsettled_by_end", unsettled.c.ended_by)

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
    "subscription": subscriptions,
    "key": keys,
    "limit": limits,
    "price": prices,
    "price_list": price_lists,
    "capacity": capacities,
    "limit_entry": limit_entries,
    "channel": channels,
    "provider": providers,
    "deployment": deployments,
    "pool": pools,
    "model": models,
    "service": services,
    "alert": alerts,
}
