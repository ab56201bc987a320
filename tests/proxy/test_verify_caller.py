"""Forward-auth: ``/auth/verify`` answers other reverse proxies as the gate would answer the request itself (A13)."""

import re
import shlex
from pathlib import Path
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from builders import HeldClock
from faregate.control import Limit, Load, TellIssuerKeys
from faregate.core.ledger.events import Intended, Refused
from faregate.core.limits.terms import Action, Terms
from faregate.core.metering.service import ServiceTerms
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.tokens import Accounting, Identity
from gates import RunningGate, allowances, deployment, key, money, provider, running_gate, scenario, secret, truth
from issuers import NOW, rules
from proxy.test_tokens import signer, told

MILLIDOLLAR = 1_000_000

#: A service of the configuration: a dollar-tenth a call, GET alone, below two paths.
_CARD = RateCard("ocr", "ocr", "ocr/ocr@test", (Tier(0, (Rate("requests", 10**11, 1),)),))
_TERMS = ServiceTerms(methods=("GET",), paths=("/pages", "/v1"))


def service() -> dict[str, Any]:
    """What a gate with the service ``ocr`` is started with."""
    place = deployment(
        "ocr",
        provider="ocr",
        upstream_model="ocr",
        model="ocr",
        cards=(_CARD,),
        service=_TERMS,
        operations=("ocr",),
        output_tokens_max=0,
        encoding="",
    )
    return {
        "deployments": (deployment(), place),
        "providers": (provider("http://127.0.0.1:9/v1"), provider("http://127.0.0.1:9", name="ocr", kind="http")),
    }


async def ask(
    running: RunningGate, headers: dict[str, str] | None = None, *, name: str = "caller", **fields: Any
) -> httpx2.Response:
    """Ask about a request that came with the key of that name."""
    credential = {"authorization": f"Bearer {secret(name)}"} if name else {}
    method, path = fields.pop("method", "GET"), fields.pop("path", "/auth/verify")
    return await running.client.request(method, path, headers=credential | (headers or {}), **fields)


def of(uri: str, method: str = "GET", host: str = "") -> dict[str, str]:
    """The headers of Traefik."""
    told = {"x-forwarded-method": method, "x-forwarded-uri": uri}
    return told | ({"x-forwarded-host": host} if host else {})


NGINX = {"x-original-uri": "/ocr/pages/1?x=y", "x-original-method": "GET"}
INGRESS = {"x-original-url": "https://ocr.example.com/pages/1", "x-original-method": "GET"}
TRAEFIK = {
    "x-forwarded-method": "GET",
    "x-forwarded-proto": "https",
    "x-forwarded-host": "ocr.example.com:8443",
    "x-forwarded-uri": "/pages/1?x=y",
    "x-forwarded-for": "192.0.2.7",
}
CADDY = {"x-forwarded-method": "GET", "x-forwarded-uri": "/ocr/pages/1", "x-forwarded-host": "10.0.0.7:8443"}
ENVOY = {"host": "ocr.example.com"}


@pytest.mark.parametrize(
    ("headers", "path"),
    [(NGINX, ""), (INGRESS, ""), (TRAEFIK, ""), (CADDY, ""), (ENVOY, "/pages/1?x=y")],
    ids=["nginx", "ingress-nginx", "traefik", "caddy", "envoy"],
)
def test_each_proxy_is_understood(tmp_path: Path, headers: dict[str, str], path: str) -> None:
    """Services are found by host name or path, with or without a port; another method is refused as the gate would."""

    @scenario
    async def run() -> None:
        async with running_gate(tmp_path, **service()) as running:
            good = await ask(running, headers, path="/auth/verify" + path)
            changed = {name: "POST" if name.endswith("method") else value for name, value in headers.items()}
            post = await ask(running, changed, path="/auth/verify" + path, method="POST" if path else "GET")

            assert (good.status_code, good.headers["x-faregate-service"]) == (200, "ocr")
            assert (post.status_code, post.json()["error"]["code"]) == (405, "method_not_allowed")

    run()


@scenario
async def test_the_answer_says_who_the_caller_is(tmp_path: Path) -> None:
    """In headers that a proxy can copy; what no header can hold is escaped, what is not known is left out."""
    keys = (key(user="ada", product="gold"), key("odd", team="Größe %\u2028", project=""))
    async with running_gate(tmp_path, keys=keys) as running:
        good = await ask(running, of("/anything") | {"x-faregate-user": "person-7"})
        odd = await ask(running, of("/anything"), name="odd")
        mine = {name: value for name, value in good.headers.items() if name.startswith("x-faregate-")}

        assert mine == {
            "x-faregate-request-id": good.headers["x-request-id"],
            "x-faregate-key-id": "key_caller",
            "x-faregate-organization": "default",
            "x-faregate-team": "research",
            "x-faregate-project": "search",
            "x-faregate-product": "gold",
            "x-faregate-user": "ada",
            "x-faregate-end-user": "person-7",
            "x-faregate-service": "anything",
        }
        assert (good.status_code, good.json(), good.headers["cache-control"]) == (200, {"ok": True}, "no-store")
        assert odd.headers["x-faregate-team"] == "Gr%C3%B6%C3%9Fe%20%25%E2%80%A8"
        assert "x-faregate-project" not in odd.headers


@scenario
async def test_keys_are_judged_as_at_the_gate(tmp_path: Path) -> None:
    """No credential, a wrong one, one that ended, one of an administrator, and one that is for something else."""
    keys = (
        key(),
        key("gone", state="revoked"),
        key("late", expires_at=1),
        key("off", state="disabled"),
        key("root", role="admin"),
        key("chat", operations=("chat.completions",)),
        key("net", networks=("192.0.2.0/24",)),
        key("path", paths=("/ocr",)),
    )
    async with running_gate(tmp_path, keys=keys, **service()) as running:
        page = of("/ocr/pages/1")
        found = {
            name: await ask(running, page, name=name)
            for name in ("", "nobody", "gone", "late", "off", "root", "chat", "net", "path")
        }
        codes = {name: (a.status_code, a.json().get("error", {}).get("code")) for name, a in found.items()}

        assert codes == {
            "": (401, "auth_missing"),
            "nobody": (401, "auth_invalid"),
            "gone": (401, "key_revoked"),
            "late": (401, "key_expired"),
            "off": (403, "key_disabled"),
            "root": (403, "role_forbidden"),
            "chat": (403, "operation_forbidden"),
            "net": (403, "ip_denied"),
            "path": (200, None),
        }
        assert (await ask(running, of("/other"), name="path")).json()["error"]["code"] == "path_forbidden"


@scenario
async def test_limits_without_room_refuse(tmp_path: Path) -> None:
    """Budgets, rates and concurrency of the service, of the key, of anything that can be told of the request."""
    limits = (
        money(50 * MILLIDOLLAR, selector={"service": "ocr", "key": "key_poor"}, id="lim_money"),
        Limit("lim_none", {"key": "key_none"}, (), "requests", 0, "minute"),
        Limit("lim_tokens", {"key": "key_tokens"}, (), "tokens", 0, "minute"),
        Limit("lim_slots", {"service": "grafana"}, (), "concurrency", 0, ""),
    )
    keys = [key(name) for name in ("caller", "poor", "none", "tokens")]
    async with running_gate(
        tmp_path, keys=keys, limits=limits, refusal_statuses={"budget_exhausted": 402}, **service()
    ) as running:
        page, chat = of("/ocr/pages/1"), of("/v1/chat/completions", "POST")
        found = [
            await ask(running, page, name="poor"),
            await ask(running, page, name="none"),
            await ask(running, chat, name="tokens"),
            await ask(running, of("/x", host="grafana.example.com")),
            await ask(running, page),
            await ask(running, chat, name="poor"),
        ]
        codes = [(a.status_code, a.json().get("error", {}).get("code")) for a in found]

        assert codes == [
            (402, "budget_exhausted"),
            (429, "rate_limited"),
            (429, "rate_limited"),
            (429, "concurrency_limited"),
            (200, None),
            (200, None),
        ]
        assert [(event.who.key, event.who.service, event.limit) for event in await refusals(running, 4)] == [
            ("key_poor", "ocr", "lim_money"),
            ("key_none", "ocr", "lim_none"),
            ("key_tokens", "chat.completions", "lim_tokens"),
            ("key_caller", "grafana", "lim_slots"),
        ]


async def refusals(running: RunningGate, count: int) -> list[Refused]:
    await running.until(lambda: len(running.of(Refused)) >= count)
    found: list[Refused] = running.of(Refused)
    return found


@scenario
async def test_asking_holds_and_costs_nothing(tmp_path: Path) -> None:
    """However often: no counter moves, nothing is sent, and what goes well is no record."""
    limits = (
        money(1_000 * MILLIDOLLAR, selector={}, id="lim_money"),
        Limit("lim_requests", {}, (), "requests", 3, "minute"),
        Limit("lim_slots", {}, (), "concurrency", 1, ""),
        Limit("lim_shadow", {}, (), "requests", 0, "minute", mode="shadow"),
        Limit(
            "lim_slow",
            {},
            (),
            "requests",
            100,
            "day",
            terms=Terms(actions=(Action("throttle", 0, requests_per_minute=600),)),
        ),
    )
    async with running_gate(tmp_path, limits=limits, clock=HeldClock(NOW), **service()) as running:
        statuses = {(await ask(running, of("/ocr/pages/1"))).status_code for _ in range(20)}
        counted = await allowances(running)

        assert statuses == {200}
        assert set(counted.values()) == {(0, 0)}
        assert running.gate.allowances.shadow_refusals.get("lim_shadow", 0) == 0
        assert (running.of(Intended), running.of(Refused), await truth(running)) == ([], [], [])


@scenario
async def test_what_the_gate_offers_is_judged_by_its_own_paths(tmp_path: Path) -> None:
    """Operations, the model in a path, services below ``/services``, and what needs no limit."""
    keys = (key(models=("sim-9",)), key("stage", stage="dev"), key("ops", operations=("embeddings",)))
    stages: dict[str, tuple[str, ...]] = {"dev": ("nowhere",)}
    async with running_gate(tmp_path, keys=keys, stages=stages, **service()) as running:
        azure = of("/openai/deployments/sim-1/chat/completions?api-version=x", "POST")
        found = [
            await ask(running, azure),
            await ask(running, azure, name="stage"),
            await ask(running, of("/v1/chat/completions", "POST"), name="ops"),
            await ask(running, of("/v1/embeddings", "POST"), name="ops"),
            await ask(running, of("/v1/models"), name="ops"),
            await ask(running, of("/services/ocr/pages/2"), name="caller"),
            await ask(running, of("/services/ocr/other"), name="caller"),
        ]
        codes = [(a.status_code, a.json().get("error", {}).get("code")) for a in found]

        assert codes == [
            (403, "model_forbidden"),
            (403, "stage_forbidden"),
            (403, "operation_forbidden"),
            (200, None),
            (200, None),
            (200, None),
            (404, "not_found"),
        ]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-original-uri": "/ocr/pages/1", "x-forwarded-uri": "/free"},
        {"x-original-url": "https://ocr.example.com/pages", "x-forwarded-host": "free.example.com"},
        {"x-original-uri": "/a", "x-original-method": "GET", "x-forwarded-method": "POST"},
        {"x-original-uri": "/a", "x-forwarded-host": "one.example.com, two.example.com"},
        {"x-original-uri": "https://ocr.example.com/pages"},
        {"x-original-uri": "pages"},
        {"x-original-uri": "/a b"},
        {"x-original-uri": "/a#b"},
        {"x-original-uri": "/a", "x-original-method": "get it"},
        {"x-original-uri": "/a", "x-forwarded-host": "user@evil.example"},
        {"x-original-uri": "/ocr/../admin"},
        {"x-original-uri": "/ocr/%2e%2e/admin"},
        {"x-original-uri": "/ocr//pages"},
        {"x-original-uri": "/ocr%2Fpages"},
        {"x-original-uri": "/pages/..;/x", "x-forwarded-host": "ocr.example.com"},
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    """A header of the client's own, or a path that the service behind reads otherwise, fools nobody."""

    @scenario
    async def run() -> None:
        async with running_gate(tmp_path, **service()) as running:
            answer = await ask(running, headers)

            assert (answer.status_code, answer.json()["error"]["code"]) in [
                (400, "header_invalid"),
                (400, "uri_invalid"),
            ]

    run()


@scenario
async def test_credentials_are_found_where_the_request_had_them(tmp_path: Path) -> None:
    """In any header, in the query of the original URI, and as a token."""
    identity = Identity((rules(),), accounting=Accounting("app-key"))
    async with running_gate(tmp_path, identity=identity, clock=HeldClock(NOW), **service()) as running:
        await running.ask(TellIssuerKeys((told(signer()),)))
        query = await ask(running, of(f"/ocr/pages/1?subscription-key={secret('caller')}"), name="")
        header = await ask(running, of("/ocr/pages/1") | {"x-api-key": secret("caller"), "app-key": "unit-7"}, name="")
        token = await ask(running, of("/ocr/pages/1") | {"authorization": f"Bearer {signer().token()}"}, name="")
        bad = await ask(
            running, of("/ocr/pages/1") | {"authorization": f"Bearer {signer().token(None, {'exp': 1})}"}, name=""
        )

        assert [a.status_code for a in (query, header, token, bad)] == [200, 200, 200, 401]
        assert header.headers["x-faregate-user"] == "unit-7"
        assert (token.headers["x-faregate-key-id"], token.headers["x-faregate-end-user"]) == (
            "tok_entra:app-1",
            "person-1",
        )
        assert bad.json()["error"]["message"] == "Token refused: exp."


@scenario
async def test_a_missing_limit_refuses_where_one_is_required(tmp_path: Path) -> None:
    """As at the gate: 403 before anything is spent."""
    async with running_gate(tmp_path, **service()) as running:
        await running.ask(Load(2, catalogue=replace(running.gate.snapshot.catalogue, require_limit=True)))
        answer = await ask(running, of("/ocr/pages/1"))

        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "limit_required")


@scenario
async def test_a_gate_that_takes_no_calls_says_so(tmp_path: Path) -> None:
    """Nobody is let through to a service while spending cannot be counted."""
    async with running_gate(tmp_path, opened=False) as running:
        answer = await ask(running, of("/x"))

        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")


@scenario
async def test_the_question_of_the_guide_is_answered(tmp_path: Path) -> None:
    """The headers of its curl line, with a key that is for the service it names."""
    guide = Path(__file__).parents[2] / "docs" / "guides" / "protect-any-service.md"
    (line,) = re.findall(r"^ +\$ (curl .*/auth/verify.*)$", guide.read_text(), re.MULTILINE)
    words = shlex.split(line.replace("$KEY", secret("caller")))
    headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
    async with running_gate(tmp_path, keys=(key(paths=("/grafana",)),)) as running:
        answer = await running.client.get("/auth/verify", headers=headers)

        assert (answer.status_code, answer.headers["x-faregate-service"]) == (200, "grafana")
