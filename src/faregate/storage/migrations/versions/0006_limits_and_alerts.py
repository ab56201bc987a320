"""The terms of limits and what changed them, alerts and where they go, and what limits did to a call.

Columns and tables beside those that were there; nothing is rewritten.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def _text(name: str, default: str = "") -> sa.Column[str]:
    return sa.Column(name, sa.Text(), server_default=default, nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)


def _json(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=True)


def _resource(table: str, *columns: sa.Column[str] | sa.Column[int], unique: bool = True) -> None:
    op.create_table(
        table,
        sa.Column("id", sa.Text(), nullable=False),
        _text("name"),
        *columns,
        _json("details"),
        _number("created_at"),
        _number("updated_at"),
        sa.PrimaryKeyConstraint("id"),
        *((sa.UniqueConstraint("name"),) if unique else ()),
    )


def upgrade() -> None:
    """Add the columns and make the tables."""
    op.add_column("limits", _json("terms"))
    op.create_index("limits_by_name", "limits", ["name"])
    op.add_column("requests", _text("notes"))
    _resource(
        "limit_entries",
        *(_text(name) for name in ("limit_id", "operation")),
        sa.Column("amount", sa.BigInteger(), nullable=True),
        sa.Column("after", sa.BigInteger(), nullable=True),
        *(_text(name) for name in ("actor", "reason", "reference")),
        unique=False,
    )
    op.create_index("limit_entries_by_limit", "limit_entries", ["limit_id"])
    _resource(
        "channels", *(_text(name) for name in ("kind", "url", "secret")), _json("alerts"), _text("state", "active")
    )
    _resource(
        "alerts",
        *(_text(name) for name in ("kind", "severity", "limit_id", "key", "message")),
        _text("state", "waiting"),
        *(_number(name) for name in ("next_at", "tries")),
        _json("delivered"),
        _text("trouble"),
        _number("seen_at"),
    )
    op.create_index("alerts_by_state", "alerts", ["state"])
