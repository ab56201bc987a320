"""States of payers, subscriptions to products, and what a key is restricted to.

Columns and a table beside those that were there; nothing is rewritten but the payers of admin keys: until now each of
them was an admin of the whole installation, whatever its row said, and goes on being that.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_PAYERS = ("organizations", "teams", "projects", "users", "products", "stages")
_RULES = ("models", "operations", "paths", "networks")


def _text(name: str, default: str = "") -> sa.Column[str]:
    return sa.Column(name, sa.Text(), server_default=default, nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)


def _json(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=True)


def upgrade() -> None:
    """Add the columns and make the table."""
    for table in _PAYERS:
        for column in (_text("state", "active"), _text("title"), _text("contact")):
            op.add_column(table, column)
        op.create_index(f"{table}_by_state", table, ["state"])
    for table in ("products", "users"):
        for name in _RULES:
            op.add_column(table, _json(name))
        op.add_column(table, _number("restricted"))
        op.create_index(f"{table}_by_restricted", table, ["restricted"])
    op.add_column("products", _number("expires_at"))
    op.add_column("products", _text("content"))
    _make_subscriptions()
    op.add_column("keys", _text("subscription"))
    op.add_column("keys", _json("paths"))
    op.add_column("keys", _json("networks"))
    op.add_column("keys", _text("made_by"))
    op.add_column("keys", _text("content"))
    op.add_column("keys", _number("deleted_at"))
    op.create_index("keys_by_product", "keys", ["product"])
    op.execute(
        "UPDATE keys SET organization = '', team = '', project = '', product = '', \"user\" = '' WHERE role = 'admin'"
    )


def _make_subscriptions() -> None:
    op.create_table(
        "subscriptions",
        sa.Column("id", sa.Text(), nullable=False),
        *(_text(name) for name in ("name", "organization", "product", "team", "user")),
        _text("state", "active"),
        _text("title"),
        _text("contact"),
        _json("details"),
        _number("created_at"),
        _number("updated_at"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("organization", "name"),
    )
    op.create_index("subscriptions_by_state", "subscriptions", ["state"])
    op.create_index("subscriptions_by_product", "subscriptions", ["product"])
