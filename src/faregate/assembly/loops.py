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


def stop_with_parent(loop: asyncio.AbstractEventLoop, descriptor: int, stop: Callable[[], object]) -> None:
    """Call ``stop`` at the end of the input that the supervisor keeps open, and once more shortly after."""

    def on_input() -> None:
        if os.read(descriptor, 4096):
            return
        loop.remove_reader(descriptor)
        stop()
        loop.call_later(ORPHAN_SECONDS, stop)

    loop.add_reader(descriptor, on_input)
