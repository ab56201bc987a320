"""The gate is closed by construction: what is declared is metered and bounded, and nothing else passes (M9)."""

from pathlib import Path

import pytest

from faregate.core.ledger.events import Intended, Refused
from faregate.dialects import DIALECTS
from faregate.dialects.operations import BY_NAME, DECLARED, GEMINI, Declared
from gates import running_gate, scenario, secret


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
