"""Step 2: from a request's credential to the key it opens, and from its headers to whom it is charged.

A credential is checked by the HMAC of the whole secret: one dictionary lookup, no comparison loop. What opens nothing
and looks like a token is one of a configured issuer, or refused. What a request says beside that is ``described``'s.
"""

import hmac
from typing import Final
from urllib.parse import parse_qs

import msgspec

from faregate.control import Key, restricted
from faregate.core.keys import is_well_formed
from faregate.core.tokens import looks_like_one
from faregate.errors import Problem
from faregate.proxy.http1 import Request
from faregate.proxy.snapshot import Snapshot
from faregate.proxy.standing import halted
from faregate.proxy.tokens import CallerTokens, TokenKey, of_nobody

_HEADERS: Final = (b"api-key", b"x-api-key", b"x-goog-api-key", b"ocp-apim-subscription-key")

_MISSING: Final = Problem("auth_missing", "Send Authorization: Bearer <key>.", "Authorization")
_MALFORMED: Final = Problem("auth_malformed", "Key format or checksum is wrong. Check that it was copied whole.")
_INVALID: Final = Problem("auth_invalid", "Key is not valid. Ask your administrator for one.")
_CONFLICT: Final = Problem("auth_conflict", "Two different credentials were sent. Send one.")

#: No call of any known client has more than a handful; the bound keeps the search for the key short.
QUERY_FIELDS_MAX: Final = 32
_QUERY_INVALID: Final = Problem("uri_invalid", f"The query has more than {QUERY_FIELDS_MAX} fields; leave some out.")

#: Longer credentials are not hashed; a key has 55 characters.
CREDENTIAL_BYTES_MAX: Final = 512


def credential(request: Request) -> bytes | Problem:
    """The one credential of a request, in any of the forms of CONTRACT."""
    headers = request.headers
    token: bytes | None = None
    found = headers.get(b"authorization")
    if found is not None:
        scheme, space, rest = found.partition(b" ")
        if space:
            if scheme.lower() != b"bearer":
                return _MALFORMED
            found = token = rest.strip()
        elif scheme.lower() == b"bearer":
            return _MALFORMED
    for name in _HEADERS:
        value = headers.get(name)
        if value is not None:
            if found is not None and found != value and not _beside(found, token, value, request):
                return _CONFLICT
            found = value
    if request.target.find(b"subscription-key=") >= 0:
        try:
            query = parse_qs(request.target.partition(b"?")[2], max_num_fields=QUERY_FIELDS_MAX)
        except ValueError:
            return _QUERY_INVALID
        for value in query.get(b"subscription-key", ()):
            if found is not None and found != value and not _beside(found, token, value, request):
                return _CONFLICT
            found = value
    if found is None:
        return _MISSING
    return found or _MALFORMED


def _beside(found: bytes, token: bytes | None, key: bytes, request: Request) -> bool:
    """Whether a credential is no second one: the token of whom an application acts for, beside that one's key."""
    if found is not token or not looks_like_one(found) or looks_like_one(key):
        return False
    request.describes = True
    return True


def identify(
    request: Request,
    snapshot: Snapshot,
    peppers: tuple[bytes, ...],
    wall_nanos: int,
    issuers: CallerTokens | None = None,
) -> Key | Problem:
    """The key that the request's credential opens, or the caller that its token names, if it does so now."""
    secret = credential(request)
    if isinstance(secret, Problem):
        return secret
    if len(secret) > CREDENTIAL_BYTES_MAX:
        return _named(secret, request, snapshot, wall_nanos, issuers) or _MALFORMED
    for pepper in peppers:
        digest = hmac.digest(pepper, secret, "sha256").hex()
        key = snapshot.by_digest.get(digest)
        if key is not None:
            return _judged(key, digest, snapshot, wall_nanos)
    # The checksum is looked at only now: it tells a typing mistake from a stranger, and costs a valid key nothing.
    if is_well_formed(secret.decode("latin-1")):
        return _INVALID
    return _named(secret, request, snapshot, wall_nanos, issuers) or _MALFORMED


def _named(
    secret: bytes, request: Request, snapshot: Snapshot, wall_nanos: int, issuers: CallerTokens | None
) -> Key | Problem | None:
    """The caller that a token names; ``None`` where the credential is none.

    Tokens come as a Bearer alone: elsewhere, in addresses above all, they end up in logs.
    """
    bearer = request.headers.get(b"authorization", b"").lower().startswith(b"bearer ")
    if not bearer or not looks_like_one(secret):
        return None
    if issuers is None:
        return of_nobody(secret)
    key = issuers.identify(secret, wall_nanos)
    return key if isinstance(key, Problem) else _allowed(key, snapshot, wall_nanos)


def _allowed(named: TokenKey, snapshot: Snapshot, wall_nanos: int) -> Key | Problem:
    """A token's caller as far as its payers allow, which a stored key was asked when it was made and sent."""
    key: Key = named
    team = snapshot.project_teams.get((key.organization, key.project), "") if key.project else ""
    if team and not key.team:
        key = msgspec.structs.replace(key, team=team)
    elif team and team != key.team:
        text = f"This token's project {key.project[:128]} is of another team. Ask your administrator."
        return Problem("field_forbidden", text, "Authorization")
    if snapshot.restricting:
        key = restricted(key, snapshot.restricting)
        if wall_nanos >= key.expires_at:
            text = "The product or the user that this token names has ended. Ask your administrator."
            return Problem("key_expired", text, "Authorization")
    return (halted(key, snapshot.halted) if snapshot.halted else None) or key


def _judged(key: Key, digest: str, snapshot: Snapshot, wall_nanos: int) -> Key | Problem:
    until = key.digests[digest]
    if key.state == "revoked" or (until and wall_nanos >= until):
        return Problem("key_revoked", f"Key …{key.last4} was revoked. Ask your administrator for a new one.")
    if key.expires_at and wall_nanos >= key.expires_at:
        return Problem("key_expired", f"Key …{key.last4} has expired. Ask your administrator for a new one.")
    if key.state != "active":
        return Problem("key_disabled", f"Key …{key.last4} is disabled. Ask your administrator to enable it.")
    if key.role != "caller":
        return Problem("role_forbidden", "This key opens the console; calls need a caller's key.")
    if snapshot.halted:
        return halted(key, snapshot.halted) or key
    return key
