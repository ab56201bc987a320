"""``faregate diff``: what ``apply`` would do with a state file, and nothing done."""

from faregate.cli.client import Where, connect
from faregate.cli.output import Json, emit_json, say
from faregate.cli.state_plan import File, Prune, compare, counted, plan_json, read, refuse_impossible, show
from faregate.errors import Failed


def command(file: File, prune: Prune = False, data: Where = None, json: Json = False) -> int:
    """Tell what `apply` would change: exit 0 where nothing, 1 where something."""
    asked = read(file)
    with connect(data) as client:
        found = compare(client, asked, prune=prune).plan
    if json:
        emit_json(plan_json(found))
    else:
        show(found)
        refuse_impossible(found.impossible)
        say(counted(found))
    # Whose a thing is makes no difference between the file and the installation.
    return Failed.exit_code if found.steps or found.impossible else 0
