"""Builds and runs the data plane in this process."""

import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path

from faregate.assembly.clock import SystemClock
from faregate.assembly.handover import Listening, encode
from faregate.assembly.loops import loop_factory, stop_with_parent
from faregate.assembly.scheduling import prefer_short_slices
from faregate.config.folder import DataFolder
from faregate.config.patterns import finder
from faregate.config.settings import GateSettings

logger = logging.getLogger("faregate.gate")

#: Requests leave nothing that only a collection would free, and one of the youngest generation must stay short: it
#: looks at this many objects. Those of the oldest generation walk the whole snapshot.
_GC_THRESHOLDS = (5_000, 50, 1_000)

#: The disk lost data of the journal: only a new process, which recovers it, knows what is left.
_JOURNAL_LOST_EXIT = 1


def run_gate(settings: GateSettings, input_descriptor: int) -> int:
    """Serve until told to stop; returns the exit code."""
    prefer_short_slices()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(settings, input_descriptor))


async def _serve(settings: GateSettings, input_descriptor: int) -> int:
    from faregate.assembly.caching import response_store
    from faregate.catalogue.tokens import ToktokCounter
    from faregate.dialects.pictures import size_of
    from faregate.journal.answers import FileAnswerStore
    from faregate.journal.append import FileJournal
    from faregate.journal.contents import ContentSpool
    from faregate.journal.objects import FileObjectStore
    from faregate.proxy.contents import ContentKeeping
    from faregate.proxy.gate import Gate

    loop = asyncio.get_running_loop()
    clock = SystemClock()
    folder = Path(settings.data_dir)
    journal = FileJournal(
        folder / "journal",
        clock,
        loop.call_soon_threadsafe,
        segment_bytes=settings.journal_segment_bytes,
        sync_interval_ms=settings.sync_interval_ms,
        on_failure=_journal_lost,
    )
    answers = FileAnswerStore(folder / "journal" / "answers", clock.wall_nanos())
    objects = FileObjectStore(folder / "journal" / "objects", clock.wall_nanos())
    data = DataFolder(folder)
    keeping = ContentKeeping(ContentSpool(data.contents_left, clock.wall_nanos), finder)
    responses = response_store(settings.cache, data, loop, bytes.fromhex(settings.peppers[0][1]), clock.wall_nanos)
    gate = Gate(settings, clock, journal, ToktokCounter(size_of), answers, objects, keeping, responses)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, gate.drain)
    if settings.attached:
        stop_with_parent(loop, input_descriptor, gate.drain)
    # What stands now lives as long as the process: it need never be looked at again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    logger.info("journal_opened", extra=journal.recovered._asdict())
    return await gate.serve(_say_listening)


def _say_listening(port: int) -> None:
    sys.stdout.buffer.write(encode(Listening(port)) + b"\n")
    sys.stdout.buffer.flush()


def _journal_lost(message: str) -> None:
    logger.critical("journal_lost_data", extra={"why": message})
    logging.shutdown()
    os._exit(_JOURNAL_LOST_EXIT)
