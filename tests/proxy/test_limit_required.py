"""``limits.require`` and ``stages.*.require_limit``: only what stops spending in dollars lets a call pass."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from builders import START, HeldClock
from faregate.control import Limit, Load
from faregate.core.limits.terms import Terms
from faregate.core.limits.windows import HOUR
from gates import key, money, running_gate, scenario

DOLLAR = 1_000_000_000


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        ([], 403),
        ([money(DOLLAR)], 200),
        ([money(DOLLAR, each=("user",))], 200),
        ([money(DOLLAR, selector={})], 200),
        ([money(0)], 429),
        ([money(DOLLAR, mode="soft")], 403),
        ([msgspec.structs.replace(money(DOLLAR), amount=None)], 403),
        ([money(10**6, unit="tokens")], 403),
        ([money(10, unit="concurrency", window="")], 403),
        ([money(DOLLAR, selector={"team": "another"})], 403),
        ([money(DOLLAR, selector={"tag.env": "prod"})], 403),
        ([money(DOLLAR, mode="soft"), money(DOLLAR, "month", id="lim_2")], 200),
    ],
)
@scenario
async def test_a_call_needs_a_hard_limit_in_dollars(tmp_path: Path, limits: list[Limit], status: int) -> None:
    """Soft limits, limits without an amount or in other units, and those of others let nothing pass."""
    async with running_gate(tmp_path, limits=limits) as running:
        snapshot = running.gate.snapshot
        catalogue = msgspec.structs.replace(snapshot.catalogue, require_limit=True)
        await running.ask(Load(snapshot.sequence + 1, catalogue=catalogue))
        answer = await running.chat()
        told: dict[str, Any] = answer.json()

        assert answer.status_code == status
        assert (told.get("error", {}).get("code") == "limit_required") is (status == 403)


@pytest.mark.parametrize(
    ("stage", "limits", "status"),
    [
        ("prod", [], 403),
        ("prod", [money(DOLLAR)], 200),
        ("prod", [msgspec.structs.replace(money(DOLLAR), amount=None)], 403),
        ("prod", [money(0)], 429),
        ("dev", [], 200),
        ("", [], 200),
    ],
)
@scenario
async def test_a_stage_may_require_a_limit_of_its_callers_alone(
    tmp_path: Path, stage: str, limits: list[Limit], status: int
) -> None:
    """In a stage with the switch a call needs a limit; no amount is no limit, 0 is one that admits nothing."""
    async with running_gate(tmp_path, limits=limits, keys=[key(stage=stage)]) as running:
        snapshot = running.gate.snapshot
        catalogue = msgspec.structs.replace(snapshot.catalogue, require_limit_stages=("prod",))
        await running.ask(Load(snapshot.sequence + 1, catalogue=catalogue))
        answer = await running.chat()
        error = answer.json().get("error", {})

        assert answer.status_code == status
        assert (error.get("code") == "limit_required") is (status == 403)
        assert ("stage prod requires one" in error.get("message", "")) is (status == 403)


@scenario
async def test_a_limit_that_has_ended_or_not_begun_covers_nobody(tmp_path: Path) -> None:
    """It binds from one moment to another, and only then may what it covers be spent."""
    clock = HeldClock()
    terms = Terms(since=START + HOUR, until=START + 2 * HOUR)
    async with running_gate(tmp_path, limits=[money(DOLLAR, terms=terms)], clock=clock) as running:
        snapshot = running.gate.snapshot
        catalogue = msgspec.structs.replace(snapshot.catalogue, require_limit=True)
        await running.ask(Load(snapshot.sequence + 1, catalogue=catalogue))
        codes = []
        for moment in (0, HOUR, 2 * HOUR):
            clock.now = START + moment
            codes.append((await running.chat()).status_code)

        assert codes == [403, 200, 403]


@scenario
async def test_what_bounds_everybody_while_the_books_are_away_covers_nobody(tmp_path: Path) -> None:
    """Who may not spend without a limit may not do so because the ledger failed."""
    async with running_gate(tmp_path, limits=[], journal_backlog_max=1_000, fail_open_nanos=DOLLAR) as running:
        while not running.gate.failing_open:
            await running.chat()
            running.gate.judge()
        snapshot = running.gate.snapshot
        catalogue = msgspec.structs.replace(snapshot.catalogue, require_limit=True)
        await running.ask(Load(snapshot.sequence + 1, catalogue=catalogue))
        answer = await running.chat()

        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "limit_required")
