"""Secrets for commands that keep them: never as arguments, which stand in the list of processes and in histories."""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from faregate.errors import UsageError

#: No key of a provider or service is longer.
_SECRET_BYTES_MAX: Final = 16 * 1024

FromStdin = Annotated[bool, typer.Option("--secret-stdin", help="Read its key from standard input.")]
FromFile = Annotated[Path | None, typer.Option("--secret-file", metavar="FILE", help="Read its key from a file.")]


def given_secret(from_stdin: bool, file: Path | None) -> str | None:
    """The secret, from where nobody else sees it; ``None`` where none of the options was given.

    Raises:
        UsageError: two places were named, or there is nothing.
    """
    if from_stdin and file is not None:
        raise UsageError("--secret-stdin and --secret-file exclude each other")
    if from_stdin:
        content, place = sys.stdin.buffer.read(_SECRET_BYTES_MAX + 1), "standard input"
    elif file is not None:
        try:
            with file.open("rb") as opened:
                content, place = opened.read(_SECRET_BYTES_MAX + 1), str(file)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UsageError(f"{file} cannot be read: {reason}", code="value") from error
    else:
        return None
    secret = content.decode("utf-8", "replace").strip("\r\n \t")
    if not secret or len(content) > _SECRET_BYTES_MAX:
        raise UsageError(f"{place} holds no key", code="value")
    return secret
