"""Secrets that lie in the books: encrypted with AES-256-GCM, each bound to its place, so that none opens anywhere else.

The key lies beside the pepper, outside the books: a copy of the books alone tells nothing. What a secret is bound to is
the installation, the kind and id of the resource that has it, and where it may be sent; moved to another row or beside
another host, it does not open.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from faregate.errors import Failed

#: Begins every sealed text: the way in which it is sealed, then the id of the key.
MARK: Final = "sealed:1:"
_NONCE_BYTES: Final = 12
KEY_BYTES: Final = 32


class Place(NamedTuple):
    """What a sealed secret is bound to beside the installation."""

    #: Kind of the resource, such as ``provider``, its id, and the column.
    kind: str
    id: str
    column: str
    #: Scheme, host and port that it may be sent to; empty where its row alone says that.
    host: str = ""


class SecretBox:
    """Seals texts and opens them. The first key seals, all of them open."""

    def __init__(
        self, installation: str, keys: Sequence[tuple[str, bytes]], random_bytes: Callable[[int], bytes]
    ) -> None:
        """``keys`` are pairs of an id and 32 bytes."""
        self._installation = installation
        self._sealing = keys[0][0]
        self._ciphers = {id: AESGCM(key) for id, key in keys}
        self._random = random_bytes

    def __repr__(self) -> str:
        return f"SecretBox({len(self._ciphers)} keys)"

    def seal(self, text: str, place: Place) -> str:
        """``text`` in a form that only this installation opens, and only at this place."""
        nonce = self._random(_NONCE_BYTES)
        sealed = self._ciphers[self._sealing].encrypt(nonce, text.encode(), self._bound(self._sealing, place))
        return f"{MARK}{self._sealing}:{base64.b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, place: Place) -> str:
        """The text that was sealed at this place; a text from before there was sealing is given as it is.

        Raises:
            Failed: secret_sealed: its key is not here, or it was sealed elsewhere, or altered.
        """
        if not sealed.startswith(MARK):
            return sealed
        key, _, data = sealed[len(MARK) :].partition(":")
        cipher = self._ciphers.get(key)
        if cipher is None:
            raise Failed(
                f"the secret of {place.kind} {place.id} was encrypted with the key {key[:32]!r}, which is not here",
                code="secret_sealed",
                hint="add that key to secrets.json, or send the secret again",
            )
        try:
            raw = base64.b64decode(data, validate=True)
            return cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], self._bound(key, place)).decode()
        except (InvalidTag, binascii.Error, ValueError):
            raise Failed(
                f"the secret of {place.kind} {place.id} does not open: it was sealed elsewhere, or altered",
                code="secret_sealed",
                hint="send the secret again",
            ) from None

    def is_current(self, sealed: str) -> bool:
        """Whether a text is sealed, and with the key that seals now."""
        return sealed.startswith(f"{MARK}{self._sealing}:")

    def _bound(self, key: str, place: Place) -> bytes:
        # JSON, so that no two places make the same bytes.
        return json.dumps([MARK, key, self._installation, *place]).encode()


def box_of(
    installation: str, keys: Sequence[tuple[str, str]], random_bytes: Callable[[int], bytes]
) -> SecretBox | None:
    """The box of an installation, whose ``keys`` are pairs of an id and base64; ``None`` where it has no key."""
    if not keys:
        return None
    return SecretBox(installation, [(id, base64.b64decode(key)) for id, key in keys], random_bytes)


def provider_place(id: str, base_url: str) -> Place:
    """The place of a provider's secret: it opens for that provider and that host alone."""
    return _place_at("provider", id, base_url)


def service_place(id: str, base_url: str) -> Place:
    """The place of the secret of a service behind the gate, likewise."""
    return _place_at("service", id, base_url)


def _place_at(kind: str, id: str, base_url: str) -> Place:
    parts = urlsplit(base_url)
    return Place(kind, id, "secret", f"{parts.scheme}://{parts.netloc.lower()}")


#: A secret at least this long shows its last four characters; of a shorter one that would be too much.
_SHOWN_FROM: Final = 16


def masked(secret: str) -> str:
    """As much of a secret as tells it from others: where it begins and ends."""
    if len(secret) < _SHOWN_FROM:
        return "…"
    return f"{secret[:3]}…{secret[-4:]}"
