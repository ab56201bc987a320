"""How a running console comes to work by a configuration that was read again, together with its gate, or not at all.

The supervisor reads the file, because it is the one that was started with it. The console prepares itself aside, tells
the trail of changes what will be different, asks the gate, which takes everything or nothing, and only then takes over
what it prepared, which cannot fail.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from faregate.assembly.handover import Adopt, Adopted, ConsoleSettings, NotReread, RereadWanted, decode_order, encode
from faregate.errors import ConfigError, FaregateError, Unavailable

if TYPE_CHECKING:
    from faregate.assembly.acting import Acting
    from faregate.console.audit import Author
    from faregate.console.state import Console, Reread

logger = logging.getLogger("faregate.reload")

#: Reading, compiling and the gate's word: seconds even for large installations.
REREAD_SECONDS_MAX: Final = 120.0

#: Why an order could not be carried out where it was the product's own mistake.
_UNFORESEEN: Final = "the configuration is right, but could not be taken over: {error}"

Work = Callable[[], Coroutine[None, None, None]]


class Adoption(NamedTuple):
    """A console by other settings, what has to run beside it, and the question to the gate."""

    console: "Console"
    work: Sequence[Work]
    #: Raises ``FaregateError`` where the gate works on as before.
    ask_gate: Callable[[], Awaitable[None]]
    #: What will act then.
    acting: "Acting"


#: Prepares a console by settings, in a thread; raises ``FaregateError`` or ``ValueError`` where there can be none.
MakeAdoption = Callable[[ConsoleSettings], Adoption]


class Works:
    """What runs as long as the console does, and can be replaced as a whole."""

    def __init__(self, work: Sequence[Work]) -> None:
        self._work = tuple(work)
        self._replaced = asyncio.Event()

    def replace(self, work: Sequence[Work]) -> None:
        """Let other work run in the place of what runs."""
        self._work = tuple(work)
        self._replaced.set()

    async def run(self) -> None:
        """Run until cancelled, or until something of it fails, which is raised."""
        while True:
            self._replaced.clear()
            tasks = [asyncio.create_task(each()) for each in self._work]
            replaced = asyncio.create_task(self._replaced.wait())
            try:
                done, _ = await asyncio.wait({replaced, *tasks}, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if replaced not in done:
                    return
            finally:
                for task in (replaced, *tasks):
                    task.cancel()
                await asyncio.gather(replaced, *tasks, return_exceptions=True)


class Reloading:
    """The console's side of it: takes orders from the supervisor, and tells whoever asked for one."""

    def __init__(self, console: "Console", works: Works, prepare: MakeAdoption, say: Callable[[bytes], object]) -> None:
        """``say`` hands the supervisor one line."""
        self._console = console
        self._works = works
        self._prepare = prepare
        self._say = say
        self._turn = asyncio.Lock()
        self._running: set[asyncio.Task[None]] = set()
        #: Number of what was asked → who waits for what becomes of it, in order, and who that is in the trail.
        self._waiting: dict[int, tuple[asyncio.Future[Reread], Author]] = {}
        self._asked = 0
        object.__setattr__(console, "reread", self.ask)

    async def ask(self) -> "Reread":
        """Have the configuration read again; what became of it.

        Raises:
            Unavailable: it takes too long.
        """
        from faregate.console.audit import Author, author

        told: asyncio.Future[Reread] = asyncio.get_running_loop().create_future()
        # By a clock that all processes of a machine share, so that an answer to the console before answers nobody here.
        number = self._asked = max(self._asked + 1, self._console.clock.monotonic_nanos())
        self._waiting[number] = told, author.get(Author())
        self._say(encode(RereadWanted(number)))
        try:
            async with asyncio.timeout(REREAD_SECONDS_MAX):
                return await told
        except TimeoutError:
            raise Unavailable("the configuration was not read again in time", hint="see the log") from None
        finally:
            del self._waiting[number]

    def told(self, line: bytes) -> None:
        """One line of the supervisor's."""
        from faregate.console.state import Reread

        try:
            order = decode_order.decode(line)
        except msgspec.MsgspecError as error:
            logger.error("order_not_understood", extra={"why": str(error)})
            return
        if isinstance(order, NotReread):
            self._tell(Reread(order.code, order.message, order.problems), order.answers)
            return
        task = asyncio.get_running_loop().create_task(self._adopt(order))
        # Nobody else holds it, and what nobody holds may be collected while it runs.
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _adopt(self, order: Adopt) -> None:
        from faregate.console.audit import Author, author
        from faregate.console.state import Reread

        # Whoever asked first; where nobody did, the supervisor was sent a signal.
        asked = (who for number, (_, who) in self._waiting.items() if number <= order.answers)
        author.set(next(asked, Author("signal")))
        try:
            async with self._turn:
                prepared = await asyncio.to_thread(self._prepare, order.settings)
                await self._agree(prepared)
                self._console.take_over(prepared.console)
                self._works.replace(prepared.work)
                await asyncio.to_thread(prepared.acting.keep)
        except FaregateError as error:
            code = "config_invalid" if isinstance(error, ConfigError) else error.code
            found = Reread(code, f"{error.message}; {error.hint}" if error.hint else error.message)
        except Exception as error:  # Whatever it is: both planes are as before, and somebody waits for a word.
            logger.exception("reload_mistaken")
            found = Reread("internal", _UNFORESEEN.format(error=type(error).__name__))
        else:
            found = Reread(restart=order.restart, warnings=order.warnings)
        self._say(encode(Adopted(order.number, found.message if found.code else "")))
        self._tell(found, order.answers)

    async def _agree(self, prepared: Adoption) -> None:
        """Have the gate take over what was prepared; the trail tells of it before, and of a refusal afterwards.

        Raises:
            FaregateError: the gate works on as before, or the trail cannot be written.
        """
        told = await asyncio.to_thread(prepared.acting.tell, self._console)
        try:
            await prepared.ask_gate()
        except BaseException:  # Whatever kept it from being done, the trail has told of it already.
            if told is not None:
                from faregate.console.writing import tell_not_made

                with contextlib.suppress(FaregateError):
                    tell_not_made(self._console, told)
            raise

    def _tell(self, found: "Reread", answers: int) -> None:
        """Count it, and tell those who had asked before the file was read; the others wait for another reading."""
        self._console.reloads["failed" if found.code else "ok"] += 1
        for number, (each, _) in self._waiting.items():
            if number <= answers and not each.done():
                each.set_result(found)
