"""What the supervisor hands to the processes it starts, one JSON line on their standard input, and what they say back.

A child answers one line on its standard output when it listens (``Listening``) or why it cannot (``Stillborn``). After
the first line its input stays open; its end means that the supervisor is gone. The console is told more on it when the
configuration was read again (``Adopt``, ``NotReread``), and answers, or asks for that, in the same way.
"""

import msgspec

from faregate.config.findings import Finding
from faregate.config.secrets import Secrets
from faregate.config.settings import TlsSettings
from faregate.errors import ConfigError, Conflict, Failed, FaregateError, Unavailable, Unsafe


class ConsoleSettings(msgspec.Struct, frozen=True):
    """Everything the console process is told at its start."""

    #: ``Config`` as JSON, secrets included; relative file names start at ``folder``.
    config: msgspec.Raw
    folder: str
    data_dir: str
    host: str
    port: int
    gateway_url: str
    secrets: Secrets
    tls: TlsSettings | None = None
    log_level: str = "info"
    log_format: str = "json"
    attached: bool = False
    #: What the gate is told at its start, as JSON: whoever speaks to a gate can say it again.
    gate: msgspec.Raw = msgspec.Raw(b"")
    #: Paths of settings whose values came from references, and are told to nobody.
    references: tuple[str, ...] = ()


class SimulatorSettings(msgspec.Struct, frozen=True):
    """What the built-in provider is told at its start."""

    port: int
    truth_file: str
    log_level: str = "info"
    log_format: str = "json"


class Listening(msgspec.Struct, frozen=True, tag="listening"):
    """The child accepts connections on ``port``."""

    port: int


class Stillborn(msgspec.Struct, frozen=True, tag="stillborn"):
    """The child cannot start, for a reason that a person can mend."""

    message: str
    code: str
    exit_code: int
    hint: str = ""


class Adopt(msgspec.Struct, frozen=True, tag="adopt"):
    """To the console: work by these settings from now on, and let the gate do so, too; or neither does."""

    number: int
    settings: ConsoleSettings
    #: Keys that changed and wait for a restart.
    restart: tuple[str, ...] = ()
    #: What is worth saying about the configuration, a line each.
    warnings: tuple[str, ...] = ()
    #: The newest ``RereadWanted`` that was there before the file was read; this answers all up to it.
    answers: int = 0


class NotReread(msgspec.Struct, frozen=True, tag="not_reread"):
    """To the console: the configuration could not be used, for these reasons; everything stays as it is."""

    code: str
    message: str
    problems: tuple[Finding, ...] = ()
    #: As in ``Adopt``.
    answers: int = 0


class Adopted(msgspec.Struct, frozen=True, tag="adopted"):
    """From the console: what became of an order to adopt settings; ``trouble`` is why it did not."""

    number: int
    trouble: str = ""


class RereadWanted(msgspec.Struct, frozen=True, tag="reread_wanted"):
    """From the console: somebody asks for the configuration to be read again."""

    #: Greater than that of whoever asked before, and than all of a console that ran before.
    number: int


encode = msgspec.json.Encoder().encode
decode_console = msgspec.json.Decoder(ConsoleSettings).decode
decode_simulator = msgspec.json.Decoder(SimulatorSettings).decode
decode_order: msgspec.json.Decoder[Adopt | NotReread] = msgspec.json.Decoder(Adopt | NotReread)
decode_word: msgspec.json.Decoder[Adopted | RereadWanted] = msgspec.json.Decoder(Adopted | RereadWanted)
decode_first_word: msgspec.json.Decoder[Listening | Stillborn] = msgspec.json.Decoder(Listening | Stillborn)

_BY_EXIT_CODE: dict[int, type[FaregateError]] = {1: Failed, 2: ConfigError, 3: Unavailable, 4: Unsafe}


def stillborn(error: FaregateError) -> Stillborn:
    """An error as a child tells it."""
    return Stillborn(error.message, error.code, error.exit_code, error.hint)


def as_error(told: Stillborn) -> FaregateError:
    """The error that a child told of, to be raised in the process that asked for it."""
    kind = _BY_EXIT_CODE.get(told.exit_code, Failed)
    if told.code in (Conflict.code, "already_running"):
        kind = Conflict
    return kind(told.message, code=told.code, hint=told.hint)
