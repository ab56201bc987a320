"""The catalogue of bad configurations: everything that can be wrong with what an installation is started with.

One row per variant, its id that of the catalogue (C01 to C90); ``test_config`` tries each as `check` and `serve` would.
Most rows are a change to a configuration that is good, and the change alone is what must be found wrong.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from faregate.config.findings import Invalid
from faregate.config.folder import DataFolder, folder_problems, prepare, take_lock
from faregate.config.load import Loaded, load, load_text
from faregate.config.secrets import read_secrets, secrets_of
from faregate.errors import FaregateError

#: Stands for every secret: no message may show it.
CANARY = "sk-canary-5d1f0c7b9e24a86311aa"
ENVIRONMENT: dict[str, str] = {"KEY": CANARY, "EMPTY": "", "NESTED": "${KEY}", "PORT": "4444", "WORD": "four"}

GOOD = """\
providers:
  - name: openai
    kind: openai
    base_url: https://api.openai.com/v1
    api_key: ${KEY}
  - name: azure
    kind: azure_openai
    base_url: https://example.openai.azure.com
    api_key: ${KEY}
    api_version: "2024-10-21"
deployments:
  - {name: weu, provider: azure, deployment: my-gpt4o, model: gpt-4o}
models:
  - {name: gpt-4o, to: [weu, openai/gpt-4o]}
pricing:
  overrides:
    - {provider: openai, model: house, unit: input_tokens, per: 1000000, price: "2.50"}
stages:
  dev: {providers: [openai]}
gateway: {port: 4000}
console: {port: 4001}
"""

PROVIDERS = GOOD[: GOOD.index("deployments")]


class Told(NamedTuple):
    """One thing that was said: its code, the line of the file (0 for none), and the words."""

    code: str
    line: int
    words: str


class Trial(NamedTuple):
    """What came of trying a row: what was refused, and what was only warned of."""

    refused: tuple[Told, ...] = ()
    warned: tuple[Told, ...] = ()


#: Tries something in a folder of the test's own.
Build = Callable[[Path], Trial]


class Row(NamedTuple):
    """One bad input, and what must be said of it. Without a code it must be taken, with ``warns`` it is warned of."""

    id: str
    build: Build
    code: str = ""
    has: str = ""
    hasnt: str = ""
    line: int = 0
    warns: bool = False


def tried(attempt: Callable[[], Loaded | object]) -> Trial:
    """Try it, and collect what is said."""
    try:
        found = attempt()
    except Invalid as invalid:
        return Trial(tuple(Told(each.code, each.place.line, each.line()) for each in invalid.findings))
    except FaregateError as error:
        return Trial((Told(error.code, 0, f"{error.message}; {error.hint}"),))
    if isinstance(found, Loaded):
        return Trial((), tuple(Told(each.code, each.place.line, each.line()) for each in found.warnings))
    return Trial()


@dataclass(frozen=True)
class Content:
    """A configuration's bytes, read with some environment."""

    content: bytes
    environment: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)

    def __call__(self, folder: Path) -> Trial:
        return tried(lambda: load_text(self.content, "faregate.yaml", self.environment, folder))


def content(data: bytes) -> Content:
    """These bytes as the file."""
    return Content(data)


def swap(old: str, new: str, **environment: str) -> Content:
    """The good configuration with ``old`` changed to ``new``."""
    assert old in GOOD, old
    return Content(GOOD.replace(old, new, 1).encode(), {**ENVIRONMENT, **environment})


def added(text: str, **environment: str) -> Content:
    """The good configuration with more at its end."""
    return Content((GOOD + text).encode(), {**ENVIRONMENT, **environment})


def a_file(make: Callable[[Path], Path]) -> Build:
    """A file that ``make`` puts into the folder, and says where."""
    return lambda folder: tried(lambda: load(make(folder), ENVIRONMENT))


def a_folder(make: Callable[[Path], object]) -> Build:
    """A data folder, looked at as a start does."""
    return lambda folder: tried(lambda: make(folder))


def _written(folder: Path, text: str, mode: int) -> Path:
    file = folder / "faregate.yaml"
    file.write_text(text)
    file.chmod(mode)
    return file


def _large(folder: Path) -> Path:
    file = folder / "large.yaml"
    file.write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    return file


def _round_and_round(folder: Path) -> Path:
    # Nobody can open it, whoever they are: a mode stops everybody but root.
    file = folder / "faregate.yaml"
    file.symlink_to(file)
    return file


def _secret_beside(folder: Path, data: bytes) -> Path:
    (folder / "openai.key").write_bytes(data)
    return _written(folder, GOOD.replace("${KEY}", "file:openai.key", 1), 0o600)


def _secrets(**changed: object) -> Callable[[Path], object]:
    """The secrets of an installation with some of them changed."""

    def read(folder: Path) -> object:
        file = DataFolder(prepare(folder / "data").root).secrets
        whole = json.loads(json.dumps(_RANDOM)) | changed
        descriptor = os.open(file, os.O_CREAT | os.O_WRONLY, 0o600)
        with open(descriptor, "w") as opened:
            json.dump(whole, opened)
        return read_secrets(file)

    return read


_HEX = bytes(range(7, 39)).hex()
_RANDOM = {"peppers": [{"id": "p1", "key": _HEX}], "session": _HEX, "installation": "i1", "encryption": []}


def _no_secrets(folder: Path) -> object:
    made = prepare(folder / "data")
    made.books.touch()
    return secrets_of(made, os.urandom)


def _other_pepper(folder: Path) -> object:
    # Loaded only here: the rest of the rows needs no books.
    from faregate.assembly.clock import SystemClock
    from faregate.console.accounts import PEPPER_NOTE, keys_without_pepper
    from faregate.storage.sqlite.opening import open_books

    made = prepare(folder / "data")
    clock = SystemClock()
    books = open_books(made.books, clock)
    try:
        books.put("key", {"id": "key_1", "name": "ci", "details": {PEPPER_NOTE: "of another"}})
        keys_without_pepper(books, (bytes(range(32)),), clock.wall_nanos())
    finally:
        books.close()
    return None


def _newer_books(folder: Path) -> object:
    import sqlite3

    from faregate.assembly.clock import SystemClock
    from faregate.storage.sqlite.opening import open_books

    made = prepare(folder / "data")
    clock = SystemClock()
    open_books(made.books, clock).close()
    with sqlite3.connect(made.books) as changed:
        changed.execute("update alembic_version set version_num = '9999'")
    changed.close()
    open_books(made.books, clock).close()
    return None


def _no_room(folder: Path) -> object:
    # A file system without any room, wherever the tests run.
    problems = folder_problems(DataFolder(Path("/proc")))
    raise next(each for each in problems if "MiB" in f"{each.message}")


def _on_the_network(folder: Path) -> object:
    # What the kernel would say of such a mount; making one needs rights that tests do not have.
    mounts = folder / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/export {folder} nfs4 rw 0 0\n")
    raise folder_problems(DataFolder(folder), mounts)[0]


def _shared(folder: Path) -> object:
    folder.chmod(0o777)
    raise folder_problems(DataFolder(folder))[0]


def _held(folder: Path) -> object:
    made = prepare(folder / "data")
    lock = take_lock(made)
    try:
        return take_lock(made)
    finally:
        lock.release()


def _bomb() -> bytes:
    lines = [f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)]
    return ("a: &a [x, x]\n" + "".join(lines)).encode()


def _tls(certificate: str, key: str, mode: int = 0o600) -> Build:
    import shutil

    def make(folder: Path) -> Path:
        for name in ("good.pem", "expired.pem", "good.key", "other.key"):
            shutil.copy(CERTIFICATES / name, folder / name)
            (folder / name).chmod(mode if name.endswith(".key") else 0o644)
        tls = f"gateway: {{host: 0.0.0.0, tls: {{certificate_file: {certificate}, key_file: {key}}}}}"
        return _written(folder, GOOD.replace("gateway: {port: 4000}", tls), 0o600)

    return a_file(make)


CERTIFICATES = Path(__file__).parent.parent / "config" / "certificates"

_CHANNEL = "alerts:\n  channels:\n    - {name: ops, url: 'https://example.com/hook', secret: %s}\n"
_HOOK = "alerts: {azure_budget: {secret: %s}}\n"
_ISSUER = "identity:\n  issuers:\n    - {name: corp, issuer: '%s', audiences: %s, algorithms: [%s]}\n"

ROWS = [
    # -- the file ------------------------------------------------------------------------------------------------------
    Row("C01", a_file(lambda folder: folder / "nope.yaml"), "CFG-IO", "faregate init"),
    Row("C02", a_file(lambda folder: folder), "CFG-IO", "this is a directory"),
    Row("C03", a_file(_round_and_round), "CFG-IO", "this process runs as uid"),
    Row(
        "C04",
        a_file(lambda folder: _written(folder, GOOD.replace("${KEY}", CANARY, 1), 0o644)),
        "CFG-UNSAFE",
        "chmod 600",
        line=5,
    ),
    Row("C04 owner only", a_file(lambda folder: _written(folder, GOOD.replace("${KEY}", CANARY, 1), 0o600))),
    Row("C04 a reference", a_file(lambda folder: _written(folder, GOOD, 0o644))),
    Row("C05 empty", content(b""), "CFG-MISSING", "providers"),
    Row("C05 only comments", content(b"# nothing\n"), "CFG-MISSING", "providers"),
    Row("C06 binary", content(b"\x00\x01\x02"), "CFG-SYNTAX", "binary"),
    Row("C06 latin-1", content(b"providers: caf\xe9\n"), "CFG-SYNTAX", "UTF-8"),
    Row("C06 control", content(b"providers: \x07\n"), "CFG-SYNTAX", "control character"),
    Row("C07", content("providers: []".encode("utf-16")), "CFG-SYNTAX", "save it as UTF-8"),
    Row("C08", content(b"\xef\xbb\xbf" + GOOD.encode())),
    Row("C13 bomb", content(_bomb()), "CFG-SYNTAX", "10,000"),
    Row("C13 itself", content(b"a: &a [*a]\n"), "CFG-SYNTAX", "deep"),
    Row("C13 merges itself", content(b"a: &a {<<: *a}\n"), "CFG-SYNTAX", "merges"),
    Row("C13 many nodes", content(b"a: [" + b"1," * 30_000 + b"]\n"), "CFG-SYNTAX", "10,000"),
    Row("C13 deep", content(b"[" * 5_000), "CFG-SYNTAX"),
    Row("C16", a_file(_large), "CFG-IO", "at most 4 MiB"),
    Row("C19 the file", content(b"- 1\n"), "CFG-TYPE", "mapping"),
    Row("C11 a list as key", content(b"? [a]\n: 1\n"), "CFG-SYNTAX", "not text"),
    # -- keys and values -----------------------------------------------------------------------------------------------
    Row("C09 tab", swap("  - name: openai\n", "\t- name: openai\n"), "CFG-SYNTAX", "use spaces", line=2),
    Row("C10 open quote", swap('"2.50"}', '"2.50}'), "CFG-SYNTAX", "never closed", line=17),
    Row(
        "C11 twice",
        swap("    kind: openai\n", "    kind: openai\n    name: b\n"),
        "CFG-SYNTAX",
        "on lines 2 and 4",
        line=4,
    ),
    Row("C12 two documents", swap("stages:", "---\nstages:"), "CFG-SYNTAX", "second document", line=19),
    Row("C14 python tag", swap("name: openai", "name: !!python/object:os.system x"), "CFG-SYNTAX", "tag", line=2),
    Row("C14 own tag", swap("port: 4000", "port: !port 4000"), "CFG-SYNTAX", "tag", line=20),
    Row("C14 str tag", swap("port: 4000", "port: !!str 4000"), "CFG-SYNTAX", "tag", line=20),
    Row(
        "C15 merge on list",
        swap("gateway: {port: 4000}", "gateway: {<<: [1], port: 4000}"),
        "CFG-SYNTAX",
        "merged",
        line=20,
    ),
    Row("C17 top key", swap("stages:", "stage:"), "CFG-UNKNOWN", "did you mean stages?", line=18),
    Row(
        "C17 future key",
        swap("stages:\n  dev: {providers: [openai]}", "events: {}"),
        "CFG-UNKNOWN",
        "not available yet",
        line=18,
    ),
    Row(
        "C18 nested key",
        swap("base_url: https://api", "base_ulr: https://api"),
        "CFG-UNKNOWN",
        "did you mean base_url?",
        line=4,
    ),
    Row("C19 list for map", swap("gateway: {port: 4000}", "gateway: [4000]"), "CFG-TYPE", "a mapping", line=20),
    Row(
        "C19 map for list",
        swap("models:\n  - {name: gpt-4o, to: [weu, openai/gpt-4o]}", "models: {}"),
        "CFG-TYPE",
        "a list",
        line=13,
    ),
    Row("C20 text port", swap("port: 4000", 'port: "abc"'), "CFG-TYPE", "a whole number", line=20),
    Row("C20 quoted port", swap("port: 4000", 'port: "4000"'), "CFG-TYPE", "a whole number", line=20),
    Row("C21 port 0", swap("port: 4000", "port: 0"), "CFG-RANGE", "at least 1", line=20),
    Row("C21 port 70000", swap("port: 4000", "port: 70000"), "CFG-RANGE", "at most 65535", line=20),
    Row("C21 port -1", swap("port: 4000", "port: -1"), "CFG-RANGE", "at least 1", line=20),
    Row("C22 bare no", swap("gateway: {port: 4000}", "gateway: {behind_proxy: no}"), "CFG-TYPE", "quote it", line=20),
    Row("C23 octal", swap("port: 4000", "port: 0755"), "CFG-TYPE", "quote it", line=20),
    Row("C24 underscores", swap("port: 4000", "port: 4_000"), "CFG-TYPE", "write 4000", line=20),
    Row("base 60", swap("port: 4000", "port: 4000:1"), "CFG-TYPE", "base 60", line=20),
    Row("C25 version", swap('"2024-10-21"', "1.10"), "CFG-TYPE", 'quote it: "1.10"', line=10),
    Row("C26 null", swap("name: openai\n", "name:\n"), "CFG-MISSING", "has no value", line=2),
    Row("C27 unset", swap("${KEY}\n  - name: azure", "${NOPE}\n  - name: azure"), "CFG-ENV", "NOPE is not set", line=5),
    Row("C28 empty", swap("${KEY}\n  - name: azure", "${EMPTY}\n  - name: azure"), "CFG-ENV", "EMPTY is empty", line=5),
    Row("C29 nested", swap("${KEY}\n  - name: azure", "${NESTED}\n  - name: azure"), "CFG-ENV", "do not nest", line=5),
    Row("C29 open", swap("${KEY}\n  - name: azure", "${KEY\n  - name: azure"), "CFG-ENV", "without the name", line=5),
    Row(
        "C30 no file", swap("${KEY}\n  - name: azure", "file:nope\n  - name: azure"), "CFG-REF", "no such file", line=5
    ),
    Row("C30 a folder", swap("${KEY}\n  - name: azure", "file:.\n  - name: azure"), "CFG-REF", "a directory", line=5),
    Row(
        "C31 open gateway",
        swap("{port: 4000}", "{host: 0.0.0.0, port: 4000}"),
        "CFG-UNSAFE",
        "behind_proxy: true",
        line=20,
    ),
    Row("C32 open console", swap("{port: 4001}", "{host: 10.0.0.1, port: 4001}"), "CFG-UNSAFE", "console.tls", line=21),
    Row(
        "C34 placeholder",
        swap("${KEY}\n  - name: azure", "changeme\n  - name: azure"),
        "CFG-SECRET",
        "placeholder",
        line=5,
    ),
    Row(
        "C40 no url",
        swap("    base_url: https://api.openai.com/v1\n", ""),
        "CFG-MISSING",
        "base_url: is missing",
        line=2,
    ),
    Row("C41 plain http", swap("https://api.openai", "http://api.openai"), "CFG-UNSAFE", "allow_http: true", line=4),
    Row("C43 private", swap("api.openai.com", "10.1.2.3"), "CFG-UNSAFE", "allow_private: true", line=4),
    Row("C43 mapped", swap("api.openai.com", "[::ffff:10.1.2.3]"), "CFG-UNSAFE", "allow_private: true", line=4),
    Row("C44 twice", swap("name: azure\n", "name: openai\n"), "CFG-CONFLICT", "providers[0]", line=6),
    Row("C45 provider", swap("provider: azure,", "provider: azur,"), "CFG-REF", "did you mean azure?", line=12),
    Row("C45 target", swap("to: [weu,", "to: [wue,"), "CFG-REF", "one of: weu, gpt-4o", line=14),
    Row("C45 stage", swap("providers: [openai]", "providers: [opena]"), "CFG-REF", "one of: openai, azure", line=19),
    Row(
        "C45 price",
        swap("overrides:\n    - {provider: openai", "overrides:\n    - {provider: o"),
        "CFG-REF",
        "one of:",
        line=17,
    ),
    Row("C45 azure model", swap("openai/gpt-4o]", "azure/gpt-4o]"), "CFG-REF", "deployments", line=14),
    Row(
        "C46 loop",
        swap("openai/gpt-4o]}", "b]}\n  - {name: b, to: [gpt-4o]}"),
        "CFG-REF",
        "gpt-4o → b → gpt-4o",
        line=14,
    ),
    Row("C47 itself", swap("openai/gpt-4o]}", "gpt-4o]}"), "CFG-REF", "gpt-4o → gpt-4o", line=14),
    Row("C49 negative", swap('"2.50"', '"-1"'), "CFG-RANGE", "negative", line=17),
    Row("C50 unit slip", swap("per: 1000000", "per: 1"), "CFG-PRICE", "confirm_price", line=17),
    Row("C52 decimals", swap('"2.50"', '"0.1234567890123"'), "CFG-RANGE", "12 decimals", line=17),
    Row("C52 not a number", swap('"2.50"', '"2,50"'), "CFG-RANGE", "2,50", line=17),
    Row(
        "C54 zero",
        swap("    kind: openai\n", "    kind: openai\n    timeouts: {total: 0}\n"),
        "CFG-TYPE",
        '"60s"',
        line=4,
    ),
    Row(
        "C54 bare",
        swap("    kind: openai\n", "    kind: openai\n    timeouts: {total: 5}\n"),
        "CFG-TYPE",
        '"60s"',
        line=4,
    ),
    Row(
        "C54 unit",
        swap("    kind: openai\n", "    kind: openai\n    timeouts: {total: 5 pc}\n"),
        "CFG-TYPE",
        '"60s"',
        line=4,
    ),
    Row(
        "C54 0s",
        swap("    kind: openai\n", "    kind: openai\n    timeouts: {total: 0s}\n"),
        "CFG-RANGE",
        "more than 0",
        line=4,
    ),
    Row(
        "C55 first byte",
        swap("    kind: openai\n", "    kind: openai\n    timeouts: {first_byte: 9m, total: 5s}\n"),
        "CFG-CONFLICT",
        "longer than timeouts.total",
        line=4,
    ),
    *(
        Row(number, swap("stages:", f"storage: {url}\nstages:"), "CFG-RANGE", "not available yet", line=18)
        for number, url in (
            ("C57 postgres", "postgres"),
            ("C65", "'postgresql://db.example.com/books?options=-csynchronous_commit%3Doff'"),
            ("C66", "'postgresql://replica.example.com/books'"),
            ("C67", "'postgresql://db.example.com/books'"),
        )
    ),
    Row(
        "C64 raw @",
        swap("    kind: openai\n", "    kind: openai\n    proxy: http://u:p@x@h:1\n"),
        "CFG-TYPE",
        "%40",
        line=4,
    ),
    Row(
        "proxy host",
        swap("    kind: openai\n", "    kind: openai\n    proxy: http://a..b:3128\n"),
        "CFG-RANGE",
        "host name",
        line=4,
    ),
    Row("C81 retention", swap("stages:", "journal: {keep: -1d}\nstages:"), "CFG-TYPE", "60s", line=18),
    Row("C82 level", swap("stages:", "logging: {level: verbose}\nstages:"), "CFG-RANGE", "info", line=18),
    Row("same port", swap("port: 4001", "port: 4000"), "CFG-CONFLICT", "4000", line=21),
    Row(
        "share above all",
        swap("{port: 4000}", "{port: 4000, key_bodies_bytes_max: 257MiB}"),
        "CFG-CONFLICT",
        "more than gateway.held_bodies_bytes_max",
        line=20,
    ),
    Row(
        "share below one",
        swap("{port: 4000}", "{port: 4000, key_bodies_bytes_max: 9MiB}"),
        "CFG-CONFLICT",
        "less than gateway.body_bytes_max",
        line=20,
    ),
    Row("secret in url", swap("https://api.openai", "https://u:p@api.openai"), "CFG-SECRET", "api_key", line=4),
    Row("query in url", swap("com/v1\n", "com/v1?x=1\n"), "CFG-RANGE", "query", line=4),
    Row("kind", swap("kind: openai\n", "kind: http\n"), "CFG-RANGE", "under services", line=3),
    Row("kind word", swap("kind: openai\n", "kind: opnai\n"), "CFG-RANGE", "did you mean openai?", line=3),
    Row("lookup", swap("    kind: openai\n", "    kind: openai\n    lookup: {path: /x}\n"), "CFG-RANGE", "{id", line=4),
    Row("azure version", swap('    api_version: "2024-10-21"\n', ""), "CFG-MISSING", "api-version", line=6),
    Row(
        "ca file",
        swap("    kind: openai\n", "    kind: openai\n    ca_file: nope.pem\n"),
        "CFG-REF",
        "not a file",
        line=4,
    ),
    Row("name", swap("name: openai\n", "name: open ai\n"), "CFG-RANGE", "not a name", line=2),
    Row("number as name", swap("name: openai\n", "name: 7\n"), "CFG-TYPE", "quote it", line=2),
    Row("no providers", swap(PROVIDERS, "providers: []\n"), "CFG-MISSING", "providers", line=1),
    Row("moment", swap('"2.50"', '"2.50", effective_from: soon'), "CFG-RANGE", "RFC 3339", line=17),
    Row("C30 missing", a_file(lambda folder: _written(folder, GOOD.replace("${KEY}", "file:no", 1), 0o600)), "CFG-REF"),
    Row("C30 large", a_file(lambda folder: _secret_beside(folder, b"x" * 65_537)), "CFG-REF", "64 KiB"),
    Row("C30 line feed", a_file(lambda folder: _secret_beside(folder, b"sk-any-key-will-do\n"))),
    # -- what is reached from where, and secrets -----------------------------------------------------------------------
    Row("C31 behind a proxy", swap("{port: 4000}", "{host: 0.0.0.0, port: 4000, behind_proxy: true}")),
    Row("C34 channel", added(_CHANNEL % "changeme"), "CFG-SECRET", "placeholder"),
    Row("C34 short", added(_CHANNEL % "0123456789abcdef"), "CFG-SECRET", "24 to 256 characters"),
    Row("C34 typed", a_folder(_secrets(session="changeme")), "CFG-SECRET", "the session secret is weak", "damaged"),
    Row(
        "C34 way out",
        a_folder(_secrets(peppers=[{"id": "p1", "key": "changeme"}])),
        "CFG-SECRET",
        "make one with `openssl rand -hex 32`",
        "damaged",
    ),
    Row("C34 guessable", a_folder(_secrets(session="11" * 32)), "CFG-SECRET", "openssl rand -hex 32"),
    Row("C35", a_folder(_no_secrets), "CFG-SECRET", "restore it"),
    Row("C36", a_folder(_other_pepper), "CFG-SECRET", "pepper"),
    Row(
        "C37",
        a_folder(_secrets(peppers=[{"id": "p1", "key": _HEX}, {"id": "p1", "key": _HEX}])),
        "CFG-CONFLICT",
        "its own id",
    ),
    Row(
        "C38",
        a_folder(_secrets(encryption=[{"id": "e1", "key": base64.b64encode(bytes(31)).decode()}])),
        "CFG-SECRET",
        "32 bytes in base64",
    ),
    Row("C38 pepper", a_folder(_secrets(peppers=[{"id": "p1", "key": "ab" * 31}])), "CFG-SECRET", "32 bytes in hex"),
    Row("C39", a_folder(_secrets(session="00112233445566778899aabbccddeeff"[:2] * 32)), "CFG-SECRET", "guessed"),
    Row("C42", swap("openai.com/v1", "openai.com/v1/v1"), "CFG-RANGE", "/v1 twice", warns=True),
    Row("C42 azure", swap("azure.com\n", "azure.com/openai\n"), "CFG-RANGE", "adds /openai itself", warns=True),
    Row(
        "C42 no key",
        swap("    api_key: ${KEY}\n  - name: azure", "  - name: azure"),
        "CFG-SECRET",
        "without a credential",
        warns=True,
    ),
    Row("C51", swap('"2.50"', '"2.50", currency: EUR'), "CFG-UNKNOWN", "currency", line=17),
    Row("C50 meant", swap('"2.50"', '"99999", confirm_price: true')),
    Row("C53 all", added("retry: {count: 1000}\n"), "CFG-RANGE", "at most 5"),
    Row("C53 pool", added("pools: [{name: main, use: [weu], retry: {count: 1000}}]\n"), "CFG-RANGE", "at most 5"),
    Row("C53 provider", swap("    kind: openai\n", "    kind: openai\n    retries: 1\n"), "CFG-UNKNOWN", "retries"),
    Row("C56", added("workers: 4\n"), "CFG-UNKNOWN", "workers"),
    Row("C58", added("durability: normal\n"), "CFG-RANGE", "process or power"),
    # -- the data folder -----------------------------------------------------------------------------------------------
    Row("C59", a_folder(_on_the_network), "CFG-STORE", "network file system (nfs4)"),
    Row("C60 no parent", a_folder(lambda folder: prepare(folder / "no" / "data")), "CFG-STORE", "does not exist"),
    Row("C60 a file", a_folder(lambda folder: prepare(_written(folder, "", 0o600))), "CFG-STORE", "not a directory"),
    Row("C61 everybody's", a_folder(_shared), "CFG-STORE", "chmod 700"),
    Row("C62", a_folder(_no_room), "CFG-STORE", "256 MiB"),
    Row("C63", a_folder(_newer_books), "refused", "9999"),
    Row("C70", a_folder(_held), "already_running", f"process {os.getpid()}"),
    # -- sections ------------------------------------------------------------------------------------------------------
    Row("C71 channel", added(_CHANNEL % "''"), "CFG-SECRET", "empty"),
    Row("C71 hook", added(_HOOK % "short-secret"), "CFG-SECRET", "24 characters"),
    *(
        Row(number, added(section + "\n"), "CFG-UNKNOWN", "not available yet")
        for number, section in (
            ("C72", "payments: {provider: stripe, environment: prod, secret_key: sk_test_0123456789}"),
            ("C73", "payments: {provider: btcpay, url: 'http://pay.example.com'}"),
            ("C74", "payments: {provider: paypal}"),
            ("C75", "payments: {provider: stripe, min_top_up: '100', max_top_up: '10'}"),
            ("C76", "payments: {provider: stripe, currency: EUR}"),
            ("C77", "events: {kafka: {brokers: []}}"),
            ("C78", "events: {kafka: {brokers: ['broker:9092'], topic: 'a b'}}"),
            ("C79", "events: {kafka: {brokers: ['broker:9092'], acks: 0}}"),
            ("C80", "events: {lake: {path: ../lake}}"),
        )
    ),
    Row("C83", added("content: {default: full}\n"), "CFG-MISSING", "retention"),
    Row("C84", swap("{port: 4000}", "{port: 4000, trusted_proxies: [0.0.0.0/0]}"), "CFG-UNSAFE", line=20),
    Row("C88", added("limits: {budgets: [{team: red, amount: '500'}]}\n"), "CFG-UNKNOWN", "limits.budgets"),
    Row("C85", swap("{port: 4001}", "{port: 4001, cors_origins: ['*']}"), "CFG-UNKNOWN", "cors_origins", line=21),
    Row("C86 http", added(_ISSUER % ("http://id.example.com", "[app]", "RS256")), "CFG-UNSAFE"),
    Row("C86 no audience", added(_ISSUER % ("https://id.example.com", "[]", "RS256")), "CFG-MISSING", "audiences"),
    Row("C86 none", added(_ISSUER % ("https://id.example.com", "[app]", "none")), "CFG-UNSAFE", "anybody"),
    Row("C86 both", added(_ISSUER % ("https://id.example.com", "[app]", "RS256, HS256")), "CFG-UNSAFE", "public"),
    Row("C87 other key", _tls("good.pem", "other.key"), "CFG-SECRET", "does not belong"),
    Row("C87 expired", _tls("expired.pem", "good.key"), "CFG-SECRET", "expired"),
    Row("C87 mode", _tls("good.pem", "good.key", 0o644), "CFG-SECRET", "0644"),
    Row("C87 missing", _tls("nope.pem", "good.key"), "CFG-SECRET", "not a file"),
    Row("C87 good", _tls("good.pem", "good.key")),
    Row(
        "C89",
        added("capacities: [{name: ptu, provider: azure, commitment: '1', timezone: Mars/Base}]\n"),
        "CFG-RANGE",
        "not a time zone",
    ),
]
