"""Other names of a model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faregate.catalogue.aliases import is_tuned, price_names, spellings, usual


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-4o", ("gpt-4o",)),
        ("GPT-4o-2024-11-20", ("gpt-4o-2024-11-20", "gpt-4o")),
        ("gpt-35-turbo-0125", ("gpt-35-turbo-0125", "gpt-3.5-turbo-0125", "gpt-35-turbo", "gpt-3.5-turbo")),
        ("gpt-5-4-mini", ("gpt-5-4-mini", "gpt-5.4-mini")),
        ("gpt-4-1106-preview", ("gpt-4-1106-preview",)),
        ("ft:gpt-4o-2024-08-06:acme::abc", ("ft:gpt-4o-2024-08-06:acme::abc", "ft:gpt-4o-2024-08-06", "ft:gpt-4o")),
        ("gpt-4o-2024-08-06.ft-0123abc", ("gpt-4o-2024-08-06.ft-0123abc", "ft:gpt-4o-2024-08-06", "ft:gpt-4o")),
        ("claude-sonnet-4-5@20250929", ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5")),
        ("claude-3-5-sonnet-20241022", ("claude-3-5-sonnet-20241022", "claude-3-5-sonnet")),
        ("models/gemini-2.5-flash-001", ("models/gemini-2.5-flash-001", "gemini-2.5-flash-001", "gemini-2.5-flash")),
        ("gemini-2.5-pro-preview-05-06", ("gemini-2.5-pro-preview-05-06", "gemini-2.5-pro")),
        ("whisper", ("whisper", "whisper-1")),
        ("tts-hd", ("tts-hd", "tts-1-hd")),
        ("", ()),
        ("ft:", ()),
    ],
)
def test_a_name_is_read_as_written_before_it_is_read_as_another(model: str, expected: tuple[str, ...]) -> None:
    """Closest first: the date goes before the family does, and tuning never."""
    assert spellings(model) == expected


def test_the_deployment_says_what_it_holds_before_the_caller_and_the_answer_do() -> None:
    """PRIOR-SYSTEMS 8.4: deployment first, then the requested model, then the one that answered."""
    names = price_names("house-model", "gpt-4o-2024-11-20", "gpt-4o-2024-08-06")
    assert names == ("house-model", "gpt-4o-2024-11-20", "gpt-4o", "gpt-4o-2024-08-06")


def test_the_makers_spelling_keeps_the_date() -> None:
    """What a model can do may change with its date."""
    assert usual("openai/gpt-35-turbo-16k-0613") == "gpt-3.5-turbo-16k-0613"


@given(st.text(max_size=300))
def test_a_tuned_name_has_tuned_spellings_only(model: str) -> None:
    """Whatever a name looks like, tuning is not spelled away, nothing is empty and nothing grows."""
    tuned = f"ft:{model}"
    for name in spellings(tuned):
        assert name == tuned.lower()[:256] or is_tuned(name)
        assert 0 < len(name) <= 257
