"""How long a property is looked for: a little in ``make test``, long in ``make soak``."""

import os


def examples(short: int, long: int) -> int:
    """``short`` many in ``make test``, ``long`` many in ``make soak``, which sets ``FAREGATE_SOAK``."""
    return long if os.environ.get("FAREGATE_SOAK") else short
