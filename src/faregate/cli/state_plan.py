"""What ``apply``, ``diff`` and ``export`` share: a file and an installation, compared, and how that is told."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from faregate.cli.output import emit, say
from faregate.cli.state_api import Api, Present, now_text, present
from faregate.cli.words import refuse_special
from faregate.config.environment import process_environment
from faregate.config.state_file import load_state
from faregate.config.state_things import LISTS, Entry, entries_of, thing_of, things_in
from faregate.core.desired_state import Change, Impossible, Plan, Step, Thing, plan
from faregate.errors import Conflict, Failed, Unsafe

File = Annotated[Path, typer.Option("--file", "-f", metavar="FILE", help="The state file.")]
Prune = Annotated[
    bool, typer.Option("--prune", help="Also take away what an earlier apply made and the file does not name any more.")
]

_MARKS = {"create": "+", "change": "~", "delete": "-"}


class Compared(NamedTuple):
    """A state file beside an installation."""

    plan: Plan
    wanted: dict[tuple[str, tuple[str, ...]], Entry]
    there: Present


class Asked(NamedTuple):
    """A state file that can be used: the things that it wants, and the entries that they are made from."""

    things: list[Thing]
    lists: dict[str, list[dict[str, Any]]]
    now: str


def read(file: Path) -> Asked:
    """Read a state file, before anything is asked of an installation.

    Raises:
        Invalid: it cannot be used.
    """
    found, now = load_state(file, process_environment()), now_text()
    return Asked(things_in(found, now), entries_of(found.state), now)


def compare(api: Api, asked: Asked, *, prune: bool) -> Compared:
    """Look at the installation, and plan.

    Raises:
        FaregateError: the installation does not tell.
    """
    entries: dict[tuple[str, tuple[str, ...]], Entry] = {
        (thing.kind, thing.identity): entry
        for name, listed in asked.lists.items()
        for entry in listed
        for thing in (thing_of(LISTS[name], entry, asked.now),)
    }
    there = present(api, list(asked.lists), asked.now)
    return Compared(plan(asked.things, there.things, prune=prune), entries, there)


def refuse_impossible(found: Sequence[Impossible]) -> None:
    """Refuse a file of which something cannot come about.

    Raises:
        Conflict: all of it, one a line.
    """
    if found:
        lines = [f"{each.thing.place}: {each.thing.title}: {each.problem}; hint: {each.hint}" for each in found]
        raise Conflict("\n".join(lines), code="conflict")


def show(found: Plan) -> None:
    """The steps of a plan, for people."""
    for step in found.steps:
        emit(f"{_MARKS[step.action]} {step.thing.title}")
        for change in step.changes:
            emit(f"    {_change_text(step, change)}")
    for thing in found.taken_over:
        emit(f"= {thing.title}: this file's from now on")
    for thing in found.left:
        say(f"the file does not name {thing.title}, which it made; add --prune to take it away")


def _change_text(step: Step, change: Change) -> str:
    after = _value_text(change.after)
    return (
        f"{change.field}: {after}"
        if step.action == "create"
        else f"{change.field}: {_value_text(change.before)} → {after}"
    )


def _value_text(value: Any) -> str:
    if value is None:
        return "(as usual)"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_value_text(below)}" for name, below in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value_text, value)) + "]"
    return str(value)


def steps_json(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Steps for scripts."""
    return [
        {
            "action": step.action,
            "kind": step.thing.kind,
            "name": step.thing.title.removeprefix(f"{step.thing.kind} "),
            "at": step.thing.place or None,
            "changes": [change._asdict() for change in step.changes],
        }
        for step in steps
    ]


def plan_json(found: Plan) -> dict[str, Any]:
    """A plan for scripts."""
    return {
        "same": not found.steps,
        "steps": steps_json(found.steps),
        "impossible": [
            {"at": each.thing.place, "name": each.thing.title, "problem": each.problem, "hint": each.hint}
            for each in found.impossible
        ],
        "left": [each.title for each in found.left],
        "taken_over": [each.title for each in found.taken_over],
    }


def counted(found: Plan) -> str:
    """``3 to create, 1 to change``, or that there is nothing to do."""
    actions = [step.action for step in found.steps]
    told = [f"{actions.count(action)} to {action}" for action in _MARKS if action in actions]
    if found.taken_over:
        told.append(f"{len(found.taken_over)} to take over")
    return ", ".join(told) or "nothing to change"


def write_new(file: Path, text: str, *, force: bool) -> None:
    """Write a file that only its owner may read: all of it, or nothing, so that what it replaces is not lost.

    Raises:
        Unsafe: it is there already.
    """
    refuse_existing(file, force=force)
    # A link to a file is followed, as opening it would.
    file = file.resolve()
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            os.fchmod(descriptor, 0o600)
            opened.write(text)
        draft.replace(file)
    except BaseException:  # However it fails, no half of a file stays.
        draft.unlink(missing_ok=True)
        raise


def refuse_existing(file: Path | None, *, force: bool) -> None:
    """Refuse to replace a file that nobody said may be replaced, and find out early that none can be written.

    Raises:
        Failed: there is no such folder.
        Unsafe: it is there already.
    """
    if file is not None and not file.parent.is_dir():
        raise Failed(f"{file.parent} is not a folder that {file.name} could be written into")
    if file is not None:
        refuse_special(file)
    if file is not None and file.exists() and not force:
        raise Unsafe(f"{file} exists", hint="name another file, or add --force")
