"""A body has one form, whatever its notation, and none where it could be read in more than one way."""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.dialects.canonical import canonical

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"))
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(texts, values, max_size=6)


def form(body: bytes) -> bytes | None:
    """The one form of a body as it came."""
    found = canonical(body)
    return None if found is None else found.text


def shuffled(value: Any, by: random.Random) -> Any:
    """The same value with the members of its objects in another order."""
    if isinstance(value, list):
        return [shuffled(each, by) for each in value]
    if not isinstance(value, dict):
        return value
    members = [(name, shuffled(each, by)) for name, each in value.items()]
    by.shuffle(members)
    return dict(members)


@given(bodies, st.randoms(use_true_random=False), st.booleans(), st.sampled_from([None, 1, 3]))
def test_notation_makes_no_difference(body: dict[str, Any], by: random.Random, plain: bool, indent: int | None) -> None:
    """Order of members, white space and escapes are nothing that an answer depends on."""
    one = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    other = json.dumps(shuffled(body, by), ensure_ascii=not plain, indent=indent).encode()
    assert form(one) == form(other) is not None


@given(bodies)
def test_its_members_are_told(body: dict[str, Any]) -> None:
    """Whoever decides by a member sees what stands in the body."""
    found = canonical(json.dumps(body).encode())
    assert found is not None
    assert meant(found.members) == meant(body)


def meant(value: Any) -> Any:
    """A value by what it means in JSON, where Python finds more things equal."""
    if isinstance(value, dict):
        return {name: meant(each) for name, each in value.items()}
    if isinstance(value, list):
        return [meant(each) for each in value]
    return type(value), repr(value)


@given(bodies, bodies)
def test_bodies_that_differ_have_other_forms(one: dict[str, Any], other: dict[str, Any]) -> None:
    """No two bodies that say something else share a form."""
    same = form(json.dumps(one).encode()) == form(json.dumps(other).encode())
    assert same == (meant(one) == meant(other))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b'{"a": [{"b": 1, "b": 1}]}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5_000 + b"}",
        b'{"a": "\xff"}',
        b"\xff\xfe{\x00}\x00",
        b'{"a": 1} {}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_can_be_read_in_two_ways_has_no_form(body: bytes) -> None:
    """A call whose body is no JSON object, or means different things to different readers, is never kept."""
    assert form(body) is None


def test_a_byte_order_mark_says_nothing() -> None:
    """It stands before the body and is no part of it."""
    assert form(b'\xef\xbb\xbf{"a":1}') == form(b'{"a":1}') == b'{"a":1}'


@pytest.mark.parametrize(("one", "other"), [("1", "1.0"), ("0", "-0.0"), ("1", "true"), ("0", "null"), ("1", '"1"')])
def test_like_values_are_told_apart(one: str, other: str) -> None:
    """What Python finds equal, or prints alike, is not the same in a body."""
    assert form(f'{{"a": {one}}}'.encode()) != form(f'{{"a": {other}}}'.encode())


def test_half_a_character_has_no_form() -> None:
    """A lone surrogate is no text, and nobody knows what a provider takes it for."""
    assert form(rb'{"a": "\ud800"}') is None


@pytest.mark.parametrize("number", [2**53, 2**63, 2**64, 10**40])
def test_large_numbers_are_told_apart(number: int) -> None:
    """Whole numbers are exact, however large: a seed that is one more is another seed."""
    assert form(f'{{"seed": {number}}}'.encode()) != form(f'{{"seed": {number + 1}}}'.encode())
    assert form(f'{{"seed":{number}}}'.encode()) == form(f'{{"seed": {number}}}'.encode()) is not None
