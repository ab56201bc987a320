"""Whom a call is for, and what else its request says about itself: headers, as far as the key may say them.

The end user, their tenant and the application that acts for them come from headers, else from a token: the caller's
own, or one that came beside a key, which is only read unless its issuer is configured; else from the body. Tenant and
application become tags, so that limits, reports and filters know them like any other. None of these headers passes on.
"""

import re
from typing import Final, NamedTuple

from faregate.control import Key
from faregate.core.attribution import Attribution
from faregate.core.tokens import (
    APPLICATION_TAG,
    TENANT_TAG,
    USUAL_HEADERS,
    Accounting,
    Caller,
    ContextHeaders,
    caller_of,
    looks_like_one,
    read,
)
from faregate.errors import Problem
from faregate.proxy.event_facts import facts_of
from faregate.proxy.http1 import Request
from faregate.proxy.snapshot import Snapshot
from faregate.proxy.standing import halted_name
from faregate.proxy.tokens import CallerTokens, TokenKey

#: End users, runs, tags: what a request may say about itself, in characters.
VALUE_CHARACTERS_MAX: Final = 256
TAGS_MAX: Final = 16

_PRINTABLE: Final = re.compile(r"[^\x00-\x1f\x7f]+")
_TAG_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")

#: What the header that says who is charged names → the right of a key that it takes.
_CHARGED_BY: Final = {"user": "user", "project": "project", "product": "user"}

#: Right of a key → the headers that need it; of several the first that is sent counts.
_RIGHTS: Final = (
    ("project", "x-faregate-project", "openai-proxy-project"),
    ("stage", "x-faregate-stage", "openai-proxy-staging"),
    ("user", "x-faregate-user", "openai-proxy-user"),
    ("run", "x-faregate-run", "x-faregate-run"),
    ("tags", "x-faregate-tags", "x-faregate-tags"),
)


class Described(NamedTuple):
    """What a request said about itself."""

    project: str = ""
    stage: str = ""
    end_user: str = ""
    run: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    timeout_ms: int = 0
    #: Who is charged instead of the key's own, by the header that the configuration names for that.
    user: str = ""
    product: str = ""
    #: Where ``end_user`` comes from: ``header`` or ``jwt``.
    source: str = ""


NOT_DESCRIBED: Final = Described()


def attribution(
    key: Key, described: Described, body_user: str = "", model: str = "", place: str = "", at: str = "", asked: str = ""
) -> Attribution:
    """Who a call is charged to: its key, what it said about itself, and last what its body says of the end user.

    ``place`` is the deployment, ``at`` the provider, and ``asked`` the operation or the service.
    """
    end_user, source = described.end_user, described.source
    if not end_user and body_user and "user" in key.may_set:
        end_user, source = body_user, "body"
    return Attribution(
        key.organization,
        key.team,
        described.project or key.project,
        described.user or key.user,
        end_user,
        key.id,
        described.product or key.product,
        described.stage or key.stage,
        described.run,
        model,
        place,
        at,
        asked,
        described.tags,
        source,
    )


def describe(
    request: Request, key: Key, snapshot: Snapshot, issuers: CallerTokens | None, wall_nanos: int
) -> Described | Problem:
    """What the request says about itself, as far as its key may say it."""
    texts = _texts(request.headers, key)
    if isinstance(texts, Problem):
        return texts
    for name, known in (("project", snapshot.projects), ("stage", snapshot.stages)):
        problem = _named(name, texts.get(name, ""), f"x-faregate-{name}", known, key, snapshot)
        if problem is not None:
            return problem
    tags = request.headers.get(b"x-faregate-tags")
    pairs = parse_tags(tags) if tags is not None else ()
    if isinstance(pairs, Problem):
        return pairs
    timeout = parse_timeout(_either(request.headers, b"x-faregate-timeout", b"x-request-timeout"))
    if isinstance(timeout, Problem):
        return timeout
    identity = snapshot.catalogue.identity
    names = identity.headers if identity is not None else USUAL_HEADERS
    caller = _context(request, key, names, issuers, wall_nanos, texts.get("user", ""))
    if isinstance(caller, Problem):
        return caller
    tagged = _tagged(pairs, caller[0], key)
    if isinstance(tagged, Problem):
        return tagged
    facts = facts_of(request.headers, key.may_set)
    if isinstance(facts, Problem):
        return facts
    if facts:
        tagged = tuple(sorted((dict(tagged) | dict(facts)).items()))
    charged = _charged(request, key, snapshot, identity.accounting) if identity is not None else NOT_DESCRIBED
    if isinstance(charged, Problem):
        return charged
    found = Described(
        charged.project or texts.get("project", ""),
        texts.get("stage", ""),
        caller[0].end_user,
        texts.get("run", ""),
        tagged,
        timeout,
        charged.user,
        charged.product,
        caller[1],
    )
    # One that says nothing is like all others that say nothing, which is cheaper.
    return found if found != NOT_DESCRIBED else NOT_DESCRIBED


def _texts(headers: dict[bytes, bytes], key: Key) -> dict[str, str] | Problem:
    """What the headers of ours say, by right; the texts among it are checked."""
    texts: dict[str, str] = {}
    for right, name, alias in _RIGHTS:
        value = _either(headers, name.encode(), alias.encode())
        if value is None:
            continue
        text = _text(value, name, right, key)
        if isinstance(text, Problem):
            return text
        texts[right] = text
    return texts


def _text(value: bytes, name: str, right: str, key: Key) -> str | Problem:
    if right not in key.may_set:
        return Problem("field_forbidden", f"{name} may not be set with this key.", name)
    text = value.decode("utf-8", "replace")
    if right != "tags" and (len(text) > VALUE_CHARACTERS_MAX or _PRINTABLE.fullmatch(text) is None):
        return Problem("header_invalid", f"{name}: expected 1 to {VALUE_CHARACTERS_MAX} printable characters.", name)
    return text


def _named(
    kind: str,
    value: str,
    header: str,
    known: "frozenset[str] | dict[str, frozenset[str]]",
    key: Key,
    snapshot: Snapshot,
) -> Problem | None:
    """Why a request may not name this project or stage: there is none for its key, or it is disabled."""
    if not value:
        return None
    if value not in known and (kind != "stage" or (key.organization, value) not in snapshot.stage_names):
        return Problem("field_range", f"{header}: no such {kind}.", header)
    if kind == "project" and snapshot.project_teams:
        # Another organization's is as none; and what a team's projects used is what its keys used.
        team = snapshot.project_teams.get((key.organization, value))
        if team is None:
            return Problem("field_range", f"{header}: no such project.", header)
        if team and team != key.team:
            return Problem("field_range", f"{header}: this project is of another team.", header)
    return halted_name(kind, key.organization, value, snapshot.halted) if snapshot.halted else None


def _context(
    request: Request, key: Key, names: ContextHeaders, issuers: CallerTokens | None, wall_nanos: int, user: str
) -> tuple[Caller, str] | Problem:
    """Whom the call is for, and where its end user was told: ``header``, ``jwt`` or empty.

    Headers go before tokens, each for itself (PRIOR-SYSTEMS 3.4).
    """
    told: dict[str, str] = {"end_user": user} if user else {}
    for field, header in (("end_user", names.end_user), ("tenant", names.tenant), ("application", names.application)):
        value = request.headers.get(header.encode())
        if value is not None:
            text = _text(value, header, "user", key)
            if isinstance(text, Problem):
                return text
            told.setdefault(field, text)
    token = request.headers.get(names.token.encode())
    if token is not None and "user" not in key.may_set:
        return Problem("field_forbidden", f"{names.token} may not be set with this key.", names.token)
    if isinstance(key, TokenKey):
        own = Caller(key.application, key.end_user, key.tenant)
    else:
        found = _read(request, token, names.token, key, issuers, wall_nanos)
        if isinstance(found, Problem):
            return found
        own = found
    source = "header" if "end_user" in told else "jwt" if own.end_user else ""
    return (
        Caller(told.get("application", own.client), told.get("end_user", own.end_user), told.get("tenant", own.tenant)),
        source,
    )


def _read(
    request: Request, token: bytes | None, header: str, key: Key, issuers: CallerTokens | None, wall_nanos: int
) -> Caller | Problem:
    """Whom a token beside the key tells of: that of the header, else the one that the key left to Authorization."""
    if token is None:
        scheme, _, bearer = request.headers.get(b"authorization", b"").partition(b" ")
        # With the right to name an end user; a client that always sends one is not refused for it.
        if scheme.lower() != b"bearer" or not looks_like_one(bearer) or "user" not in key.may_set:
            return Caller()
        token, header = bearer, "Authorization"
    else:
        token = token.removeprefix(b"Bearer ")
    token = token.strip()
    if issuers is None:
        found = read(token)
        return caller_of(found.claims) if not isinstance(found, str) else Caller()
    told = issuers.context(token, wall_nanos)
    if isinstance(told, Problem) and not issuers.may_settle(told):
        return told._replace(param=header)
    return told


def _tagged(pairs: tuple[tuple[str, str], ...], caller: Caller, key: Key) -> tuple[tuple[str, str], ...] | Problem:
    """The tags of a call with those that tell the tenant and the application."""
    told = {TENANT_TAG: caller.tenant, APPLICATION_TAG: caller.client}
    told = {name: value for name, value in told.items() if value}
    if isinstance(key, TokenKey) and "user" not in key.may_set:
        for name, _ in pairs:
            if name in (TENANT_TAG, APPLICATION_TAG):
                rule = f"x-faregate-tags: {name} is told by the token, and may not be set beside it."
                return Problem("field_forbidden", rule, "x-faregate-tags")
    if not told:
        return pairs
    return tuple(sorted((dict(pairs) | told).items()))


def _charged(request: Request, key: Key, snapshot: Snapshot, accounting: Accounting | None) -> Described | Problem:
    """Who is charged by the header that the configuration names: its value, else the default where the key has none."""
    if accounting is None:
        return NOT_DESCRIBED
    dimension, header = accounting.dimension, accounting.header
    value = request.headers.get(header.encode())
    own = {"user": key.user, "project": key.project, "product": key.product}[dimension]
    if value is None:
        text = "" if own else accounting.default
    else:
        said = _text(value, header, _CHARGED_BY[dimension], key)
        if isinstance(said, Problem):
            return said
        text = said
        if dimension == "product" and own and own != text:
            # It would go on with what its product allows, and leave all limits on it.
            return Problem("field_forbidden", f"{header}: this key has a product of its own.", header)
        problem = _named(dimension, text, header, snapshot.projects, key, snapshot) if dimension == "project" else None
        if problem is None and snapshot.halted:
            problem = halted_name(dimension, key.organization, text, snapshot.halted)
        if problem is not None:
            return problem
    return Described(
        project=text if dimension == "project" else "",
        user=text if dimension == "user" else "",
        product=text if dimension == "product" else "",
    )


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
