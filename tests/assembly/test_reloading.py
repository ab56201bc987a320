"""Who asks for the configuration to be read again is told of a reading that began after that, and of no other."""

import asyncio
import threading
from pathlib import Path
from typing import Any

from console_parts import Parts, parts
from faregate.assembly.handover import NotReread, RereadWanted, decode_word, encode
from faregate.assembly.reloading import Reloading, Works
from faregate.console.state import Reread
from faregate.errors import Unsafe
from faregate.supervise import Supervisor
from gates import scenario


def unused(_: Any) -> Any:
    raise AssertionError("nothing is adopted here")


@scenario
async def test_who_asks_while_the_file_is_read_waits_for_the_next_reading(tmp_path: Path) -> None:
    """What the first reading found tells nothing of a file that was written meanwhile; numbers grow over restarts."""
    with parts(tmp_path) as made:
        await _ask_twice(made)


async def _ask_twice(made: Parts) -> None:
    said: list[bytes] = []
    reloading = Reloading(made.console, Works(()), unused, said.append)
    first, second = asyncio.create_task(reloading.ask()), asyncio.create_task(reloading.ask())
    await asyncio.sleep(0)
    wanted = [decode_word.decode(line) for line in said]
    numbers = [word.number for word in wanted if isinstance(word, RereadWanted)]

    reloading.told(encode(NotReread("config_invalid", "to the console before", answers=numbers[0] - 1)))
    reloading.told(encode(NotReread("config_invalid", "the first", answers=numbers[0])))
    told = await first
    assert (told.message, second.done()) == ("the first", False)

    reloading.told(encode(NotReread("config_invalid", "the second", answers=numbers[1])))
    assert await second == Reread("config_invalid", "the second")
    assert numbers == [made.clock.monotonic_nanos(), made.clock.monotonic_nanos() + 1]


@scenario
async def test_a_file_that_is_being_read_is_read_once_more() -> None:
    """However often that is asked for meanwhile; each request finds a reading that began after it."""
    begun, go_on, readings = threading.Event(), threading.Event(), [0]

    def reread() -> Any:
        readings[0] += 1
        begun.set()
        go_on.wait(10)
        raise Unsafe("nothing is there to be read")

    supervisor = Supervisor((), reread=reread)
    supervisor.reload()
    await asyncio.to_thread(begun.wait, 10)
    for _ in range(3):
        supervisor.reload()
    go_on.set()
    async with asyncio.timeout(10):
        while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)

    assert readings == [2]
