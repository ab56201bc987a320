"""What rules find in texts and what they leave of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.config.patterns import PatternError, finder
from faregate.core.redaction import BUILT_IN, Found, Rule, added, matches_any, redacted


def rule(name: str, action: str = "redact", pattern: str = "") -> Rule:
    known = BUILT_IN.get(name)
    if known is None:
        return Rule(name, finder(pattern or name), action)
    return Rule(name, finder(known.pattern), action, known.check)


@pytest.mark.parametrize(
    ("name", "text", "left"),
    [
        ("email", "a.b+c@mail.example.co.uk, x@y", "[email], x@y"),
        ("card", "4111 1111 1111 1111 and 4111-1111-1111-1111 and 378282246310005", "[card] and [card] and [card]"),
        ("card", "4111 1111 1111 1112 and 1234567890123 and 0000000000000000", None),
        ("card", "order 41111111111111111111111", None),
        ("iban", "DE89 3704 0044 0532 0130 00 AND SO ON", "[iban] AND SO ON"),
        ("iban", "GB82WEST12345698765432.", "[iban]."),
        ("iban", "DE88 3704 0044 0532 0130 00", None),
        ("phone", "+49 (30) 1234-5678 or 030/1234567 or (212) 555-1234", "[phone] or [phone] or [phone]"),
        ("phone", "on 2026-11-21 at 10:20:30, 12345678 units, v1.2.3", None),
        ("key", "sk-abcdefghijklmnopqrst AKIAIOSFODNN7EXAMPLE", "[key] [key]"),
        ("key", "ghp_" + "a" * 36, "[key]"),
        ("key", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "[key]"),
        ("key", "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc=\n-----END RSA PRIVATE KEY-----", "[key]"),
        ("key", "task-force, skill", None),
    ],
)
def test_what_ships_finds_what_it_is_for(name: str, text: str, left: str | None) -> None:
    """And little else: checksums tell numbers of cards and accounts from other long numbers."""
    assert redacted(text, [rule(name)]).text == (text if left is None else left)


def test_rules_are_tried_in_their_order() -> None:
    """Each on what the ones before it left."""
    made = redacted("a@b.de 4111111111111111", [rule("email"), rule("brackets", "warn", r"\[email\]"), rule("card")])

    assert made.text == "[email] [card]"
    assert made.found == (Found("email", "redact", 1), Found("brackets", "warn", 1), Found("card", "redact", 1))
    assert made.blocked_by == ""


def test_a_text_that_is_blocked_names_the_first_rule_that_does() -> None:
    """Others are still counted."""
    made = redacted("x y", [rule("seen", "warn", "x"), rule("first", "block", "y"), rule("second", "block", "x")])

    assert made.blocked_by == "first"
    assert made.text == "x y"


def test_finds_of_several_texts_are_added_up() -> None:
    """Each rule once."""
    found = [Found("a", "redact", 1), Found("b", "warn", 2), Found("a", "redact", 3)]

    assert added(found) == (Found("a", "redact", 4), Found("b", "warn", 2))


@given(st.text(max_size=200), st.sampled_from(sorted(BUILT_IN)))
def test_nothing_is_found_in_what_is_left(text: str, name: str) -> None:
    """A text is the same where nothing matches, and the rule that redacted it finds nothing of it a second time."""
    one = [rule(name)]
    made = redacted(text, one)

    assert bool(made.found) == matches_any(text, one) == (made.text != text or f"[{name}]" in text)
    assert made.found or made.text == text


@pytest.mark.parametrize("pattern", ["(a", r"(a)\1", "(?=a)", "x{1000}{1000}", "a" * 3 + "(" * 2_000])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    """With the engine's own words, and nothing on standard error."""
    with pytest.raises(PatternError, match="is no pattern"):
        finder(pattern)


@pytest.mark.parametrize(
    ("pattern", "is_anchored"),
    [
        ("^a", True), ("(a|^b)", True), (r"\Aa", True), ("a$", True), (r"a\z", True), ("(?m)^a", True), ("[[]^a", True),
        (r"\ba\b", False), ("[^a]b", False), ("AzA", False), (r"\d{4}", False),
    ],
)  # fmt: skip
def test_whether_a_pattern_asks_where_a_text_begins_or_ends(pattern: str, is_anchored: bool) -> None:
    """Texts are searched as one by patterns alone that certainly do not; the edge of a word is no end of a text."""
    assert finder(pattern).anchored is is_anchored


def test_a_pattern_that_stops_others_is_searched_in_one_go() -> None:
    """Nested repetitions over a megabyte: a backtracking engine would be at it for longer than the sun burns."""
    pattern = finder(r"(?:(?:a+)+)+\$")

    assert list(pattern.spans("a" * 1_000_000 + "b")) == []
    assert list(pattern.spans("ä€𝄞 aaa$")) == [(4, 8)]
