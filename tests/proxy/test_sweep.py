"""Deadlines of many connections, which are looked at in parts."""

import asyncio
from pathlib import Path

import pytest

from faregate.journal.answers import FileAnswerStore
from faregate.proxy.gate import SWEPT_AT_ONCE
from gates import RunningGate, running_gate, scenario


async def dialled(running: RunningGate, count: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """So many connections to the gate that say nothing."""
    port = int(running.url.rpartition(":")[2])
    return [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]


@pytest.mark.parametrize("count", [1, SWEPT_AT_ONCE, SWEPT_AT_ONCE + 1, 5 * SWEPT_AT_ONCE, 100 + SWEPT_AT_ONCE])
@scenario
async def test_every_connection_has_its_deadline(tmp_path: Path, count: int) -> None:
    """However many are open and in how many parts they are looked at, each idle one is closed in time."""
    async with running_gate(tmp_path, keep_alive_ms=300) as running:
        opened = await dialled(running, count)
        ends = await asyncio.wait_for(asyncio.gather(*(reader.read() for reader, _ in opened)), 3)

        assert set(ends) == {b""}
        await running.until(lambda: running.gate.connections == 0)
        for _, writer in opened:
            writer.close()


@scenario
async def test_those_that_come_during_a_round_have_their_turn(tmp_path: Path) -> None:
    """Connections that are opened while others are looked at are closed in time, too."""
    async with running_gate(tmp_path, keep_alive_ms=300) as running:
        opened = []
        for _ in range(5):
            opened += await dialled(running, SWEPT_AT_ONCE)
            await asyncio.sleep(0.03)
        ends = await asyncio.wait_for(asyncio.gather(*(reader.read() for reader, _ in opened)), 3)

        assert set(ends) == {b""}
        for _, writer in opened:
            writer.close()


class Failing(FileAnswerStore):
    """Kept answers whose folder loses its rights."""

    failed = 0

    def expire(self, now: int) -> None:
        """Fail once there is something to look for."""
        if now:
            self.failed += 1
            raise PermissionError(now)


@scenario
async def test_deadlines_go_on_whatever_else_fails(tmp_path: Path) -> None:
    """What is done once a round may fail; the connections of this round and of the next are looked at all the same."""
    async with running_gate(tmp_path, keep_alive_ms=300) as running:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        running.gate.answers = answers = Failing(tmp_path / "failing", 0)
        opened = await dialled(running, 2 * SWEPT_AT_ONCE)
        ends = await asyncio.wait_for(asyncio.gather(*(reader.read() for reader, _ in opened)), 3)

        assert answers.failed > 1
        assert set(ends) == {b""}
        for _, writer in opened:
            writer.close()
