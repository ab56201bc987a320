"""Whom a call is for: headers, tokens beside a key and bodies, in their order, and who is charged by a header (A10)."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from builders import HeldClock
from faregate.control import TellIssuerKeys
from faregate.core.ledger.events import Intended
from faregate.core.tokens import Accounting, ContextHeaders, Identity
from gates import RunningGate, key, money, running_gate, scenario, secret, truth
from issuers import NOW, Signer, b64, rules
from proxy.test_tokens import signer, told

USER, TENANT = "x-apim-end-user-id", "x-apim-end-user-tenant-id"
APPLICATION, TOKEN = "x-apim-client-application-id", "x-apim-end-user-jwt"


def observed(**claims: Any) -> str:
    """A token that nobody has to believe."""
    return f"{b64({'alg': 'RS256', 'kid': 'x'})}.{b64(claims)}.{b64(b'no signature')}"


async def whom(running: RunningGate, **fields: Any) -> tuple[str, str, str, str]:
    """End user, its source, tenant and application of the one call that is made."""
    before = len(running.of(Intended))
    answer = await running.chat(**fields)
    assert answer.status_code == 200, answer.text
    who = running.of(Intended)[before].who
    tags = dict(who.tags)
    return who.end_user, who.identity_source, tags.get("tenant", ""), tags.get("application", "")


@scenario
async def test_headers_go_before_tokens_and_tokens_before_bodies(tmp_path: Path) -> None:
    """Each of end user, tenant and application is looked for by itself; the record says where the user was found."""
    jwt = observed(oid="oid-1", sub="sub-1", tid="tid-1", azp="azp-1", appid="appid-1", client_id="client-1")
    rows: list[tuple[dict[str, str], str, tuple[str, str, str, str]]] = [
        ({}, "", ("", "", "", "")),
        ({}, "body-1", ("body-1", "body", "", "")),
        ({TOKEN: jwt}, "body-1", ("oid-1", "jwt", "tid-1", "azp-1")),
        ({TOKEN: f"Bearer {jwt}"}, "", ("oid-1", "jwt", "tid-1", "azp-1")),
        ({TOKEN: jwt, USER: "header-1"}, "body-1", ("header-1", "header", "tid-1", "azp-1")),
        ({TOKEN: jwt, TENANT: "t", APPLICATION: "a"}, "", ("oid-1", "jwt", "t", "a")),
        ({USER: "u", TENANT: "t", APPLICATION: "a"}, "", ("u", "header", "t", "a")),
        ({USER: "u", "openai-proxy-user": "p"}, "body-1", ("p", "header", "", "")),
        ({USER: "u", "openai-proxy-user": "p", "x-faregate-user": "f"}, "", ("f", "header", "", "")),
        ({TENANT: "t"}, "body-1", ("body-1", "body", "t", "")),
        ({TOKEN: observed(sub="sub-1", appid="appid-1", client_id="c")}, "", ("sub-1", "jwt", "", "appid-1")),
        ({TOKEN: observed(client_id="client-1")}, "body-1", ("body-1", "body", "", "client-1")),
        ({TOKEN: "no token"}, "body-1", ("body-1", "body", "", "")),
        ({TOKEN: observed(oid="o")[:-20] + "!"}, "", ("", "", "", "")),
        ({TOKEN: "x" * 9_000}, "", ("", "", "", "")),
        ({TOKEN: observed(oid="a\r\nb", tid=7, azp=["x", "y"])}, "", ("", "", "", "")),
    ]
    async with running_gate(tmp_path) as running:
        found = [await whom(running, headers=headers, user=body or None) for headers, body, _ in rows]

        assert found == [wanted for _, _, wanted in rows]


@scenario
async def test_the_token_in_authorization_tells_of_the_person_beside_a_key(tmp_path: Path) -> None:
    """As applications behind API Management call: the key is theirs, the Bearer is their user's."""
    token = observed(oid="ada", tid="t", azp="a")
    async with running_gate(tmp_path) as running:
        found = []
        for name in ("api-key", "ocp-apim-subscription-key"):
            headers = {"authorization": f"Bearer {token}", name: secret("caller")}
            found.append(await whom(running, headers=headers))
        conflict = await running.chat(
            headers={"authorization": f"Bearer {secret('other')}", "api-key": secret("caller")}
        )
        two = await running.chat(headers={"authorization": f"Bearer {token}", "api-key": token + "x"})

        assert found == [("ada", "jwt", "t", "a")] * 2
        assert [answer.json()["error"]["code"] for answer in (conflict, two)] == ["auth_conflict"] * 2


@scenario
async def test_keys_without_the_right_set_none_of_it(tmp_path: Path) -> None:
    """403 names the header; what the body says is not believed, and an Authorization that nobody needs is left."""
    async with running_gate(tmp_path, keys=(key(may_set=()),)) as running:
        headers = {USER: "u", TENANT: "t", APPLICATION: "a", TOKEN: observed(oid="o"), "openai-proxy-user": "p"}
        refused = [await running.chat(headers={name: value}) for name, value in headers.items()]
        bearer = {"authorization": f"Bearer {observed(oid='ada')}", "api-key": secret("caller")}
        quiet = [await whom(running, user="body"), await whom(running, headers=bearer)]

        assert [(a.status_code, a.json()["error"]["code"]) for a in refused] == [(403, "field_forbidden")] * 5
        assert [a.json()["error"]["param"] for a in refused][:4] == [USER, TENANT, APPLICATION, TOKEN]
        assert quiet == [("", "", "", "")] * 2


@scenario
async def test_none_of_it_reaches_the_provider(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The provider's own record of the request holds none of the names and none of the values."""
    jwt = observed(oid="canary-oid")
    headers = {
        USER: "canary-user",
        TENANT: "canary-tenant",
        APPLICATION: "canary-app",
        TOKEN: jwt,
        "app-key": "canary-key",
    }
    identity = Identity(accounting=Accounting("app-key"))
    async with running_gate(tmp_path, identity=identity) as running:
        answer = await running.chat(headers=headers)
        seen = repr(await truth(running)).lower() + caplog.text + answer.text + repr(dict(answer.headers))

        assert answer.status_code == 200
        assert not any(word in seen for word in ("x-apim", "canary", "app-key", jwt.split(".")[1].lower()))


@scenario
async def test_a_token_of_a_configured_issuer_is_verified_beside_a_key(tmp_path: Path) -> None:
    """Forged ones are refused and say which header they came in; those of other issuers are only read."""
    identity = Identity((rules(),))
    async with running_gate(tmp_path, identity=identity, clock=HeldClock(NOW)) as running:
        await running.ask(TellIssuerKeys((told(signer()),)))
        good, forged = signer().token(None, {"oid": "ada"}), Signer("k1", "RS256", signer("k9").private).token()
        found = [
            await whom(running, headers={TOKEN: good}),
            await whom(running, headers={TOKEN: observed(sub="eve", iss="x")}),
        ]
        refused = await running.chat(headers={TOKEN: forged})
        waiting = asyncio.create_task(running.chat(headers={TOKEN: signer("k2").token()}))
        await running.until(lambda: running.gate.issuers._waiting)  # type: ignore[union-attr]
        await running.ask(TellIssuerKeys((told(signer("k2"), at=NOW + 1),), ("entra",)))
        error = refused.json()["error"]

        assert found == [("ada", "jwt", "tenant-1", "app-1"), ("eve", "jwt", "", "")]
        assert (refused.status_code, error["code"], error["param"]) == (401, "jwt_invalid", TOKEN)
        assert (await waiting).status_code == 200


@scenario
async def test_headers_have_the_names_that_the_configuration_gives_them(tmp_path: Path) -> None:
    """The usual ones say nothing then."""
    identity = Identity(
        headers=ContextHeaders(end_user="x-who", tenant="x-tenant", application="x-app", token="x-token")
    )
    async with running_gate(tmp_path, identity=identity) as running:
        mine = {"x-who": "u", "x-tenant": "t", "x-app": "a"}
        found = [
            await whom(running, headers=mine),
            await whom(running, headers={USER: "u", TENANT: "t"}),
            await whom(running),
        ]

        assert found == [("u", "header", "t", "a"), ("", "", "", ""), ("", "", "", "")]


@scenario
async def test_limits_hold_for_tenants_and_applications(tmp_path: Path) -> None:
    """They are tags, so a limit selects one of them, or counts each."""
    limits = (
        money(1, selector={"tag.tenant": "poor"}, id="lim_poor"),
        money(40_000_000, selector={}, each=("tag.application",), id="lim_each"),
    )
    async with running_gate(tmp_path, limits=limits) as running:
        codes = [
            (await running.chat(headers=headers, max_tokens=9_000)).status_code
            for headers in ({TENANT: "poor"}, {TENANT: "rich"}, {APPLICATION: "a"}, {APPLICATION: "b"})
        ]

        assert codes == [429, 200, 200, 200]


@scenario
async def test_a_header_says_who_is_charged(tmp_path: Path) -> None:
    """Its value is the user; without it the default is, but where the key has a user of its own."""
    keys = (key(), key("own", user="ada"), key("mute", may_set=()))
    identity = Identity(accounting=Accounting("app-key", "user", "shared"))
    limits = (money(1, selector={"user": "broke"}, id="lim_broke"),)
    async with running_gate(tmp_path, keys=keys, identity=identity, limits=limits) as running:
        for name, headers in (
            ("caller", {"app-key": "unit-7"}),
            ("caller", {}),
            ("own", {}),
            ("own", {"app-key": "unit-8"}),
            ("mute", {}),
        ):
            assert (await running.chat(name=name, headers=headers)).status_code == 200
        broke = await running.chat(headers={"app-key": "broke"})
        refused = await running.chat(name="mute", headers={"app-key": "unit-7"})
        odd = await running.chat(headers={"app-key": "x" * 257})

        assert [intent.who.user for intent in running.of(Intended)] == ["unit-7", "shared", "ada", "unit-8", "shared"]
        assert [a.json()["error"]["code"] for a in (broke, refused, odd)] == [
            "budget_exhausted",
            "field_forbidden",
            "header_invalid",
        ]
        assert refused.json()["error"]["param"] == "app-key"


@scenario
async def test_a_header_may_name_a_project_or_a_product(tmp_path: Path) -> None:
    """Projects must exist, and take the right to name one, as with the header of ours; products are names."""
    keys = (key(may_set=("project",)), key("usual"))
    identity = Identity(accounting=Accounting("app-key", "project"))
    async with running_gate(tmp_path / "a", keys=keys, identity=identity) as running:
        good, bad = await running.chat(headers={"app-key": "other"}), await running.chat(headers={"app-key": "nowhere"})
        usual = await running.chat(name="usual", headers={"app-key": "other"})

        assert (good.status_code, bad.json()["error"]["code"]) == (200, "field_range")
        assert (usual.status_code, usual.json()["error"]["code"]) == (403, "field_forbidden")
        assert [intent.who.project for intent in running.of(Intended)] == ["other"]
    keys, identity = (key(), key("own", product="gold")), Identity(accounting=Accounting("app-key", "product"))
    async with running_gate(tmp_path / "b", keys=keys, identity=identity) as running:
        await running.chat(headers={"app-key": "gold"})
        await running.chat(name="own", headers={"app-key": "gold"})
        other = await running.chat(name="own", headers={"app-key": "silver"})

        assert [intent.who.product for intent in running.of(Intended)] == ["gold", "gold"]
        assert (other.status_code, other.json()["error"]["code"]) == (403, "field_forbidden")


@scenario
async def test_an_installation_without_all_this_remembers_heads_as_ever(tmp_path: Path) -> None:
    """A key's second call on a connection is not identified again, whether issuers are configured or not."""
    async with running_gate(tmp_path, identity=Identity((rules(),))) as running:
        await running.chat()
        await running.chat()
        (connection,) = running.gate._connections
        head = connection._parser.known

        assert head is not None
        assert head.request.found is not None
