"""The store of prompts and answers, and the jobs that fill and empty it."""

import asyncio
from typing import Final

from faregate.config.content import Content
from faregate.config.folder import DataFolder
from faregate.jobs.keep_contents import ContentKeeper
from faregate.jobs.runner import Job
from faregate.journal.contents import SpooledContents
from faregate.ports import Clock
from faregate.storage.contents import ContentStore

#: The gate hands over twice a second; what is past its time may wait a few minutes.
FETCH_INTERVAL_S: Final = 1.0
FORGET_INTERVAL_S: Final = 300.0


def content_store(folder: DataFolder) -> ContentStore:
    """Where the contents of an installation are; nothing is made before there is one."""
    return ContentStore(folder.contents)


def content_jobs(content: Content, folder: DataFolder, store: ContentStore, clock: Clock) -> list[Job]:
    """What keeps contents in place, also those of before the configuration forbade them."""
    left = SpooledContents(folder.contents_left)
    keeper = ContentKeeper(store, left, clock.wall_nanos, content.retention or 0, content.bytes_max)

    async def fetch() -> None:
        await asyncio.to_thread(keeper.fetch)

    async def forget() -> None:
        await asyncio.to_thread(keeper.forget)

    return [Job("fetch_contents", FETCH_INTERVAL_S, fetch), Job("forget_contents", FORGET_INTERVAL_S, forget)]
