"""Section e6 of the bad-input catalogue: every way to call a command wrongly, or at a wrong moment.

One row per variant, its id beginning with that of the catalogue (L01 to L86); ``test_cli`` runs each for people and for
scripts. Rows speak to one installation that runs (``at``), or to a copy of one that does not (``here``), whose folder a
builder may spoil first. What takes a process of its own is proven elsewhere, and the data file says where.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from typing import NamedTuple

from bad_input.cli_places import (
    CANARY,
    Place,
    altered,
    booked,
    empty,
    flipped_backup,
    half_backup,
    newer_backup,
    unreachable,
)

#: Codes → exit code, where it is not 2: wrong usage, a wrong value or a wrong configuration.
EXITS: Mapping[str, int] = {
    "": 0,
    "not_found": 1,
    "conflict": 1,
    "backup_invalid": 1,
    "failed": 1,
    "unavailable": 3,
    "refused": 4,
    "invariant": 4,
}

Build = Callable[[Place], object]


def nothing(place: Place) -> None:
    """The folder is good as it is."""


class Row(NamedTuple):
    """One call of a command. Without a code it goes well; what it then says of interest is in ``has`` all the same."""

    id: str
    words: tuple[str, ...]
    code: str = ""
    #: All of these are said, on standard error where there is a code, else on either.
    has: tuple[str, ...] = ()
    hasnt: str = ""
    typed: str = ""
    environment: Mapping[str, str] = {}
    build: Build = nothing
    #: Looks at what the command left in the folder; ``None`` where it must have left nothing.
    left: Callable[[Place], bool] | None = None
    #: It goes well and changes the books: that is not what is wrong with it.
    changes: bool = False
    #: The command looks for what is wrong, so that scripts get it as its result, on standard output.
    report: bool = False
    #: Of such a command that has no problems with codes: the names of all that it found failed.
    failed: tuple[str, ...] = ()
    #: The command speaks JSON.
    json: bool = True


def at(*words: str) -> tuple[str, ...]:
    """A command for the installation that runs."""
    return (*words, "--data", "{data}")


def here(*words: str) -> tuple[str, ...]:
    """A command for the copy in the row's own folder."""
    return (*words, "--data", "data")


def set_limit(*words: str) -> tuple[str, ...]:
    """A limit in dollars a day, with something else about it."""
    return at("limit", "set", "--select", "team={name}", "--unit", "usd", "--window", "day", *words)


def deposit(amount: str) -> tuple[str, ...]:
    """Something paid into the limit of ten dollars."""
    return at("limit", "deposit", "{limit}", f"--amount={amount}")


# -- folders and files that a row finds --------------------------------------------------------------------------------


def written(name: str, text: str) -> Build:
    """A file of the row's folder."""

    def build(place: Place) -> None:
        (place.folder / name).write_text(text)
        (place.folder / name).chmod(0o600)

    return build


def a_pipe(place: Place) -> None:
    """Something with a name that is no file."""
    os.mkfifo(place.folder / "pipe")


def _no_books(place: Place) -> bool:
    return not place.books.exists()


def _for_its_owner(place: Place) -> bool:
    return all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in place.folder.iterdir())


NEWER = altered("UPDATE alembic_version SET version_num = '9999'")
CONFIG = f'providers: [{{name: sim, kind: openai, base_url: "http://127.0.0.1:1/v1", api_key: {CANARY}}}]\n'
MANY_PROBLEMS = "providers:\n" + "".join(
    f"  - {{name: p{number}, kind: openai, base_url: nope}}\n" for number in range(500)
)

BAD_PRICES = """\
provider,model,unit,per,price
openai,gpt-4o,words,1M,2
openai,gpt-4o,input_tokens,1M,-1
"""

ROWS: tuple[Row, ...] = (
    # -- words that every command reads alike --------------------------------------------------------------------------
    Row("L01", (), "usage", ("no command",)),
    Row("L02", ("serv",), "usage", ("did you mean serve?", "--help")),
    Row("L02 below", ("key", "creat"), "usage", ("Did you mean 'create'?", "`faregate key --help`")),
    Row("L03", ("check", "--confg", "x"), "usage", ("--confg", "--config", "--help")),
    Row("L04", ("check", "--config"), "usage", ("--config", "requires an argument")),
    Row("L05", ("check", "--config", "a", "--config", "b"), "usage", ("--config was given twice",)),
    Row("L05 joined", ("check", "--config=a", "--config", "b"), "usage", ("--config was given twice",)),
    Row("L06", ("simulator", "--port", "abc"), "value", ("--port", "integer")),
    Row("L06 range", ("simulator", "--port", "70000"), "value", ("--port", "65535")),
    Row("L06 address", ("serve", "--gateway", "127.0.0.1:abc"), "value", ("abc is not a port", "--gateway")),
    Row("L06 too high", ("serve", "--gateway", "127.0.0.1:70000"), "value", ("not a port", "65535")),
    Row("L07", ("check", "--config", "nope.yaml"), "CFG-IO", ("nope.yaml",), report=True),
    Row("L07 start", ("serve", "--data", "data"), "CFG-IO", ("faregate init",)),
    Row("L08", ("key", "show", "--data", "{data}", "--", "-dash"), has=("-dash",)),
    Row("L09", ("check", "--config", "x" * 1_048_576), "value", ("longer than 65536",)),
    Row("L10", ("check", "--config", "\udcff\udcfe"), "value", ("is not UTF-8",)),
    Row("L11", at("key", "create", "--name", "a\x1b[2J"), "value", ("control characters",), hasnt="\x1b"),
    Row("L11 line", at("key", "create", "--name", "a\nb"), "value", ("control characters",)),
    Row("L12", at("key", "create", "--name", ""), "field_range", ("name",)),
    Row("L12 team", at("team", "create", "--name", " "), "field_range", ("name",)),
    Row("L13", ("-h",), has=("Usage: faregate",), json=False),
    Row("L13 command", ("serve", "-h"), has=("Usage: faregate serve", "--gateway"), json=False),
    Row("L13 below", ("key", "create", "--name", "a", "-h"), has=("Usage: faregate key create",), json=False),
    Row("L13 long", ("check", "--help"), has=("Usage: faregate check",), json=False),
    Row("L14", ("--version",), has=("faregate ",), json=False, build=written("faregate.yaml", "{")),
    Row("L15", ("serve", "--demo", "--config", "x"), "usage", ("--demo", "--config", "exclude each other")),
    Row(
        "L15 secret",
        at("provider", "create", "--name", "p", "--kind", "openai", "--secret-stdin", "--secret-file", "x"),
        "usage",
        ("--secret-stdin", "--secret-file", "exclude each other"),
    ),
    Row(
        "L15 keys",
        at("key", "create", "--name", "a", "--from-file", "x.csv"),
        "usage",
        ("--from-file", "--name", "exclude each other"),
    ),
    Row("L15 limit", at("limit", "history", "{limit}", "--unit", "usd"), "usage", ("by its id, or by --unit",)),
    Row("L18", ("serve", "--gateway", "a b:4000"), "value", ("no usable host", "127.0.0.1:4000")),
    Row("L18 empty", ("serve", "--console", ":4000"), "value", ("no usable host", "--console")),
    Row("L18 no port", ("serve", "--gateway", "localhost"), "value", ("the port is missing",)),
    Row("L19", ("serve", "--gateway", "::1:4000"), "value", ("needs brackets", "[::1]:4000")),
    Row("L19 half", ("serve", "--gateway", "[::1:4000"), "value", ("[::1]:4000",)),
    # -- the installation ----------------------------------------------------------------------------------------------
    Row(
        "L22",
        ("check",),
        "CFG-RANGE",
        ("faregate.yaml:1:", "faregate.yaml:2:", "expected"),
        build=written("faregate.yaml", CONFIG.replace("kind: openai", "kind: opnai") + "storage: postgres\n"),
        report=True,
    ),
    Row(
        "L22 start",
        ("serve", "--data", "data"),
        "CFG-RANGE",
        ("faregate.yaml:1:", "faregate.yaml:2:"),
        build=written("faregate.yaml", CONFIG.replace("kind: openai", "kind: opnai") + "storage: postgres\n"),
    ),
    Row("L23", here("key", "list"), "unavailable", ("the books cannot be opened", "books.sqlite3"), build=unreachable),
    Row(
        "L25",
        here("key", "list"),
        "refused",
        ("schema 9999", "knows up to {schema}", "newer version"),
        build=NEWER,
    ),
    Row("L26", ("serve", "--workers", "4"), "usage", ("--workers",)),
    # -- keys ----------------------------------------------------------------------------------------------------------
    Row("L31", at("key", "create"), "usage", ("--name", "--from-file")),
    Row("L32", at("key", "create", "--name", "ci"), "conflict", ("a key of this name exists",)),
    Row("L32 payer", at("team", "create", "research"), "conflict", ("a team of this name exists",)),
    Row("L36", at("key", "create", "--name", "a", "--expires", "2020-01-01T00:00:00Z"), "field_range", ("expires_at",)),
    Row("L37", at("team", "show", "nowhere"), "not_found", ("no such team",)),
    Row(
        "L37 subscription",
        at("key", "create", "--name", "a", "--subscription", "sub_0"),
        "field_range",
        ("there is no such subscription",),
    ),
    Row(
        "L38",
        at("key", "create", "--name", "{name}"),
        has=("shown only now", "whoever reads that can use the key"),
        changes=True,
    ),
    Row(
        "L39",
        at("key", "create", "--name", "a", "--out", "secret"),
        "refused",
        ("secret exists", "--force"),
        build=written("secret", "precious"),
    ),
    Row("L39 export", at("export", "--out", "x.yaml"), "refused", ("--force",), build=written("x.yaml", "precious")),
    Row("L39 pipe", at("key", "create", "--name", "a", "--out", "pipe", "--force"), "refused", build=a_pipe),
    Row("L39 device", at("export", "--out", "pipe", "--force"), "refused", ("no regular file",), build=a_pipe),
    Row(
        "L40",
        at("key", "create", "--name", "{name}", "--out", "{name}.txt"),
        hasnt="sk-",
        left=_for_its_owner,
        changes=True,
    ),
    Row("L41", at("key", "show", "ci", "--secret"), "refused", ("only a digest", "rotate")),
    Row("L42", at("key", "revoke", "key_zzz", "--yes"), "not_found", ("no such key",)),
    Row("L42 path", at("key", "revoke", "a/../b", "--yes"), "not_found", ("no such key",)),
    Row("L43", at("key", "revoke", "ci"), "refused", ("cannot be undone", "--yes")),
    Row("L43 payer", at("team", "delete", "research"), "refused", ("--yes",)),
    Row("L44", at("key", "revoke", "key_", "--yes"), "conflict", ("{key}", "{turning}", "write the whole id")),
    Row("L45", at("key", "rotate", "turning", "--grace", "60"), "conflict", ("grace",)),
    # -- amounts -------------------------------------------------------------------------------------------------------
    Row("L33", set_limit("--amount", "10,5"), "field_range", ("amount", "12.50")),
    Row("L34", set_limit("--amount=-1"), "field_range", ("amount", "negative")),
    Row("L34 deposit", deposit("-5"), "field_range", ("amount",)),
    Row(
        "L35",
        at("limit", "set", "--unit", "euro", "--amount", "1", "--window", "day"),
        "field_enum",
        ("unit", "usd, tokens"),
    ),
    Row(
        "L46",
        at("limit", "set", "--select", "team=research", "--unit", "usd", "--amount", "0.0001", "--window", "day"),
        has=("no new requests are admitted until",),
        changes=True,
    ),
    Row("L47", at("limit", "set", "--amount", "5", "--window", "day"), "usage", ("--unit",)),
    Row("L48", at("limit", "refund", "{limit}", "--amount", "1"), "usage", ("--reason",)),
    Row("L49", (*deposit("5"), "--reference", "inv-1"), has=("15",)),
    Row("L50", (*deposit("6"), "--reference", "inv-1"), "conflict", ("this reference made an entry",)),
    Row("L51", at("limit", "deposit", "{gone}", "--amount", "5"), "not_found", ("limit",)),
    Row("L52", deposit("10000000000000000000"), "field_range", ("1000000000",)),
    Row("L52 limit", set_limit("--amount", "10000000000000000000"), "field_range", ("1000000000",)),
    Row("L53", deposit("NaN"), "field_range", ("amount",)),
    Row("L53 limit", set_limit("--amount", "NaN"), "field_range", ("amount",)),
    Row("L54", deposit("0.30000000000000004"), "field_range", ("decimals",)),
    Row("L54 price", at("price", "set", "--provider", "openai", "--model", "gpt-4o", "--unit", "input_tokens",
        "--price", "0.1234567890123456789"), "field_range", ("decimals",)),
    # -- what is looked at, and where it is written --------------------------------------------------------------------
    Row("L55", at("usage", "--from", "2026-12-01", "--to", "2026-11-01"), "filter_invalid", ("from",)),
    Row("L56", at("usage", "--from", "01/11/2026"), "filter_invalid", ("2026-11-01",)),
    Row("L56 requests", at("requests", "--since", "yesterday"), "filter_invalid", ("since",)),
    Row(
        "L57",
        at("price", "import", "p.csv", "--format", "xlsx"),
        "field_enum",
        ("format", "litellm"),
        build=written("p.csv", "provider,model,unit,per,price\n"),
    ),
    Row("L58", at("export", "--out", "nowhere/x.yaml"), "failed", ("nowhere",)),
    Row(
        "L58 state",
        at("apply", "--file", "s.yaml", "--yes", "--out", "nowhere/x"),
        "failed",
        ("nowhere",),
        build=written("s.yaml", "keys: [{name: made}]\n"),
    ),
    Row("L58 secret", at("key", "create", "--name", "a", "--out", "nowhere/x"), "failed", ("nowhere/x",)),
    Row("L58 backup", at("backup", "nowhere/x.tar"), "failed", ("could not be written",)),
    Row("L61", at("requests", "--limit", "1001"), "page_invalid", ("1000",)),
    Row("L62", set_limit("--amount", "1", "--timezone", "Mars/Base"), "field_enum", ("Europe/Berlin",)),
    Row(
        "L63",
        at("usage", "--by", "team", "--from", "2020-01-01", "--to", "2020-02-01"),
        has=("team  requests  input_tokens  output_tokens  cost  charge\n",),
    ),
    # -- books, backups and proofs -------------------------------------------------------------------------------------
    Row("L64", here("migrate"), "usage", ("there is no command",)),
    Row(
        "L66",
        here("key", "create", "--name", "a"),
        "refused",
        ("schema 9999", "run the newer version again"),
        build=NEWER,
    ),
    Row("L68", at("backup", "{data}/books.sqlite3", "--force"), "refused", ("inside the data folder",)),
    Row("L68 exists", at("backup", "{backup}"), "refused", ("--force",)),
    Row("L70", at("restore", "{backup}"), "refused", ("in use by process", "stop it first")),
    Row("L70 stopped", here("restore", "{backup}"), "conflict", ("books",), build=booked),
    Row("L71", here("restore", "half.tar"), "backup_invalid", ("half.tar",), build=half_backup, left=_no_books),
    Row(
        "L71 flipped",
        here("restore", "flipped.tar"),
        "backup_invalid",
        ("flipped.tar", "it is damaged"),
        build=flipped_backup,
        left=_no_books,
    ),
    Row("L71 other", here("restore", "x.tar"), "backup_invalid", build=written("x.tar", "{}"), left=_no_books),
    Row("L71 none", here("restore", "nope.tar"), "not_found", ("nope.tar is not a file",)),
    Row(
        "L72",
        here("restore", "newer.tar"),
        "refused",
        ("schema 9999", "knows up to {schema}"),
        build=newer_backup,
        left=_no_books,
    ),
    Row(
        "L73",
        here("verify"),
        "failed",
        ("posting",),
        build=altered("UPDATE requests SET cost = cost + 1"),
        report=True,
        failed=("rollups", "providers", "chain", "derived", "sums"),
    ),
    Row("L74", here("verify"), has=("0 requests, 0 postings", ": ok"), build=empty),
    Row("L75", at("reconcile"), "usage", ("reconcile", "--help")),
    Row("L77", at("bill", "import", "bill.csv"), "usage", ("bill", "--help")),
    Row("L78", at("outbox", "replay", "--from", "99"), "usage", ("outbox", "--help")),
    Row("L79", at("outbox", "replay", "--topic", "live"), "usage", ("outbox", "--help")),
    Row(
        "L76",
        at("price", "import", "p.csv"),
        "field_range",
        ("p.csv:2", "p.csv:3"),
        build=written("p.csv", BAD_PRICES),
    ),
    # -- secrets, and what lies around ---------------------------------------------------------------------------------
    Row(
        "L80",
        at("provider", "create", "--name", "p", "--kind", "openai", "--api-key", CANARY),
        "usage",
        ("--api-key",),
        hasnt=CANARY,
    ),
    Row("L80 joined", at("provider", "create", "--name", "p", "--kind", "openai", f"--api-key={CANARY}"), "usage"),
    Row("L80 found", at("key", "check", "{secret}"), "value", ("standard input",)),
    Row("L81", at("key", "check"), "value", ("nothing to check", "standard input"), typed="\n"),
    Row(
        "L81 provider",
        at("provider", "create", "--name", "p", "--kind", "openai", "--base-url", "https://8.8.4.4/v1",
           "--secret-stdin"),
        "value",
        ("standard input holds no key",),
        typed="\n",
    ),
    Row("L81 address", at("webhook", "add", "--name", "w", "--url", "-"), "value", ("holds no address",), typed="\n"),
    Row("L82", at("key", "check"), has=("ci",), typed="{secret}\r\n"),
    Row(
        "L82 provider",
        at("provider", "create", "--name", "{name}", "--kind", "openai", "--base-url", "https://8.8.4.4/v1",
           "--secret-stdin"),
        has=("sk-…11aa",),
        typed=f"{CANARY}\r\n",
        changes=True,
    ),
    Row(
        "L83",
        ("check",),
        has=("FAREGATE_GATEWAY_PROT", "did you mean"),
        environment={"FAREGATE_GATEWAY_PROT": "1"},
        build=written("faregate.yaml", CONFIG),
    ),
    Row(
        "L84",
        here("doctor"),
        "unavailable",
        ("configuration", "data folder", "clock", "does not exist"),
        report=True,
        failed=("data folder",),
    ),
    Row(
        "L85",
        ("check",),
        "CFG-RANGE",
        ("faregate.yaml:2:", "faregate.yaml:501:"),
        build=written("faregate.yaml", MANY_PROBLEMS),
        report=True,
    ),
)  # fmt: skip
