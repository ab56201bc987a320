"""``faregate verify``: proof that the books add up and equal the journal."""

from faregate.cli.client import Where, connect
from faregate.cli.output import Json, emit, emit_json
from faregate.errors import Failed

_FIGURES = ("ok", "requests", "postings", "held", "unknown", "sum")


def command(data: Where = None, json: Json = False) -> int:
    """Prove that postings balance, roll-ups equal records, and the books equal the journal: exit 1 where not."""
    with connect(data) as client:
        found = client.call("GET", "/verify")
    wrong = [check for check in found["checks"] if not check["ok"]]
    if json:
        shown = {name: found[name] for name in _FIGURES}
        emit_json(shown if found["ok"] else {**shown, "checks": wrong})
    else:
        for check in found["checks"]:
            emit(f"{'ok  ' if check['ok'] else 'FAIL'}  {check['name']:<16} {check['detail']}")
        word = "ok" if found["ok"] else "NOT OK"
        emit(f"{found['requests']} requests, {found['postings']} postings, held {found['held']}: {word}")
    return 0 if found["ok"] else Failed.exit_code
