"""Where the end of work that goes on at a provider will be told.

A column beside those that were there; nothing is rewritten.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column."""
    op.add_column("reservations", sa.Column("awaited", sa.Text(), nullable=True))
