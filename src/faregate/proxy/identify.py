"""Step 2: from a request's credential to the key it opens, and from its headers to whom it is charged.

A credential is checked by the HMAC of the whole secret: one dictionary lookup, no comparison loop. Headers may
describe a request only where the key has the right to (RULINGS 19).
"""

import hmac
import re
from typing import Final, NamedTuple
from urllib.parse import parse_qs

from faregate.control import Key
from faregate.core.keys import is_well_formed
from faregate.errors import Problem
from faregate.proxy.http1 import Request
from faregate.proxy.snapshot import Snapshot

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

#: End users, runs, tags: what a request may say about itself, in characters.
VALUE_CHARACTERS_MAX: Final = 256
TAGS_MAX: Final = 16

_PRINTABLE: Final = re.compile(r"[^\x00-\x1f\x7f]+")
_TAG_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Described(NamedTuple):
    """What a request said about itself."""

    project: str = ""
    stage: str = ""
    end_user: str = ""
    run: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    timeout_ms: int = 0


NOT_DESCRIBED: Final = Described()


def credential(request: Request) -> bytes | Problem:
    """The one credential of a request, in any of the forms of CONTRACT."""
    headers = request.headers
    found = headers.get(b"authorization")
    if found is not None:
        scheme, space, token = found.partition(b" ")
        if space:
            if scheme.lower() != b"bearer":
                return _MALFORMED
            found = token.strip()
        elif scheme.lower() == b"bearer":
            return _MALFORMED
    for name in _HEADERS:
        value = headers.get(name)
        if value is not None:
            if found is not None and found != value:
                return _CONFLICT
            found = value
    if b"subscription-key=" in request.target:
        try:
            query = parse_qs(request.target.partition(b"?")[2], max_num_fields=QUERY_FIELDS_MAX)
        except ValueError:
            return _QUERY_INVALID
        for value in query.get(b"subscription-key", ()):
            if found is not None and found != value:
                return _CONFLICT
            found = value
    if found is None:
        return _MISSING
    return found or _MALFORMED


def identify(request: Request, snapshot: Snapshot, peppers: tuple[bytes, ...], wall_nanos: int) -> Key | Problem:
    """The key that the request's credential opens, if it opens one now."""
    secret = credential(request)
    if isinstance(secret, Problem):
        return secret
    if len(secret) > CREDENTIAL_BYTES_MAX:
        return _MALFORMED
    for pepper in peppers:
        digest = hmac.digest(pepper, secret, "sha256").hex()
        key = snapshot.by_digest.get(digest)
        if key is not None:
            return _judged(key, digest, wall_nanos)
    # The checksum is looked at only now: it tells a typing mistake from a stranger, and costs a valid key nothing.
    return _INVALID if is_well_formed(secret.decode("latin-1")) else _MALFORMED


def _judged(key: Key, digest: str, wall_nanos: int) -> Key | Problem:
    until = key.digests[digest]
    if key.state == "revoked" or (until and wall_nanos >= until):
        return Problem("key_revoked", f"Key …{key.last4} was revoked. Ask your administrator for a new one.")
    if key.expires_at and wall_nanos >= key.expires_at:
        return Problem("key_expired", f"Key …{key.last4} has expired. Ask your administrator for a new one.")
    if key.state != "active":
        return Problem("key_disabled", f"Key …{key.last4} is disabled. Ask your administrator to enable it.")
    if key.role != "caller":
        return Problem("role_forbidden", "This is an administrator's key; calls need a caller's key.")
    return key


def describe(request: Request, key: Key, snapshot: Snapshot) -> Described | Problem:
    """What the request says about itself, as far as its key may say it."""
    headers = request.headers
    project = _either(headers, b"x-faregate-project", b"openai-proxy-project")
    stage = _either(headers, b"x-faregate-stage", b"openai-proxy-staging")
    user = _either(headers, b"x-faregate-user", b"openai-proxy-user")
    run = headers.get(b"x-faregate-run")
    tags = headers.get(b"x-faregate-tags")
    for right, name, value in (
        ("project", "x-faregate-project", project),
        ("stage", "x-faregate-stage", stage),
        ("user", "x-faregate-user", user),
        ("run", "x-faregate-run", run),
        ("tags", "x-faregate-tags", tags),
    ):
        if value is not None and right not in key.may_set:
            return Problem("field_forbidden", f"{name} may not be set with this key.", name)
    texts: dict[str, str] = {}
    for name, value in (("project", project), ("stage", stage), ("user", user), ("run", run)):
        if value is not None:
            text = value.decode("utf-8", "replace")
            if len(text) > VALUE_CHARACTERS_MAX or _PRINTABLE.fullmatch(text) is None:
                rule = f"x-faregate-{name}: expected 1 to {VALUE_CHARACTERS_MAX} printable characters."
                return Problem("header_invalid", rule, f"x-faregate-{name}")
            texts[name] = text
    named = texts.get("project", "")
    if named and named not in snapshot.projects:
        return Problem("field_range", "x-faregate-project: no such project.", "x-faregate-project")
    staged = texts.get("stage", "")
    if staged and staged not in snapshot.stages:
        return Problem("field_range", "x-faregate-stage: no such stage.", "x-faregate-stage")
    pairs = parse_tags(tags) if tags is not None else ()
    if isinstance(pairs, Problem):
        return pairs
    timeout = parse_timeout(_either(headers, b"x-faregate-timeout", b"x-request-timeout"))
    if isinstance(timeout, Problem):
        return timeout
    return Described(named, staged, texts.get("user", ""), texts.get("run", ""), pairs, timeout)


def parse_tags(value: bytes) -> tuple[tuple[str, str], ...] | Problem:
    """``a=b,c=d`` as sorted pairs."""
    pairs: dict[str, str] = {}
    for part in value.decode("utf-8", "replace").split(","):
        name, equals, text = part.strip().partition("=")
        if not equals or _TAG_NAME.fullmatch(name) is None or len(text) > VALUE_CHARACTERS_MAX:
            return _tags_invalid()
        if (text and _PRINTABLE.fullmatch(text) is None) or name in pairs:
            return _tags_invalid()
        pairs[name] = text
    if len(pairs) > TAGS_MAX:
        return _tags_invalid()
    return tuple(sorted(pairs.items()))


def _tags_invalid() -> Problem:
    rule = f"x-faregate-tags: expected name=value pairs joined by commas, at most {TAGS_MAX}, each name once."
    return Problem("header_invalid", rule, "x-faregate-tags")


def parse_timeout(value: bytes | None) -> int | Problem:
    """``30s``, ``1500ms`` or plain seconds, as milliseconds; 0 where none was sent."""
    if value is None:
        return 0
    match = re.fullmatch(rb"([0-9]{1,7})(ms|s|m)?", value.strip())
    milliseconds = int(match[1]) * {b"ms": 1, b"m": 60_000}.get(match[2], 1000) if match else 0
    if not 1 <= milliseconds <= 3_600_000:
        return Problem("header_invalid", "x-faregate-timeout: expected a time such as 30s.", "x-faregate-timeout")
    return milliseconds


def _either(headers: dict[bytes, bytes], name: bytes, alias: bytes) -> bytes | None:
    value = headers.get(name)
    return value if value is not None else headers.get(alias)
