"""Records that cost less to write: dimensions as sets, transactions as one row, the outbox by batches.

Nothing is lost: every record, transaction, hold and fact is carried over as it stands, each into its new place.
"""

# ruff: noqa: S608  # The statements are put together from names in this file.

import json
from itertools import groupby

import sqlalchemy as sa
from alembic import op

from faregate.errors import Failed

revision = "0002"
down_revision = "0001"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_DIMENSIONS = (
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
#: Columns of a record that stay as they were.
_KEPT = (
    *("id", "ended_at", "status", "http_status", "code", "input_text", "input_cached", "input_cache_write"),
    *("input_audio", "output_text", "output_reasoning", "output_audio", "usage_source", "cost", "charge"),
    *("price_version", "latency_us", "first_token_us", "attempts", "answered_model", "provider_request_id", "overrun"),
    *("resolution", "run", "tags", "identity_source", "created_at", "held", "stream", "idempotency_key", "clamped_to"),
    "limit_id",
)
_SLOT_NANOS = 900 * 1_000_000_000

#: Facts that become one row of the outbox.
_FACTS = 500


def upgrade() -> None:
    """Make the new tables, carry everything over, and drop the old ones.

    Raises:
        Failed: the ledger is damaged; everything stays as it is.
    """
    _check_postings()
    op.rename_table("rollup_dimensions", "dimension_sets")
    _requests()
    _roll_ups()
    _transfers()
    _reservations()
    _outbox()


def _check_postings() -> None:
    """A ledger whose postings do not come in pairs is damaged: it is left as it is.

    Raises:
        Failed: they do not.
    """
    pairs = (
        'SELECT row_number() OVER (ORDER BY sequence) AS n, kind, request_id, amount, "at",'
        " lead(kind) OVER (ORDER BY sequence) AS kind_2, lead(request_id) OVER (ORDER BY sequence) AS request_id_2,"
        " lead(amount) OVER (ORDER BY sequence) AS amount_2 FROM postings"
    )
    broken = (
        f"SELECT count(*) FROM ({pairs}) AS paired WHERE n % 2 = 1 AND"
        " (kind_2 IS NULL OR kind_2 <> kind OR request_id_2 <> request_id OR amount_2 <> -amount)"
    )
    found = op.get_bind().execute(sa.text(broken)).scalar_one()
    if found:
        raise Failed(
            f"the books are damaged: {found} transactions of the ledger do not add up to zero",
            code="books_corrupt",
            hint="restore a backup",
        )


def _requests() -> None:
    op.rename_table("requests", "requests_before")
    for name in ("requests_by_key", "requests_by_run", "requests_by_time"):
        op.drop_index(name, "requests_before")
    op.create_table(
        "requests",
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("status", sa.Text(), server_default="", nullable=False),
        sa.Column("http_status", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("code", sa.Text(), server_default="", nullable=False),
        sa.Column("input_text", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("input_cached", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("input_cache_write", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("input_audio", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("output_text", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("output_reasoning", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("output_audio", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("usage_source", sa.Text(), server_default="", nullable=False),
        sa.Column("cost", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("charge", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("price_version", sa.Text(), server_default="", nullable=False),
        sa.Column("latency_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("first_token_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempt_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Text(), nullable=True),
        sa.Column("answered_model", sa.Text(), server_default="", nullable=False),
        sa.Column("provider_request_id", sa.Text(), server_default="", nullable=False),
        sa.Column("overrun", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("resolution", sa.Text(), server_default="", nullable=False),
        sa.Column("dimensions", _NUMBER, nullable=False),
        sa.Column("run", sa.Text(), server_default="", nullable=False),
        sa.Column("tags", sa.Text(), nullable=True),
        sa.Column("identity_source", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("stream", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("idempotency_key", sa.Text(), server_default="", nullable=False),
        sa.Column("clamped_to", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("limit_id", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "input_tokens",
            sa.BigInteger(),
            sa.Computed("input_text + input_cached + input_cache_write + input_audio", persisted=False),
            nullable=True,
        ),
        sa.Column(
            "output_tokens",
            sa.BigInteger(),
            sa.Computed("output_text + output_reasoning + output_audio", persisted=False),
            nullable=True,
        ),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("id"),
    )
    names = ", ".join(f'"{name}"' for name in _DIMENSIONS)
    # Records of refusals are in no roll-up, so that their dimensions may be in no set yet.
    op.execute(
        f"INSERT INTO dimension_sets ({names}) SELECT {names} FROM requests_before"
        f" EXCEPT SELECT {names} FROM dimension_sets"
    )
    kept = ", ".join(_KEPT)
    carried = ", ".join(f"b.{name}" for name in _KEPT)
    same = " AND ".join(f'd."{name}" = b."{name}"' for name in _DIMENSIONS)
    op.execute(
        f"INSERT INTO requests (number, dimensions, {kept}) SELECT row_number() OVER (ORDER BY b.id), d.id, {carried}"
        f" FROM requests_before AS b JOIN dimension_sets AS d ON {same}"
    )
    op.drop_table("requests_before")
    op.create_index(
        "requests_by_run",
        "requests",
        ["run"],
        unique=False,
        sqlite_where=sa.text("run != ''"),
        postgresql_where=sa.text("run != ''"),
    )


def _roll_ups() -> None:
    for name in ("first_number", "last_number"):
        op.add_column("rollups", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    op.execute(
        "INSERT INTO rollups (slot, dimensions, first_number, last_number)"
        f" SELECT created_at - created_at % {_SLOT_NANOS}, dimensions, min(number), max(number)"
        f" FROM requests WHERE true GROUP BY created_at - created_at % {_SLOT_NANOS}, dimensions"
        " ON CONFLICT (slot, dimensions) DO UPDATE"
        " SET first_number = excluded.first_number, last_number = excluded.last_number"
    )
    op.create_index("rollups_by_dimensions", "rollups", ["dimensions", "slot"], unique=False)


def _transfers() -> None:
    op.create_table(
        "transfers",
        sa.Column("sequence", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("request_id", sa.Text(), server_default="", nullable=False),
        sa.Column("kind", sa.Text(), server_default="", nullable=False),
        sa.Column("debit", _NUMBER, nullable=False),
        sa.Column("credit", _NUMBER, nullable=False),
        sa.Column("amount", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("at", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
    )
    # The postings of a transaction were written one after the other, the debit first.
    op.execute(
        'INSERT INTO transfers (sequence, request_id, kind, debit, credit, amount, "at")'
        ' SELECT (n + 1) / 2, request_id, kind, account, credit, amount, "at" FROM ('
        'SELECT row_number() OVER (ORDER BY sequence) AS n, request_id, kind, account, amount, "at",'
        " lead(account) OVER (ORDER BY sequence) AS credit FROM postings) AS paired WHERE n % 2 = 1"
    )
    op.drop_table("postings")
    op.create_index(
        "transfers_late",
        "transfers",
        ["request_id"],
        unique=False,
        sqlite_where=sa.text("kind = 'late'"),
        postgresql_where=sa.text("kind = 'late'"),
    )


def _reservations() -> None:
    op.rename_table("reservations", "reservations_before")
    op.create_table(
        "reservations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("state", sa.Text(), server_default="", nullable=False),
        sa.Column("held", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("output_tokens_seen", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("intent", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    names = "id, epoch, state, held, output_tokens_seen, intent"
    op.execute(f"INSERT INTO reservations ({names}) SELECT {names} FROM reservations_before")
    op.drop_table("reservations_before")


def _outbox() -> None:
    op.rename_table("outbox", "outbox_before")
    made = op.create_table(
        "outbox",
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("facts", sa.Text(), nullable=True),
        sa.Column("sent_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("first"),
    )
    told = op.get_bind().execute(
        sa.text("SELECT sequence, kind, request_id, sent_at FROM outbox_before ORDER BY sequence")
    )
    for (_, sent_at), group in groupby(told, lambda row: ((row.sequence - 1) // _FACTS, row.sent_at)):
        rows = list(group)
        facts = json.dumps([[row.kind, row.request_id] for row in rows], separators=(",", ":"))
        op.bulk_insert(
            made, [{"first": rows[0].sequence, "last": rows[-1].sequence, "facts": facts, "sent_at": sent_at}]
        )
    op.drop_table("outbox_before")
