"""Progress of long work on a terminal; in pipes, logs and for scripts there is nothing to see."""

import contextlib
import sys
from collections.abc import Callable, Iterator

#: Says how much is done, and of how much.
Tell = Callable[[int, int], None]


@contextlib.contextmanager
def progress(what: str, *, shown: bool = True) -> Iterator[Tell]:
    """A bar on standard error while the context lasts; ``shown`` is false where JSON is wanted."""
    if not shown or not sys.stderr.isatty():
        yield _nothing
        return
    # Loaded only here: most commands run without a terminal, or are over before a bar is drawn.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def waiting(what: str, *, shown: bool = True) -> Iterator[None]:
    """That something goes on whose end nobody can tell, for as long as the context lasts."""
    if not shown or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def _nothing(done: int, total: int) -> None:
    """Nobody looks."""
