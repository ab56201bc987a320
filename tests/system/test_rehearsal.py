"""A policy tried before it holds, seen from outside: by rehearsal of what was, and in shadow on what comes."""

from __future__ import annotations

import time

from installation import Installation
from system.calls import ask, new_key, record_count

CALLS = 5
ALLOWED = 2


def test_rehearsal_and_shadow_tell_what_the_limit_then_does(running: Installation) -> None:
    """Of five calls a limit of two in shadow mode notes three, a rehearsal of the same limit refuses the same three."""
    began = time.gmtime(time.time() - 60)
    key = new_key(running, "rehearsed")
    select = {"select": f"key={key['id']}", "unit": "requests", "amount": str(ALLOWED), "window": "lifetime"}
    limit = running.limit(**select, mode="shadow")
    answers = [ask(running, key["secret"]) for _ in range(CALLS)]
    assert [answer.status for answer in answers] == [200] * CALLS
    records = record_count(running, CALLS, key=key["id"])
    noted = [row["id"] for row in records if row["notes"] and row["notes"].get("would_refuse") == [limit["id"]]]
    assert sorted(noted) == sorted(answer.id for answer in answers[ALLOWED:])

    policy = running.folder / "policy.yaml"
    policy.write_text(
        f"limits:\n  - {{select: {{key: {key['id']}}}, unit: requests, amount: 2, window: lifetime, mode: hard}}\n"
    )
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", began)
    told = running.cli("rehearse", "--from", since, "-f", str(policy), "--json")
    found = told["limits"][0]
    assert (found["limit"], found["requests"], found["refused"]) == (limit["id"], CALLS, CALLS - ALLOWED)
    assert {row["limit"]: row["requests"] for row in told["shadow"]}[limit["id"]] == CALLS - ALLOWED

    running.limit(**select, mode="hard")
    assert ask(running, key["secret"]).status == 429
