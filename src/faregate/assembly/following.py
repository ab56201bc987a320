"""What follows the gate: the projector, which books what it journals, and the link, which tells it what changed.

A start begins here: a gate that has its keys and limits takes calls, whatever else the console still has to load. So
nothing is imported here that takes its time.
"""

from typing import TYPE_CHECKING

from faregate.assembly.projection import Projection, log_trouble, tell_nobody
from faregate.config.folder import DataFolder
from faregate.console.link import GateLink
from faregate.journal.projector import Projector
from faregate.journal.read import FileJournalReader
from faregate.ports import Books, Clock

if TYPE_CHECKING:
    from faregate.console.state import CompileCatalogue


class Following:
    """Projection, which has begun, and the link, which its owner has to ``run``; close it before the books."""

    def __init__(self, folder: DataFolder, books: Books, clock: Clock, compile_catalogue: "CompileCatalogue") -> None:
        journal = FileJournalReader(folder.journal)
        self.projection = Projection(Projector(journal, books, tell_nobody, log_trouble))
        self.link = GateLink(
            str(folder.gate_socket),
            books,
            FileJournalReader(folder.journal),
            self.projection.projector,
            compile_catalogue,
            clock,
        )

    def close(self) -> None:
        """Book what the gate wrote last."""
        self.projection.close()
