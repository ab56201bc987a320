"""How the gate's own answers look in each wire format."""

import json

import pytest

from faregate.dialects.errors_shape import models_answer, render, render_event
from faregate.errors import Problem

PROBLEM = Problem("field_range", "n: wrong.", "n", details={"limit": "lim_1"})


def test_openai_error() -> None:
    """An error in OpenAI's shape."""
    assert json.loads(render(PROBLEM, "req_1", "openai")) == {
        "error": {
            "message": "n: wrong.",
            "type": "invalid_request_error",
            "param": "n",
            "code": "field_range",
            "request_id": "req_1",
            "faregate": {"limit": "lim_1"},
        }
    }


def test_azure_error() -> None:
    """Azure's clients find code, message and inner error where they look for them."""
    error = json.loads(render(PROBLEM, "req_1", "azure_openai"))["error"]
    assert (error["code"], error["message"], error["innererror"]) == (
        "field_range",
        "n: wrong.",
        {"code": "field_range"},
    )


def test_models() -> None:
    """The list of models, one model, and one that is not there."""
    listed = json.loads(models_answer(["a", "b"], "") or b"")
    assert [model["id"] for model in listed["data"]] == ["a", "b"]
    assert json.loads(models_answer(["a", "b"], "b") or b"")["id"] == "b"
    assert models_answer(["a", "b"], "c") is None


def test_anthropic_error() -> None:
    """Anthropic's clients find the type by which they choose an exception; ours stands beside it."""
    assert json.loads(render(PROBLEM, "req_1", "anthropic")) == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "n: wrong.",
            "code": "field_range",
            "param": "n",
            "faregate": {"limit": "lim_1"},
        },
        "request_id": "req_1",
    }


@pytest.mark.parametrize(
    ("code", "status", "anthropic", "google"),
    [
        ("auth_invalid", None, "authentication_error", "UNAUTHENTICATED"),
        ("not_found", None, "not_found_error", "NOT_FOUND"),
        ("body_too_large", None, "request_too_large", "INVALID_ARGUMENT"),
        ("internal", None, "api_error", "INTERNAL"),
        ("field_range", 429, "rate_limit_error", "RESOURCE_EXHAUSTED"),
        ("field_range", 402, "billing_error", "FAILED_PRECONDITION"),
        ("field_range", 503, "overloaded_error", "UNAVAILABLE"),
    ],
)
def test_types_follow_the_status(code: str, status: int | None, anthropic: str, google: str) -> None:
    """Each status has the name by which the clients of a format choose what to do."""
    problem = Problem(code, "wrong", status=status)
    assert json.loads(render(problem, "req_1", "anthropic"))["error"]["type"] == anthropic
    assert json.loads(render(problem, "req_1", "gemini"))["error"]["status"] == google


def test_google_error() -> None:
    """Google's clients read code, message and status; the reason stands in the details, as text."""
    assert json.loads(render(PROBLEM, "req_1", "gemini")) == {
        "error": {
            "code": 400,
            "message": "n: wrong.",
            "status": "INVALID_ARGUMENT",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "field_range",
                    "domain": "faregate",
                    "metadata": {"limit": "lim_1", "request_id": "req_1", "param": "n"},
                }
            ],
        }
    }


@pytest.mark.parametrize("shape", ["openai", "azure_openai", "anthropic", "gemini"])
def test_an_error_in_a_stream(shape: str) -> None:
    """It is one event with the same body; Anthropic's clients go by the event's name."""
    name = b"event: error\n" if shape == "anthropic" else b""
    assert render_event(PROBLEM, "req_1", shape) == name + b"data: " + render(PROBLEM, "req_1", shape) + b"\n\n"
