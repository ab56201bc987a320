"""The doors: who may pass, what a body may be, what every answer carries."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from console_parts import Api, Parts, parts
from faregate.console.app import OPENAPI_PATH, create_app
from faregate.console.doors import BODY_BYTES_MAX, trusted
from faregate.console.rights import needs
from faregate.core import keys


@pytest.fixture
def secret(made: Parts) -> str:
    return made.admin_key()


def paths_of(made: Parts, secret: str) -> list[tuple[str, str]]:
    """``(method, path)`` of everything that the API documents; doors of webhooks have secrets of their own."""
    documented = Api(made.app, secret).get(OPENAPI_PATH)["paths"]
    found = {path: each for path, each in documented.items() if path.startswith("/api/")}
    return [(method.upper(), path.replace("{", "").replace("}", "")) for path, each in found.items() for method in each]


def test_no_path_of_the_api_answers_without_an_admin_credential(made: Parts, secret: str) -> None:
    """Every documented route, and any other path below /api/, is closed to strangers and to callers' keys."""
    caller = Api(made.app, secret).post("/api/v1/keys", {"name": "caller"})["secret"]
    routes = paths_of(made, secret)
    assert len(routes) > 40
    odd = [("GET", "/api"), ("GET", "/api/"), ("GET", "/api/v2"), ("POST", "/api/v1/nope"), ("OPTIONS", "/api/v1/keys")]
    odd += [
        ("GET", "/api/v1//keys"),
        ("GET", "/api/v1/%2e%2e/openapi.json"),
        ("GET", "/api/openapi.json/"),
        ("HEAD", "/api/v1/keys"),
    ]
    for method, path in [*routes, *odd]:
        assert Api(made.app).call(method, path).status_code == 401, (method, path)
        assert Api(made.app, caller).call(method, path).status_code == 403, (method, path)


def test_the_description_of_the_api_is_open(made: Parts) -> None:
    """Only the OpenAPI document needs no credential, and it says that the rest does."""
    document = Api(made.app).get(OPENAPI_PATH)
    assert document["security"] == [{"adminKey": []}]


@pytest.mark.parametrize(
    ("header", "code", "status"),
    [
        ("", "auth_missing", 401),
        ("Bearer", "auth_malformed", 401),
        ("Basic YTpi", "auth_malformed", 401),
        ("Bearer ' OR 1=1--", "auth_malformed", 401),
        ("Bearer " + "x" * 100_000, "auth_malformed", 401),
        ("Bearer " + keys.make(b"\x07" * 32), "auth_invalid", 401),
    ],
)
def test_every_refusal_of_a_credential_has_the_same_shape(made: Parts, header: str, code: str, status: int) -> None:
    """A stranger learns the code and nothing else."""
    answer = Api(made.app).call("GET", "/api/v1/keys", headers={"authorization": header} if header else {})
    assert answer.status_code == status
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert sorted(answer.json()) == ["code", "detail", "request_id", "status", "title", "type"]
    assert answer.json()["code"] == code


def test_no_header_can_claim_the_trust_of_the_socket(made: Parts) -> None:
    """Trust comes from the listener, never from what a client sends."""
    for name in ("faregate.trusted", "faregate-trusted", "x-faregate-trusted", "x-forwarded-for", "x-real-ip"):
        assert Api(made.app).call("GET", "/api/v1/keys", headers={name: "127.0.0.1"}).status_code == 401
    assert Api(trusted(made.app)).get("/api/v1/keys")["data"] == []


@pytest.mark.parametrize(
    ("content", "media", "code", "status"),
    [
        (b'{"name":"a","name":"b"}', "application/json", "json_dup_key", 400),
        (b" " * 70_000 + b'{"name":"a","name":"b"}', "application/json", "json_dup_key", 400),
        (b'{"name":NaN}', "application/json", "json_invalid", 400),
        (b'{"name":"a"', "application/json", "json_invalid", 400),
        (b'{"name":"a"} x', "application/json", "json_invalid", 400),
        (b"[" * 200_000, "application/json", "json_depth", 400),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "application/json", "json_depth", 400),
        (b'{"name":"\xff"}', "application/json", "json_utf8", 400),
        (b'{"grace_seconds":' + b"9" * 5000 + b"}", "application/json", "json_invalid", 400),
        (b"name=a", "application/x-www-form-urlencoded", "media_unsupported", 415),
        (b'{"name":"a"}', "text/plain", "media_unsupported", 415),
        (b"x" * (BODY_BYTES_MAX + 1), "application/json", "body_too_large", 413),
    ],
)
def test_a_body_that_is_no_strict_json_is_refused(
    made: Parts, secret: str, content: bytes, media: str, code: str, status: int
) -> None:
    """Twins, NaN, depth, bytes that are no UTF-8, other media types and size each have their code."""
    answer = Api(made.app, secret).call("POST", "/api/v1/keys", content=content, headers={"content-type": media})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_lone_surrogate_is_refused_as_a_type(made: Parts, secret: str) -> None:
    """JSON can write half a character; a name cannot hold it."""
    answer = Api(made.app, secret).call(
        "POST", "/api/v1/keys", content=b'{"name":"a\\ud800"}', headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422, answer.text


def test_a_body_of_unknown_length_is_read_only_up_to_the_bound(made: Parts, secret: str) -> None:
    """A client that streams for ever is stopped at one mebibyte."""
    sent = 0

    async def flood() -> Any:
        nonlocal sent
        while True:
            sent += 65_536
            yield b" " * 65_536

    answer = Api(made.app, secret).call(
        "POST", "/api/v1/keys", content=flood(), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 413
    assert sent <= BODY_BYTES_MAX + 2 * 65_536


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/v1/nope", 404), ("PUT", "/api/v1/keys", 405), ("POST", "/api/v1/keys", 422)],
)
def test_every_problem_has_the_shape_of_rfc_9457(made: Parts, secret: str, method: str, path: str, status: int) -> None:
    """404, 405 and 422 included."""
    answer = Api(made.app, secret).call(method, path, **({"json": {}} if method == "POST" else {}))
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code == status
    assert {"type", "title", "status", "code", "detail"} <= set(body)


@pytest.mark.parametrize(
    ("path", "wrong", "allowed"),
    [
        ("/api/v1/services/x", "PUT", "DELETE, GET, PATCH"),
        ("/api/v1/keys", "PUT", "GET, POST"),
        ("/api/v1/prices", "DELETE", "GET, PUT"),
        ("/api/v1/models/best/of", "PUT", "DELETE, GET, PATCH"),
        ("/api/v1/teams/bulk", "PUT", "DELETE, GET, PATCH, POST"),
        ("/api/Quota", "DELETE", "GET, POST"),
        ("/api/Quota/", "PATCH", "GET, POST"),
        ("/", "DELETE", "GET, HEAD"),
    ],
)
def test_a_method_that_a_path_does_not_take_is_told_all_that_it_takes(
    made: Parts, secret: str, path: str, wrong: str, allowed: str
) -> None:
    """RFC 9110, 15.5.6: of every route at the path; what each of them answers is something else than 405."""
    api = Api(made.app, secret)
    for method in ("OPTIONS", wrong):
        answer = api.call(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        assert answer.json()["code"] == "method_not_allowed"
    for method in allowed.split(", "):
        assert api.call(method, path).status_code != 405


def test_every_answer_carries_an_id_and_the_headers_that_keep_browsers_in_check(made: Parts) -> None:
    """Pages, problems and probes alike."""
    for path in ("/", "/api/v1/keys", "/health/live", "/nope"):
        headers = Api(made.app).call("GET", path).headers
        assert headers["x-faregate-request-id"].startswith("req_")
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"


def test_a_failure_inside_is_told_without_a_trace(tmp_path: Path) -> None:
    """What breaks is logged; the caller gets the request id."""
    with parts(tmp_path) as made:
        secret = made.admin_key()

        @made.app.get("/api/v1/broken")
        @needs("installation.read")
        async def broken() -> None:
            raise RuntimeError("s3cret detail")

        answer = Api(made.app, secret).call("GET", "/api/v1/broken")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "s3cret" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-faregate-request-id"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [([], "auth_missing"), ([(b"authorization", b"Bearer fgk_of_nobody")], "auth_malformed")],
)
@pytest.mark.parametrize("path", ["/api/v1/keys", "/api/v1/prices/import", "/api/Quota/Update", "/api/v1/nope"])
def test_nothing_of_a_body_is_read_before_it_is_known_who_sends_it(
    made: Parts, path: str, headers: list[tuple[bytes, bytes]], code: str
) -> None:
    """However much of it a stranger has already sent."""
    answered: list[Any] = []
    read = 0

    async def more() -> Any:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b" " * 1_000_000, "more_body": True}

    async def send(message: Any) -> None:
        answered.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": headers,
        "query_string": b"",
        "client": ("192.0.2.1", 1),
    }

    async def ask() -> None:
        async with asyncio.timeout(3):
            await made.app(scope, more, send)

    asyncio.run(ask())
    assert (answered[0]["status"], read) == (401, 0)
    assert json.loads(answered[1]["body"])["code"] == code


def test_metrics_are_for_admins_and_for_this_machine_when_addressed_as_such(made: Parts, secret: str) -> None:
    """A browser that was led here by a foreign name reads nothing."""
    local = Api(made.app, client=("127.0.0.1", 5))
    assert local.call("GET", "/metrics", headers={"host": "127.0.0.1:4001"}).status_code == 200
    assert local.call("GET", "/metrics", headers={"host": "localhost:4001"}).status_code == 200
    assert local.call("GET", "/metrics", headers={"host": "evil.example"}).status_code == 401
    assert Api(made.app).call("GET", "/metrics", headers={"host": "localhost"}).status_code == 401
    assert Api(made.app, secret).call("GET", "/metrics").status_code == 200


@pytest.mark.parametrize("header", "Forwarded Via X-Real-IP X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host".split())
def test_metrics_want_a_key_of_whoever_comes_through_a_proxy(made: Parts, secret: str, header: str) -> None:
    """A proxy on this machine would make everybody local; with a key the way is open as ever."""
    host = {"host": "localhost:4001", header: "192.0.2.7"}
    local = ("127.0.0.1", 5)
    assert Api(made.app, client=local).call("GET", "/metrics", headers=host).status_code == 401
    assert Api(made.app, secret, client=local).call("GET", "/metrics", headers=host).status_code == 200


def test_metrics_want_a_key_where_a_proxy_is_configured(made: Parts) -> None:
    """It may add nothing at all to what it passes on."""
    app = create_app(replace(made.console, facts=replace(made.console.facts, behind_proxy=True)))
    answer = Api(app, client=("127.0.0.1", 5)).call("GET", "/metrics", headers={"host": "localhost"})
    assert answer.status_code == 401


def test_metrics_want_a_key_of_a_peer_that_speaks_http_1_0(made: Parts) -> None:
    """A proxy that names itself nowhere is often known by that."""

    async def as_of_old(scope: Any, receive: Any, send: Any) -> None:
        await made.app({**scope, "http_version": "1.0"}, receive, send)

    callers = [Api(app, client=("::1", 5)) for app in (made.app, as_of_old)]
    answers = [caller.call("GET", "/metrics", headers={"host": "[::1]"}) for caller in callers]
    assert [answer.status_code for answer in answers] == [200, 401]


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "status"),
    [
        ("10.1.2.3", None, (), 200),
        ("192.0.2.1", None, (), 403),
        ("192.0.2.1", "10.1.2.3", (), 403),
        ("192.0.2.1", "10.1.2.3", ("192.0.2.1",), 200),
        ("192.0.2.1", "10.1.2.3, 198.51.100.7", ("192.0.2.1",), 403),
        ("10.1.2.3", "198.51.100.7", ("192.0.2.1",), 200),
    ],
)
def test_an_admin_key_is_used_from_its_networks_alone(
    made: Parts, secret: str, peer: str, forwarded: str | None, trusted: tuple[str, ...], status: int
) -> None:
    """What a client writes into X-Forwarded-For helps nobody; only trusted hops count, and the socket is no network."""
    key = Api(made.app, secret).post("/api/v1/keys", {"name": "near", "role": "admin", "networks": ["10.0.0.0/8"]})
    object.__setattr__(made.console, "facts", replace(made.console.facts, trusted_proxies=trusted))
    headers = {"x-forwarded-for": forwarded} if forwarded is not None else {}
    answer = Api(made.app, key["secret"], client=(peer, 5)).call("GET", "/api/v1/keys", headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["code"] == "ip_denied"
