"""What completions and embeddings ask."""

import json
from typing import Any

import pytest

from faregate.core.call import Call
from faregate.dialects import DIALECTS, openai_completions, openai_embeddings
from faregate.errors import Problem


def raw(**value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("value", "choices"),
    [
        ({"prompt": "a"}, 1),
        ({}, 1),
        ({"prompt": None}, 1),
        ({"prompt": ["a", "b", "c"]}, 3),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1, 2], [3]]}, 2),
        ({"prompt": "a", "n": 2}, 2),
        ({"prompt": ["a", "b"], "n": 2, "best_of": 5}, 10),
        ({"prompt": "a", "n": 3, "best_of": None}, 3),
    ],
)
def test_billed_answers(value: dict[str, Any], choices: int) -> None:
    """Every prompt is billed for its candidates: ``n`` or ``best_of``, whichever is more."""
    call = openai_completions.read(raw(model="m", **value))
    assert isinstance(call, Call)
    assert call.choices == choices


def test_completion_call() -> None:
    """The facts of a completion."""
    body = raw(model="m", prompt="a", max_tokens=9, stream=True, user="u")
    assert openai_completions.read(body) == Call(
        "completions",
        "m",
        stream=True,
        output_cap=9,
        cap_field="max_tokens",
        input_tokens_max=len(body),
        end_user="u",
        members=("model", "prompt", "max_tokens", "stream", "user"),
    )


def test_embedding_call() -> None:
    """Embeddings have no billed output and no stream."""
    body = raw(model="e", input=["a", "b"], user="u")
    assert openai_embeddings.read(body) == Call(
        "embeddings",
        "e",
        input_tokens_max=len(body),
        has_output=False,
        end_user="u",
        members=("model", "input", "user"),
    )


@pytest.mark.parametrize(
    ("operation", "body", "param", "code"),
    [
        ("completions", raw(model="m", prompt=[]), "prompt", "field_range"),
        ("completions", raw(model="m", prompt=5), "prompt", "field_type"),
        ("completions", raw(model="m", prompt={"id": "x"}), "prompt", "field_type"),
        ("completions", raw(model="m", prompt=["a"] * 2049), "prompt", "field_range"),
        ("completions", raw(model="m", prompt="a", best_of=0), "best_of", "field_range"),
        ("completions", raw(model="m", prompt="a", max_tokens=0), "max_tokens", "field_range"),
        ("completions", raw(model="m", prompt="a", api_base="x"), "api_base", "field_forbidden"),
        ("completions", raw(prompt="a"), "model", "field_missing"),
        ("completions", b'{"prompt":"a","prompt":"b","model":"m"}', "prompt", "json_dup_key"),
        ("embeddings", raw(model="e"), "input", "field_missing"),
        ("embeddings", raw(model="e", input=[]), "input", "field_range"),
        ("embeddings", raw(model="e", input=True), "input", "field_type"),
        ("embeddings", raw(model="e", input="a", base_url="x"), "base_url", "field_forbidden"),
        ("embeddings", raw(model="e", input="a", service_tier="warp"), "service_tier", "feature_unbounded"),
        ("embeddings", b"[", None, "json_invalid"),
    ],
)
def test_refused(operation: str, body: bytes, param: str | None, code: str) -> None:
    """Each refusal names its field."""
    problem = DIALECTS[operation].read(body)
    assert isinstance(problem, Problem)
    assert (problem.code, problem.param) == (code, param)


def test_echo_allows_a_cap_of_zero() -> None:
    """Asking for the prompt's own probabilities needs no output."""
    call = openai_completions.read(raw(model="m", prompt="a", echo=True, max_tokens=0))
    assert isinstance(call, Call)
    assert call.output_cap == 0


@pytest.mark.parametrize(
    ("operation", "value", "texts", "overhead"),
    [
        ("completions", {"prompt": ["a", "b"], "suffix": "c"}, ["a", "b", "c"], 0),
        ("completions", {"prompt": [[1, 2], [3]]}, [], 3),
        ("embeddings", {"input": "a"}, ["a"], 0),
        ("embeddings", {"input": [1, 2, 3]}, [], 3),
    ],
)
def test_prompt_text(operation: str, value: dict[str, Any], texts: list[str], overhead: int) -> None:
    """Texts are given to be counted, tokens are counted as they stand."""
    dialect = DIALECTS[operation]
    assert dialect.prompt_text(raw(**value)) == texts
    assert dialect.prompt_tokens_overhead(raw(**value)) == overhead
