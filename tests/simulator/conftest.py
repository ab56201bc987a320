"""The simulator that the tests of this folder speak to."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
import uvloop

from faregate.simulator import serve
from simulated import Provider


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def provider(request: pytest.FixtureRequest) -> Iterator[Provider]:
    """A simulator that accepts any key, in a thread of its own, on either event loop."""
    loop = uvloop.new_event_loop() if request.param == "uvloop" else asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="simulator")
    thread.start()
    simulator = asyncio.run_coroutine_threadsafe(serve(), loop).result(10)
    yield Provider(simulator)
    asyncio.run_coroutine_threadsafe(simulator.close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
