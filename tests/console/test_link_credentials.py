"""How fetched credentials reach the gate: before what needs them, and again whenever they are renewed."""

import asyncio
from pathlib import Path

from console.test_link import Linked
from console_parts import parts, run
from faregate.control import Credential, Credentials, Load, Opening

FIRST = Credential("p", "https://p.example", {"authorization": "Bearer one"}, ("one",), 7)
SECOND = Credential("p", "https://p.example", {"authorization": "Bearer two"}, ("two",), 8)
OTHER = Credential("q", "https://q.example", {"authorization": "Bearer three"})


def test_a_gate_gets_them_before_it_is_opened_and_again_when_they_change(tmp_path: Path) -> None:
    """Each as it is then; what did not change is not sent again."""

    async def all_of_it() -> None:
        with parts(tmp_path) as made:
            both = Linked(made)
            both.link.renew((FIRST, OTHER))
            await both.gate.listen()
            running = asyncio.create_task(both.link.run())
            await both.until(lambda: both.link.connected)
            kinds = [type(each) for each in both.gate.heard]
            assert kinds.index(Credentials) < kinds.index(Load) < kinds.index(Opening)

            both.link.renew((SECOND,))
            await both.until(lambda: Credentials((SECOND,)) in both.gate.heard)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await both.gate.hang_up()

    run(all_of_it())


def test_a_new_gate_is_opened_when_they_were_tried(tmp_path: Path) -> None:
    """So that a gate that is ready can call its providers."""

    async def all_of_it() -> None:
        with parts(tmp_path) as made:
            both = Linked(made)
            both.link.expect_credentials()
            await both.gate.listen()
            running = asyncio.create_task(both.link.run())
            await both.until(lambda: bool(both.gate.loads()))
            assert both.gate.openings() == []

            both.link.renew((FIRST,))
            both.link.credentials_tried()
            await both.until(lambda: bool(both.gate.openings()))
            heard = both.gate.heard
            assert heard.index(Credentials((FIRST,))) < heard.index(both.gate.openings()[0])
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await both.gate.hang_up()

    run(all_of_it())


def test_a_credential_shows_its_secret_in_no_text() -> None:
    """A log or a traceback that holds one tells nothing."""
    assert "one" not in repr(FIRST) + repr(Credentials((FIRST,)))
