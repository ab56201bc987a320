"""How the gate's own answers look in each wire format."""

import json

from faregate.dialects.errors_shape import models_answer, render
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
