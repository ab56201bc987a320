"""``faregate apply``: make an installation what a state file says, step by step in an order that opens nothing early.

It stops at the first refusal and says what was done and what was not; the same command again does the rest. Doing it
twice changes nothing the second time.
"""

import json as json_module
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from faregate.cli.client import Where, connect
from faregate.cli.output import Json, emit, emit_json, say
from faregate.cli.progress import progress
from faregate.cli.state_api import Carried, Made, carry_out
from faregate.cli.state_plan import (
    File,
    Prune,
    compare,
    counted,
    read,
    refuse_existing,
    refuse_impossible,
    show,
    steps_json,
    write_new,
)
from faregate.cli.words import numbered
from faregate.core.desired_state import Plan, Step
from faregate.errors import Failed, FaregateError, Unsafe

#: Steps that are named where a refusal ends the work; --json has all.
_NOT_DONE_SHOWN = 20


def command(
    file: File,
    prune: Prune = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the secrets of new keys to this new file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --out.")] = False,
    data: Where = None,
    json: Json = False,
) -> None:
    """Bring about what a state file says. Secrets of keys that it makes are shown this once."""
    refuse_existing(out, force=force)
    asked, carried = read(file), Carried()
    with connect(data, make=True) as client:
        found = compare(client, asked, prune=prune)
        refuse_impossible(found.plan.impossible)
        steps = found.plan.steps
        if not json:
            show(found.plan)
        if (steps or found.plan.taken_over) and not yes:
            _ask(counted(found.plan))
        try:
            with progress("apply", shown=not json) as told:
                carry_out(
                    client,
                    found.plan,
                    found.wanted,
                    found.there.things,
                    lambda done: told(done, len(steps)),
                    carried,
                )
        except FaregateError as error:
            _complete(error, carried, steps)
            raise
        finally:
            # Whatever ended it, an interrupt too: nobody can show these secrets again.
            unwritten = _tell(carried, found.plan, out, force=force, json=json)
    if unwritten is not None:
        raise unwritten


def _tell(carried: Carried, plan: Plan, out: Path | None, *, force: bool, json: bool) -> FaregateError | None:
    """What was done, and the secrets of new keys; the error where they are not in the file that they should be in."""
    unwritten = None
    if out is not None and carried.keys:
        try:
            write_new(out, "".join(_secret_line(made) for made in carried.keys), force=force)
        except (OSError, FaregateError) as error:
            reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else error.message
            unwritten = Failed(
                f"the secrets of new keys could not be written to {out}: {reason}",
                hint="they are shown on standard output instead",
            )
            out = None
            if not carried.complete:
                # What ended it is told as the error.
                say(unwritten.message)
    done, steps = len(carried.done), plan.steps
    if json:
        emit_json(
            {
                "applied": carried.complete,
                "done": steps_json(carried.done),
                "not_done": steps_json(steps[done:]),
                "taken_over": [thing.title for thing in plan.taken_over] if carried.marked else [],
                "keys": [
                    {name: value for name, value in made._asdict().items() if name != "secret" or out is None}
                    for made in carried.keys
                ],
            }
        )
    else:
        _show_keys(carried.keys, out)
        told = [f"{done} of {len(steps)} steps done"] if steps else []
        if plan.taken_over and carried.marked:
            told.append(f"{len(plan.taken_over)} taken over")
        say(", ".join(told) or "nothing changed")
    return unwritten


def _ask(what: str) -> None:
    """Ask whether to go on.

    Raises:
        Unsafe: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise Unsafe(f"{what}, and nobody to ask", hint="add --yes")
    typer.confirm(f"{what[:1].upper()}{what[1:]}. Go on?", abort=True, err=True)


def _secret_line(made: Made) -> str:
    return json_module.dumps(made._asdict(), ensure_ascii=False) + "\n"


def _show_keys(keys: Sequence[Made], out: Path | None) -> None:
    if not keys:
        return
    if out is not None:
        say(f"wrote the secrets of {numbered(len(keys), 'key')} to {out}, one JSON object a line")
        return
    for made in keys:
        emit(f"{made.secret}  {made.name}" + (f" of {made.organization}" if made.organization else ""))
    say("These secrets are shown only now; keep them where secrets are kept.")
    if not sys.stdout.isatty():
        say("They went into a file or pipe: whoever reads that can use the keys.")


def _complete(failure: FaregateError, carried: Carried, steps: Sequence[Step]) -> None:
    """Add to a refusal what was done before it and what was not."""
    left = [step.thing.title for step in steps[len(carried.done) :]]
    named = ", ".join(left[:_NOT_DONE_SHOWN]) + (
        f" and {len(left) - _NOT_DONE_SHOWN} more" if len(left) > _NOT_DONE_SHOWN else ""
    )
    at = ""
    if carried.failed is not None:
        place = f"{carried.failed.thing.place}: " if carried.failed.thing.place else ""
        at = f"{place}{carried.failed.thing.title}: "
    unmarked = f"; what was made is not marked as the file's: {carried.unmarked}" if carried.unmarked else ""
    failure.message = f"{at}{failure.message}{unmarked}"
    way_out = (
        f"{len(carried.done)} of {len(steps)} steps are done; not done: {named or 'nothing'}. Run it again to go on"
    )
    failure.hint = f"{failure.hint}; {way_out}" if failure.hint else way_out
