"""What calls are found by, beside their columns: the index of the events that callers name."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Index the names of events; only calls that have one are in it."""
    op.execute(
        "CREATE INDEX requests_by_event ON requests (json_extract(tags, '$.event_id')) "
        "WHERE tags <> '{}' AND json_extract(tags, '$.event_id') IS NOT NULL"
    )
