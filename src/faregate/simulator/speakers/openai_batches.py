"""OpenAI's batches: made of a file, looked at, cancelled and listed. Pure: ``batches`` makes them run.

A batch is steered by a member ``sim`` of its metadata, whose value is JSON::

    {"seconds": 1.5, "fault": "fail_half"}

After so many seconds it ends (at once without any). Its lines are answered by the speakers of their path, each steered
by its own model, ``sim:`` line and script. Faults: ``fail`` (it fails its validation), ``fail_half`` (every second line
fails), ``expire`` (it expires with half of its lines done), ``cancel_partial`` (it stops with half of them done, until
it is cancelled), ``strange`` (its results have a line that nobody asked for, and one twice). (OpenAI, "API reference:
Batch".)
"""

from hashlib import sha256
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qs

import msgspec
from msgspec import Meta, Raw, Struct

from faregate.simulator.asks import Ask, AskInvalid, decoded
from faregate.simulator.http1 import Request
from faregate.simulator.plan import CREATED, Plan
from faregate.simulator.speakers import openai_files
from faregate.simulator.speakers.openai_files import StoredFile

_encode = msgspec.json.Encoder().encode
_ABSENT = Raw()

PATHS: Final = ("/chat/completions", "/completions", "/embeddings", "/responses", "/moderations")
LINES_MAX: Final = 50_000
#: Batches on a page, without and with a ``limit``.
LIST_DEFAULT: Final = 20
LIST_MAX: Final = 100


class Steered(Struct, forbid_unknown_fields=True):
    """How a batch runs."""

    seconds: Annotated[float, Meta(ge=0, le=86_400)] = 0
    fault: Literal["", "fail", "fail_half", "expire", "cancel_partial", "strange"] = ""


class _Create(Struct, forbid_unknown_fields=True):
    input_file_id: str
    endpoint: str
    completion_window: Literal["24h"]
    metadata: dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]] | None = None
    output_expires_after: Raw = _ABSENT


class Line(Struct):
    """One line of an input file."""

    custom_id: str
    method: str
    url: str
    body: Raw


class Done(Struct):
    """What became of one line: a status with its answer, or an error without one."""

    custom_id: str
    status: int = 0
    body: Raw = _ABSENT
    error: str = ""
    #: The provider's id of the call.
    id: str = ""


_decode_create = msgspec.json.Decoder(_Create).decode
_decode_steered = msgspec.json.Decoder(Steered).decode
_decode_line = msgspec.json.Decoder(Line).decode

_ERRORS: Final = {
    "batch_expired": "This request could not be executed before the completion window expired.",
    "batch_cancelled": "This request was not executed because the batch was cancelled.",
}


class Batch:
    """A batch with all that becomes of it."""

    def __init__(self, asked: _Create, steered: Steered, lines: list[Line], wrong: str, kept: dict[str, Any]) -> None:
        self.asked = asked
        self.steered = steered
        self.lines = lines
        self.total = len(lines)
        #: Why it fails its validation; empty where it does not.
        self.wrong = wrong
        self.kept = kept
        self.id = ""
        self.status = "validating"
        self.begun = self.cancelled = False
        self.completed = self.failed = 0
        self.output_file = self.error_file = ""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.status in ("validating", "in_progress", "finalizing", "cancelling")

    def end(self, status: str, done: list[Done]) -> None:
        """Let it end, and keep what became of its lines instead of them."""
        self.status = status
        self.lines = []
        good = [one for one in done if one.status == 200]
        bad = [one for one in done if one.status != 200]
        self.completed, self.failed = len(good), len(bad)
        told = [self._told(one) for one in good]
        if self.steered.fault == "strange" and told:
            told += [self._told(Done("nobody-asked", 200, good[0].body, id="req_strange")), told[0]]
        self.output_file = self._keep("output", told)
        self.error_file = self._keep("error", [self._told(one) for one in bad])

    def _told(self, one: Done) -> bytes:
        digest = sha256(f"{self.id} {one.custom_id}".encode("utf-8", "replace")).hexdigest()[:24]
        response = {"status_code": one.status, "request_id": one.id, "body": one.body} if one.status else None
        error = {"code": one.error, "message": _ERRORS[one.error]} if one.error else None
        line = {"id": "batch_req_" + digest, "custom_id": one.custom_id, "response": response, "error": error}
        return _encode(line) + b"\n"

    def _keep(self, name: str, lines: list[bytes]) -> str:
        if not lines:
            return ""
        id = "file-" + sha256(f"{self.id} {name}".encode()).hexdigest()[:24]
        openai_files.keep(self.kept, StoredFile(id, f"{self.id}_{name}.jsonl", "batch_output", b"".join(lines)))
        return id

    def described(self) -> dict[str, Any]:
        """The batch object."""
        times = dict.fromkeys(("completed", "failed", "expired", "cancelled"))
        errors = None
        if self.status == "failed":
            wrong = {"code": "invalid_request", "line": None, "message": self.wrong, "param": None}
            errors = {"object": "list", "data": [wrong]}
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.asked.endpoint,
            "errors": errors,
            "input_file_id": self.asked.input_file_id,
            "completion_window": self.asked.completion_window,
            "status": self.status,
            "output_file_id": self.output_file or None,
            "error_file_id": self.error_file or None,
            "created_at": CREATED,
            "in_progress_at": None if self.status in ("validating", "failed") else CREATED,
            "expires_at": CREATED + 86_400,
            "finalizing_at": None,
            "cancelling_at": CREATED if self.cancelled else None,
            **{f"{name}_at": CREATED if self.status == name else None for name in times},
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "metadata": self.asked.metadata,
        }


def read(request: Request, name: str) -> Ask:
    """What a new batch asks."""
    del name
    asked = decoded(_decode_create, request.body)
    if asked.endpoint.removeprefix("/v1") not in PATHS:
        raise AskInvalid(f"Invalid endpoint: '{asked.endpoint[:64]}'.", "endpoint")
    file = openai_files.stored(request, asked.input_file_id, "input_file_id", 400)
    if file.purpose != "batch":
        raise AskInvalid("The input file must have the purpose 'batch'.", "input_file_id")
    told = (asked.metadata or {}).get("sim", "{}")
    steered = decoded(_decode_steered, told.encode())
    lines, wrong = _lines_of(file.content, asked.endpoint)
    if steered.fault == "fail":
        wrong = "The simulator was asked to fail it."
    return Ask("batch", "", "", 0, facts=Batch(asked, steered, lines, wrong, request.kept))


def _lines_of(content: bytes, endpoint: str) -> tuple[list[Line], str]:
    """The lines of an input file, and what is wrong with them."""
    lines: list[Line] = []
    seen: set[str] = set()
    models: set[Any] = set()
    for number, text in enumerate(content.split(b"\n"), 1):
        if not text.strip():
            continue
        try:
            line = _decode_line(text)
            models.add(msgspec.json.decode(line.body, type=dict[str, Any]).get("model"))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError):
            return [], f"Line {number} is no valid request."
        if line.custom_id in seen:
            return [], f"The custom_id of line {number} was used before."
        if line.method != "POST" or line.url != endpoint:
            return [], f"Line {number} is not for {endpoint}."
        seen.add(line.custom_id)
        lines.append(line)
    if not lines or len(lines) > LINES_MAX:
        return [], f"A batch has 1 to {LINES_MAX} requests."
    return lines, "" if len(models) == 1 else "A batch has requests to a single model."


def answer(plan: Plan) -> bytes:
    """The batch as it stands."""
    batch = plan.ask.facts
    return _encode(batch.described()) if isinstance(batch, Batch) else _encode({})


def batch_of(plan: Plan) -> Batch | None:
    """The batch that a call begins or cancels, with its id; ``None`` where there is none to care for."""
    batch = plan.ask.facts
    if not isinstance(batch, Batch):
        return None
    if not batch.id:
        batch.id = "batch_" + plan.id
        batch.kept[batch.id] = batch
    return batch


def _stored(request: Request, id: str) -> Batch:
    batch = request.kept.get(id)
    if not isinstance(batch, Batch):
        raise AskInvalid(f"No batch found with id '{id[:64]}'.", "id", 404)
    return batch


def read_look(request: Request, name: str) -> Ask:
    """Look at a batch."""
    return Ask("batch.get", "", "", 0, facts=_stored(request, name))


def read_cancel(request: Request, name: str) -> Ask:
    """Cancel a batch that has not ended."""
    batch = _stored(request, name)
    if not batch.running:
        raise AskInvalid(f"Cannot cancel a batch with status '{batch.status}'.", "id", 409)
    batch.cancelled = True
    batch.status = "cancelling"
    return Ask("batch.cancel", "", "", 0, facts=batch)


def read_list(request: Request, name: str) -> Ask:
    """List batches, the newest first."""
    del name
    batches = [one.described() for one in reversed(request.kept.values()) if isinstance(one, Batch)]
    shown = openai_files.page(batches, parse_qs(request.query), LIST_DEFAULT, LIST_MAX)
    return Ask("batch.list", "", "", 0, facts=shown)
