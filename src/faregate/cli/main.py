"""From the words of a command line to the command that they mean, and from whatever comes of it to an exit code.

Exit codes: 0 done, 1 failed or not found, 2 wrong usage or configuration, 3 unavailable, 4 refused as unsafe.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import faregate
from faregate.errors import FaregateError, UsageError

#: No argument needs more; a longer one is a file that was meant to be named.
ARGUMENT_CHARACTERS_MAX = 64 * 1024
HELP = ("-h", "--help")
EXIT_INTERRUPTED = 130


class Command(NamedTuple):
    """A command: the module that holds it, and one line about it; several that are alike may share one."""

    module: str
    about: str


#: Each module has ``app``, a ``typer.Typer`` with commands of its own, ``apps`` of several commands by their names, or
#: ``command``, a function.
COMMANDS = {
    "serve": Command("serve", "start Faregate: gateway and console"),
    "init": Command("init", "write a commented faregate.yaml and the secrets it needs"),
    "check": Command("check", "check a configuration, all problems at once"),
    "doctor": Command("doctor", "look at a running or stopped installation"),
    "reload": Command("reload", "let a running installation read its configuration again"),
    "apply": Command("apply", "make the state what a file says: keys, limits, prices"),
    "diff": Command("diff", "tell what apply would change"),
    "export": Command("export", "write the state as such a file"),
    "key": Command("key", "create, list, show, rename, rotate, disable and revoke keys"),
    "secrets": Command("secrets", "look at the peppers of keys' digests, and change them"),
    "organization": Command("payers", "organizations: who pays"),
    "team": Command("payers", "teams"),
    "project": Command("payers", "projects"),
    "user": Command("payers", "users, and what their keys are restricted to"),
    "product": Command("payers", "products, and what their keys are restricted to"),
    "subscription": Command("payers", "subscriptions of teams and users to products"),
    "stage": Command("payers", "stages"),
    "limit": Command("limit", "set, list and clear limits"),
    "alert": Command("alert", "list alerts, mark them as seen, try the channels"),
    "webhook": Command("webhook", "list, add and remove channels for alerts"),
    "provider": Command("provider", "list, create, change, test and delete providers"),
    "deployment": Command("deployment", "list, create, change and delete deployments"),
    "pool": Command("pool", "list, create, change and delete pools of deployments"),
    "model": Command("model", "list, create, change and delete names of models"),
    "service": Command("service", "list, create, change and delete HTTP services behind the gate"),
    "price": Command("price", "list, set, change, import, sync and explain prices"),
    "quote": Command("quote", "tell what a call will cost, without making it"),
    "usage": Command("usage", "sum up what was used and charged"),
    "report": Command("report", "tell what caches saved and how deployments compare"),
    "requests": Command("requests", "look at single requests"),
    "content": Command("content", "look at what was kept of prompts and answers"),
    "cache": Command("cache", "look at the response cache, and have it forget answers"),
    "explain": Command("explain", "tell where a request went, or where a call would go, and why"),
    "rehearse": Command("rehearse", "ask what proposed limits would have refused"),
    "reprice": Command("reprice", "price a period again, and correct what was booked"),
    "capacity": Command("capacity", "split fixed commitments by use"),
    "verify": Command("verify", "prove that nothing booked was changed, and that it adds up"),
    "audit": Command("audit", "look at the trail of changes"),
    "backup": Command("backup", "write a backup of books and trail, while in use too"),
    "restore": Command("restore", "restore a backup into an empty data folder"),
    "simulator": Command("simulator", "run the provider simulator alone"),
}


def run(arguments: Sequence[str]) -> int:
    """Carry out a command line; returns the exit code. Nothing escapes but ``SystemExit`` of the interpreter."""
    from faregate.cli import output

    for stream in (sys.stdout, sys.stderr):
        # Names may hold any character, and a terminal may know only some.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    as_json = "--json" in arguments
    try:
        code = _dispatch(_readable(arguments))
        sys.stdout.flush()
        return code
    except FaregateError as error:
        return output.report(error, as_json=as_json)
    except (BrokenPipeError, output.ReaderLeft):
        output.close_quietly()
        return output.EXIT_PIPE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as error:
        output.drop_unwritten()
        where = f": {error.filename}" if error.filename else ""
        reason = (error.strerror or str(error)).lower()
        return output.report(FaregateError(f"{reason}{where}", code="failed"), as_json=as_json)
    except Exception as error:  # The last resort: whatever it is, a user gets a sentence and not a traceback.
        return output.report(_internal(error), as_json=as_json)


def _internal(error: Exception) -> FaregateError:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}" if trace is not None else "?"
    hint = f"please report it with this line: {type(error).__name__} at {where}, version {faregate.__version__}"
    return FaregateError("internal error", hint=hint)


def _dispatch(arguments: Sequence[str]) -> int:
    if not arguments:
        # A shell that completes a line says what it wants by a variable; looking takes a moment that nobody waits for.
        from faregate.cli import completion

        if instruction := completion.asked():
            return completion.answer(instruction)
        sys.stderr.write(_usage())
        raise UsageError("no command was given; try `faregate --help`")
    name = arguments[0]
    if name == "--version":
        sys.stdout.write(f"faregate {faregate.__version__}\n")
        return 0
    if name in (*HELP, "help"):
        sys.stdout.write(_usage())
        return 0
    if name in ("--show-completion", "--install-completion"):
        from faregate.cli import completion, output

        do = completion.show if name == "--show-completion" else completion.install
        output.emit(do(list(arguments[1:])))
        return 0
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(f"there is no command {_quoted(name)}{_did_you_mean(name, COMMANDS)}; try `faregate --help`")
    return _call(name, command, list(arguments[1:]))


def program_of(name: str, command: Command) -> Any:
    """A command's parser, made from its module."""
    import typer

    module = importlib.import_module(f"faregate.cli.{command.module}")
    # Commands that are alike share a module.
    app = getattr(module, "apps", {}).get(name) or getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name, help=(module.command.__doc__ or "").strip())(module.command)
    program: Any = typer.main.get_command(app)
    program.context_settings["help_option_names"] = list(HELP)
    return program


def _call(name: str, command: Command, words: list[str]) -> int:
    import typer

    program = program_of(name, command)
    _refuse_repeats(program, words)
    below = words[:1] if words and words[0] in getattr(program, "commands", ()) else []
    asked = " ".join(["faregate", name, *below])
    try:
        code = program.main(args=words, prog_name=f"faregate {name}", standalone_mode=False)
    except typer.TyperException as error:
        # Typer's usage errors; their words are good, their layout is ours.
        text = error.format_message().rstrip(".")
        # A missing option is a kind of bad parameter to Typer; to us only a value can be a bad value.
        code = "value" if type(error) is typer.BadParameter else "usage"
        raise UsageError(f"{text[:1].lower()}{text[1:]}; try `{asked} --help`", code=code) from None
    except typer.Abort:
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else 0


def _refuse_repeats(program: Any, words: Sequence[str]) -> None:
    """An option that holds one value and is given twice means that somebody edited a line: which one counts?"""
    for word in words:
        if not hasattr(program, "commands") or word.startswith("-"):
            break
        program = program.commands.get(word, program)
        program.context_settings.setdefault("help_option_names", list(HELP))
    seen: set[str] = set()
    for word in words:
        if word == "--":
            break
        option = word.partition("=")[0]
        for parameter in program.params:
            if (
                option not in parameter.opts
                or getattr(parameter, "multiple", True)
                or getattr(parameter, "is_flag", True)
            ):
                continue
            if parameter.name in seen:
                raise UsageError(f"{option} was given twice")
            seen.add(parameter.name)


def _readable(words: Sequence[str]) -> list[str]:
    """The words as text, whatever the locale made of their bytes.

    Raises:
        UsageError: one of them is too long, is not UTF-8, or holds control characters.
    """
    readable: list[str] = []
    for at, word in enumerate(words, start=1):
        if len(word) > ARGUMENT_CHARACTERS_MAX:
            raise UsageError(f"argument {at} is longer than {ARGUMENT_CHARACTERS_MAX} characters", code="value")
        try:
            readable.append(os.fsencode(word).decode())
        except UnicodeDecodeError:
            raise UsageError(f"argument {at} is not UTF-8", code="value") from None
        if any(ord(character) < 32 or ord(character) == 127 for character in readable[-1]):
            raise UsageError(f"argument {at} holds control characters", code="value")
    return readable


def _quoted(word: str) -> str:
    return f'"{word[:64]}"'


def _did_you_mean(word: str, known: Sequence[str] | dict[str, Command]) -> str:
    near = difflib.get_close_matches(word[:64], list(known), n=1, cutoff=0.5)
    return f", did you mean {near[0]}?" if near else ""


def _usage() -> str:
    lines = ["Usage: faregate COMMAND [OPTIONS]", "", "The cost gateway for LLM APIs.", "", "Commands:"]
    lines += [f"  {name:<12} {command.about}" for name, command in COMMANDS.items()]
    lines += [
        "",
        "Options:",
        "  --version  print the version",
        "  -h, --help  print this, or the help of a command",
        "  --install-completion [SHELL]  let bash, zsh, fish or PowerShell complete what is typed",
        "  --show-completion [SHELL]  print the script for that, to put it somewhere else",
        "",
    ]
    return "\n".join(lines)
