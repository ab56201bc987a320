"""What can be asked of the simulator itself, on loopback only.

``GET  /simulator/truth``               records: ``request_id=``, ``since=`` (a number), ``limit=`` (at most 10000)
``GET  /simulator/truth/{request_id}``  was it served, and with what usage: 200, 404 never seen, 503 still at it
``GET  /simulator/state``               ``dispatched``, ``in_flight``, ``held``, ``connections``, ``bytes_sent`` …
``POST /simulator/hold``                hold every answer from now on (those that are steered with ``hold`` always are)
``POST /simulator/release``             let all held answers go; ``{"count": N}`` only the N oldest
``POST /simulator/script``              replace the script by the list of rules in the body
``POST /simulator/reset``               forget truth, counters, script counts and holds (the file is kept)
"""

from typing import Any, Protocol
from urllib.parse import parse_qs, unquote

import msgspec

from faregate.simulator.http1 import Request
from faregate.simulator.shapes import error
from faregate.simulator.steering import Script, ScriptInvalid, parse_script
from faregate.simulator.truth import Record, TruthLog

PREFIX = "/simulator/"
LIMIT_MAX = 10_000

#: Status, extra header lines, body.
Reply = tuple[int, bytes, bytes]

_encode = msgspec.json.Encoder().encode


class Inside(Protocol):
    """What the doors open on."""

    truth: TruthLog
    script: Script | None
    open_calls: dict[str, int]

    def state(self) -> dict[str, int]:
        """Counters of now."""
        ...

    def hold_all(self) -> None:
        """Hold every answer from now on."""
        ...

    def release(self, count: int | None) -> int:
        """Let held answers go, all of them or so many; returns how many."""
        ...

    def reset(self) -> None:
        """Forget what was counted."""
        ...


class _Release(msgspec.Struct):
    count: int | None = None


def answer(inside: Inside, request: Request) -> Reply:
    """Answer one request to a path under ``/simulator/``."""
    name = request.path.removeprefix(PREFIX)
    if request.method == "GET":
        if name == "truth":
            return _truth(inside, request.query)
        if name.startswith("truth/"):
            return _lookup(inside, unquote(name.removeprefix("truth/")))
        if name == "state":
            return 200, b"", _encode(inside.state())
    elif request.method == "POST":
        try:
            return 200, b"", _encode(_order(inside, name, request.body))
        except (ScriptInvalid, msgspec.MsgspecError) as problem:
            return 400, b"", error(400, str(problem))
        except LookupError:
            pass
    return 404, b"", error(404, f"There is no {request.method} {request.path}.")


def _truth(inside: Inside, query: str) -> Reply:
    fields = parse_qs(query)
    try:
        since = int(fields.get("since", ["0"])[0])
        limit = int(fields.get("limit", ["1000"])[0])
        if since < 0 or not 1 <= limit <= LIMIT_MAX:
            raise ValueError(query)
    except ValueError:
        return 400, b"", error(400, f"since is a number from 0, limit one from 1 to {LIMIT_MAX}.")
    request_id = fields.get("request_id", [None])[0]
    lines = inside.truth.lines(since=since, limit=limit, request_id=request_id)
    return 200, b"", b'{"data":[%b],"last_seq":%d}' % (b",".join(lines), inside.truth.last_seq)


def _lookup(inside: Inside, request_id: str) -> Reply:
    """Answer a provider's lookup: a retried call was served if any try was, and its usage is that of the served ones.

    While a call is being answered nobody can say what it will have used, so the asker is told to come again.
    """
    if inside.open_calls.get(request_id):
        return 503, b"retry-after: 1\r\n", error(503, "That request is still being answered.")
    records = inside.truth.records(request_id)
    if not records:
        return 404, b"", error(404, "That request was never seen.")
    served = [record for record in records if record.served]
    last = (served or records)[-1]
    told: dict[str, Any] = {
        "served": bool(served), "ended": True, "complete": last.complete, "usage": _sum(served),
    }  # fmt: skip
    return 200, b"", _encode({**told, "model": last.model, "status": last.status, "records": len(records)})


def _sum(records: list[Record]) -> dict[str, Any] | None:
    usages = [record.usage for record in records if record.usage is not None]
    if not usages:
        return None
    total = usages[0]
    for usage in usages[1:]:
        total = _add(total, usage)
    return total


def _add(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    names = {**one, **other}
    return {
        name: _add(one.get(name, {}), other.get(name, {}))
        if isinstance(value, dict)
        else one.get(name, 0) + other.get(name, 0)
        for name, value in names.items()
    }


def _order(inside: Inside, name: str, body: bytes) -> dict[str, int]:
    if name == "hold":
        inside.hold_all()
    elif name == "release":
        count = msgspec.json.decode(body, type=_Release).count if body.strip() else None
        return {"released": inside.release(count)}
    elif name == "script":
        inside.script = parse_script(body)
    elif name == "reset":
        inside.reset()
    else:
        raise LookupError(name)
    return inside.state()
