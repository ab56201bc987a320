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
from faregate.errors import FaregateError, Unsafe

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
        if steps and not yes:
            _ask(counted(steps))
        failure: FaregateError | None = None
        with progress("apply", shown=not json) as told:
            try:
                carry_out(
                    client,
                    found.plan,
                    found.wanted,
                    found.there.things,
                    lambda done: told(done, len(steps)),
                    carried,
                )
            except FaregateError as error:
                failure = error
    # Before anything else that could go wrong: nobody can show them again.
    if out is not None and carried.keys:
        write_new(out, "".join(_secret_line(made) for made in carried.keys), force=force)
    if json:
        emit_json(
            {
                "applied": failure is None,
                "done": steps_json(carried.done),
                "not_done": steps_json(steps[len(carried.done) :]),
                "keys": [
                    {name: value for name, value in made._asdict().items() if name != "secret" or out is None}
                    for made in carried.keys
                ],
            }
        )
    else:
        _show_keys(carried.keys, out)
        say(f"{len(carried.done)} of {len(steps)} steps done" if steps else "nothing to change")
    if failure is not None:
        raise _told(failure, carried, len(steps), [step.thing.title for step in steps[len(carried.done) :]])


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
        say(f"wrote the secrets of {len(keys)} keys to {out}, one JSON object a line")
        return
    for made in keys:
        emit(f"{made.secret}  {made.name}" + (f" of {made.organization}" if made.organization else ""))
    say("These secrets are shown only now; keep them where secrets are kept.")
    if not sys.stdout.isatty():
        say("They went into a file or pipe: whoever reads that can use the keys.")


def _told(failure: FaregateError, carried: Carried, count: int, left: Sequence[str]) -> FaregateError:
    """A refusal with what was done before it and what was not."""
    named = ", ".join(left[:_NOT_DONE_SHOWN]) + (
        f" and {len(left) - _NOT_DONE_SHOWN} more" if len(left) > _NOT_DONE_SHOWN else ""
    )
    at = ""
    if carried.failed is not None:
        place = f"{carried.failed.thing.place}: " if carried.failed.thing.place else ""
        at = f"{place}{carried.failed.thing.title}: "
    failure.message = f"{at}{failure.message}"
    way_out = f"{len(carried.done)} of {count} steps are done; not done: {named or 'nothing'}. Run it again to go on"
    failure.hint = f"{failure.hint}; {way_out}" if failure.hint else way_out
    return failure
