"""Callers without keys and whom callers act for, as people write it, and the rules of it.

The settings are pure lists of names; what they mean to a token is ``core.tokens``'. ``check_identity`` yields findings
by path, as the rules in ``rules`` do, and ``identity_of`` is what the gate and the console are told.
"""

from collections.abc import Callable, Iterator
from pathlib import Path as FilePath
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from faregate.config.findings import Path, Ruled, did_you_mean, quoted
from faregate.config.section import Section
from faregate.config.values import Header, Label, Name, Proxy, Text, is_loopback, wrong
from faregate.core import tokens

#: Issuers name themselves in their own way, down to the last slash, so nothing of it is changed.
_ISSUER_CHARACTERS_MAX: Final = 512

_SYMMETRIC: Final = ("HS256", "HS384", "HS512")

#: Headers that say something else, or that carry a credential: none of them tells whom a call is for.
_TAKEN: Final = frozenset(
    """
    authorization api-key x-api-key x-goog-api-key ocp-apim-subscription-key host content-length content-type
    transfer-encoding connection cookie via expect upgrade te trailer idempotency-key openai-proxy-user
    openai-proxy-project openai-proxy-staging x-forwarded-for
    """.split()
)


def _issuer(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or len(value) > _ISSUER_CHARACTERS_MAX:
        raise wrong(
            "CFG-RANGE", f"{quoted(value)} is not the URL of an issuer", "e.g. https://login.example.com/tenant"
        )
    if not value.isprintable() or " " in value or parts.query or parts.fragment or "@" in parts.netloc:
        raise wrong("CFG-RANGE", "an issuer has neither user, query nor fragment", "the `iss` of its tokens")
    return value


def _algorithm(value: str) -> str:
    if value in tokens.ALGORITHMS:
        return value
    expected = f"any of {', '.join(tokens.ALGORITHMS)}"
    if value.lower() == "none":
        raise wrong("CFG-UNSAFE", "with the algorithm none anybody can make a token", expected)
    if value in _SYMMETRIC:
        problem = f"with {value} everybody who can check a token can make one, and the keys of issuers are public"
        raise wrong("CFG-UNSAFE", problem, expected)
    raise wrong("CFG-RANGE", f"{quoted(value)} is not an algorithm", expected, did_you_mean(value, tokens.ALGORITHMS))


IssuerUrl = Annotated[Text, AfterValidator(_issuer)]
Algorithm = Annotated[Text, AfterValidator(_algorithm)]
ClaimNames = Annotated[tuple[Label, ...], Field(max_length=16)]
Right = Literal["user", "tags", "run", "project", "stage"]


class Claims(Section):
    """Which claims of a token say who its caller is; of several the first that a token has."""

    client: ClaimNames = Field(
        default=tokens.CLAIMS["client"], description="the application; its limits and reports go by it"
    )
    end_user: ClaimNames = Field(default=tokens.CLAIMS["end_user"], description="the person it acts for")
    tenant: ClaimNames = Field(
        default=tokens.CLAIMS["tenant"], description="the person's tenant, told as the tag `tenant`"
    )
    user: ClaimNames = Field(default=(), description="the user that is charged; default: that of the issuer")
    team: ClaimNames = Field(default=(), description="the team, likewise")
    project: ClaimNames = Field(default=(), description="the project, likewise")
    product: ClaimNames = Field(default=(), description="the product, likewise")
    stage: ClaimNames = Field(default=(), description="the stage, likewise")


class Issuer(Section):
    """An issuer whose tokens (JWT) callers may send instead of a key."""

    name: Name = Field(description="our name for it; ids of its callers begin with `tok_` and this name")
    issuer: IssuerUrl = Field(description="the `iss` of its tokens, to the letter; discovery is asked below it")
    audiences: tuple[Label, ...] = Field(
        description="a token must be made for one of these: the `aud` of this gateway", max_length=32
    )
    algorithms: tuple[Algorithm, ...] = Field(
        default=("RS256",), description="of signatures, asymmetric ones only", min_length=1, max_length=8
    )
    jwks_uri: IssuerUrl | None = Field(
        default=None, description="where its public keys are; default: as its discovery document says"
    )
    ca_file: Text | None = Field(default=None, description="PEM file of the authority that signed its certificate")
    proxy: Proxy | None = Field(default=None, description='HTTP proxy to reach it through; "" for none')
    organization: Label = Field(default="default", description="organization that its callers are charged to")
    team: Label | None = Field(default=None, description="team of its callers")
    project: Label | None = Field(default=None, description="project of its callers")
    user: Label | None = Field(default=None, description="user that its callers are charged to")
    product: Label | None = Field(default=None, description="product of its callers")
    stage: Label | None = Field(default=None, description="stage of its callers")
    claims: Claims = Field(default=Claims(), description="which claims say who the caller is")
    require: dict[Label, Annotated[tuple[Label, ...], Field(min_length=1, max_length=64)]] = Field(
        default={},
        description="claims that a token must have, and the values of which one must be among it",
        max_length=16,
    )
    models: tuple[Label, ...] | None = Field(
        default=None, description="models that its callers may use; default: all", max_length=1_000
    )
    operations: tuple[Label, ...] | None = Field(
        default=None, description="operations and services that they may use; default: all", max_length=256
    )
    may_set: tuple[Right, ...] = Field(
        default=("run", "tags"), description="what their requests may say about themselves"
    )


class AccountingSettings(Section):
    """A header by which callers say who is charged."""

    header: Header = Field(description="its name, such as `app-key`")
    dimension: Literal["user", "project", "product"] = Field(
        default="user", description="what its value is the name of; projects must exist"
    )
    default: Label | None = Field(
        default=None, description="who is charged without the header, where the key has none of its own"
    )


class ContextHeaderNames(Section):
    """Names of the headers by which an application says whom it acts for."""

    end_user: Header = Field(default=tokens.USUAL_HEADERS.end_user, description="the end user")
    tenant: Header = Field(default=tokens.USUAL_HEADERS.tenant, description="the end user's tenant")
    application: Header = Field(default=tokens.USUAL_HEADERS.application, description="the application")
    token: Header = Field(
        default=tokens.USUAL_HEADERS.token, description="a token (JWT) that tells what the others leave out"
    )


class Identity(Section):
    """Callers without keys, and whom callers act for."""

    issuers: tuple[Issuer, ...] = Field(default=(), description="issuers whose tokens open the gate", max_length=64)
    denied_tokens: tuple[Label, ...] = Field(
        default=(), description="`jti` of tokens that are refused before they expire", max_length=10_000
    )
    accounting: AccountingSettings | None = Field(default=None, description="a header that says who is charged")
    headers: ContextHeaderNames = Field(default=ContextHeaderNames(), description="names of the headers of end users")


def check_identity(identity: Identity, folder: FilePath) -> Iterator[Ruled]:
    """Everything that is wrong with issuers and headers; relative files are looked for in ``folder``."""
    names: dict[str, int] = {}
    for index, issuer in enumerate(identity.issuers):
        path: Path = ("identity", "issuers", index)
        if issuer.name in names:
            problem = f"{issuer.name} is the name of identity.issuers[{names[issuer.name]}] already"
            yield Ruled("CFG-CONFLICT", (*path, "name"), problem, "names that differ")
        names.setdefault(issuer.name, index)
        if not issuer.audiences:
            problem = "is empty, so that tokens made for any other application would open the gate"
            yield Ruled("CFG-MISSING", (*path, "audiences"), problem, "at least one")
        for key, url in (("issuer", issuer.issuer), ("jwks_uri", issuer.jwks_uri)):
            if url is not None and is_plain_elsewhere(url):
                problem = "whoever stands between could put keys of its own into a plain http answer"
                yield Ruled("CFG-UNSAFE", (*path, key), problem, "https, or a loopback address")
        if issuer.ca_file and not (folder / issuer.ca_file).is_file():
            yield Ruled("CFG-REF", (*path, "ca_file"), f"{folder / issuer.ca_file} is not a file", "a PEM file")
    yield from _headers(identity)


def is_plain_elsewhere(url: str) -> bool:
    """Whether a URL is plain http to another machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def _headers(identity: Identity) -> Iterator[Ruled]:
    named: list[tuple[Path, str]] = [
        (("identity", "headers", key), str(name)) for key, name in identity.headers.model_dump().items()
    ]
    if identity.accounting is not None:
        named.append((("identity", "accounting", "header"), identity.accounting.header))
    seen: dict[str, Path] = {}
    for path, name in named:
        if name in _TAKEN or name.startswith(("x-faregate-", "sec-")):
            yield Ruled("CFG-CONFLICT", path, f"{quoted(name)} says something else already", "another name")
        elif name in seen:
            told = ".".join(map(str, seen[name]))
            yield Ruled("CFG-CONFLICT", path, f"{quoted(name)} is the name of {told} already", "names that differ")
        seen.setdefault(name, path)


def identity_of(identity: Identity, folder: FilePath, proxy_for: Callable[[str], str]) -> tokens.Identity | None:
    """The settings as gate and console go by them; ``None`` where nothing is set.

    ``proxy_for`` says which proxy a URL is reached through where its issuer does not.
    """
    accounting = identity.accounting
    found = tokens.Identity(
        tuple(_rules(issuer, folder, proxy_for) for issuer in identity.issuers),
        identity.denied_tokens,
        tokens.Accounting(accounting.header, accounting.dimension, accounting.default or "")
        if accounting is not None
        else None,
        tokens.ContextHeaders(**identity.headers.model_dump()),
    )
    return found if found != tokens.Identity() else None


def _rules(issuer: Issuer, folder: FilePath, proxy_for: Callable[[str], str]) -> tokens.Issuer:
    return tokens.Issuer(
        name=issuer.name,
        issuer=issuer.issuer,
        audiences=issuer.audiences,
        algorithms=issuer.algorithms,
        organization=issuer.organization,
        team=issuer.team or "",
        project=issuer.project or "",
        user=issuer.user or "",
        product=issuer.product or "",
        stage=issuer.stage or "",
        claims=tuple((target, tuple(names)) for target, names in issuer.claims.model_dump().items()),
        require=tuple(issuer.require.items()),
        models=issuer.models,
        operations=issuer.operations,
        may_set=issuer.may_set,
        jwks_uri=issuer.jwks_uri or "",
        ca_file=str(folder / issuer.ca_file) if issuer.ca_file else "",
        proxy=issuer.proxy if issuer.proxy is not None else proxy_for(issuer.jwks_uri or issuer.issuer),
    )
