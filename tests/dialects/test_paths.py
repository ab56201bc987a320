"""Which operation a path names, and which paths never reach a provider."""

import pytest

from faregate.dialects.operations import DECLARED, GEMINI, Declared
from faregate.dialects.paths import Operation, route
from faregate.errors import Problem


@pytest.mark.parametrize(
    ("method", "path", "name", "shape", "deployment"),
    [
        (b"POST", b"/v1/chat/completions", "chat.completions", "openai", ""),
        (b"POST", b"/v1/completions", "completions", "openai", ""),
        (b"POST", b"/v1/embeddings?x=1", "embeddings", "openai", ""),
        (b"POST", b"/openai/v1/chat/completions", "chat.completions", "openai", ""),
        (
            b"POST",
            b"/openai/deployments/my-gpt/chat/completions?api-version=1",
            "chat.completions",
            "azure_openai",
            "my-gpt",
        ),
        (b"POST", b"/deployments/e.2/embeddings?api-version=1", "embeddings", "azure_openai", "e.2"),
        (b"POST", b"/foo/openai/deployments/x/completions", "completions", "azure_openai", "x"),
        (b"POST", b"/v1/responses", "responses", "openai", ""),
        (b"POST", b"/openai/responses?api-version=1", "responses", "openai", ""),
        (b"POST", b"/openai/deployments/x/images/generations", "images.generations", "azure_openai", "x"),
        (b"POST", b"/v1/messages", "messages", "anthropic", ""),
        (b"POST", b"/v1beta/models/gemini-3:generateContent", "gemini.generate", "gemini", "gemini-3"),
        (b"POST", b"/v1beta/models/gemini-3:streamGenerateContent?alt=sse", "gemini.stream", "gemini", "gemini-3"),
        (b"GET", b"/v1/models", "models", "openai", ""),
        (b"GET", b"/v1/models/gpt-4o", "models", "openai", "gpt-4o"),
        (b"GET", b"/v1/models/meta-llama%2FLlama-3", "models", "openai", "meta-llama/Llama-3"),
        (b"GET", b"/v1/models/ft:gpt-4o:a::b", "models", "openai", "ft:gpt-4o:a::b"),
    ],
)
def test_known_paths(method: bytes, path: bytes, name: str, shape: str, deployment: str) -> None:
    """OpenAI's and Azure's paths name their operation; the deployment is the segment after ``deployments``."""
    operation = route(method, path)
    assert isinstance(operation, Operation)
    assert (operation.name, operation.shape, operation.deployment) == (name, shape, deployment)


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        (b"POST", b"/v1/realtime/calls", "operation_unmetered"),
        (b"POST", b"/v1/realtime/client_secrets", "operation_unmetered"),
        (b"POST", b"/openai/v1/realtime/client_secrets", "operation_unmetered"),
        (b"POST", b"/v1/fine_tuning/jobs", "operation_unmetered"),
        (b"POST", b"/v1/assistants", "operation_unmetered"),
        (b"POST", b"/v1/threads/t/runs", "operation_unmetered"),
        (b"POST", b"/v1/vector_stores", "operation_unmetered"),
        (b"POST", b"/v1/uploads", "operation_unmetered"),
        (b"POST", b"/v1/images/upscales", "operation_unmetered"),
        (b"POST", b"/openai/deployments/x/images/variations", "operation_unmetered"),
        (b"GET", b"/services/", "not_found"),
        (b"GET", b"/services/.x/y", "not_found"),
        (b"POST", b"/v1beta/models/gemini-3:streamGenerateContent", "field_range"),
        (b"POST", b"/v1/responses/resp_1", "method_not_allowed"),
        (b"GET", b"/v1/responses/resp_1/cancel", "method_not_allowed"),
        (b"GET", b"/v1/responses/../files", "uri_invalid"),
        (b"GET", b"/v1/chat/completions", "method_not_allowed"),
        (b"OPTIONS", b"/v1/embeddings", "method_not_allowed"),
        (b"GET", b"/openai/deployments/x/chat/completions", "method_not_allowed"),
        (b"DELETE", b"/v1/models/gpt-4o", "method_not_allowed"),
        (b"POST", b"//v1//chat", "not_found"),
        (b"POST", b"/v1/chat/completions/", "not_found"),
        (b"POST", b"/V1/chat/completions", "not_found"),
        (b"GET", b"/", "not_found"),
        (b"POST", b"/deployments//chat/completions", "not_found"),
        (b"GET", b"/v1/%2e%2e/admin/keys", "uri_invalid"),
        (b"POST", b"/v1/chat/completions%00", "uri_invalid"),
        (b"POST", b"/v1%2fchat/completions", "uri_invalid"),
        (b"POST", b"/v1/./chat/completions", "uri_invalid"),
        (b"POST", b"/deployments/../chat/completions", "uri_invalid"),
        (b"POST", b"/a/../deployments/x/chat/completions", "uri_invalid"),
        (b"GET", b"/v1/models/..%2f..%2fadmin", "uri_invalid"),
        (b"POST", b"/v1\\chat", "uri_invalid"),
        (b"POST", b"/v1/ch\xffat", "uri_invalid"),
        (b"POST", b"/v1/a\x00", "uri_invalid"),
        (b"POST", b"http://host/v1/chat", "uri_invalid"),
        (b"POST", b"", "uri_invalid"),
        (b"POST", b"/" + b"a/" * 5000, "uri_too_long"),
    ],
)
def test_refused_paths(method: bytes, path: bytes, code: str) -> None:
    """Everything else is refused by name and passed to nobody."""
    problem = route(method, path)
    assert isinstance(problem, Problem)
    assert problem.code == code


def test_unmetered_is_named() -> None:
    """An operation that is known but not metered is refused by its name."""
    problem = route(b"POST", b"/v1/assistants")
    assert isinstance(problem, Problem)
    assert problem.message == "assistants is not metered yet, so it is not passed on."


@pytest.mark.parametrize("declared", DECLARED, ids=lambda declared: declared.name)
def test_every_declared_operation_has_its_path(declared: Declared) -> None:
    """What is declared is found under its path, by its method alone, with the names that stand in the path."""
    prefix = "/v1beta" if GEMINI in declared.kinds else "/v1"
    path = f"{prefix}{declared.path}".replace("{id}", "obj_1").replace("{model}", "m-1").encode()
    operation = route(declared.method.encode(), path + b"?alt=sse")
    assert isinstance(operation, Operation)
    assert operation.name == declared.name
    assert operation.metered
    assert operation.object_id == ("obj_1" if "{id}" in declared.path else "")
    assert operation.deployment == ("m-1" if "{model}" in declared.path else "")


def test_a_path_with_an_object_names_all_methods_it_knows() -> None:
    """A wrong method at a path with an object's id is told every right one."""
    problem = route(b"PATCH", b"/v1/responses/resp_1")
    assert isinstance(problem, Problem)
    assert problem.details == {"allow": "DELETE, GET"}


def test_allow() -> None:
    """A wrong method is told the right one, for the ``Allow`` header, too."""
    problem = route(b"PUT", b"/v1/models")
    assert isinstance(problem, Problem)
    assert problem.details == {"allow": "GET"}
