"""The response cache: who uses it, and what became of calls that did.

Columns beside those that were there. Older records used no cache, so that their default is the truth, and what was
hashed of them stays as it is.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the columns."""
    for table in ("keys", "projects", "stages", "requests"):
        op.add_column(table, sa.Column("cache", sa.Text(), server_default="", nullable=False))
    op.add_column("requests", sa.Column("saved_cost", sa.BigInteger(), server_default="0", nullable=False))
    for name in ("cache_hits", "cache_misses", "saved_cost"):
        op.add_column("rollups", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
