"""What products, users and projects do to callers without keys, at a real gate: no less than to keys."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from faregate.config.settings import ContentSettings
from faregate.control import Load, PayerRule, compiled
from faregate.core.ledger.events import Intended
from faregate.core.restrictions import NOT_RESTRICTED, Restrictions
from faregate.core.tokens import Identity
from faregate.proxy.described import NOT_DESCRIBED, attribution
from faregate.proxy.tenants import Tenants
from gates import key, money, running_gate, scenario
from issuers import NOW, rules
from proxy.test_contents import kept
from proxy.test_tokens import call, gate_of, signer

KIND = {"product": "gold", "user": "ada"}


@pytest.mark.parametrize("kind", ["product", "user"])
def test_what_a_payer_restricts_holds_for_callers_with_tokens(tmp_path: Path, kind: str) -> None:
    """Models, operations, paths, networks and an end, from the next call on, also of a token that is known already."""

    @scenario
    async def work() -> None:
        entry = rules(product="gold", user="ada", models=("sim-1",))
        async with gate_of(tmp_path, signer(), entry=entry) as running:
            token, told = signer().token(), []
            for number, restrictions in enumerate((
                NOT_RESTRICTED,
                Restrictions(models=("sim-2",)),
                Restrictions(operations=("embeddings",)),
                Restrictions(paths=("/v1/embeddings",)),
                Restrictions(networks=("192.0.2.0/24",)),
                Restrictions(expires_at=NOW),
                Restrictions(("sim-1",), ("chat.completions",), ("/v1/chat",), ("127.0.0.0/8",), NOW + 1),
                NOT_RESTRICTED,
            )):  # fmt: skip
                rule = PayerRule(kind, "default", KIND[kind], restrictions)
                others = PayerRule(kind, "default", "other", Restrictions(models=()))
                await running.ask(Load(2 + number, restricting=(rule, others)))
                answer = await call(running, token)
                told.append("" if answer.status_code == 200 else answer.json()["error"]["code"])

            assert told == [
                "", "model_forbidden", "operation_forbidden", "path_forbidden", "ip_denied", "key_expired", "", "",
            ]  # fmt: skip

    work()


@scenario
async def test_what_a_product_keeps_of_contents_holds_for_callers_with_tokens(tmp_path: Path) -> None:
    """Before the default of the configuration; a key's own word would go before both."""
    content = ContentSettings("full", retention_ms=60_000)
    async with gate_of(tmp_path, signer(), entry=rules(product="gold"), content=content) as running:
        await running.ask(Load(2, restricting=(PayerRule("product", "default", "gold", content="off"),)))
        await call(running, signer().token(), text="secret")
        await running.ask(Load(3, restricting=(PayerRule("product", "default", "gold", content="metadata"),)))
        await call(running, signer().token(), text="secret")
        await running.chat(text="said")
        records = await kept(running, 2)

        assert [(record.kept, record.prompt.text) for record in records] == [("metadata", ""), ("full", "user: said")]


@scenario
async def test_keys_come_restricted_and_are_not_looked_at_again(tmp_path: Path) -> None:
    """What the gate is told for tokens changes nothing for a key, whose head is remembered as ever."""
    async with running_gate(tmp_path, keys=(key(product="gold"),)) as running:
        rule = PayerRule("product", "default", "gold", Restrictions(models=()))
        await running.ask(Load(2, restricting=(rule,)))

        assert (await running.chat()).status_code == 200
        assert running.gate.snapshot.restricting == {rule.place: rule}
        await running.ask(Load(3, True))
        assert running.gate.snapshot.restricting == {}


def test_the_team_of_a_project_is_another_organizations_too_where_tokens_of_both_have_it() -> None:
    """Neither may see by a limit on that team what the other's callers do."""
    tenants = Tenants()
    limit = compiled(money(1, selector={"team": "sales"}))
    who = attribution(key(team="sales"), NOT_DESCRIBED)
    tenants.add([key(team="sales"), key(organization="b", team="other")])
    assert tenants.owns(limit, who)
    tenants.add_callers(Identity((rules(organization="b", team=""),)), (("b", "own", "sales"), ("c", "far", "other")))
    assert not tenants.owns(limit, who)
    assert tenants.owns(limit, who._replace(organization="b")) is False


@scenario
async def test_a_token_is_charged_to_the_team_that_its_project_was_put_into(tmp_path: Path) -> None:
    """Where it names none; one that names another team is refused, as a key of both could not be made."""
    claims: Any = (("client", ("azp",)), ("end_user", ("sub",)), ("team", ("department",)), ("project", ("unit",)))
    async with gate_of(tmp_path, signer(), entry=rules(team="", claims=claims)) as running:
        teams = (("default", "own", "sales"), ("default", "shared", ""), ("other", "far", "sales"))
        await running.ask(Load(2, catalogue=replace(running.gate.snapshot.catalogue, project_teams=teams)))
        told = []
        for department, unit in (
            ("", "own"), ("sales", "own"), ("research", "own"), ("research", "shared"), ("research", "far"),
        ):  # fmt: skip
            answer = await call(running, signer().token(None, {"department": department or None, "unit": unit}))
            told.append(answer.status_code)
        charged = [(intent.who.team, intent.who.project) for intent in running.of(Intended)]

        assert told == [200, 200, 403, 200, 200]
        assert charged == [("sales", "own"), ("sales", "own"), ("research", "shared"), ("research", "far")]
