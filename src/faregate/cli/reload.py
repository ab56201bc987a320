"""``faregate reload``: let a running installation work by its configuration file as it is now."""

from collections.abc import Mapping

from faregate.cli.client import Refused, Where, connect
from faregate.cli.output import Json, emit, emit_json, say
from faregate.config.findings import Finding, Place
from faregate.errors import ConfigError


class _NotRead(ConfigError):
    """The file cannot be used: every problem a line for people, a list beside the message for scripts."""

    def __init__(self, refused: Refused, *, as_json: bool) -> None:
        lines = [each["detail"] for each in refused.errors]
        message = refused.message if as_json or not lines else "\n".join(lines)
        super().__init__(message, code=refused.code, hint="the old configuration stays in force")
        self.findings = tuple(map(_finding, refused.errors))


def _finding(told: Mapping[str, str]) -> Finding:
    place = told.get("place", "")
    source, line, column = [*place.rsplit(":", 2), "", ""][:3]
    known = line.isdecimal() and column.isdecimal()
    return Finding(
        told["code"],
        Place(source, int(line), int(column)) if known else Place(place),
        told["field"],
        told.get("problem", told["detail"]),
        told.get("expected", ""),
        told.get("hint", ""),
    )


def command(data: Where = None, json: Json = False) -> None:
    """Read the configuration again: all of it acts at once, or the old one stays and every problem is told (exit 2)."""
    with connect(data) as client:
        try:
            told = client.call("POST", "/reload")
        except Refused as refused:
            raise _NotRead(refused, as_json=json) from None
    if json:
        emit_json(told)
        return
    for warning in told["warnings"]:
        say(f"warning: {warning}")
    emit("the configuration is in force")
    if told["restart"]:
        say(f"these wait for a restart: {', '.join(told['restart'])}")
