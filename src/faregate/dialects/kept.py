"""Objects that a provider keeps after its answer: what an answer made, and what a later look at one says.

The contract between the gate, which gives every such object an owner; the console, which asks after work that goes on
behind one; and the dialects, which know the bytes. Reads no bytes itself.

A dialect takes part by five members of ``Dialect``, each ``None`` where it does not apply. None of them ever raises:

* ``made(body)``: the objects that a good, whole answer names and that belong to whoever asked from then on. A batch
  that is done names its output and error files, too. An answer without any gives an empty tuple.
* ``bounded(call, facts)``: the call with its bounds, for one whose cost depends on an object that it names; ``facts``
  are those of ``call.objects[0]``, which is the caller's own by then. A batch is read so: ``read`` names its file in
  ``objects``; ``bounded`` puts in the model that its lines name (one for all of them, as providers demand it), the sum
  of their input bounds, ``extra_output_tokens`` for lines with a cap, ``choices`` for how many have none,
  ``calls`` for how many lines there are, and ``longest_input`` for the longest of them: each is a call of its own, so
  that many short lines are not one long call (``Tariff.bound_of_calls``).
* ``outcome(body)``: what a later ``GET`` of the object says about the work behind it.
* ``lines(facts, told)``: something that adds up the lines of the files that ``Outcome.files`` names, as their bytes
  come; ``facts`` are those of the object that was bounded. ``told`` is to be called with the usage of each billed line.
* ``shown(body, own)``: a list of objects without those that are not ``own``. Lists of files and of batches are of all
  that the provider keeps with our credential, so no list may reach its caller by another way than this.

What has to be remembered of an object that an answer makes is known when its request is read: ``Call.facts``. They are
kept with every object of the answer that brings none of its own.

An answer that accepts work which goes on has ``Report.pending`` and the object's id as ``Report.id``: its hold stays,
and the console looks at the object until ``outcome`` says that it has ended. Then it is settled, exactly once.
"""

from typing import Final, NamedTuple, Protocol

from faregate.core.metering.meter import Report

#: Kinds of objects.
RESPONSE: Final = "response"
FILE: Final = "file"
BATCH: Final = "batch"

#: The operation that looks at an object of each kind; where the work behind it is told.
LOOKS: Final = {RESPONSE: "responses.get", FILE: "files.get", BATCH: "batches.get"}

#: The operation that reads what a file holds.
CONTENT: Final = "files.content"

#: An id may be this long; anything longer is not recorded, so nobody can name it.
ID_CHARACTERS_MAX: Final = 128

#: Facts of one object take at most so many bytes.
FACTS_BYTES_MAX: Final = 16 * 1024


class Made(NamedTuple):
    """One object that a provider keeps for whoever asked."""

    id: str
    #: ``response``, ``file`` or ``batch``.
    kind: str
    #: What the dialect wants to know of it later, msgpack of its own; at most ``FACTS_BYTES_MAX`` bytes.
    facts: bytes = b""


class Outcome(NamedTuple):
    """What a look at an object says of the work behind it."""

    #: It runs no more, and nothing of what follows will change.
    ended: bool = False
    #: It did everything that was asked; cancelled, failed, expired and partial work did not.
    complete: bool = False
    #: What the object itself reports; ``Report.usage`` is ``None`` where it says nothing that can be believed.
    report: Report = Report()
    #: Ids of files at the same provider whose lines say the rest; what they add up to takes the place of ``report``.
    files: tuple[str, ...] = ()
    #: Characters of billed text, for an estimate where an ended object reports no usage.
    characters: int = 0


class Lines(Protocol):
    """Adds up what the lines of files report, in bounded memory. No method ever raises."""

    def feed(self, data: bytes) -> None:
        """The next bytes of a file, cut anywhere."""
        ...

    def close(self) -> None:
        """A file has ended; what comes next belongs to another one."""
        ...

    @property
    def report(self) -> Report:
        """What all lines so far add up to; ``usage`` is ``None`` where that cannot be known."""
        ...
