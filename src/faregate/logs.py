"""How the processes say what happens: one line per event on standard error, as JSON or for a terminal.

Everything logs through the standard library's ``logging``; this module only decides how it looks. What is logged holds
no secret and no prompt, because nobody passes one in; the style for terminals shows no control character raw.
"""

import json
import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Final

#: Libraries that would tell of every request.
_QUIET = ("uvicorn", "httpx2", "httpcore2", "asyncio", "sqlalchemy", "alembic")

#: What every record of ``logging`` holds; the rest is what was told with it.
_OF_ALL_RECORDS: Final = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime"))


def configure(process: str, level: str, style: str) -> None:
    """Send the logs of this process to standard error; ``style`` is ``json``, ``console`` or ``auto``."""
    if style == "auto":
        style = "console" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_for_a_terminal(process) if style == "console" else JsonLines(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class JsonLines(logging.Formatter):
    """One JSON object a line: ``event``, ``level``, what was told with it, ``timestamp``, ``process``, ``exception``.

    The standard library is all it takes.
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record; what JSON does not know is shown as Python does."""
        line: dict[str, Any] = {"event": record.getMessage(), "level": record.levelname.lower()}
        line.update((name, value) for name, value in vars(record).items() if name not in _OF_ALL_RECORDS)
        line["timestamp"] = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        line["process"] = self._process
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        if record.exc_info and record.exc_info[0]:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return json.dumps(line, ensure_ascii=False, allow_nan=False, default=repr)
        except (TypeError, ValueError):
            # Members that are no text, loops, and numbers that are none.
            line = {name: value if isinstance(value, str) else repr(value) for name, value in line.items()}
            return json.dumps(line, ensure_ascii=False)


def _for_a_terminal(process: str) -> logging.Formatter:
    # Only here: it takes 5 MB and a tenth of a second, since it shows exceptions by what colours a terminal, and each
    # of the processes of an installation has its own.
    import structlog

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _Named(process),
            structlog.processors.format_exc_info,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _visible,
            # Names of colours would need a terminal that understands them; a pipe does not.
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=40),
        ],
    )


class _Named:
    """Adds which process speaks."""

    def __init__(self, process: str) -> None:
        self._process = process

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["process"] = self._process
        return event


def _visible(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write control characters as escapes, so that an event moves no cursor and is one line, but for exceptions."""
    for name, value in event.items():
        if isinstance(value, str):
            lines = value.split("\n") if name == "exception" else [value]
            event[name] = "\n".join(_escaped(line) for line in lines)
    return event


def _escaped(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
