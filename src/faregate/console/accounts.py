"""Who may use the console: from a credential to the admin key it opens.

It keeps a digest → id table in memory and follows the change feed, so that a revoked admin key stops working with the
next request. It knows no HTTP.
"""

import threading
from collections.abc import Sequence
from typing import Final, NamedTuple

from faregate.console.reading import each_row
from faregate.core import keys
from faregate.errors import ConfigError
from faregate.ports import Books, Row

#: Where a key's details note the fingerprint of the pepper of its newest digest. Older keys have no such note.
PEPPER_NOTE: Final = "pepper"

_CHANGES: Final = 10_000


class Refusal(NamedTuple):
    """Why a credential opens nothing here: the public code and a sentence."""

    code: str
    detail: str


MISSING: Final = Refusal("auth_missing", "send Authorization: Bearer <admin key>")
MALFORMED: Final = Refusal("auth_malformed", "the credential is not a key of this gateway; was it copied whole?")
CONFLICT: Final = Refusal("auth_conflict", "two different credentials were sent; send one")
INVALID: Final = Refusal("auth_invalid", "this key is not valid")
EXPIRED: Final = Refusal("key_expired", "this key has expired")
REVOKED: Final = Refusal("key_revoked", "this key was revoked")
DISABLED: Final = Refusal("key_disabled", "this key is disabled")
NOT_ADMIN: Final = Refusal("role_forbidden", "this is a caller's key; the console wants an admin key")


def keys_without_pepper(books: Books, peppers: Sequence[bytes], now: int) -> int:
    """How many usable keys fail because the pepper that they were digested with is not among ``peppers``.

    Raises:
        ConfigError: CFG-SECRET: all of them do, so these are not the secrets that belong to the books.
    """
    known = {keys.fingerprint(each) for each in peppers} | {""}
    lost = good = 0
    for row, count in books.tally("key", ("state", "expires_at", "details")):
        if row["state"] == "revoked" or 0 < row["expires_at"] <= now:
            continue
        if (row["details"] or {}).get(PEPPER_NOTE, "") in known:
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

    def admin(self, secret: str, now: int) -> Row | Refusal:
        """The row of the admin key that ``secret`` opens at ``now``, or why it does not."""
        if not keys.is_well_formed(secret):
            return MALFORMED
        found = self._found(secret)
        return INVALID if found is None else self._standing(found[0], found[0]["digests"][found[1]], now)

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

    @staticmethod
    def _standing(row: Row, until: int, now: int) -> Row | Refusal:
        if row["state"] == "revoked" or (until and now >= until):
            return REVOKED
        if row["expires_at"] and now >= row["expires_at"]:
            return EXPIRED
        if row["state"] != "active":
            return DISABLED
        return row if row["role"] == "admin" else NOT_ADMIN

    def stands(self, key_id: str, now: int) -> bool:
        """Whether a key that began a session may still be used."""
        row = self._books.get("key", key_id)
        return row is not None and not isinstance(self._standing(row, 0, now), Refusal)

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
