"""The only place that reads the process's environment.

It loads nothing: every command needs it, and what the variables mean (``config.variables``) takes all of the schema,
which is half of a command's start.
"""

import os
from collections.abc import Mapping


def process_environment() -> Mapping[str, str]:
    """The environment that this process was started with."""
    return os.environ
