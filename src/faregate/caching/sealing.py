"""Answers on a server that others use, too: they can be neither read, altered, forged nor given for another key there.

A value is encrypted with AES-256-GCM under a key that is made of the secret and of what it is kept for, bound to the
name it lies under. Before it stand eight bytes for each label, by which values are found that are to be forgotten
without being fetched; they are bound to it, too. Whoever reads the server learns how long answers are and which of them
have a label in common, and can delete what there is, or bring back what was there before it expires.
"""

import hashlib
import hmac
import os
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from faregate.core.caching.policy import CacheLabels
from faregate.ports import CachedAnswer

#: Begins the name of everything that we keep there.
PREFIX: Final = b"faregate:"

_LABEL_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16

#: A label that all of ours have and nobody else's, then the fields of ``CacheLabels``. A model has one kind of label,
#: whether it was asked for or answered.
_KINDS: Final = (b"organization", b"stage", b"project", b"key", b"model", b"model")
HEADER_BYTES: Final = _LABEL_BYTES * (1 + len(_KINDS))

#: An answer's body has up to 1 MiB; what else it says has no room to be longer than this.
VALUE_BYTES_MAX: Final = 1024 * 1024 + 64 * 1024

_MODEL_AT: Final = 4
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(CachedAnswer).decode


def name_of(key: bytes) -> bytes:
    """Under which name the answer of a key lies."""
    return PREFIX + key.hex().encode()


class Seal:
    """Makes values of answers and answers of values, by one secret."""

    def __init__(self, secret: bytes) -> None:
        # Another form of values gets another number here, and then none of the old ones opens.
        self._values = hmac.digest(secret, b"faregate response cache 1: values", "sha256")
        self._labels = hmac.digest(secret, b"faregate response cache 1: labels", "sha256")
        self._ours = self._label(b"ours", "")

    def __repr__(self) -> str:
        return "Seal()"

    def sealed(self, key: bytes, answer: CachedAnswer) -> bytes:
        """The value to be kept for a key."""
        header = self._header(answer.labels)
        nonce = os.urandom(_NONCE_BYTES)
        return header + nonce + self._cipher(key).encrypt(nonce, _encode(answer), name_of(key) + header)

    def opened(self, key: bytes, value: bytes) -> CachedAnswer | None:
        """The answer that was kept for a key; ``None`` where the value is not what was kept for it."""
        header, rest = value[:HEADER_BYTES], value[HEADER_BYTES:]
        if len(rest) < _NONCE_BYTES + _TAG_BYTES:
            return None
        try:
            text = self._cipher(key).decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], name_of(key) + header)
            return _decode(text)
        except (InvalidTag, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def fits(self, header: bytes, wanted: tuple[bytes, ...]) -> bool:
        """Whether a value that begins so has the ``wanted`` labels."""
        parts = [header[at : at + _LABEL_BYTES] for at in range(0, HEADER_BYTES, _LABEL_BYTES)]
        if len(header) < HEADER_BYTES or parts[0] != self._ours:
            return False
        for at, label in enumerate(wanted):
            if label and label != parts[1 + at] and (at != _MODEL_AT or label != parts[2 + at]):
                return False
        return True

    def wanted(self, wanted: CacheLabels) -> tuple[bytes, ...]:
        """The labels to look for: empty ones stand for all, a model for both its names."""
        return tuple(
            self._label(kind, text) if text else b""
            for kind, text in zip(_KINDS[: _MODEL_AT + 1], wanted[: _MODEL_AT + 1], strict=True)
        )

    def _header(self, labels: CacheLabels) -> bytes:
        return self._ours + b"".join(map(self._label, _KINDS, labels))

    def _label(self, kind: bytes, text: str) -> bytes:
        told = kind + b"\0" + text.encode("utf-8", "surrogatepass")
        return hmac.digest(self._labels, told, "sha256")[:_LABEL_BYTES]

    def _cipher(self, key: bytes) -> AESGCM:
        # A cipher for each key: with one for all, random nonces would meet after some billions of answers.
        return AESGCM(hashlib.blake2b(key, key=self._values, digest_size=32).digest())
