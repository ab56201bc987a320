"""Providers, deployments and names of models that were made by the API.

Tables beside those that were there. What was plain among the secrets in the books is sealed by the console when it
starts, because the key for that lies outside the books.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


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
        "providers",
        *(_text(name) for name in ("kind", "base_url", "secret", "masked", "api_version")),
        _text("state", "active"),
        _json("settings"),
    )
    _resource(
        "deployments",
        *(_text(name) for name in ("provider", "deployment", "model")),
        _number("max_output_tokens"),
        _text("region", "global"),
        _text("state", "active"),
    )
    _resource("models", _json("to"), _number("max_output_tokens"), _number("max_context_tokens"))
