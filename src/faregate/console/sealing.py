"""Secrets of rows in the books: sealed when they are written, opened when they are used, never both at once.

Rows of before there was sealing hold plain texts, and after a rotation some are sealed with an older key; both are
sealed anew when the console starts.
"""

import logging
from typing import Any, Final

from faregate.config.secret_box import MARK, Place, SecretBox, masked, provider_place, service_place
from faregate.console.reading import every
from faregate.errors import Failed, Unavailable
from faregate.ports import Books, Row

log = logging.getLogger(__name__)

#: Columns of a channel that hold secrets: its address may have a token in its path.
_OF_CHANNEL: Final = ("url", "secret")

#: Kinds of which each has one secret, for the host of its ``base_url`` → what that is bound to.
_AT_A_HOST: Final = {"provider": provider_place, "service": service_place}


def channel_sealed(box: SecretBox | None, row: Row) -> Row:
    """A channel as it is stored; without a key it is stored as it is."""
    if box is None:
        return row
    return row | {name: box.seal(row[name], _place(row, name)) for name in _OF_CHANNEL if row[name]}


def channel_opened(box: SecretBox | None, row: Row) -> Row:
    """A channel as it is used.

    Raises:
        Failed: secret_sealed: its key is not here, or it was altered.
    """
    if box is None:
        if any(row[name].startswith(MARK) for name in _OF_CHANNEL):
            raise Failed(f"the key that channel {row['id']} was encrypted with is not here", code="secret_sealed")
        return row
    return row | {name: box.open(row[name], _place(row, name)) for name in _OF_CHANNEL if row[name]}


def channel_shown(box: SecretBox | None, row: Row) -> Row:
    """A channel for showing: one that does not open has no address to show."""
    try:
        return channel_opened(box, row)
    except Failed:
        return row | dict.fromkeys(_OF_CHANNEL, "")


def _place(row: Row, column: str) -> Place:
    return Place("channel", row["id"], column)


def secret_columns(box: SecretBox | None, secret: str, place: Place, details: Row | None, now: int) -> dict[str, Any]:
    """The columns of a secret that is kept for one host, sealed and masked; of none they are empty.

    The moment goes into the row's ``details``, so that the trail tells of another secret whose mask is the same.

    Raises:
        Unavailable: this installation cannot keep any.
    """
    told = {"details": {**(details or {}), "secret_at": now}}
    if not secret:
        return {"secret": "", "masked": "", **told}
    if box is None:
        hint = "this installation has no key to encrypt secrets with; start it once with `faregate serve`"
        raise Unavailable("the secret cannot be stored", hint=hint)
    return {"secret": box.seal(secret, place), "masked": masked(secret), **told}


def unreadable(books: Books, box: SecretBox | None) -> list[str]:
    """Providers and services whose stored secret does not open here: ``provider NAME``, ``service NAME``."""
    found = []
    for kind, place_of in _AT_A_HOST.items():
        for row in every(books, kind):
            if not row["secret"]:
                continue
            try:
                if box is None:
                    raise Failed("there is no key", code="secret_sealed")
                box.open(row["secret"], place_of(row["id"], row["base_url"]))
            except Failed:
                found.append(f"{kind} {row['name']}")
    return found


def seal_anew(books: Books, box: SecretBox) -> int:
    """Seal with the newest key what is plain or was sealed with an older one; how many rows there were.

    What does not open stays as it is: its key may come back.
    """
    count = 0
    for row in every(books, "channel"):
        if any(row[name] and not box.is_current(row[name]) for name in _OF_CHANNEL):
            try:
                books.put("channel", channel_sealed(box, channel_opened(box, row)))
            except Failed as error:
                log.error("secret_unreadable", extra={"channel": row["name"], "why": error.message})
            else:
                count += 1
    for kind, place_of in _AT_A_HOST.items():
        for row in every(books, kind):
            if row["secret"] and not box.is_current(row["secret"]):
                place = place_of(row["id"], row["base_url"])
                try:
                    books.put(kind, row | {"secret": box.seal(box.open(row["secret"], place), place)})
                except Failed as error:
                    log.error("secret_unreadable", extra={kind: row["name"], "why": error.message})
                else:
                    count += 1
    if count:
        log.info("secrets_sealed", extra={"rows": count})
    return count
