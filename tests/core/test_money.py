"""Money is read strictly, written exactly and rounded by name."""

import ast
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core import money
from faregate.core.money import PRICE_DOLLARS_MAX, ceiling, dollars, dollars_of_picos, half_even, nanos, picos

CORE = Path(money.__file__).parent


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("0.0", 0),
        ("1", 1_000_000_000),
        ("12.50", 12_500_000_000),
        ("0.000000001", 1),
        ("0.000123456", 123_456),
        ("1000000000", 10**18),
        ("1000000000.000000000", 10**18),
    ],
)
def test_a_plain_decimal_is_read_exactly(text: str, expected: int) -> None:
    """Dollars with up to nine decimals become whole nano-dollars."""
    assert nanos(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1 ",
        " 1",
        "1\n",
        "+1",
        "-1",
        "--1",
        ".5",
        "5.",
        ".",
        "01",
        "00",
        "1e3",
        "1E-9",
        "1_000",
        "1,5",
        "NaN",
        "nan",
        "inf",
        "Infinity",
        "0x10",
        "$1",
        "1.0000000001",
        "1000000000.000000001",
        "1000000001",
        "9" * 10_000,
        "1.5.0",
        "１",
        "٣",
        "²",
        "−1",
        "1.５",
    ],
)
def test_anything_else_is_refused_with_a_sentence(text: str) -> None:
    """Signs, exponents, spaces, other scripts' digits, too many decimals and absurd sums are no amounts."""
    with pytest.raises(ValueError, match=r"amount|decimals|dollars|characters"):
        nanos(text)


def test_a_refusal_does_not_repeat_an_endless_text() -> None:
    """The message stays short however long the input was."""
    with pytest.raises(ValueError, match="characters") as caught:
        nanos("9" * 1_000_000)
    assert len(str(caught.value)) < 100


def test_a_sign_is_read_only_where_it_is_allowed() -> None:
    """An adjustment may be negative, a limit may not."""
    assert nanos("-1.5", signed=True) == -1_500_000_000


def test_a_price_has_twelve_decimals() -> None:
    """Prices are finer than amounts: six decimals per million units are exact."""
    assert picos("0.000000000001") == 1
    assert picos("9000000") < 2**63
    with pytest.raises(ValueError, match="more than 9000000 dollars"):
        picos("9000000.01")
    with pytest.raises(ValueError, match="more than 12 decimals"):
        picos("0.0000000000001")


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (0, "0"),
        (123_456, "0.000123456"),
        (-1_500_000_000, "-1.5"),
        (1, "0.000000001"),
        (-1, "-0.000000001"),
        (10**18, "1000000000"),
        (100_000_000, "0.1"),
    ],
)
def test_an_amount_is_written_exact_and_short(amount: int, expected: str) -> None:
    """No trailing zero, no exponent, no lost digit."""
    assert dollars(amount) == expected


@given(st.integers(-(10**18), 10**18))
def test_what_is_written_is_read_back(amount: int) -> None:
    """Writing and reading are inverse for every amount within bounds."""
    assert nanos(dollars(amount), signed=True) == amount


@given(st.integers(0, PRICE_DOLLARS_MAX * 10**12))
def test_what_is_written_of_a_price_is_read_back(amount: int) -> None:
    """Writing and reading are inverse for every price within bounds."""
    assert picos(dollars_of_picos(amount)) == amount


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**15))
def test_rounding_agrees_with_exact_fractions(numerator: int, denominator: int) -> None:
    """``half_even`` is Python's rounding of the exact fraction, ``ceiling`` its least upper whole number."""
    exact = Fraction(numerator, denominator)
    assert half_even(numerator, denominator) == round(exact)
    assert ceiling(numerator, denominator) == exact.__ceil__()


@pytest.mark.parametrize(
    ("numerator", "expected"), [(1, 0), (3, 2), (5, 2), (7, 4), (-1, 0), (-3, -2), (-5, -2), (0, 0), (4, 2)]
)
def test_a_tie_goes_to_the_even_neighbour(numerator: int, expected: int) -> None:
    """Halves: 0.5 → 0, 1.5 → 2, 2.5 → 2, 3.5 → 4, and the same below zero."""
    assert half_even(numerator, 2) == expected


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (0, "0"),
        (9_999_999, "0.009999999"),
        (10_000_000, "0.01"),
        (15_000_000, "0.02"),
        (25_000_000, "0.02"),
        (120_004_999_999, "120.00"),
        (999_999_999_999, "1000.00"),
    ],
)
def test_a_sentence_tells_dollars_to_the_cent_and_less_than_one_exactly(amount: int, expected: str) -> None:
    """A tie goes to the even cent."""
    assert money.about(amount) == expected


def test_the_core_knows_no_float() -> None:
    """No float literal, no ``float`` and no true division anywhere in ``faregate.core``."""
    found = []
    for path in sorted(CORE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            literal = isinstance(node, ast.Constant) and isinstance(node.value, (float, complex))
            name = isinstance(node, ast.Name) and node.id in {"float", "complex"}
            division = isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, ast.Div)
            if literal or name or division:
                found.append(f"{path.relative_to(CORE)}:{getattr(node, 'lineno', 0)}")
    assert found == []
