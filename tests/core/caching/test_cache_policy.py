"""Who may use the cache, what may be kept, and what a hit is charged: by table, and as what holds of every call."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.core.caching.policy import (
    OFF,
    REFRESH,
    USE,
    CacheLabels,
    Outcome,
    hit_charge,
    is_deterministic,
    is_kept_elsewhere,
    may_keep,
    mode_of,
    wish_of,
)

words = st.lists(st.sampled_from(["on", "off", ""]), max_size=4)
wishes = st.sampled_from(["", "on", "off", "refresh", "no-cache"])
defaults = st.sampled_from(["on", "off"])


@pytest.mark.parametrize(
    ("ours", "older", "control", "wish"),
    [
        (None, None, None, ""),
        (b"on", None, None, "on"),
        (b" Off ", None, None, "off"),
        (b"refresh", None, None, "refresh"),
        (b"", None, None, None),
        (b"yes", None, None, None),
        (None, b"1", None, "on"),
        (None, b"0", None, "off"),
        (None, b"2", None, None),
        (b"on", b"0", None, "off"),
        (b"refresh", b"0", None, "off"),
        (b"on", b"2", None, None),
        (b"off", b"1", None, "off"),
        (None, None, b"no-store", "off"),
        (b"on", b"1", b"private, No-Store", "off"),
        (b"refresh", None, b"no-store", "off"),
        (None, None, b"no-cache", "no-cache"),
        (b"on", None, b"no-cache", "refresh"),
        (b"off", None, b"no-cache", "off"),
        (b"refresh", None, b"no-cache", "refresh"),
        (None, None, b"max-age=0", "no-cache"),
        (None, None, b"max-age=60", ""),
        (None, None, b"no-storey", ""),
        (b"maybe", None, b"no-store", None),
    ],
)
def test_what_a_request_wishes(
    ours: bytes | None, older: bytes | None, control: bytes | None, wish: str | None
) -> None:
    """Our header goes before the older one, and ``no-store`` beats both."""
    assert wish_of(ours, older, control) == wish


@given(words, wishes, defaults)
def test_off_holds_against_everybody(said: list[str], wish: str, default: str) -> None:
    """Whoever says off is never cached, whatever all the others say."""
    assert mode_of([*said, "off"], wish, default) == OFF
    assert mode_of(said, "off", default) == OFF


@given(words, wishes, defaults)
def test_nothing_is_used_that_nobody_turned_on(said: list[str], wish: str, default: str) -> None:
    """The cache is used only where a word, the request or the default says so, and nobody says off."""
    mode = mode_of(said, wish, default)
    wanted = "on" in said or wish in ("on", "refresh") or default == "on"
    assert (mode == OFF) == ("off" in said or wish == "off" or not wanted)
    assert mode in (OFF, USE, REFRESH)
    if mode == USE:
        assert wish in ("", "on")


@pytest.mark.parametrize("wish", ["refresh", "no-cache"])
def test_a_new_answer_is_fetched_where_one_is_wished(wish: str) -> None:
    """A call that wishes a new answer is never answered from what was kept."""
    assert mode_of(["on"], wish, "off") == REFRESH
    assert mode_of([], wish, "on") == REFRESH


def test_no_cache_alone_turns_nothing_on() -> None:
    """Browsers and proxies send it everywhere; it only counts where the cache is used."""
    assert mode_of([], "no-cache", "off") == OFF


@pytest.mark.parametrize(
    ("body", "generates", "same"),
    [
        ({}, True, False),
        ({"temperature": 0}, True, True),
        ({"temperature": 0.0}, True, True),
        ({"temperature": 0.1}, True, False),
        ({"temperature": False}, True, False),
        ({"temperature": "0"}, True, False),
        ({"temperature": None}, True, False),
        ({"generationConfig": {"temperature": 0}}, True, True),
        ({"generationConfig": {"temperature": 1}}, True, False),
        ({"generationConfig": []}, True, False),
        ({"temperature": 1, "generationConfig": {"temperature": 0}}, True, False),
        ({}, False, True),
        ({"temperature": 1}, False, True),
    ],
)
def test_what_would_be_answered_the_same(body: dict[str, Any], generates: bool, same: bool) -> None:
    """Only what says so itself, or generates nothing, is taken for deterministic."""
    assert is_deterministic(body, generates) is same


@pytest.mark.parametrize(
    ("body", "makes", "kept"),
    [
        ({}, True, True),
        ({"store": True}, True, True),
        ({"store": None}, True, True),
        ({"store": False}, True, False),
        ({}, False, False),
        ({"store": True}, False, True),
    ],
)
def test_objects_that_providers_keep(body: dict[str, Any], makes: bool, kept: bool) -> None:
    """An answer that its provider keeps for somebody is nobody else's."""
    assert is_kept_elsewhere(body, makes) is kept


GOOD = Outcome("ok", 200, 10)


@pytest.mark.parametrize("status", ["failed", "aborted", "cut", "unknown", "pending", "refused", ""])
def test_only_what_went_well_is_kept(status: str) -> None:
    """Errors, broken streams and half answers are never given again."""
    assert may_keep(GOOD, 10)
    assert not may_keep(GOOD._replace(status=status), 10)


@pytest.mark.parametrize(
    "outcome",
    [
        GOOD._replace(http_status=206),
        GOOD._replace(size=11),
        GOOD._replace(size=0),
        GOOD._replace(size=-1),
        GOOD._replace(finished=False),
    ],
)
def test_what_is_not_kept(outcome: Outcome) -> None:
    """Too large, not whole, or not at its end."""
    assert not may_keep(outcome, 10)


@given(st.integers(0, 10**15), st.integers(0, 100))
def test_a_hit_never_costs_more_than_its_call(whole: int, percent: int) -> None:
    """The charge is the percentage, to the nearest nano-dollar, and free is free."""
    charge = hit_charge(whole, percent)
    assert 0 <= charge <= whole
    assert abs(charge * 100 - whole * percent) <= 50
    assert hit_charge(whole, 0) == 0
    assert hit_charge(whole, 100) == whole


def test_labels_are_all_or_named() -> None:
    """A flush takes what has every label that it names; a model is known by the name asked for, and by its own."""
    labels = CacheLabels("acme", "prod", "search", "key_1", "gpt", "gpt-4o")
    assert labels.fits(CacheLabels())
    for chosen in itertools.product([False, True], repeat=5):
        names = ("organization", "stage", "project", "key", "model")
        wanted = {name: getattr(labels, name) for name, take in zip(names, chosen, strict=True) if take}
        assert labels.fits(CacheLabels(**wanted))
        for name in wanted:
            assert not labels.fits(CacheLabels(**(wanted | {name: "other"})))
    assert labels.fits(CacheLabels(model="gpt-4o"))
    assert not labels.fits(CacheLabels(answered_by="", model="gpt-4"))
