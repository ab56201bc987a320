"""Calls that went past the gate and are reported to it: booked once, counted on every limit."""

from pathlib import Path
from typing import Any

from faregate.control import Projected, Report, Reported
from faregate.core.attribution import Attribution
from faregate.core.ledger.events import Intended, Settled
from faregate.core.usage import Usage
from gates import CARD, RunningGate, allowances, money, running_gate, scenario

WHO = Attribution(
    organization="default", team="research", project="search", key="key_caller", model="sim-1",
    deployment="sim/sim-1", provider="sim", service="reported",
)  # fmt: skip


def report(id: str = "req_1", **changed: Any) -> Report:
    """Ten tokens in and five out, which cost 20,000 nano-dollars."""
    fields: dict[str, Any] = {"usage": Usage(input_text=10, output_text=5), "cost": 20_000, "charge": 20_000}
    return Report(id, WHO, usage_source="provider", price_version=CARD.version, **(fields | changed))


async def _told(running: RunningGate, order: Report) -> Reported:
    answer = await running.ask(order)
    assert isinstance(answer, Reported)
    return answer


@scenario
async def test_a_report_is_journalled_and_counted(tmp_path: Path) -> None:
    """It is an intent and a settlement of one call, which says that it was reported, and every limit counts it."""
    limits = (money(100_000), money(50, id="lim_tokens", unit="tokens", selector={"key": "key_caller"}))
    async with running_gate(tmp_path, limits=limits) as running:
        assert await _told(running, report(reference="mine", answered_model="sim-1-2026")) == Reported()

        (intent,), (settled,) = running.of(Intended), running.of(Settled)
        assert (intent.id, intent.who, intent.notes) == ("req_1", WHO, '{"reported": true}')
        assert (intent.held.usd, intent.held.tokens, intent.held.concurrency) == (20_000, 15, 0)
        assert (intent.idempotency_key, settled.answered_model) == ("mine", "sim-1-2026")
        assert (settled.status, settled.cost, settled.charge, settled.overrun) == ("ok", 20_000, 20_000, 0)
        assert await allowances(running) == {"lim_money": (20_000, 0), "lim_tokens": (15, 0)}


@scenario
async def test_what_has_happened_counts_beyond_the_amount(tmp_path: Path) -> None:
    """The report is booked, and the next call is refused."""
    async with running_gate(tmp_path, limits=(money(10_000),)) as running:
        assert (await _told(running, report())).changed
        assert await allowances(running) == {"lim_money": (20_000, 0)}
        assert (await running.chat()).json()["error"]["code"] == "budget_exhausted"


@scenario
async def test_a_repeated_report_is_booked_once(tmp_path: Path) -> None:
    """Under its own id or one that it may have had; other usage under the same id is told apart."""
    async with running_gate(tmp_path, limits=(money(100_000),)) as running:
        await _told(running, report())
        assert await _told(running, report()) == Reported(changed=False)
        assert await _told(running, report("req_2", also=("req_1",))) == Reported(changed=False)
        assert await _told(running, report(charge=1)) == Reported(changed=False, same=False)
        assert await allowances(running) == {"lim_money": (20_000, 0)}
        assert len(running.of(Settled)) == 1


@scenario
async def test_what_the_books_hold_is_forgotten_safely(tmp_path: Path) -> None:
    """Of many reports the oldest are dropped once they are in the books; who looked before that looks again."""
    async with running_gate(tmp_path) as running:
        await _told(running, report("req_0"))
        position = running.gate.journal.position
        for n in range(1, 1_002):
            running.gate.outside.book(report(f"req_{n}"))
        await running.ask(Projected(position))

        assert await _told(running, report("req_0")) == Reported(changed=False)
        assert (await _told(running, report("req_new", looked_to=position))).changed
        refused = await _told(running, report("req_0", looked_to=position - 1))
        assert "Report it again" in refused.refused


@scenario
async def test_a_gate_that_takes_no_calls_takes_no_reports(tmp_path: Path) -> None:
    """Before its balances are known it says why, and nothing is booked."""
    async with running_gate(tmp_path, opened=False) as running:
        answer = await _told(running, report())
        assert (answer.changed, "starting" in answer.refused) == (False, True)
        assert running.of(Intended) == []


@scenario
async def test_reports_are_in_the_metrics_but_not_in_the_durations(tmp_path: Path) -> None:
    """Requests, tokens and cost count; how long it took nobody knows."""
    async with running_gate(tmp_path) as running:
        await _told(running, report(unpriced="web_searches"))
        samples = {
            (each.name, dict(each.labels).get("kind", "")): each.value for each in running.gate.metrics.samples()
        }
        assert samples["faregate_requests_total", ""] == 1
        assert samples["faregate_cost_nanos_total", ""] == 20_000
        assert samples["faregate_tokens_total", "input"] == 10
        assert samples["faregate_tokens_total", "output"] == 5
        assert samples["faregate_unpriced_usage_total", ""] == 1
        assert [each.count for each in running.gate.metrics.histograms()] == [0, 0, 0]


@scenario
async def test_where_calls_wait_for_the_disk_reports_do_too(tmp_path: Path) -> None:
    """With the durability ``power`` the answer comes after the journal was synced."""
    async with running_gate(tmp_path, durability="power") as running:
        assert (await _told(running, report())).changed
        assert len(running.of(Settled)) == 1
