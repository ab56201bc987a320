"""How the processes say what happens: one line per event on standard error, as JSON or for a terminal.

Everything logs through the standard library's ``logging``; this module only decides how it looks. What is logged holds
no secret and no prompt, because nobody passes one in; control characters of values never reach a terminal raw.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

#: Libraries that would tell of every request.
_QUIET = ("uvicorn", "httpx2", "httpcore2", "asyncio", "sqlalchemy", "alembic")


def configure(process: str, level: str, style: str) -> None:
    """Send the logs of this process to standard error; ``style`` is ``json``, ``console`` or ``auto``."""
    if style == "auto":
        style = "console" if sys.stderr.isatty() else "json"
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Named(process),
        structlog.processors.format_exc_info,
    ]
    render: list[structlog.types.Processor] = [structlog.processors.JSONRenderer(ensure_ascii=False)]
    if style == "console":
        # Names of colours would need a terminal that understands them; a pipe does not.
        render = [_visible, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=40)]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class _Named:
    """Adds which process speaks."""

    def __init__(self, process: str) -> None:
        self._process = process

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["process"] = self._process
        return event


def _visible(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write control characters as escapes, so that one event stays one line and moves no cursor."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable() and name != "exception":
            event[name] = value.encode("unicode_escape").decode("ascii")
    return event
