"""Callers without keys: whose token was sent, and whether one of the configured issuers made it.

A token becomes a ``TokenKey``, which is a caller's key in every respect but that nobody stored it; so limits, routes,
files and realtime sessions know no difference. The rules of reading are ``core.tokens``'; here are the issuers' public
keys, which the console fetches and hands over, and the signatures, which joserfc checks. It and the library below it
are loaded when the first issuer is configured: a gate without one has neither.

Nothing here is told in a log, and no refusal says more than the word for its reason.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from faregate.control import ISSUER_KEYS_MAX, IssuerKeys, Key
from faregate.core import tokens
from faregate.core.tokens import Caller, Identity, Issuer, Reason, Token
from faregate.errors import Problem

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, OKPKey, RSAKey

#: Tokens that need not be verified again, about 1.5 KiB each; the one that was used longest ago is forgotten first.
REMEMBERED_MAX: Final = 8_192

#: Keys of an issuer that cannot be reached any more are good for so long.
KEYS_NANOS_MAX: Final = 24 * 3_600 * 1_000_000_000

#: RSA keys of fewer bits can be broken, and larger ones make every check of a signature slow.
_RSA_BITS: Final = (2_048, 8_192)

#: An unknown key makes the console look once in so many nanoseconds, however many tokens name one.
ASK_AGAIN_NANOS: Final = 10 * 1_000_000_000

#: The call that named it waits for so long, and so many calls at once; the others are refused at once.
WAIT_SECONDS: Final = 5.0
WAITING_MAX: Final = 256

#: Bodies of those who wait, together: nobody knows yet who they are, so they get a small part of what all may have.
WAITING_BYTES_MAX: Final = 32 * 1024 * 1024

#: How soon a client may come back while an issuer cannot be reached.
_RETRY_SECONDS: Final = 5


class TokenKey(Key, frozen=True, array_like=True):
    """A caller that a token names: a key of the issuer's client, and whom that acts for."""

    end_user: str = ""
    tenant: str = ""
    application: str = ""


class VerifyingKey(NamedTuple):
    """One public key of an issuer, and the algorithms that it may be used with."""

    kid: str
    algorithms: frozenset[str]
    #: Digest of all that was published of it.
    thumbprint: bytes
    native: "RSAKey | ECKey | OKPKey"


class _Remembered(NamedTuple):
    key: TokenKey
    #: Of the key that its signature was checked with; it goes when that goes.
    thumbprint: bytes


class _Waiter:
    """A call that waits until an issuer's keys have been looked at."""

    __slots__ = ("body_bytes", "then", "timer")

    def __init__(self, then: Callable[[], None], body_bytes: int) -> None:
        self.then = then
        self.body_bytes = body_bytes
        self.timer: asyncio.TimerHandle | None = None


class _Source:
    """An issuer, and its keys as far as they are known."""

    __slots__ = (
        "asked_at",
        "by_kid",
        "claims",
        "fetched_at",
        "missed_at",
        "no_keys",
        "open",
        "rules",
        "unknown_kid",
        "waiting",
    )

    def __init__(self, rules: Issuer) -> None:
        self.rules = rules
        self.claims = dict(rules.claims)
        self.by_kid: dict[str, tuple[VerifyingKey, ...]] = {}
        self.fetched_at = 0
        #: When the console was last asked to look for a key that is not known, when for want of any, and whether it has
        #: not answered yet.
        self.asked_at = self.missed_at = 0
        self.open = False
        self.waiting: list[_Waiter] = []
        #: Told for what another look may settle; known by identity, so that a call may wait for that.
        self.unknown_kid = refusal("kid")
        text = f"The keys of issuer {rules.name} cannot be fetched now; its tokens are refused. Keys work as ever."
        self.no_keys = Problem("issuer_unavailable", text, "Authorization", retry_after_s=_RETRY_SECONDS)

    def usable(self, now: int) -> bool:
        """Whether there are keys that are not too old."""
        return bool(self.by_kid) and now - self.fetched_at < KEYS_NANOS_MAX

    def ask(self, now: int) -> None:
        """Want another look, unless there was one a moment ago.

        One for want of any keys, as after a start, takes nothing from the first token with a key that is new.
        """
        if not self.usable(now):
            if not 0 <= now - self.missed_at < ASK_AGAIN_NANOS:
                self.missed_at, self.open = now, True
        elif not 0 <= now - self.asked_at < ASK_AGAIN_NANOS:
            self.asked_at, self.open = now, True

    def answered(self) -> list[_Waiter]:
        """The console has looked, with whatever result; returns those who waited."""
        self.open = False
        waiting, self.waiting = self.waiting, []
        return waiting


class CallerTokens:
    """All issuers, their keys, and the tokens that were found good. One event loop's own."""

    def __init__(self, identity: Identity, before: "CallerTokens | None" = None) -> None:
        """Keys that ``before`` has of the same issuers stay; what it has verified does not, as rules have changed."""
        self.identity = identity
        self._denied = frozenset(identity.denied_tokens)
        self._sources = {rules.name: _Source(rules) for rules in identity.issuers}
        self._by_issuer: dict[str, list[_Source]] = {}
        for source in self._sources.values():
            self._by_issuer.setdefault(source.rules.issuer, []).append(source)
        self._verified: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._waiting = self._waiting_bytes = 0
        for name, old in before._sources.items() if before is not None else ():
            known = self._sources.get(name)
            if known is not None and _same_keys(known.rules, old.rules):
                known.by_kid, known.fetched_at = old.by_kid, old.fetched_at

    # -- callers -------------------------------------------------------------------------------------------------------

    def identify(self, token: bytes, now: int) -> TokenKey | Problem:
        """The caller that a token names, if it is good at ``now``, in nanoseconds since 1970."""
        # Of the whole token: one with another signature is another one, even if somebody calls it the same.
        digest = hashlib.sha256(token).digest()
        known = self._verified.get(digest)
        if known is not None and now < known.key.expires_at:
            self._verified.move_to_end(digest)
            return known.key
        found = self._verify(token, now)
        if isinstance(found, Problem):
            self._verified.pop(digest, None)
            return found
        self._verified[digest] = found
        if len(self._verified) > REMEMBERED_MAX:
            self._verified.popitem(last=False)
        return found.key

    def context(self, token: bytes, now: int) -> Caller | Problem:
        """Whom a token tells of that came beside a key: verified where its issuer is configured, else only read."""
        read = tokens.read(token)
        if isinstance(read, str):
            return Caller()
        issuer = read.claims.get("iss")
        if not isinstance(issuer, str) or issuer not in self._by_issuer:
            return tokens.caller_of(read.claims)
        key = self.identify(token, now)
        if isinstance(key, Problem):
            return key
        return Caller(key.application, key.end_user, key.tenant)

    def _verify(self, token: bytes, now: int) -> _Remembered | Problem:
        read = tokens.read(token)
        if isinstance(read, str):
            return refusal(read)
        fault = tokens.header_fault(read.header)
        if fault is not None:
            return refusal(fault)
        source = self._chosen(read, now // 1_000_000_000)
        if isinstance(source, str):
            return refusal(source)
        rules, algorithm = source.rules, read.header["alg"]
        if algorithm not in rules.algorithms:
            return refusal("alg")
        if not source.usable(now):
            source.ask(now)
            return source.no_keys
        keys = _candidates(source, read.header.get("kid"), algorithm)
        if not keys:
            source.ask(now)
            return source.unknown_kid
        fitting = [key for key in keys if algorithm in key.algorithms]
        if not fitting:
            return refusal("alg")
        used = next((key for key in fitting if _is_signed(read, algorithm, key)), None)
        if used is None and "kid" not in read.header:
            # It may have been made with a key that has taken the place of the one that was tried.
            source.ask(now)
            return source.unknown_kid
        if used is None:
            return refusal("sig")
        if str(read.claims.get("jti")) in self._denied:
            return Problem("key_revoked", "This token was revoked. Ask your administrator.", "Authorization")
        lacking = tokens.lacks(read.claims, rules)
        if lacking:
            text = f"Token of issuer {rules.name} does not have what its callers need in the claim {lacking}."
            return Problem("role_forbidden", text, "Authorization")
        return _Remembered(_key_of(read.claims, source), used.thumbprint)

    def _chosen(self, read: Token, now_seconds: int) -> _Source | Reason:
        """The issuer that a token is judged by: of several with one name the first whose rules its claims meet."""
        issuer = read.claims.get("iss")
        sources = self._by_issuer.get(issuer, []) if isinstance(issuer, str) else []
        fault: Reason = "iss"
        lacking: _Source | None = None
        for source in sources:
            found = tokens.claims_fault(read.claims, source.rules, now_seconds)
            if found is not None:
                # Told is the first that went wrong with an audience of ours, where there is one.
                fault = found if fault in ("iss", "aud") else fault
            elif not tokens.lacks(read.claims, source.rules):
                return source
            else:
                lacking = lacking or source
        return lacking or fault

    # -- keys ----------------------------------------------------------------------------------------------------------

    def take(self, sets: Iterable[IssuerKeys], answered: Sequence[str] = ()) -> list[Callable[[], None]]:
        """Work by these keys from now on.

        Returns what is to be called for the calls that waited for one of the ``answered`` issuers.
        """
        changed = False
        for each in sets:
            source = self._sources.get(each.issuer)
            if source is None or each.fetched_at < source.fetched_at:
                continue
            found = _usable_keys(each.keys, source.rules.algorithms)
            if not found:
                # An issuer without any key is a mistake of its own: what was known of it stays, until it is too old.
                continue
            by_kid: dict[str, tuple[VerifyingKey, ...]] = {}
            for key in found:
                by_kid[key.kid] = (*by_kid.get(key.kid, ()), key)
            changed = changed or _thumbprints(by_kid) != _thumbprints(source.by_kid)
            source.by_kid, source.fetched_at = by_kid, each.fetched_at
        if changed:
            self._forget()
        sources = (self._sources.get(name) for name in answered)
        waited = [waiter for source in sources if source is not None for waiter in source.answered()]
        for waiter in waited:
            self._leaves(waiter)
            if waiter.timer is not None:
                waiter.timer.cancel()
        return [waiter.then for waiter in waited]

    def _forget(self) -> None:
        """Forget what was verified with keys that are published no more."""
        kept = {print for source in self._sources.values() for print in _thumbprints(source.by_kid)}
        for digest in [digest for digest, known in self._verified.items() if known.thumbprint not in kept]:
            del self._verified[digest]

    def wanted(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Issuers of which a key is looked for, and those of which no key is known."""
        sources = self._sources.values()
        return (
            tuple(source.rules.name for source in sources if source.open),
            tuple(source.rules.name for source in sources if not source.by_kid),
        )

    def wait(
        self, problem: Problem, then: Callable[[], None], loop: asyncio.AbstractEventLoop, body_bytes: int = 0
    ) -> bool:
        """Call ``then`` once the keys were looked at that ``problem`` is about, or after ``WAIT_SECONDS``.

        False where nothing is to be waited for, and where too many wait already, or with too large bodies.
        """
        source = self._awaited(problem)
        if source is None or self._waiting >= WAITING_MAX or self._waiting_bytes + body_bytes > WAITING_BYTES_MAX:
            return False
        waiter = _Waiter(then, body_bytes)
        waiter.timer = loop.call_later(WAIT_SECONDS, self._give_up, source, waiter)
        source.waiting.append(waiter)
        self._waiting += 1
        self._waiting_bytes += body_bytes
        return True

    def _leaves(self, waiter: _Waiter) -> None:
        self._waiting -= 1
        self._waiting_bytes -= waiter.body_bytes

    def stand_in(self, problem: Problem) -> Key | None:
        """In whose share a body comes in while the keys are looked at that its token was made with.

        All such calls of an issuer have one share together, so that who makes names of keys up fills that alone.
        """
        source = self._awaited(problem)
        if source is None:
            return None
        return Key(tokens.caller_id(source.rules.name, "?"), "", {}, source.rules.organization)

    def may_settle(self, problem: Problem) -> bool:
        """Whether another look at an issuer's keys, which has begun, may settle what a token was refused for."""
        return self._awaited(problem) is not None

    def _awaited(self, problem: Problem) -> _Source | None:
        for source in self._sources.values():
            if problem is source.unknown_kid or problem is source.no_keys:
                return source if source.open else None
        return None

    def _give_up(self, source: _Source, waiter: _Waiter) -> None:
        if waiter in source.waiting:
            source.waiting.remove(waiter)
            self._leaves(waiter)
            waiter.then()


def of_nobody(token: bytes) -> Problem:
    """Why a token is refused where no issuer is configured: what is wrong with itself, else that nobody is known."""
    read = tokens.read(token)
    return refusal(read if isinstance(read, str) else tokens.header_fault(read.header) or "iss")


def refusal(reason: Reason) -> Problem:
    """How a bad token is told: by one word, which helps its owner and nobody who tries."""
    return Problem("jwt_invalid", f"Token refused: {reason}.", "Authorization", details={"reason": reason})


def _same_keys(one: Issuer, other: Issuer) -> bool:
    """Whether the keys of two are fetched from the same place and may be used for the same."""
    return (one.issuer, one.jwks_uri, one.algorithms) == (other.issuer, other.jwks_uri, other.algorithms)


def _thumbprints(by_kid: Mapping[str, tuple[VerifyingKey, ...]]) -> set[bytes]:
    return {key.thumbprint for keys in by_kid.values() for key in keys}


def _candidates(source: _Source, kid: str | None, algorithm: str) -> tuple[VerifyingKey, ...]:
    """The keys that a token may have been made with: those it names, or the only one there is for its algorithm."""
    if kid is not None:
        return source.by_kid.get(kid, ())
    every = tuple(key for keys in source.by_kid.values() for key in keys if algorithm in key.algorithms)
    return every if len(every) == 1 else ()


def _usable_keys(jwks: Sequence[Mapping[str, Any]], allowed: Sequence[str]) -> list[VerifyingKey]:
    """Those of the published keys that tokens may be checked with; an odd one is no reason to lose the others."""
    found = []
    for jwk in jwks[:ISSUER_KEYS_MAX]:
        algorithms = tokens.fitting_algorithms(jwk, allowed)
        kid = jwk.get("kid", "")
        native = _native(jwk) if algorithms and isinstance(kid, str) else None
        if native is not None:
            content = repr(sorted((name, jwk.get(name)) for name in ("kty", "crv", "n", "e", "x", "y")))
            found.append(VerifyingKey(kid, algorithms, hashlib.sha256(content.encode()).digest(), native))
    return found


def _native(jwk: Mapping[str, Any]) -> "RSAKey | ECKey | OKPKey | None":
    """A public key ready for use; ``None`` for one that is broken, too small or too large."""
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    kinds = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
    makers: dict[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    kind = str(jwk.get("kty"))
    plain = {name: value for name in kinds[kind] if isinstance(value := jwk.get(name), str)}
    if len(plain) < len(kinds[kind]):
        return None
    # joserfc warns of small keys; here a key is used or it is not.
    if kind == "RSA" and not _RSA_BITS[0] <= _bits(plain["n"]) <= _RSA_BITS[1]:
        return None
    try:
        return makers[kind].import_key({"kty": kind, **plain})
    except (JoseError, ValueError, TypeError, KeyError, OverflowError):
        return None


def _bits(modulus: str) -> int:
    """How many bits the modulus of an RSA key has; 0 where it is no number."""
    data = tokens.decoded(modulus.encode("utf-8", "surrogatepass"))
    return int.from_bytes(data or b"", "big").bit_length()


def _is_signed(read: Token, algorithm: str, key: VerifyingKey) -> bool:
    """Whether the signature of a token was made with a key by an algorithm that the key may be used with."""
    from joserfc.errors import JoseError
    from joserfc.jws import JWSRegistry

    model = JWSRegistry.algorithms[algorithm]
    try:
        model.check_key(key.native)
        return model.verify(read.signed, read.signature, key.native)
    except (JoseError, ValueError, TypeError, OverflowError):
        # Nothing that can be sent may end otherwise than in a refusal.
        return False


def _key_of(claims: Mapping[str, Any], source: _Source) -> TokenKey:
    rules, caller = source.rules, tokens.caller_of(claims, source.claims)
    client = caller.client or tokens.UNKNOWN
    expires_at = (tokens.moment(claims.get("exp"), 0) + tokens.LEEWAY_SECONDS) * 1_000_000_000
    return TokenKey(
        id=tokens.caller_id(rules.name, client),
        name=client,
        digests={},
        organization=rules.organization,
        team=caller.team or rules.team,
        project=caller.project or rules.project,
        user=caller.user or rules.user,
        product=caller.product or rules.product,
        stage=caller.stage or rules.stage,
        expires_at=expires_at,
        models=rules.models,
        operations=rules.operations,
        may_set=rules.may_set,
        end_user=caller.end_user,
        tenant=caller.tenant,
        application=client,
    )
