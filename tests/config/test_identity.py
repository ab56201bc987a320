"""Callers without keys in the configuration: what the gate is told, and what is refused because it would let all in."""

from pathlib import Path

import pytest

from faregate.assembly.declare import declared
from faregate.catalogue.compile import compile_catalogue
from faregate.config.findings import Invalid
from faregate.config.load import load_text
from faregate.core.tokens import Accounting, ContextHeaders, Identity, Issuer

HEAD = "providers: [{name: a, kind: openai, base_url: 'http://127.0.0.1:1/v1'}]\n"
NOWHERE = Path("/nowhere")

#: An issuer that is as it should be, for rows that change one thing.
GOOD = "name: entra, issuer: 'https://login.example.com/t/v2.0', audiences: ['api://faregate']"


def told(lines: str) -> Identity | None:
    """What the catalogue carries to the gate."""
    config = load_text((HEAD + lines).encode(), "faregate.yaml", {}, NOWHERE).config
    environment = {"HTTPS_PROXY": "http://proxy.example:3128"}
    return compile_catalogue(declared(config, NOWHERE, environment)).catalogue.identity


def findings(lines: str) -> list[tuple[str, str]]:
    """Code and key of everything that is wrong."""
    with pytest.raises(Invalid) as raised:
        load_text((HEAD + lines).encode(), "faregate.yaml", {}, NOWHERE)
    return [(finding.code, finding.key) for finding in raised.value.findings]


def test_without_it_the_gate_is_told_nothing() -> None:
    """So that it costs nothing."""
    assert told("") is None
    assert told("identity: {issuers: [], denied_tokens: []}") is None


def test_an_issuer_reaches_the_gate_as_it_is_written() -> None:
    """To the last slash of its name, with the usual claims, and through the proxy that the environment names."""
    lines = f"identity: {{issuers: [{{{GOOD}}}, {{name: b, issuer: 'https://b.example/', audiences: [x, z]}}]}}\n"
    identity = told(lines)

    assert identity is not None
    assert identity.issuers == (
        Issuer(
            "entra",
            "https://login.example.com/t/v2.0",
            ("api://faregate",),
            ("RS256",),
            proxy="http://proxy.example:3128",
        ),
        Issuer("b", "https://b.example/", ("x", "z"), ("RS256",), proxy="http://proxy.example:3128"),
    )


def test_everything_that_can_be_said_of_callers_is_told() -> None:
    """Payers, claims, what is required, rights, headers and who is charged by one."""
    identity = told(
        """\
identity:
  issuers:
    - name: entra
      issuer: http://127.0.0.1:9400
      audiences: [api]
      algorithms: [RS256, ES256]
      jwks_uri: http://127.0.0.1:9400/jwks
      proxy: ""
      organization: acme
      team: research
      project: search
      stage: dev
      claims: {client: [azp], team: [department, groups]}
      require: {roles: [caller, admin]}
      models: [gpt-4o]
      operations: [chat.completions]
      may_set: [run]
  denied_tokens: [stolen]
  accounting: {header: App-Key, dimension: product, default: shared}
  headers: {end_user: X-Who}
"""
    )
    assert identity is not None
    (issuer,) = identity.issuers
    claims = dict(issuer.claims)

    assert (issuer.algorithms, issuer.jwks_uri, issuer.proxy) == (("RS256", "ES256"), "http://127.0.0.1:9400/jwks", "")
    assert (issuer.organization, issuer.team, issuer.project, issuer.stage) == ("acme", "research", "search", "dev")
    assert (claims["client"], claims["team"], claims["end_user"]) == (
        ("azp",),
        ("department", "groups"),
        ("oid", "sub"),
    )
    assert (issuer.require, issuer.models) == ((("roles", ("caller", "admin")),), ("gpt-4o",))
    assert (issuer.operations, issuer.may_set) == (("chat.completions",), ("run",))
    assert identity.denied_tokens == ("stolen",)
    assert identity.accounting == Accounting("app-key", "product", "shared")
    assert identity.headers == ContextHeaders(end_user="x-who")


@pytest.mark.parametrize(
    ("changed", "code", "key"),
    [
        ("name: a, issuer: 'https://b.example'", "CFG-MISSING", "audiences"),
        (GOOD.replace("['api://faregate']", "[]"), "CFG-MISSING", "audiences"),
        (GOOD + ", algorithms: [none]", "CFG-UNSAFE", "algorithms[0]"),
        (GOOD + ", algorithms: [None]", "CFG-UNSAFE", "algorithms[0]"),
        (GOOD + ", algorithms: [HS256]", "CFG-UNSAFE", "algorithms[0]"),
        (GOOD + ", algorithms: [RS256, HS256]", "CFG-UNSAFE", "algorithms[1]"),
        (GOOD + ", algorithms: [RS265]", "CFG-RANGE", "algorithms[0]"),
        (GOOD + ", algorithms: []", "CFG-MISSING", "algorithms"),
        (GOOD.replace("https:", "http:"), "CFG-UNSAFE", "issuer"),
        (GOOD + ", jwks_uri: 'http://login.example.com/keys'", "CFG-UNSAFE", "jwks_uri"),
        (GOOD.replace("https:", "ftp:"), "CFG-RANGE", "issuer"),
        (GOOD.replace("/v2.0", "/v2.0?x=y"), "CFG-RANGE", "issuer"),
        (GOOD.replace("login.", "user:pw@login."), "CFG-RANGE", "issuer"),
        (GOOD + ", ca_file: missing.pem", "CFG-REF", "ca_file"),
        (GOOD + ", may_set: [everything]", "CFG-RANGE", "may_set[0]"),
        (GOOD + ", require: {roles: []}", "CFG-MISSING", "require.roles"),
        (GOOD + ", audience: x", "CFG-UNKNOWN", "audience"),
    ],
)
def test_what_would_let_anybody_in_is_refused(changed: str, code: str, key: str) -> None:
    """Each by its code, at its key."""
    found = findings(f"identity: {{issuers: [{{{changed}}}]}}\n")

    assert [(each, at.removeprefix("identity.issuers[0].")) for each, at in found] == [(code, key)]


@pytest.mark.parametrize(
    ("lines", "code", "key"),
    [
        ("accounting: {header: authorization}", "CFG-CONFLICT", "accounting.header"),
        ("accounting: {header: x-faregate-user}", "CFG-CONFLICT", "accounting.header"),
        ("accounting: {header: x-who}, headers: {end_user: x-who}", "CFG-CONFLICT", "accounting.header"),
        ("headers: {end_user: host}", "CFG-CONFLICT", "headers.end_user"),
        ("headers: {end_user: a, tenant: a}", "CFG-CONFLICT", "headers.tenant"),
        ("accounting: {header: 'a b'}", "CFG-RANGE", "accounting.header"),
        ("accounting: {header: app-key, dimension: team}", "CFG-RANGE", "accounting.dimension"),
        (f"issuers: [{{{GOOD}}}, {{{GOOD}}}]", "CFG-CONFLICT", "issuers[1].name"),
    ],
)
def test_headers_and_names_mean_one_thing(lines: str, code: str, key: str) -> None:
    """A header that carries something else, or a name that is taken, is refused."""
    assert findings(f"identity: {{{lines}}}\n") == [(code, f"identity.{key}")]
