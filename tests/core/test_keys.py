"""The written form of a key."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core import keys

secrets = st.binary(min_size=32, max_size=32)


@given(secrets)
def test_every_made_key_is_well_formed_and_found_by_the_published_pattern(secret: bytes) -> None:
    """A made key passes its own check and secret scanners find it in a text."""
    key = keys.make(secret)
    assert keys.is_well_formed(key)
    assert len(key) == keys.LENGTH
    assert re.findall(keys.PATTERN, f"leaked {key}, oh") == [key]


@given(secrets, st.integers(6, keys.LENGTH - 1), st.sampled_from("0aZ"))
def test_one_changed_character_is_refused(secret: bytes, place: int, other: str) -> None:
    """A single typing error anywhere behind the prefix never passes the check."""
    key = keys.make(secret)
    changed = key[:place] + other + key[place + 1 :]
    assert keys.is_well_formed(changed) is (changed == key)


@given(secrets, secrets)
def test_different_secrets_make_different_keys(one: bytes, other: bytes) -> None:
    """No two secrets share a key."""
    assert (keys.make(one) == keys.make(other)) is (one == other)


@pytest.mark.parametrize(
    "text", ["", "sk-fg-", "sk-proj-abc", "' OR 1=1--", "sk-fg-" + "0" * 49, keys.make(bytes(32)) + "\n", "x" * 100_000]
)
def test_what_is_no_key_is_refused(text: str) -> None:
    """Foreign, empty, cut and huge texts are not keys."""
    assert not keys.is_well_formed(text)


def test_a_key_is_made_of_exactly_256_bits() -> None:
    """Fewer random bytes are an error of the caller, never a weaker key."""
    with pytest.raises(ValueError, match="32 random bytes"):
        keys.make(b"short")


def test_the_digest_depends_on_the_pepper_and_hides_the_key() -> None:
    """Two peppers give unlike digests, and a digest holds nothing of the key."""
    key = keys.make(bytes(range(32)))
    assert keys.digest(b"a", key) != keys.digest(b"b", key)
    assert len(keys.digest(b"a", key)) == 64
    assert key[6:20] not in keys.digest(b"a", key)


def test_a_fingerprint_tells_peppers_apart_and_is_no_digest_of_a_key() -> None:
    """It is short, the same each time, and nothing that opens anything."""
    assert keys.fingerprint(b"a") == keys.fingerprint(b"a") != keys.fingerprint(b"b")
    assert len(keys.fingerprint(b"a")) == 16


def test_a_view_shows_the_first_eight_characters_and_a_mask() -> None:
    """What is shown of a key later does not open anything."""
    key = keys.make(bytes(range(32)))
    assert keys.mask(key) == key[:8] + "…"
    assert keys.last4(key) == key[-4:]
