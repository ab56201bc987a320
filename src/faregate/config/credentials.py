"""How the gate proves itself to a provider where that is no key that stands still: a token, or what a command prints.

Rules that one value decides stand here; which keys belong together is said in ``credential_rules``.
"""

from typing import Annotated, Final, Literal

from pydantic import Field

from faregate.config.section import Section
from faregate.config.values import Duration, Flag, Label, Secret, Text, Url

#: Where Entra ID gives tokens in the public cloud, and what a token for Azure's models is for.
ENTRA_AUTHORITY: Final = "https://login.microsoftonline.com"
ENTRA_SCOPE: Final = "https://cognitiveservices.azure.com/.default"

#: The same in the sovereign clouds, by the host of their authority.
SOVEREIGN_SCOPES: Final = {
    "login.microsoftonline.us": "https://cognitiveservices.azure.us/.default",
    "login.partner.microsoftonline.cn": "https://cognitiveservices.azure.cn/.default",
    "login.chinacloudapi.cn": "https://cognitiveservices.azure.cn/.default",
}

Argument = Annotated[Text, Field(max_length=4_096)]


class ProviderCredential(Section):
    """A credential that is fetched, kept in memory and renewed before it ends."""

    kind: Literal["entra", "oauth2", "command"] = Field(
        description="token of Entra ID, token of any OAuth server (client credentials), or what a command prints"
    )
    tenant: Annotated[Text, Field(pattern=r"^[A-Za-z0-9.-]{1,128}$")] | None = Field(
        default=None, description="entra: tenant, as id or domain"
    )
    client_id: Label | None = Field(
        default=None, description="application that asks; with managed_identity: a user-assigned identity's"
    )
    client_secret: Secret | None = Field(default=None, description="its secret, as ${NAME} or file:PATH")
    certificate_file: Text = Field(
        default="", description="entra: PEM file with a certificate and its private key, instead of a secret"
    )
    federated_token_file: Text = Field(
        default="", description="entra: file with the token of a workload identity, read again for each renewal"
    )
    managed_identity: Flag = Field(
        default=False, description="entra: ask the machine that it runs on, which needs neither tenant nor secret"
    )
    authority: Url | None = Field(
        default=None, description=f"entra: where tokens are given; default: {ENTRA_AUTHORITY}, or a sovereign cloud's"
    )
    token_url: Url | None = Field(default=None, description="oauth2: where tokens are given")
    scope: Label | None = Field(
        default=None, description=f"what the token is for; entra's default: {ENTRA_SCOPE}, or the sovereign cloud's"
    )
    resource: Label | None = Field(
        default=None, description="the same as Entra ID's older form, without /.default; or a resource of RFC 8707"
    )
    audience: Label | None = Field(default=None, description="oauth2: audience, for servers that ask for one")
    auth: Literal["basic", "post"] = Field(
        default="basic", description="oauth2: secret as Basic authorization, or in the form"
    )
    cache: Duration | None = Field(
        default=None, description="how long a token is used at most; default: its own life, or 5m where none is told"
    )
    command: tuple[Argument, ...] = Field(
        default=(), description="command: program and its arguments; no shell reads them", max_length=64
    )
    every: Duration | None = Field(
        default=None, description="command: how often it runs again; default: at each start and reload only", ge=1_000
    )
    header: Literal["api_key", "bearer"] = Field(
        default="api_key", description="command: what it prints is sent as the provider's key, or as a bearer token"
    )
    ca_file: Text = Field(
        default="", description="PEM file with the authorities that the token server may show instead of the system's"
    )
