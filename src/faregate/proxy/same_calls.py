"""What makes two calls the same at the gate: whom an answer is shared with, and all that decides what it is.

The decisions are ``core.caching``'s. The same bytes come again and again, so that what they come to is remembered for
a while.
"""

import hmac
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

import msgspec

from faregate.config.settings import CacheSettings
from faregate.control import Key
from faregate.core.caching.key import same_call_key
from faregate.core.caching.policy import CacheLabels, is_deterministic, is_kept_elsewhere
from faregate.core.tokens import TENANT_TAG
from faregate.dialects.canonical import Canonical, canonical
from faregate.dialects.operations import ABOUT_OBJECTS
from faregate.proxy.snapshot import Snapshot, Target
from faregate.proxy.tokens import TokenKey

if TYPE_CHECKING:
    import asyncio

    from faregate.proxy.exchange import Exchange

#: Headers of a request that decide what is answered beside its body.
_DECIDING: Final = (b"anthropic-version", b"anthropic-beta", b"openai-beta")

#: Parameters of a query that prove who asks; everything else of it is part of the key.
_CREDENTIALS: Final = ("subscription-key", "key")
_QUERY_FIELDS_MAX: Final = 32

#: Larger bodies are read off the loop, and still larger ones are never looked up: this much takes a millisecond or two.
READ_ASIDE_BYTES: Final = 64 * 1024
LOOKED_UP_BYTES_MAX: Final = 1024 * 1024

#: Keys that are known by the bytes of a call take so much memory at most, and each so much beside its body.
KNOWN_BYTES_MAX: Final = 8 * 1024 * 1024
_KNOWN_BYTES: Final = 1_024

#: All that makes a call the same as others, its body as it came.
_Asked = tuple[tuple[str, ...], bytes, bytes, str, str, tuple[tuple[str, str], ...], tuple[bytes, ...], bytes]


class Look:
    """What the cache knows of one call that may use it."""

    __slots__ = (
        *("cost", "finished", "flushes", "followed", "key", "labels", "leads", "model", "params", "shared", "status"),
        *("snapshot", "timer", "word"),
    )

    def __init__(
        self,
        key: bytes,
        labels: CacheLabels,
        shared: tuple[str, ...],
        params: tuple[tuple[str, str], ...],
        flushes: int,
        snapshot: Snapshot,
    ) -> None:
        self.key = key
        #: By which it was looked up.
        self.snapshot = snapshot
        self.labels = labels
        self.shared = shared
        #: What its way puts into the body at the place that it was looked up for.
        self.params = params
        #: How often answers had been forgotten when it was looked up.
        self.flushes = flushes
        #: As its record says it: ``miss`` or ``refresh``.
        self.word = "miss"
        #: How it was settled, once it is: status, what it cost, and the model that its answer names.
        self.status = ""
        self.cost = 0
        self.model = ""
        self.finished = False
        #: Others wait for its answer; or it waits for another's until this timer, or has done so.
        self.leads = False
        self.followed = False
        self.timer: asyncio.TimerHandle | None = None


class SameCalls:
    """The keys of calls, by the settings of one configuration."""

    __slots__ = ("_known", "_known_bytes", "_secret", "_settings")

    def __init__(self, settings: CacheSettings, pepper: bytes) -> None:
        self._settings = settings
        # Derived, so that what opens keys is in no other use.
        self._secret = hmac.digest(pepper, b"faregate response cache", "sha256")
        #: Keys of calls by their very bytes, and about how much memory they take.
        self._known: dict[_Asked, bytes] = {}
        self._known_bytes = 0

    def may_keep_any(self, exchange: "Exchange") -> bool:
        """Whether calls of this kind are ever kept: those whose answer is nobody's own, and that are not too large."""
        operation, call = exchange.operation, exchange.call
        if exchange.free or call.objects or call.job or operation is None or operation.name in ABOUT_OBJECTS:
            return False
        return exchange.dialect.media == "json" and len(exchange.body) <= LOOKED_UP_BYTES_MAX

    def look_of(self, exchange: "Exchange", body: Canonical | None, flushes: int) -> Look | None:
        """What makes the call the same as others; ``None`` where nothing may be kept of it.

        ``body`` is what it was read as, where that was done before; ``flushes`` is how often answers were forgotten.
        """
        operation, call, key = exchange.operation, exchange.call, exchange.key
        assert operation is not None
        assert key is not None
        if not self.may_keep_any(exchange):
            return None
        target = exchange.candidates[0]
        params = params_at(exchange, target)
        stage = exchange.described.stage or key.stage
        project = exchange.described.project or key.project
        labels = CacheLabels(key.organization, stage, project, key.id, call.model, target.model)
        shared = self.shared_by(exchange, key)
        request = exchange.request
        headers = request.headers
        deciding = tuple(headers.get(name, b"") for name in _DECIDING)
        # The same bytes come again and again: then what they come to is known.
        asked = (shared, request.method, request.target, operation.name, target.model, params, deciding, exchange.body)
        known = self._known.get(asked)
        if known is None:
            known = self._key_of(asked, exchange, body)
            if known is None:
                return None
        return Look(known, labels, shared, params, flushes, exchange.snapshot)

    def _key_of(self, asked: _Asked, exchange: "Exchange", body: Canonical | None) -> bytes | None:
        """The key of a call, from all that makes it the same as others; ``None`` where it may be like no other."""
        shared, method, target, operation, model, params, deciding, raw = asked
        read = body if body is not None else canonical(raw)
        if read is None or is_kept_elsewhere(read.members, exchange.dialect.made is not None):
            return None
        if self._settings.deterministic_only:
            members = read.members | {name: msgspec.json.decode(text) for name, text in params}
            if not is_deterministic(members, exchange.call.has_output):
                return None
        path, _, query = target.partition(b"?")
        fields = _deciding_query(query)
        # How many there are of what may be more or fewer comes first, so that nothing can be taken for something else.
        parts: list[str | bytes] = [str(len(shared)), *shared, method, path, str(len(fields)), *fields]
        parts += (operation, model, str(len(params)), *(text for pair in params for text in pair))
        parts += (*deciding, read.text)
        key = same_call_key(self._secret, parts)
        if len(raw) <= READ_ASIDE_BYTES:
            self._known_bytes += len(raw) + _KNOWN_BYTES
            if self._known_bytes > KNOWN_BYTES_MAX:
                # Taking out the oldest one by one would walk over all that were taken out before.
                self._known.clear()
                self._known_bytes = len(raw) + _KNOWN_BYTES
            self._known[asked] = key
        return key

    def shared_by(self, exchange: "Exchange", key: Key) -> tuple[str, ...]:
        """Whom an answer is shared with: organization, stage, and the part of these that ``share`` names.

        Where a caller has no project, its team is what stands for it, and without a team the key alone, so that nobody
        shares with strangers by saying nothing. Customers of an application, its tenants, are strangers to each other.
        """
        share, described = self._settings.share, exchange.described
        whole = (key.organization, described.stage or key.stage, share)
        if share == "organization":
            return whole
        person = (key.tenant, key.end_user) if type(key) is TokenKey else ()
        tenant = next((value for name, value in described.tags if name == TENANT_TAG), "")
        alone = (*whole, "key", key.id, tenant, *person)
        if share == "key":
            return alone
        project = described.project or key.project
        if project:
            group: tuple[str, ...] = (*whole, "project", project, tenant)
        else:
            group = (*whole, "team", key.team, tenant) if key.team else alone
        if share == "project":
            return group
        if type(key) is TokenKey:
            # Names of people are their issuer's, and those of its client.
            return (*group, *alone)
        end_user = described.end_user or (exchange.call.end_user if "user" in key.may_set else "")
        user = described.user or key.user
        if end_user:
            return (*group, "end_user", end_user)
        return (*group, "user", user) if user else (*group, *alone)


def params_at(exchange: "Exchange", target: Target) -> tuple[tuple[str, str], ...]:
    """What the way of a call puts into its body at a place."""
    lane = exchange.lane
    step = lane.steps.get(target.name) if lane is not None and lane.steps else None
    return tuple(step.params) if step is not None else ()


def _deciding_query(query: bytes) -> list[str]:
    """A query's fields in one order, without what only proves who asks."""
    if not query:
        return []
    try:
        fields = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_QUERY_FIELDS_MAX)
    except ValueError:
        # Somebody else's as it stands.
        return [query.decode("latin-1")]
    return [text for name, value in sorted(fields) if name not in _CREDENTIALS for text in (name, value)]
