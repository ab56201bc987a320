"""The priorities that keys, and the keys of users and products, may ask for; null allows all, as before."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the columns."""
    for table in ("keys", "users", "products"):
        op.add_column(table, sa.Column("priorities", sa.Text(), nullable=True))
