"""Calls that went past the gate, on their way to it: asked once, whatever is repeated and whichever gate is there."""

from pathlib import Path
from typing import Any

import pytest

from console.test_link import Linked, with_link
from console_parts import NOON, SECOND, WHO, Parts, opened, settled_call
from faregate.control import Report, Reported, Resolve
from faregate.core.amounts import held_amounts
from faregate.core.ledger.events import Intended, Started
from faregate.core.usage import Usage
from faregate.errors import Unavailable

#: What ``settled_call`` books.
USAGE = Usage(input_text=300, output_text=100)


def report(id: str, **changed: Any) -> Report:
    fields: dict[str, Any] = {"usage": USAGE, "cost": 1_750_000, "charge": 1_750_000}
    return Report(id, WHO, usage_source="provider", price_version="v1", **(fields | changed))


def _asked(both: Linked) -> list[Report]:
    return [each for each in both.gate.heard if isinstance(each, Report)]


def test_a_report_is_asked_with_what_the_books_were_looked_through_for(tmp_path: Path) -> None:
    """So that the gate knows what the look cannot have seen."""

    def before(made: Parts) -> None:
        made.journal.add(opened(), *settled_call("req_1"))
        made.project()

    async def work(both: Linked) -> None:
        assert await both.link.report(report("req_2")) == Reported()
        (asked,) = _asked(both)
        assert (asked.id, asked.looked_to) == ("req_2", 30)

    with_link(tmp_path, work, before)


def test_what_the_books_hold_is_not_asked_again(tmp_path: Path) -> None:
    """Under any of its ids; whether it is the same call is told."""

    def before(made: Parts) -> None:
        made.journal.add(opened(), *settled_call("req_1"))
        made.project()

    async def work(both: Linked) -> None:
        assert await both.link.report(report("req_1")) == Reported(changed=False)
        assert await both.link.report(report("req_2", also=("req_0", "req_1"))) == Reported(changed=False)
        assert await both.link.report(report("req_1", charge=1)) == Reported(changed=False, same=False)
        other = report("req_1", usage=USAGE._replace(output_text=1))
        assert await both.link.report(other) == Reported(changed=False, same=False)
        assert _asked(both) == []

    with_link(tmp_path, work, before)


def test_a_report_whose_second_half_a_crash_took_is_ended_by_its_repetition(tmp_path: Path) -> None:
    """It is an unknown then, of which the reporter has the proof."""

    def before(made: Parts) -> None:
        held = held_amounts(1_750_000, 300, 100)
        made.journal.add(
            opened(), Intended("req_1", NOON, NOON, WHO, held, "v1", False, 300), Started(2, NOON + SECOND)
        )

    async def work(both: Linked) -> None:
        assert await both.link.report(report("req_1")) == Reported()
        (order,) = [each for each in both.gate.heard if isinstance(each, Resolve)]
        assert (order.id, order.resolution, order.charge, order.usage) == ("req_1", "late_evidence", 1_750_000, USAGE)
        assert await both.link.report(report("req_1")) == Reported(changed=False)
        assert _asked(both) == []

    with_link(tmp_path, work, before)


def test_without_a_gate_a_report_is_unavailable(tmp_path: Path) -> None:
    """It is not kept for later: who reported it repeats it."""

    async def work(both: Linked) -> None:
        await both.gate.hang_up()
        await both.until(lambda: not both.link.connected)
        with pytest.raises(Unavailable):
            await both.link.report(report("req_1"))

    with_link(tmp_path, work)
