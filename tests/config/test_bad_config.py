"""Section e5 of the bad-input catalogue, for the keys that exist: each input, its code, its place and its words.

Every row is a change to a configuration that is good; the test says that the change alone is what is found wrong.
"""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from faregate.config.findings import Finding, Invalid
from faregate.config.load import load, load_text

CANARY = "sk-canary-5d1f0c7b9e24a86311aa"
ENVIRONMENT = {"KEY": CANARY, "EMPTY": "", "NESTED": "${KEY}", "PORT": "4444", "WORD": "four"}
CERTIFICATES = Path(__file__).parent / "certificates"

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


class Row(NamedTuple):
    """``old`` in the good configuration becomes ``new``; the finding has ``code`` at ``line``, and says ``words``."""

    id: str
    old: str
    new: str
    code: str
    line: int
    words: str


ROWS = [
    Row("C09 tab", "  - name: openai\n", "\t- name: openai\n", "CFG-SYNTAX", 2, "use spaces"),
    Row("C10 open quote", '"2.50"}', '"2.50}', "CFG-SYNTAX", 17, "never closed"),
    Row("C11 twice", "    kind: openai\n", "    kind: openai\n    name: b\n", "CFG-SYNTAX", 4, "on lines 2 and 4"),
    Row("C12 two documents", "stages:", "---\nstages:", "CFG-SYNTAX", 19, "second document"),
    Row("C14 python tag", "name: openai", "name: !!python/object:os.system x", "CFG-SYNTAX", 2, "tag"),
    Row("C14 own tag", "port: 4000", "port: !port 4000", "CFG-SYNTAX", 20, "tag"),
    Row("C14 str tag", "port: 4000", "port: !!str 4000", "CFG-SYNTAX", 20, "tag"),
    Row("C15 merge on list", "gateway: {port: 4000}", "gateway: {<<: [1], port: 4000}", "CFG-SYNTAX", 20, "merged"),
    Row("C17 top key", "stages:", "stage:", "CFG-UNKNOWN", 18, "did you mean stages?"),
    Row("C17 future key", "stages:\n  dev: {providers: [openai]}", "pools: []", "CFG-UNKNOWN", 18, "not available yet"),
    Row("C18 nested key", "base_url: https://api", "base_ulr: https://api", "CFG-UNKNOWN", 4, "did you mean base_url?"),
    Row("C19 list for map", "gateway: {port: 4000}", "gateway: [4000]", "CFG-TYPE", 20, "a mapping"),
    Row(
        "C19 map for list",
        "models:\n  - {name: gpt-4o, to: [weu, openai/gpt-4o]}",
        "models: {}",
        "CFG-TYPE",
        13,
        "a list",
    ),
    Row("C20 text port", "port: 4000", 'port: "abc"', "CFG-TYPE", 20, "a whole number"),
    Row("C20 quoted port", "port: 4000", 'port: "4000"', "CFG-TYPE", 20, "a whole number"),
    Row("C21 port 0", "port: 4000", "port: 0", "CFG-RANGE", 20, "at least 1"),
    Row("C21 port 70000", "port: 4000", "port: 70000", "CFG-RANGE", 20, "at most 65535"),
    Row("C21 port -1", "port: 4000", "port: -1", "CFG-RANGE", 20, "at least 1"),
    Row("C22 bare no", "gateway: {port: 4000}", "gateway: {behind_proxy: no}", "CFG-TYPE", 20, "quote it"),
    Row("C23 octal", "port: 4000", "port: 0755", "CFG-TYPE", 20, "quote it"),
    Row("C24 underscores", "port: 4000", "port: 4_000", "CFG-TYPE", 20, "write 4000"),
    Row("base 60", "port: 4000", "port: 4000:1", "CFG-TYPE", 20, "base 60"),
    Row("C25 version", '"2024-10-21"', "1.10", "CFG-TYPE", 10, 'quote it: "1.10"'),
    Row("C26 null", "name: openai\n", "name:\n", "CFG-MISSING", 2, "has no value"),
    Row("C27 unset", "${KEY}\n  - name: azure", "${NOPE}\n  - name: azure", "CFG-ENV", 5, "NOPE is not set"),
    Row("C28 empty", "${KEY}\n  - name: azure", "${EMPTY}\n  - name: azure", "CFG-ENV", 5, "EMPTY is empty"),
    Row("C29 nested", "${KEY}\n  - name: azure", "${NESTED}\n  - name: azure", "CFG-ENV", 5, "do not nest"),
    Row("C29 open", "${KEY}\n  - name: azure", "${KEY\n  - name: azure", "CFG-ENV", 5, "without the name"),
    Row("C30 no file", "${KEY}\n  - name: azure", "file:nope\n  - name: azure", "CFG-REF", 5, "no such file"),
    Row("C30 a folder", "${KEY}\n  - name: azure", "file:.\n  - name: azure", "CFG-REF", 5, "a directory"),
    Row("C31 open gateway", "{port: 4000}", "{host: 0.0.0.0, port: 4000}", "CFG-UNSAFE", 20, "behind_proxy: true"),
    Row("C32 open console", "{port: 4001}", "{host: 10.0.0.1, port: 4001}", "CFG-UNSAFE", 21, "console.tls"),
    Row("C34 placeholder", "${KEY}\n  - name: azure", "changeme\n  - name: azure", "CFG-SECRET", 5, "placeholder"),
    Row("C40 no url", "    base_url: https://api.openai.com/v1\n", "", "CFG-MISSING", 2, "base_url: is missing"),
    Row("C41 plain http", "https://api.openai", "http://api.openai", "CFG-UNSAFE", 4, "allow_http: true"),
    Row("C43 private", "api.openai.com", "10.1.2.3", "CFG-UNSAFE", 4, "allow_private: true"),
    Row("C43 mapped", "api.openai.com", "[::ffff:10.1.2.3]", "CFG-UNSAFE", 4, "allow_private: true"),
    Row("C44 twice", "name: azure\n", "name: openai\n", "CFG-CONFLICT", 6, "providers[0]"),
    Row("C45 provider", "provider: azure,", "provider: azur,", "CFG-REF", 12, "did you mean azure?"),
    Row("C45 target", "to: [weu,", "to: [wue,", "CFG-REF", 14, "one of: weu, gpt-4o"),
    Row("C45 stage", "providers: [openai]", "providers: [opena]", "CFG-REF", 19, "one of: openai, azure"),
    Row("C45 price", "overrides:\n    - {provider: openai", "overrides:\n    - {provider: o", "CFG-REF", 17, "one of:"),
    Row("C45 azure model", "openai/gpt-4o]", "azure/gpt-4o]", "CFG-REF", 14, "deployments"),
    Row("C46 loop", "openai/gpt-4o]}", "b]}\n  - {name: b, to: [gpt-4o]}", "CFG-REF", 14, "gpt-4o → b → gpt-4o"),
    Row("C47 itself", "openai/gpt-4o]}", "gpt-4o]}", "CFG-REF", 14, "gpt-4o → gpt-4o"),
    Row("C49 negative", '"2.50"', '"-1"', "CFG-RANGE", 17, "negative"),
    Row("C50 unit slip", "per: 1000000", "per: 1", "CFG-PRICE", 17, "confirm_price"),
    Row("C52 decimals", '"2.50"', '"0.1234567890123"', "CFG-RANGE", 17, "12 decimals"),
    Row("C52 not a number", '"2.50"', '"2,50"', "CFG-RANGE", 17, "2,50"),
    Row("C54 zero", "    kind: openai\n", "    kind: openai\n    timeouts: {total: 0}\n", "CFG-TYPE", 4, '"60s"'),
    Row("C54 bare", "    kind: openai\n", "    kind: openai\n    timeouts: {total: 5}\n", "CFG-TYPE", 4, '"60s"'),
    Row("C54 unit", "    kind: openai\n", "    kind: openai\n    timeouts: {total: 5 pc}\n", "CFG-TYPE", 4, '"60s"'),
    Row("C54 0s", "    kind: openai\n", "    kind: openai\n    timeouts: {total: 0s}\n", "CFG-RANGE", 4, "more than 0"),
    Row(
        "C55 first byte",
        "    kind: openai\n",
        "    kind: openai\n    timeouts: {first_byte: 9m, total: 5s}\n",
        "CFG-CONFLICT",
        4,
        "longer than timeouts.total",
    ),
    Row("C57 postgres", "stages:", "storage: postgres\nstages:", "CFG-RANGE", 18, "not available yet"),
    Row("C64 raw @", "    kind: openai\n", "    kind: openai\n    proxy: http://u:p@x@h:1\n", "CFG-TYPE", 4, "%40"),
    Row(
        "proxy host",
        "    kind: openai\n",
        "    kind: openai\n    proxy: http://a..b:3128\n",
        "CFG-RANGE",
        4,
        "host name",
    ),
    Row("C81 retention", "stages:", "journal: {keep: -1d}\nstages:", "CFG-TYPE", 18, "60s"),
    Row("C82 level", "stages:", "logging: {level: verbose}\nstages:", "CFG-RANGE", 18, "info"),
    Row("same port", "port: 4001", "port: 4000", "CFG-CONFLICT", 21, "4000"),
    Row(
        "share above all",
        "{port: 4000}",
        "{port: 4000, key_bodies_bytes_max: 257MiB}",
        "CFG-CONFLICT",
        20,
        "more than gateway.held_bodies_bytes_max",
    ),
    Row(
        "share below one",
        "{port: 4000}",
        "{port: 4000, key_bodies_bytes_max: 9MiB}",
        "CFG-CONFLICT",
        20,
        "less than gateway.body_bytes_max",
    ),
    Row("secret in url", "https://api.openai", "https://u:p@api.openai", "CFG-SECRET", 4, "api_key"),
    Row("query in url", "com/v1\n", "com/v1?x=1\n", "CFG-RANGE", 4, "query"),
    Row("kind", "kind: openai\n", "kind: http\n", "CFG-RANGE", 3, "under services"),
    Row("kind word", "kind: openai\n", "kind: opnai\n", "CFG-RANGE", 3, "did you mean openai?"),
    Row("lookup", "    kind: openai\n", "    kind: openai\n    lookup: {path: /x}\n", "CFG-RANGE", 4, "{id"),
    Row("azure version", '    api_version: "2024-10-21"\n', "", "CFG-MISSING", 6, "api-version"),
    Row("ca file", "    kind: openai\n", "    kind: openai\n    ca_file: nope.pem\n", "CFG-REF", 4, "not a file"),
    Row("name", "name: openai\n", "name: open ai\n", "CFG-RANGE", 2, "not a name"),
    Row("number as name", "name: openai\n", "name: 7\n", "CFG-TYPE", 2, "quote it"),
    Row("no providers", GOOD[: GOOD.index("deployments")], "providers: []\n", "CFG-MISSING", 1, "providers"),
    Row("moment", '"2.50"', '"2.50", effective_from: soon', "CFG-RANGE", 17, "RFC 3339"),
]


def findings(text: str, tmp_path: Path) -> tuple[Finding, ...]:
    with pytest.raises(Invalid) as caught:
        load_text(text.encode(), "faregate.yaml", ENVIRONMENT, tmp_path)
    assert CANARY not in str(caught.value)
    return caught.value.findings


def test_the_configuration_that_the_rows_change_is_good(tmp_path: Path) -> None:
    """Without a change nothing is found."""
    assert load_text(GOOD.encode(), "faregate.yaml", ENVIRONMENT, tmp_path).warnings == ()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_bad_value_is_told_with_its_code_its_place_and_a_way_out(row: Row, tmp_path: Path) -> None:
    """One finding has the documented code, stands at the line of the mistake and says what to do."""
    assert row.old in GOOD

    found = findings(GOOD.replace(row.old, row.new, 1), tmp_path)

    at = [finding for finding in found if (finding.code, finding.place.line) == (row.code, row.line)]
    assert at, [finding.line() for finding in found]
    assert any(row.words in finding.line() for finding in at), [finding.line() for finding in at]


@pytest.mark.parametrize(
    ("variable", "value", "code", "words"),
    [
        ("HTTPS_PROXY", "socks5://proxy:1080", "CFG-RANGE", "not a proxy that Faregate can use"),
        ("https_proxy", "https://proxy:3128", "CFG-RANGE", "not a proxy that Faregate can use"),
        ("ALL_PROXY", "proxy", "CFG-RANGE", "expected http://[user:password@]host:port"),
        ("HTTPS_PROXY", "http://a..b:3128", "CFG-RANGE", "host name"),
        ("HTTPS_PROXY", "http://proxy:port", "CFG-RANGE", "its port must be a number"),
        ("HTTPS_PROXY", f"http://u:{CANARY}@x@h:1", "CFG-TYPE", "write %40 for @"),
    ],
)
def test_a_proxy_of_the_environment_obeys_the_rules_of_a_configured_one(
    variable: str, value: str, code: str, words: str, tmp_path: Path
) -> None:
    """It is told once, at its variable, with two ways out; a password in it is not shown."""
    with pytest.raises(Invalid) as caught:
        load_text(GOOD.encode(), "faregate.yaml", {**ENVIRONMENT, variable: value}, tmp_path)

    (finding,) = caught.value.findings
    assert finding.line().startswith(f"environment:{variable}: ")
    assert finding.code == code
    assert words in finding.line()
    assert 'or set providers[0].proxy ("" for none)' in finding.line()
    assert CANARY not in finding.line()


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Mistakes of different kinds, a tag, a type, an unknown key and a variable, come in one message."""
    text = GOOD.replace("name: openai\n", "name: !x openai\n", 1).replace("port: 4000", "port: x, prot: 1")
    text = text.replace("${KEY}", "${NOPE}", 1)

    assert [(finding.code, finding.place.line) for finding in findings(text, tmp_path)] == [
        ("CFG-SYNTAX", 2),
        ("CFG-ENV", 5),
        ("CFG-TYPE", 20),
        ("CFG-UNKNOWN", 20),
    ]


@pytest.mark.parametrize(
    ("id", "content", "code", "words"),
    [
        ("C05 empty", b"", "CFG-MISSING", "providers"),
        ("C05 only comments", b"# nothing\n", "CFG-MISSING", "providers"),
        ("C06 binary", b"\x00\x01\x02", "CFG-SYNTAX", "binary"),
        ("C06 latin-1", b"providers: caf\xe9\n", "CFG-SYNTAX", "UTF-8"),
        ("C07 utf-16", "providers: []".encode("utf-16"), "CFG-SYNTAX", "save it as UTF-8"),
        ("control", b"providers: \x07\n", "CFG-SYNTAX", "control character"),
        ("a list", b"- 1\n", "CFG-TYPE", "mapping"),
        ("C13 bomb", b"a: &a [x, x]\n" + b"".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n".encode() for n in range(9)
        ), "CFG-SYNTAX", "10,000"),
        ("C13 itself", b"a: &a [*a]\n", "CFG-SYNTAX", "deep"),
        ("C13 merges itself", b"a: &a {<<: *a}\n", "CFG-SYNTAX", "merges"),
        ("C13 many nodes", b"a: [" + b"1," * 30_000 + b"]\n", "CFG-SYNTAX", "10,000"),
        ("deep", b"[" * 5_000, "CFG-SYNTAX", ""),
        ("a list as key", b"? [a]\n: 1\n", "CFG-SYNTAX", "not text"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_told_as_such(
    id: str, content: bytes, code: str, words: str, tmp_path: Path
) -> None:
    """What cannot be read as one mapping of YAML ends in a finding, not in a crash, and quickly."""
    with pytest.raises(Invalid) as caught:
        load_text(content, "faregate.yaml", ENVIRONMENT, tmp_path)

    assert code in {finding.code for finding in caught.value.findings}
    assert words in str(caught.value)


def test_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    """C08: a file saved by an editor that writes one is read as without it."""
    loaded = load_text(b"\xef\xbb\xbf" + GOOD.encode(), "faregate.yaml", ENVIRONMENT, tmp_path)

    assert loaded.config.gateway.port == 4000


class TestFiles:
    """What can be wrong with the file itself."""

    def read(self, file: Path) -> Finding:
        with pytest.raises(Invalid) as caught:
            load(file, ENVIRONMENT)
        return caught.value.findings[0]

    def test_a_missing_file_names_the_way_to_one(self, tmp_path: Path) -> None:
        """C01: the message names `faregate init`."""
        found = self.read(tmp_path / "nope.yaml")

        assert (found.code, "faregate init" in found.hint) == ("CFG-IO", True)

    def test_a_directory_is_told(self, tmp_path: Path) -> None:
        """C02."""
        found = self.read(tmp_path)

        assert (found.code, found.problem) == ("CFG-IO", "this is a directory")

    def test_a_pipe_does_not_hold_the_start(self, tmp_path: Path) -> None:
        """A named pipe without a writer is refused instead of being waited for."""
        import os

        os.mkfifo(tmp_path / "pipe")

        assert self.read(tmp_path / "pipe").problem == "this is not a regular file"

    def test_a_file_that_is_too_large_is_not_read(self, tmp_path: Path) -> None:
        """C16: 4 MiB are the most."""
        file = tmp_path / "large.yaml"
        file.write_bytes(b"#" * (4 * 1024 * 1024 + 1))

        assert (self.read(file).code, self.read(file).expected) == ("CFG-IO", "at most 4 MiB")

    def test_a_secret_in_a_file_that_everybody_reads_is_unsafe(self, tmp_path: Path) -> None:
        """C04: the way out is a mode, or a reference."""
        file = tmp_path / "faregate.yaml"
        file.write_text(GOOD.replace("${KEY}", CANARY, 1))
        file.chmod(0o644)

        found = self.read(file)

        assert (found.code, found.key, found.place.line) == ("CFG-UNSAFE", "providers[0].api_key", 5)
        assert "chmod 600" in found.hint

    def test_a_secret_in_a_file_of_its_owner_is_fine(self, tmp_path: Path) -> None:
        """C04, the other side."""
        file = tmp_path / "faregate.yaml"
        file.write_text(GOOD.replace("${KEY}", CANARY, 1))
        file.chmod(0o600)

        assert load(file, ENVIRONMENT).warnings == ()

    def test_references_in_a_file_that_everybody_reads_are_fine(self, tmp_path: Path) -> None:
        """Only a secret itself makes the mode matter."""
        file = tmp_path / "faregate.yaml"
        file.write_text(GOOD)
        file.chmod(0o644)

        assert load(file, ENVIRONMENT).warnings == ()

    def test_a_secret_file_is_read_beside_the_configuration_and_its_last_line_feed_dropped(
        self, tmp_path: Path
    ) -> None:
        """C30: relative names start where the configuration stands."""
        file = tmp_path / "faregate.yaml"
        file.write_text(GOOD.replace("${KEY}", "file:openai.key", 1))
        (tmp_path / "openai.key").write_text(CANARY + "\n")

        key = load(file, ENVIRONMENT).config.providers[0].api_key

        assert key is not None
        assert key.get_secret_value() == CANARY

    def test_a_secret_file_that_is_too_large_is_the_wrong_file(self, tmp_path: Path) -> None:
        """C30: 64 KiB are the most."""
        file = tmp_path / "faregate.yaml"
        file.write_text(GOOD.replace("${KEY}", "file:openai.key", 1))
        (tmp_path / "openai.key").write_text("x" * (64 * 1024 + 1))

        assert (self.read(file).code, "64 KiB" in self.read(file).problem) == ("CFG-REF", True)


class TestCertificates:
    """C87: what a listener is given is tried before anything starts. The keys here open nothing anywhere."""

    def told(self, tmp_path: Path, certificate: str, key: str, mode: int = 0o600) -> list[tuple[str, str, str]]:
        for name in ("good.pem", "expired.pem", "good.key", "other.key"):
            shutil.copy(CERTIFICATES / name, tmp_path / name)
        for name in ("good.key", "other.key"):
            (tmp_path / name).chmod(mode)
        tls = f"gateway: {{host: 0.0.0.0, tls: {{certificate_file: {certificate}, key_file: {key}}}}}"
        try:
            load_text(GOOD.replace("gateway: {port: 4000}", tls).encode(), "f", ENVIRONMENT, tmp_path)
        except Invalid as invalid:
            return [(found.code, found.key, found.problem) for found in invalid.findings]
        return []

    def test_a_pair_in_force_allows_an_address_that_others_reach(self, tmp_path: Path) -> None:
        """TLS is the way to listen on every address."""
        assert self.told(tmp_path, "good.pem", "good.key") == []

    def test_a_key_of_another_certificate_is_told(self, tmp_path: Path) -> None:
        """The mismatch is found before the first client meets it."""
        assert self.told(tmp_path, "good.pem", "other.key") == [
            ("CFG-SECRET", "gateway.tls.key_file", "the key does not belong to the certificate")
        ]

    def test_an_expired_certificate_is_told(self, tmp_path: Path) -> None:
        """By the library that would serve it."""
        assert self.told(tmp_path, "expired.pem", "good.key") == [
            ("CFG-SECRET", "gateway.tls.certificate_file", "the certificate has expired")
        ]

    def test_a_key_that_others_read_is_told(self, tmp_path: Path) -> None:
        """Its mode is part of what makes it a secret."""
        code, key, problem = self.told(tmp_path, "good.pem", "good.key", 0o644)[0]

        assert (code, key, "0644" in problem) == ("CFG-SECRET", "gateway.tls.key_file", True)

    def test_a_missing_file_is_told(self, tmp_path: Path) -> None:
        """By the key that names it."""
        assert self.told(tmp_path, "nope.pem", "good.key")[0][:2] == ("CFG-SECRET", "gateway.tls.certificate_file")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1/v1", "/v1 twice"),
        ("azure.com\n", "azure.com/openai\n", "adds /openai itself"),
        ("    api_key: ${KEY}\n  - name: azure", "  - name: azure", "without a credential"),
    ],
)
def test_what_works_but_is_probably_not_meant_is_a_warning(old: str, new: str, words: str, tmp_path: Path) -> None:
    """C42 and its kin: told, and started."""
    loaded = load_text(GOOD.replace(old, new, 1).encode(), "faregate.yaml", ENVIRONMENT, tmp_path)

    assert [words in warning.problem for warning in loaded.warnings] == [True]
