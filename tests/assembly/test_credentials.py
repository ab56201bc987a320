"""Credentials of a configuration: what it declares is fetched as the guide says, and what cannot be is told."""

import asyncio
import re
import textwrap
import time
from pathlib import Path

import pytest

from faregate.assembly.credentials import wanted_credentials
from faregate.config.findings import Invalid
from faregate.config.load import Loaded, load_text
from token_server import CLIENT, SECRET, TokenServer

GUIDE = Path(__file__).parent.parent.parent / "docs" / "guides" / "use-entra-id.md"

PROVIDER = """\
providers:
  - name: sim
    kind: openai
    base_url: https://models.example/v1
    credential:
"""


def load(text: str, folder: Path, **environment: str) -> Loaded:
    return load_text(text.encode(), "faregate.yaml", environment, folder)


def credential(text: str) -> str:
    """A configuration whose provider has this credential."""
    return PROVIDER + textwrap.indent(textwrap.dedent(text), "      ")


def problems(text: str, folder: Path, **environment: str) -> list[tuple[str, str]]:
    """Code and key of everything that is wrong."""
    with pytest.raises(Invalid) as caught:
        load(credential(text), folder, **environment)
    return [(finding.code, finding.key.removeprefix("providers[0].")) for finding in caught.value.findings]


def test_the_configurations_of_the_guide_fetch_what_they_say(tmp_path: Path) -> None:
    """Each of them, from a real token server and by a real program."""
    (tmp_path / "openai-key.txt").write_text("sk-from-the-vault\n")
    fences = re.findall(r"^( *)```yaml\n(.*?)^\1```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    environment = {
        "AZURE_TENANT_ID": "tenant-1",
        "AZURE_CLIENT_ID": CLIENT,
        "AZURE_CLIENT_SECRET": SECRET,
        "HOUSE_CLIENT_SECRET": SECRET,
    }
    fetched: list[tuple[str, str]] = []
    with TokenServer() as server:
        for _, text in fences:
            text = textwrap.dedent(text).replace("https://login.example.com", server.url)
            text = text.replace("client_id: faregate", f"client_id: {CLIENT}")
            text = text.replace("    kind: entra\n", f"    kind: entra\n      authority: {server.url}\n")
            loaded = load(text, tmp_path, **environment)
            assert loaded.warnings == ()
            for wanted in wanted_credentials(loaded.config, tmp_path, {}, time.time_ns):
                secret = asyncio.run(wanted.source.fetch()).secret
                known = "token" if secret in server.issued else secret
                fetched.append((wanted.provider, f"{wanted.header}: {wanted.scheme}{known}"))

    assert fetched == [
        ("azure-weu", "authorization: Bearer token"),
        ("house", "authorization: Bearer token"),
        ("openai", "authorization: Bearer sk-from-the-vault"),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("kind: entra", [("CFG-MISSING", "credential"), ("CFG-MISSING", "credential.tenant")]),
        (
            "{kind: entra, tenant: t, client_id: c, client_secret: abcdefgh, managed_identity: true}",
            [("CFG-CONFLICT", "credential")],
        ),
        ("{kind: entra, managed_identity: true, tenant: t}", [("CFG-CONFLICT", "credential.tenant")]),
        (
            "{kind: entra, managed_identity: true, token_url: https://a.example}",
            [("CFG-CONFLICT", "credential.token_url")],
        ),
        ("{kind: entra, managed_identity: true, scope: a, resource: b}", [("CFG-CONFLICT", "credential.resource")]),
        ("{kind: entra, tenant: a/b, client_id: c, client_secret: abcdefgh}", [("CFG-RANGE", "credential.tenant")]),
        (
            "{kind: entra, tenant: t, client_id: c, certificate_file: none.pem}",
            [("CFG-REF", "credential.certificate_file")],
        ),
        (
            "{kind: entra, tenant: t, client_id: c, federated_token_file: none/token}",
            [("CFG-REF", "credential.federated_token_file")],
        ),
        (
            "{kind: entra, tenant: t, client_id: c, client_secret: abcdefgh, authority: http://login.example}",
            [("CFG-UNSAFE", "credential.authority")],
        ),
        (
            "{kind: oauth2, client_id: c}",
            [("CFG-MISSING", "credential.token_url"), ("CFG-MISSING", "credential.client_secret")],
        ),
        (
            "{kind: oauth2, client_id: c, client_secret: abcdefgh, token_url: https://169.254.169.254/token}",
            [("CFG-UNSAFE", "credential.token_url")],
        ),
        (
            "{kind: oauth2, client_id: c, client_secret: '${NOBODY}', token_url: https://a.example}",
            [("CFG-ENV", "credential.client_secret")],
        ),
        ("{kind: command}", [("CFG-MISSING", "credential.command")]),
        ("{kind: command, command: [no-such-program-anywhere]}", [("CFG-REF", "credential.command[0]")]),
        ("{kind: command, command: [./no-such-file]}", [("CFG-REF", "credential.command[0]")]),
        ("{kind: command, command: [/bin/cat, x], every: 1ms}", [("CFG-RANGE", "credential.every")]),
        ("{kind: command, command: [/bin/cat, x], scope: a}", [("CFG-CONFLICT", "credential.scope")]),
        ("{kind: vault}", [("CFG-RANGE", "credential.kind")]),
    ],
)
def test_what_cannot_be_is_told_with_its_key(tmp_path: Path, text: str, found: list[tuple[str, str]]) -> None:
    """All mistakes, before anything starts."""
    told = problems(text, tmp_path)

    assert [each for each in found if each not in told] == []


def test_a_provider_has_a_key_or_a_credential(tmp_path: Path) -> None:
    """Not both; and with one of them there is no warning that it has none."""
    text = credential("{kind: entra, managed_identity: true}")
    assert load(text, tmp_path).warnings == ()

    with pytest.raises(Invalid, match="there is a credential already"):
        load(text.replace("    credential:", "    api_key: sk-0123456789\n    credential:"), tmp_path)


def test_a_secret_in_a_file_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    """That of a credential, too."""
    text = credential("{kind: oauth2, client_id: c, client_secret: abcdefgh, token_url: https://a.example}")
    with pytest.raises(Invalid) as caught:
        load_text(text.encode(), "faregate.yaml", {}, tmp_path, world_readable=True)

    assert [(each.code, each.key) for each in caught.value.findings] == [
        ("CFG-UNSAFE", "providers[0].credential.client_secret")
    ]
