"""The chain over what is booked. What was booked before is sealed when all migrations have run (``sqlite/opening``)."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

#: A column of exactly this type counts the rows.
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_RANGES = [
    f"{part}_{end}"
    for part in ("requests", "transfers", "sets", "accounts", "changes", "trail")
    for end in ("first", "last")
]


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), server_default="", nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)


def upgrade() -> None:
    """Make the chain, and let changes name what they left."""
    op.add_column("changes", _text("digest"))
    op.create_table(
        "chain",
        sa.Column("number", _NUMBER, nullable=False),
        *(_number(name) for name in ("form", "at", "position", "sequence", "epoch", *_RANGES)),
        _text("trail_hash"),
        _number("ended"),
        sa.Column("named", sa.Text(), nullable=True),
        sa.Column("marks", sa.LargeBinary(), server_default="", nullable=False),
        _text("hash"),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("chain_by_trail", "chain", ["trail_last", "trail_first"], sqlite_where=sa.text("trail_last > 0"))
    op.create_table(
        "unsettled",
        sa.Column("number", _NUMBER, nullable=False),
        _text("digest"),
        _number("ended_by"),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("unsettled_by_end", "unsettled", ["ended_by"], unique=False)
