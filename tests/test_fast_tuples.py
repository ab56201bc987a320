"""Named tuples that are made past their own constructor, for speed, are what that constructor would have made.

``tuple.__new__`` checks nothing: a field too few, or two that changed places, would reach the journal and the books.
"""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from builders import intended, settled
from fakes import JournalAround
from faregate.core.amounts import Amounts, held_amounts, posted_amounts
from faregate.core.call import Call
from faregate.core.ledger.events import Attempt, Event, Intended, Settled
from faregate.core.metering.meter import Report
from faregate.core.usage import Measure, Usage, split
from faregate.dialects import answers, openai_chat
from faregate.journal.records import encode, whole_records
from faregate.ports import JournalRecord
from faregate.storage.fold import DISPATCHED, Batch, Reservation
from gates import CARD, running_gate, scenario, steered

SOURCE = Path(__file__).parents[1] / "src"


# -- every place in the source -----------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A call of ``tuple.__new__``: where, the type that it names, and what it puts in."""

    where: str
    kind: type
    made: ast.expr


def is_fast(node: ast.expr) -> bool:
    """Whether an expression is ``tuple.__new__`` itself."""
    return isinstance(node, ast.Attribute) and ast.unparse(node) == "tuple.__new__"


def aliases(tree: ast.Module) -> set[str]:
    """The names that a file gives to it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
            pairs = zip(target.elts, value.elts, strict=True) if both else [(target, value)]  # type: ignore[attr-defined]
            found |= {ast.unparse(name) for name, given in pairs if is_fast(given)}
    return found


def places() -> Iterator[Place]:
    """All places of the product."""
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        if "tuple.__new__" not in text:
            continue
        tree = ast.parse(text)
        names = aliases(tree)
        module = importlib.import_module(".".join(path.relative_to(SOURCE).with_suffix("").parts))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        fast = [call for call in calls if is_fast(call.func) or ast.unparse(call.func) in names]
        assert len(fast) + len(names) == text.count("tuple.__new__") + sum(not is_fast(call.func) for call in fast)
        for call in fast:
            kind: Any = module
            for name in ast.unparse(call.args[0]).split("."):
                kind = getattr(kind, name)
            yield Place(f"{path.relative_to(SOURCE)}:{call.lineno}", kind, call.args[1])


PLACES = list(places())


def test_there_are_such_places() -> None:
    """The search below finds what it is to look at."""
    kinds = {place.kind for place in PLACES}
    assert kinds >= {Amounts, Attempt, Call, Intended, JournalRecord, Report, Reservation, Settled, Usage}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.where)
def test_every_place_fills_every_field(place: Place) -> None:
    """As many values are written down as the type has fields, one by one; only a call's unusual ones come together."""
    assert isinstance(place.made, ast.Tuple)
    made = list(place.made.elts)
    fields = list(place.kind._fields)  # type: ignore[attr-defined]
    if place.kind is Call and isinstance(made[-1], ast.Starred):
        # Cut from another call at this very field.
        del made[-1], fields[fields.index("media") :]
    assert not any(isinstance(each, ast.Starred) for each in made)
    assert len(made) == len(fields)


# -- what they make ----------------------------------------------------------------------------------------------------


def same(made: Any, ordinary: Any) -> bool:
    """Whether both are equal, of the same type, and every field is of the kind that the type declares."""
    checked = msgspec.convert(tuple(made), type(ordinary))
    return type(made) is type(ordinary) and made == ordinary == checked and len(made) == len(ordinary)


def test_amounts() -> None:
    """What a call holds and what it posts, each number in its place."""
    held = Amounts(usd=7, tokens=5, input_tokens=3, output_tokens=2, requests=1, concurrency=1)
    assert same(held_amounts(7, 3, 2), held)
    usage = Usage(1, 2, 4, 8, 16, 32, 64)
    posted = Amounts(usd=9, tokens=127, input_tokens=15, output_tokens=112, requests=1)
    assert same(posted_amounts(9, usage), posted)


def test_amounts_of_rarer_units() -> None:
    """What is counted beside tokens, and tokens of rarer kinds, each in its place."""
    other = (Measure("characters", "", 4), Measure("images", "hd", 2), Measure("input_image_tokens", "", 8))
    most = (*other, Measure("images", "sd", 1), Measure("seconds", "", 3))
    held = Amounts(
        usd=7, tokens=13, input_tokens=11, output_tokens=2, requests=1, concurrency=1, images=3, seconds=3, characters=4
    )
    assert same(held_amounts(7, 3, 2, most), held)
    posted = Amounts(usd=9, tokens=9, input_tokens=9, requests=1, images=2, characters=4)
    assert same(posted_amounts(9, Usage(1, other=other)), posted)


def test_usage() -> None:
    """Leaves of a report that has every part."""
    made = split(100, 50, total=150, cached=20, cache_write=10, input_audio=5, reasoning=7, output_audio=3)
    ordinary = Usage(
        input_text=65, input_cached=20, input_cache_write=10, input_audio=5,
        output_text=40, output_reasoning=7, output_audio=3,
    )  # fmt: skip
    assert same(made, ordinary)


def test_report() -> None:
    """What a plain answer says of itself, its usage included."""
    body = b'{"id":"c-1","model":"m-1","usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}'
    made = answers.report_of(body)
    # Of a compiled module, so its declared types cannot be asked for; nobody decodes it.
    assert (type(made), made) == (Report, Report(usage=Usage(input_text=3, output_text=2), model="m-1", id="c-1"))
    assert same(made.usage, Usage(input_text=3, output_text=2))


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b'{"model":"m","messages":[{}]}', {"members": ("model", "messages")}),
        (
            b'{"model":"m","messages":[{}],"stream":true,"stream_options":{"include_usage":true},"n":3,'
            b'"max_tokens":9,"user":"ada","prediction":"12"}',
            {
                "stream": True, "usage_wanted": True, "choices": 3, "output_cap": 9, "cap_field": "max_tokens",
                "extra_output_tokens": 12, "end_user": "ada",
                "members": ("model", "messages", "stream", "stream_options", "n", "max_tokens", "user", "prediction"),
            },
        ),
    ],
)  # fmt: skip
def test_call(body: bytes, fields: dict[str, Any]) -> None:
    """What a caller asks for, with and without all that it may say."""
    made = openai_chat.read(body)
    ordinary = Call(operation="chat.completions", model="m", input_tokens_max=len(body), **fields)
    assert same(made, ordinary)


def test_journal_record() -> None:
    """Position, event and number of a record that is read back."""
    first, second = encode(7, intended(1)), encode(8, settled(1))
    ordinary = [
        JournalRecord(position=100 + len(first), event=intended(1), sequence=7),
        JournalRecord(position=100 + len(first) + len(second), event=settled(1), sequence=8),
    ]
    made = whole_records(first + second, 100)
    assert made == ordinary
    assert [(type(record), len(record)) for record in made] == [(JournalRecord, 3)] * 2


def test_open_reservation() -> None:
    """What the books keep of a call that has begun and not ended."""
    batch = Batch(0, 0, 4)
    batch.begun["req"] = intended(1)
    batch.close_begun()
    made = batch.changed["req"]
    assert made is not None
    assert same(made, Reservation(intent=intended(1), epoch=4, state=DISPATCHED, output_tokens_seen=0))


class RememberingJournal(JournalAround):
    """A journal that keeps the events as they were given to it, before they become bytes."""

    def append(self, event: Event) -> int:
        """As the journal's."""
        self.given: list[Event] = [*getattr(self, "given", ()), event]
        return super().append(event)


@pytest.mark.parametrize("stream", [False, True])
@scenario
async def test_events_of_a_call(tmp_path: Path, stream: bool) -> None:
    """Intent and settlement of a call that went well: complete, of the declared types, and each fact in its place."""
    async with running_gate(tmp_path, journal_kind=RememberingJournal) as running:
        answer = await running.chat(stream=stream)
        assert answer.status_code == 200
        await running.until(lambda: running.of(Settled))
        journal: Any = running.gate.journal
        (intent,) = (event for event in journal.given if type(event) is Intended)
        (end,) = (event for event in journal.given if type(event) is Settled)

        assert same(intent, Intended(**intent._asdict()))
        assert same(end, Settled(**end._asdict()))
        assert [intent, end] == [*running.of(Intended), *running.of(Settled)]
        (attempt,) = end.attempts
        assert same(attempt, Attempt(deployment="sim/sim-1", http_status=200, duration_us=attempt.duration_us))
        assert intent._replace(at=0, admitted_at=0, held=Amounts()) == Intended(
            id=end.id,
            at=0,
            admitted_at=0,
            who=intent.who,
            held=Amounts(),
            price_version=CARD.version,
            stream=stream,
            input_tokens_bound=intent.held.input_tokens,
        )
        assert intent.who.key == "key_caller"
        assert 0 < intent.admitted_at <= intent.at <= end.at
        assert end._replace(at=0, latency_us=0, first_token_us=0) == Settled(
            id=intent.id,
            at=0,
            status="ok",
            http_status=200,
            code="",
            usage=end.usage,
            usage_source="provider",
            cost=end.usage.input_tokens * 1_000 + end.usage.output_tokens * 2_000,
            charge=end.cost,
            price_version=CARD.version,
            latency_us=0,
            first_token_us=0,
            attempts=(attempt,),
            answered_model="sim-1",
            provider_request_id=end.provider_request_id,
        )
        assert 0 < end.first_token_us <= end.latency_us
        assert end.provider_request_id


@scenario
async def test_settlement_of_a_call_that_failed(tmp_path: Path) -> None:
    """The status, the code and the source of the usage of a provider's error stand where they belong."""
    async with running_gate(tmp_path, journal_kind=RememberingJournal) as running:
        answer = await running.chat(steered(status=500))
        await running.until(lambda: running.of(Settled))
        journal: Any = running.gate.journal
        (end,) = (event for event in journal.given if type(event) is Settled)

        assert same(end, Settled(**end._asdict()))
        assert (end.status, end.http_status, answer.status_code) == ("failed", 500, 500)
        assert [(each.deployment, each.http_status) for each in end.attempts] == [("sim/sim-1", 500)]
        assert (end.cost, end.charge, end.overrun, end.resolution) == (0, 0, 0, "")
