"""What a record of a call says, as the core speaks of it."""

from faregate.core.usage import Usage
from faregate.ports import Row


def usage_of(row: Row) -> Usage:
    """The billed leaves of a record."""
    return Usage(**{name: row[name] for name in Usage._fields if name != "other"}, other=row["other_units"])
