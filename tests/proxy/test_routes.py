"""The gate is closed by construction: what is declared is metered and bounded, and nothing else passes (M9)."""

from pathlib import Path

import pytest

from faregate.core.ledger.events import Intended, Refused
from faregate.core.metering.service import ServiceTerms, Told
from faregate.core.pricing.card import Rate
from faregate.dialects import DIALECTS
from faregate.dialects.operations import BY_NAME, DECLARED, GEMINI, SERVICES, Declared
from gates import CARD, deployment, provider, running_gate, scenario, secret


@pytest.mark.parametrize("declared", DECLARED, ids=lambda declared: declared.name)
@scenario
async def test_no_declared_path_is_a_way_round_the_meter(tmp_path: Path, declared: Declared) -> None:
    """A call that cannot be read, priced or bounded is refused on every path, holds nothing and reaches nobody."""
    prefix = "/v1beta" if GEMINI in declared.kinds else "/v1"
    path = f"{prefix}{declared.path}".replace("{id}", "obj_1").replace("{model}", "sim-none") + "?alt=sse"
    async with running_gate(tmp_path) as running:
        answer = await running.client.request(
            declared.method,
            path,
            headers={"authorization": f"Bearer {secret('caller')}", "content-type": "application/json"},
            content=b'{"model": "sim-none"}' if declared.method == "POST" else b"",
        )

        assert 400 <= answer.status_code < 500, answer.text
        if declared.name not in DIALECTS:
            assert "is not metered yet" in answer.text
        await running.until(lambda: running.of(Refused))
        assert running.of(Intended) == []
        assert running.simulator.dispatched == 0


def test_every_dialect_has_a_declared_path() -> None:
    """No wire format is spoken on a path that is not declared with its meter."""
    assert set(DIALECTS) <= set(BY_NAME)
    assert all(declared.meter for declared in DECLARED)


#: A service that tells units, and the rates that it needs beside theirs.
TERMS = ServiceTerms(told=(Told("units", "", "x-units", 10),))
RATES = tuple(Rate(unit, 0, 1) for unit in ("requests", "busy_milliseconds", "seconds", "bytes"))


@pytest.mark.parametrize("priced", [(), RATES, (*RATES, Rate("units", 1, 1))], ids=["nothing", "not units", "all"])
@scenario
async def test_a_service_is_asked_only_where_all_that_it_uses_has_a_price(
    tmp_path: Path, priced: tuple[Rate, ...]
) -> None:
    """Services are a declared operation, too: what may be used and has no price keeps a call from being sent."""
    assert SERVICES.meter
    cards = (CARD._replace(tiers=(CARD.tiers[0]._replace(rates=priced),)),) if priced else ()
    place = deployment("svc", provider="svc", model="svc", cards=cards, operations=("svc",), service=TERMS)
    nowhere = provider("http://127.0.0.1:9", name="svc", kind="http")
    async with running_gate(tmp_path, providers=(nowhere,), deployments=(place,)) as running:
        headers = {"authorization": f"Bearer {secret('caller')}"}
        answer = await running.client.get(SERVICES.path.replace("{service}", "svc").replace("…", "x"), headers=headers)

        code = answer.json()["error"]["code"]
        assert code == ("upstream_connect" if len(priced) > len(RATES) else "price_unknown")
        assert running.of(Intended) == []
