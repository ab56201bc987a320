"""Event loops: the fast one where it is installed, and how a child notices that its supervisor is gone."""

import asyncio
import importlib
import os
from collections.abc import Callable

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

#: An orphan gives what runs this long: nobody will start the next process before it is gone.
ORPHAN_SECONDS = 1.0


def loop_factory() -> LoopFactory | None:
    """uvloop where it can be imported, else ``None``, which means asyncio's own."""
    try:
        factory: LoopFactory = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        return None
    return factory


def stop_with_parent(
    loop: asyncio.AbstractEventLoop,
    descriptor: int,
    stop: Callable[[], object],
    told: Callable[[bytes], object] | None = None,
) -> None:
    """Call ``stop`` at the end of the input that the supervisor keeps open, and once more shortly after.

    ``told`` hears every line that comes before it.
    """
    waiting = bytearray()

    def on_input() -> None:
        if part := os.read(descriptor, 65_536):
            if told is not None:
                waiting.extend(part)
                *lines, rest = bytes(waiting).split(b"\n")
                waiting[:] = rest
                for line in lines:
                    told(line)
            return
        loop.remove_reader(descriptor)
        stop()
        loop.call_later(ORPHAN_SECONDS, stop)

    loop.add_reader(descriptor, on_input)
