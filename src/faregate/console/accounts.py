"""Who uses the console: from a credential to the key it is of, and so to a role and a scope.

It keeps a digest → id table in memory and follows the change feed; the key's row is read for every request, so that a
key that was revoked, or got another role, is judged anew with the next one. It knows no HTTP.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from faregate.console.payer_rules import stopped_among, stopped_by
from faregate.console.reading import each_row
from faregate.core import keys
from faregate.core.access import CALLER, Principal, principal_of
from faregate.errors import ConfigError
from faregate.ports import Books, Row

#: Where a key's details note the fingerprint of the pepper of its newest digest. Older keys have no such note.
PEPPER_NOTE: Final = "pepper"

_CHANGES: Final = 10_000


class Refusal(NamedTuple):
    """Why a credential opens nothing here: the public code and a sentence."""

    code: str
    detail: str


MISSING: Final = Refusal("auth_missing", "send Authorization: Bearer <key>, a key that opens the console")
MALFORMED: Final = Refusal("auth_malformed", "the credential is not a key of this gateway; was it copied whole?")
CONFLICT: Final = Refusal("auth_conflict", "two different credentials were sent; send one")
INVALID: Final = Refusal("auth_invalid", "this key is not valid")
EXPIRED: Final = Refusal("key_expired", "this key has expired")
REVOKED: Final = Refusal("key_revoked", "this key was revoked")
DISABLED: Final = Refusal("key_disabled", "this key is disabled")
PAYER_DISABLED: Final = Refusal("key_disabled", "whom this key belongs to is disabled")
ONLY_CALLS: Final = Refusal("role_forbidden", "this is a caller's key; the console wants a key with another role")


def usable_keys(books: Books, now: int) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Details of keys that can be used at ``now``, and how many have just these."""
    for row, count in books.tally("key", ("state", "expires_at", "details")):
        if row["state"] != "revoked" and not 0 < row["expires_at"] <= now:
            yield row["details"] or {}, count


def keys_without_pepper(books: Books, peppers: Sequence[bytes], now: int) -> int:
    """How many usable keys fail because the pepper that they were digested with is not among ``peppers``.

    Raises:
        ConfigError: CFG-SECRET: all of them do, so these are not the secrets that belong to the books.
    """
    known = {keys.fingerprint(each) for each in peppers} | {""}
    lost = good = 0
    for details, count in usable_keys(books, now):
        if details.get(PEPPER_NOTE, "") in known:
            good += count
        else:
            lost += count
    if lost and not good:
        raise ConfigError(
            f"no pepper of secrets.json is the one of the books: all keys would fail ({lost})",
            code="CFG-SECRET",
            hint="restore the secrets.json that belongs to these books, or add its old pepper to `peppers`",
        )
    return lost


class KeyRing:
    """Finds keys by their secret. Safe to use from several threads."""

    def __init__(self, books: Books, peppers: Sequence[bytes]) -> None:
        self._books = books
        self._peppers = tuple(peppers)
        self._lock = threading.Lock()
        self._sequence = -1
        self._ids: dict[str, str] = {}
        self._digests: dict[str, tuple[str, ...]] = {}

    def opened(self, secret: str, now: int) -> Principal | Refusal:
        """Who asks with ``secret`` at ``now``, or why it opens nothing."""
        found = self.signing_in(secret, now)
        return found if isinstance(found, Refusal) else found[0]

    def signing_in(self, secret: str, now: int) -> tuple[Principal, str] | Refusal:
        """Who asks with ``secret`` and its digest, by which a session knows it; or why it opens nothing."""
        if not keys.is_well_formed(secret):
            return MALFORMED
        found = self._found(secret)
        if found is None:
            return INVALID
        judged = self._judged(*found, now)
        return judged if isinstance(judged, Refusal) else (judged, found[1])

    def holder(self, secret: str) -> Row | None:
        """The row of the key that a secret belongs to, whether or not it still opens anything."""
        found = self._found(secret) if keys.is_well_formed(secret) else None
        return found[0] if found is not None else None

    def _found(self, secret: str) -> tuple[Row, str] | None:
        """The row of the key that a secret belongs to, and the digest by which it was found."""
        digests = [keys.digest(pepper, secret) for pepper in self._peppers]
        with self._lock:
            self._refresh()
            found = next(((self._ids[each], each) for each in digests if each in self._ids), None)
        row = self._books.get("key", found[0]) if found is not None else None
        return None if found is None or row is None or found[1] not in row["digests"] else (row, found[1])

    def _judged(self, row: Row, digest: str, now: int) -> Principal | Refusal:
        until = row["digests"][digest]
        if row["state"] == "revoked" or (until and now >= until):
            return REVOKED
        if row["expires_at"] and now >= row["expires_at"]:
            return EXPIRED
        if row["state"] != "active":
            return DISABLED
        if row["role"] == CALLER:
            return ONLY_CALLS
        # Whoever stops keys at the gate stops them here.
        return PAYER_DISABLED if stopped_by(row, stopped_among(self._books, [row])) else principal_of(row)

    def standing(self, key_id: str, digest: str, now: int) -> Principal | None:
        """Who asks with a session that a secret of a key began; ``None`` where that opens nothing any more."""
        row = self._books.get("key", key_id)
        judged = None if row is None or digest not in row["digests"] else self._judged(row, digest, now)
        return None if isinstance(judged, Refusal) else judged

    def _refresh(self) -> None:
        """Take in what changed since the last look."""
        if self._sequence < 0:
            # Changes made while the table is read are seen again afterwards, which does no harm.
            self._sequence = self._books.newest_change()
            self._take_all()
        while changes := self._books.changes(self._sequence, _CHANGES):
            for key_id in {key_id for _, kind, key_id in changes if kind == "key"}:
                self._take(key_id, self._books.get("key", key_id))
            self._sequence = changes[-1][0]

    def _take_all(self) -> None:
        for row in each_row(self._books, "key"):
            self._take(row["id"], row)

    def _take(self, key_id: str, row: Row | None) -> None:
        for digest in self._digests.pop(key_id, ()):
            self._ids.pop(digest, None)
        if row is not None:
            self._digests[key_id] = tuple(row["digests"])
            self._ids.update(dict.fromkeys(row["digests"], key_id))
