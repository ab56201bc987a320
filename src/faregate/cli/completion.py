"""Completion of command lines in shells: the script that a shell needs, and the answers to what it asks.

A shell that completes starts the program without a word, and says by a variable what was typed so far. Only the module
of the command that is typed is loaded for an answer.
"""

import importlib
from pathlib import PurePath
from typing import Any, Final

from faregate.config.environment import process_environment
from faregate.errors import Failed, UsageError

VARIABLE: Final = "_FAREGATE_COMPLETE"
PROGRAM: Final = "faregate"
SHELLS: Final = ("bash", "zsh", "fish", "powershell", "pwsh")


def asked() -> str:
    """What a shell asks that completes a line; empty where none does."""
    return process_environment().get(VARIABLE, "")


def answer(instruction: str) -> int:
    """Tell the shell what may come next; the exit code."""
    completion = _typers()
    completion.completion_init()
    return int(completion.shell_complete(_every_command(), {}, PROGRAM, VARIABLE, instruction))


def show(words: list[str]) -> str:
    """The script that a shell reads, such as from ``~/.bashrc``.

    Raises:
        UsageError: no such shell, or none is known.
    """
    completion = _typers()
    return str(completion.get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=_shell(words)))


def install(words: list[str]) -> str:
    """Put the script where the shell finds it at its next start; what was done, as a sentence.

    Raises:
        UsageError: no such shell, or none is known.
        Failed: the shell's own files cannot be changed.
    """
    completion = _typers()
    shell = _shell(words)
    try:
        _, path = completion.install(shell=shell, prog_name=PROGRAM, complete_var=VARIABLE)
    except (OSError, RuntimeError) as error:
        hint = f"put the output of `faregate --show-completion {shell}` where {shell} reads it"
        raise Failed(f"the completion for {shell} cannot be installed: {error}", hint=hint) from None
    return f"{shell} completion installed in {path}; it works in shells that are started from now on"


def _typers() -> Any:
    """Typer's own completion, which it does not export by name; loaded only when a shell asks."""
    return importlib.import_module("typer.completion")


def _shell(words: list[str]) -> str:
    shell = words[0] if words else PurePath(process_environment().get("SHELL", "")).name
    if shell not in SHELLS or len(words) > 1:
        told = f"{shell[:32]!r} is none that completes" if shell else "it is not known which shell this is"
        raise UsageError(f"{told}; name one of {', '.join(SHELLS)}", code="value")
    return shell


def _every_command() -> Any:
    """All commands as one program, each made when it is looked at."""
    import typer
    from typer.core import TyperGroup

    from faregate.cli.main import COMMANDS, program_of

    class Commands(TyperGroup):
        """The commands by their names."""

        def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
            """All of them, in the order of the help."""
            return list(COMMANDS)

        def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
            """The one of this name; of those that only a list wants no more than the line about them."""
            if cmd_name not in COMMANDS:
                return None
            return program_of(cmd_name, COMMANDS[cmd_name])

    return Commands(name=PROGRAM)
