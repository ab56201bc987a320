"""The written form of a gateway key: how one is made from random bytes, checked for typing errors, digested and shown.

It knows nothing of who owns a key or where digests are kept. The form is ``sk-fg-`` + 43 base62 characters (256 bits)
+ 6 base62 characters of the CRC32 of everything before, so that a mistyped or cut key is refused without a look-up and
a leaked one can be found by a pattern.
"""

import hmac
import re
import zlib

PREFIX = "sk-fg-"
SECRET_BYTES = 32
SECRET_CHARACTERS = 43
CHECK_CHARACTERS = 6
LENGTH = len(PREFIX) + SECRET_CHARACTERS + CHECK_CHARACTERS

#: For secret scanners; a match still has to pass ``is_well_formed``.
PATTERN = rf"{PREFIX}[0-9A-Za-z]{{{SECRET_CHARACTERS + CHECK_CHARACTERS}}}"

#: How many characters of a key a person may see of it later.
SHOWN_CHARACTERS = 8
MASK = "…"

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_full_match = re.compile(PATTERN).fullmatch
_matches = re.compile(PATTERN).findall


def _base62(number: int, characters: int) -> str:
    """``number`` in base 62, padded on the left to a fixed number of characters."""
    digits = []
    for _ in range(characters):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def make(secret: bytes) -> str:
    """The key that stands for ``SECRET_BYTES`` random bytes.

    Raises:
        ValueError: not exactly ``SECRET_BYTES`` bytes.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a key is made of {SECRET_BYTES} random bytes")
    body = PREFIX + _base62(int.from_bytes(secret, "big"), SECRET_CHARACTERS)
    return body + _base62(zlib.crc32(body.encode()), CHECK_CHARACTERS)


def is_well_formed(text: str) -> bool:
    """Whether ``text`` has the form of a key and its check characters are right."""
    if _full_match(text) is None:
        return False
    body = text[:-CHECK_CHARACTERS]
    return text[-CHECK_CHARACTERS:] == _base62(zlib.crc32(body.encode()), CHECK_CHARACTERS)


def found_in(text: str) -> list[str]:
    """The whole keys that stand anywhere in ``text``, by their form and check characters."""
    return list(filter(is_well_formed, _matches(text))) if PREFIX in text else []


def holds_one(text: str) -> bool:
    """Whether a whole key stands anywhere in ``text``."""
    return bool(found_in(text))


def digest(pepper: bytes, text: str) -> str:
    """HMAC-SHA256 of the whole key in hex: the only form in which a key is ever stored."""
    return hmac.digest(pepper, text.encode(), "sha256").hex()


def fingerprint(pepper: bytes) -> str:
    """Names a pepper without telling anything of it; 16 hex digits."""
    return digest(pepper, "fingerprint")[:16]


def mask(text: str) -> str:
    """The first characters of a key and a mask for the rest, such as ``sk-fg-ab…``."""
    return text[:SHOWN_CHARACTERS] + MASK


def last4(text: str) -> str:
    """The last four characters, by which a person tells keys apart; they are check characters, not secret ones."""
    return text[-4:]
