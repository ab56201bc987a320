"""Corrections of what was booked, fixed capacities, and what price lists said when they were last looked at.

Tables of their own beside those that were there; nothing is rewritten.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def _text(name: str, default: str = "") -> sa.Column[str]:
    return sa.Column(name, sa.Text(), server_default=default, nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)


def _json(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=True)


def _resource(table: str, *columns: sa.Column[str] | sa.Column[int]) -> None:
    op.create_table(
        table,
        sa.Column("id", sa.Text(), nullable=False),
        _text("name"),
        *columns,
        _json("details"),
        _number("created_at"),
        _number("updated_at"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )


def upgrade() -> None:
    """Make the tables."""
    _resource(
        "capacities",
        _text("provider"),
        _json("deployments"),
        _number("commitment"),
        _number("units"),
        _number("tokens_per_second"),
        _text("timezone", "UTC"),
        _text("split", "tokens"),
        _text("idle", "show"),
        _text("source"),
    )
    _resource("price_lists", _text("edition"), _json("content"))
    op.create_table(
        "adjustments",
        sa.Column("id", sa.Text(), nullable=False),
        *(_text(name) for name in ("kind", "reason", "question")),
        *(_number(name) for name in ("since", "until", "at", "requests", "cost", "charge")),
        _text("digest"),
        _json("details"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "adjustment_lines",
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        _number("cost"),
        _number("charge"),
        _text("price_version"),
        sa.PrimaryKeyConstraint("request_id", "run"),
        sqlite_with_rowid=False,
    )
    op.create_index("adjustment_lines_by_run", "adjustment_lines", ["run"])
