"""What is not plain tokens, and charges that are not the cost: columns beside those that were there.

Nothing is rewritten: older records used none of the units, and were charged what they cost.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

#: Of records and roll-ups.
_RARE = ("input_other", "output_other", "images", "seconds", "characters")

_TOTALS = {
    "input_tokens": "input_text + input_cached + input_cache_write + input_audio + input_other",
    "output_tokens": "output_text + output_reasoning + output_audio + output_other",
}


def upgrade() -> None:
    """Add the columns, and count the rarer kinds of tokens in the totals."""
    for name in ("service_tier", "region"):
        op.add_column("rate_cards", sa.Column(name, sa.Text(), server_default="", nullable=False))
    for table in ("requests", "rollups"):
        for name in _RARE:
            op.add_column(table, sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    for name in ("other_units", "charge_rule"):
        op.add_column("requests", sa.Column(name, sa.Text(), server_default="", nullable=False))
    for name, sum_of in _TOTALS.items():
        op.drop_column("requests", name)
        op.add_column("requests", sa.Column(name, sa.BigInteger(), sa.Computed(sum_of, persisted=False), nullable=True))
