"""Looks through books in the background that are too large to be looked through before calls are taken.

A start reads the file for a moment only: what takes longer would keep all calls waiting for as long as the books have
grown. The rest is read afterwards, while nothing else wants the core. What is found wrong is told, and the gate goes
on: its journal, which the books can be made from anew, is another file.
"""

import logging
import threading
import time

from faregate.assembly.scheduling import use_idle_time
from faregate.errors import FaregateError
from faregate.storage.sqlite.books import SqliteBooks

logger = logging.getLogger("faregate.console")


class Soundness:
    """What became of looking through the books of this process."""

    def __init__(self, books: SqliteBooks) -> None:
        self._books = books
        #: What is wrong with them, empty where nothing was found.
        self.damage = ""

    def look(self) -> None:
        """Look through them in a thread of its own, where that was not done when they were opened."""
        if not self._books.looked_through:
            threading.Thread(target=self._look, name="soundness", daemon=True).start()

    def _look(self) -> None:
        use_idle_time()
        began = time.monotonic()
        try:
            wrong = self._books.check()
        except FaregateError as error:
            # They are being closed, or the disk does not answer: the next start looks again.
            logger.warning("books_not_looked_through", extra={"why": error.message})
            return
        if wrong:
            self.damage = wrong[0]
            logger.critical("books_corrupt", extra={"what": wrong[0], "advice": "stop, and restore a backup"})
        else:
            logger.info("books_sound", extra={"seconds": round(time.monotonic() - began, 1)})
