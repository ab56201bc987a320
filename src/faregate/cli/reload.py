"""``faregate reload``: let a running installation work by its configuration file as it is now."""

from faregate.cli.client import Refused, Where, connect
from faregate.cli.output import Json, emit, emit_json, say
from faregate.errors import ConfigError


def command(data: Where = None, json: Json = False) -> None:
    """Read the configuration again: all of it acts at once, or the old one stays and every problem is told (exit 2)."""
    with connect(data) as client:
        try:
            told = client.call("POST", "/reload")
        except Refused as refused:
            lines = [each["detail"] for each in refused.errors] or [refused.message]
            raise ConfigError(
                "\n".join(lines), code=refused.code, hint="the old configuration stays in force"
            ) from None
    if json:
        emit_json(told)
        return
    for warning in told["warnings"]:
        say(f"warning: {warning}")
    emit("the configuration is in force")
    if told["restart"]:
        say(f"these wait for a restart: {', '.join(told['restart'])}")
