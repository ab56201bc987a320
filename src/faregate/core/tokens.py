"""Tokens of issuers (JWT): how one is read, what it must say, whom it names, and what an observed one tells.

Everything that can be refused without a signature is refused here, strictly and by one word for the reason; whether the
signature is right is the shell's to find out, with the key that this module says may be used for it. What a token says
of keys (``jku``, ``jwk``, ``x5u``, ``x5c``) is never looked at: keys come from where the configuration says.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from faregate.core.strict_json import once

#: Real ones stay under 3 KiB; whatever is longer is not even decoded.
TOKEN_BYTES_MAX: Final = 8 * 1024

#: Clocks of issuers and of this machine may differ by so much.
LEEWAY_SECONDS: Final = 60

#: The end of the year 9999: later moments are mistakes, or attempts to break the arithmetic of whoever reads them.
_MOMENT_MAX: Final = 253_402_300_799

Reason = Literal["alg", "sig", "exp", "nbf", "iss", "aud", "crit", "kid", "size", "format"]

#: Algorithm → key type and, where it is bound to one, curve. All are asymmetric: with ``none`` or HS256 whoever can
#: read a public key could make a token.
ALGORITHMS: Final[Mapping[str, tuple[str, str]]] = {
    "RS256": ("RSA", ""),
    "RS384": ("RSA", ""),
    "RS512": ("RSA", ""),
    "PS256": ("RSA", ""),
    "PS384": ("RSA", ""),
    "PS512": ("RSA", ""),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
}

#: What a token may call its own type, in lower case and without ``application/``. Others are made for other purposes.
_TYPES: Final = frozenset(("jwt", "at+jwt"))

#: What a claim may fill, and the claims that are looked at for it unless the configuration names others: Entra's first.
CLAIMS: Final[Mapping[str, tuple[str, ...]]] = {
    "client": ("azp", "appid", "client_id"),
    "end_user": ("oid", "sub"),
    "tenant": ("tid",),
    "user": (),
    "team": (),
    "project": (),
    "product": (),
    "stage": (),
}

#: These claims hold several words in one text (RFC 8693 section 4.2; Entra's ``scp``).
_LISTS_IN_TEXT: Final = frozenset(("scope", "scp"))

#: Characters of a value that a claim fills: as of everything that a request says about itself.
VALUE_CHARACTERS_MAX: Final = 256
AUDIENCES_MAX: Final = 64

#: Where something should be told and is not.
UNKNOWN: Final = "unknown"

#: Tags that tell the end user's tenant and application, for limits and reports.
TENANT_TAG: Final = "tenant"
APPLICATION_TAG: Final = "application"

#: Ids of callers without keys begin so.
ID_PREFIX: Final = "tok_"

_SEGMENT: Final = re.compile(rb"[A-Za-z0-9_-]*")
_PLAIN_CLIENT: Final = re.compile(r"[A-Za-z0-9._:@/-]{1,128}")


class Issuer(NamedTuple):
    """One issuer whose tokens open the gate, and what its callers are. Names are those of the configuration."""

    name: str
    #: The ``iss`` of its tokens, to the letter.
    issuer: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...]
    organization: str = "default"
    team: str = ""
    project: str = ""
    user: str = ""
    product: str = ""
    stage: str = ""
    #: Target of ``CLAIMS``, and names of the claims that are looked at for it, in order.
    claims: tuple[tuple[str, tuple[str, ...]], ...] = tuple(CLAIMS.items())
    #: Claim, and the values of which it must have one.
    require: tuple[tuple[str, tuple[str, ...]], ...] = ()
    #: As of keys: allowed models and operations, and what a request may say about itself.
    models: tuple[str, ...] | None = None
    operations: tuple[str, ...] | None = None
    may_set: tuple[str, ...] = ("run", "tags")
    #: Where its keys are; empty asks its discovery document. Only the console fetches them.
    jwks_uri: str = ""
    ca_file: str = ""
    proxy: str = ""


class Accounting(NamedTuple):
    """A header by which callers say who is charged."""

    header: str
    #: ``user``, ``project`` or ``product``.
    dimension: str = "user"
    #: Who is charged by a call without the header; empty leaves it to the key.
    default: str = ""


class ContextHeaders(NamedTuple):
    """Names of the headers that tell whom a call is made for."""

    end_user: str = "x-apim-end-user-id"
    tenant: str = "x-apim-end-user-tenant-id"
    application: str = "x-apim-client-application-id"
    token: str = "x-apim-end-user-jwt"  # noqa: S105 - the name of a header


USUAL_HEADERS: Final = ContextHeaders()


class Identity(NamedTuple):
    """What an installation knows of callers without keys, and of those whom callers act for."""

    issuers: tuple[Issuer, ...] = ()
    #: ``jti`` of tokens that are refused before they expire.
    denied_tokens: tuple[str, ...] = ()
    accounting: Accounting | None = None
    headers: ContextHeaders = USUAL_HEADERS


class Token(NamedTuple):
    """A token as it was read: well-formed, and nothing more."""

    header: dict[str, Any]
    claims: dict[str, Any]
    #: What was signed, and the signature over it.
    signed: bytes
    signature: bytes


class Caller(NamedTuple):
    """Whom a token names; empty where it does not say."""

    client: str = ""
    end_user: str = ""
    tenant: str = ""
    user: str = ""
    team: str = ""
    project: str = ""
    product: str = ""
    stage: str = ""


def looks_like_one(credential: bytes) -> bool:
    """Whether a credential is meant to be a token: no key has a dot, every token has two or more."""
    return credential.count(b".") >= 2


def read(token: bytes) -> Token | Reason:
    """A token taken apart, or the word for why that cannot be done: ``size`` or ``format``.

    Three segments of canonical base64url, JSON objects without a name twice in the first two. Encrypted tokens have
    five segments and are refused, as those are that hold another token.
    """
    if len(token) > TOKEN_BYTES_MAX:
        return "size"
    segments = token.split(b".")
    if len(segments) != 3:
        return "format"
    told, said, signature = map(decoded, segments)
    if signature is None or not segments[0] or not segments[1]:
        return "format"
    header, claims = _object(told), _object(said)
    if header is None or claims is None:
        return "format"
    return Token(header, claims, token[: token.rindex(b".")], signature)


def decoded(segment: bytes) -> bytes | None:
    """The bytes of a segment; ``None`` where it is not the one way to write them (RFC 4648 section 3.5)."""
    if _SEGMENT.fullmatch(segment) is None:
        return None
    try:
        data = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except binascii.Error:
        return None
    return data if base64.urlsafe_b64encode(data).rstrip(b"=") == segment else None


def _object(data: bytes | None) -> dict[str, Any] | None:
    """A JSON object in UTF-8 in which no name comes twice, at any depth."""
    if data is None:
        return None
    try:
        found = _DECODER.decode(data.decode("utf-8"))
    except (ValueError, RecursionError):
        # Also bytes that are no UTF-8, and numbers of thousands of digits.
        return None
    return found if isinstance(found, dict) else None


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


#: Made once: it takes as long to make as to use.
_DECODER: Final = json.JSONDecoder(object_pairs_hook=once, parse_constant=_no_number)


def header_fault(header: Mapping[str, Any]) -> Reason | None:
    """Why a header is refused, whoever the issuer is."""
    if header.get("alg") not in _KNOWN:
        return "alg"
    if "crit" in header or "b64" in header:
        # Nothing critical is understood here, and a payload that is not encoded is another format (RFC 7797).
        return "crit"
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        return "format"
    if not {"cty", "enc", "zip"}.isdisjoint(header):
        return "format"
    kid = header.get("kid", "")
    return None if isinstance(kid, str) and len(kid) <= VALUE_CHARACTERS_MAX else "kid"


#: A list, not a set: what is asked for may be of any type, also of one that has no hash.
_KNOWN: Final = list(ALGORITHMS)


def claims_fault(claims: Mapping[str, Any], issuer: Issuer, now_seconds: int) -> Reason | None:
    """Why the claims of a token of ``issuer`` are refused now."""
    if claims.get("iss") != issuer.issuer:
        return "iss"
    if not for_audience(claims.get("aud"), issuer.audiences):
        return "aud"
    if now_seconds >= moment(claims.get("exp"), -LEEWAY_SECONDS) + LEEWAY_SECONDS:
        return "exp"
    if any(moment(claims.get(name, 0), _MOMENT_MAX) > now_seconds + LEEWAY_SECONDS for name in ("nbf", "iat")):
        return "nbf"
    return None


def for_audience(told: object, audiences: Sequence[str]) -> bool:
    """Whether one of the audiences that a token names is, to the letter, one of ours."""
    if isinstance(told, str):
        return told in audiences
    if not isinstance(told, list) or not 0 < len(told) <= AUDIENCES_MAX:
        return False
    return all(isinstance(one, str) for one in told) and any(one in audiences for one in told)


def moment(value: object, otherwise: int) -> int:
    """A claim that is a whole number of seconds since 1970, and one that a calendar holds; ``otherwise`` for others."""
    return value if type(value) is int and 0 <= value <= _MOMENT_MAX else otherwise


def lacks(claims: Mapping[str, Any], issuer: Issuer) -> str:
    """The first claim that the issuer's callers must have and this one has not; empty where nothing is missing."""
    for name, wanted in issuer.require:
        told = claims.get(name)
        if isinstance(told, str):
            values: Sequence[object] = told.split(" ") if name in _LISTS_IN_TEXT else (told,)
        else:
            values = told if isinstance(told, list) else (told,)
        if not any(isinstance(value, str) and value in wanted for value in values):
            return name
    return ""


def fitting_algorithms(jwk: Mapping[str, Any], allowed: Sequence[str]) -> frozenset[str]:
    """The allowed algorithms that a published key may be used with, by its own type, curve, use and algorithm."""
    if jwk.get("use", "sig") != "sig" or "d" in jwk:
        # A private key that is published is everybody's.
        return frozenset()
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return frozenset()
    own = jwk.get("alg")
    return frozenset(
        name
        for name in allowed
        if name in ALGORITHMS
        and (own is None or own == name)
        and jwk.get("kty") == ALGORITHMS[name][0]
        and ALGORITHMS[name][1] in ("", jwk.get("crv"))
    )


def text_claim(claims: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first of some claims that is a usable text, else empty."""
    for name in names:
        value = claims.get(name)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, str) and 0 < len(value) <= VALUE_CHARACTERS_MAX and value.isprintable():
            return value
    return ""


def caller_of(claims: Mapping[str, Any], names: Mapping[str, Sequence[str]] = CLAIMS) -> Caller:
    """Whom the claims name; ``names`` are those of ``Issuer.claims`` as a mapping."""
    return Caller(*(text_claim(claims, names.get(target, ())) for target in Caller._fields))


def caller_id(issuer: str, client: str) -> str:
    """The id under which a client of an issuer is limited and reported, always the same: ``tok_entra:6731de76-…``.

    A client whose name cannot stand in a selector is known by a digest of it.
    """
    if _PLAIN_CLIENT.fullmatch(client) is None:
        client = "~" + hashlib.sha256(client.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{ID_PREFIX}{issuer}:{client}"
