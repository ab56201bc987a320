"""The short form of the run that looks for canaries; ``make soak`` sends a hundred times as many requests."""

from pathlib import Path

from chaos.canaries import run

REQUESTS = 500
CLIENTS = 16
SEED = 20_261_122


def test_mixed_requests_leave_no_secret_and_no_prompt_anywhere(tmp_path: Path) -> None:
    """What callers send in any field, in good calls, refused ones and mutants, is in no output but where it is kept."""
    found = run(tmp_path / "canaries", REQUESTS, CLIENTS, SEED, commands=False)

    assert found.faults == []
    assert [str(hit) for hit in found.hits] == []
    assert found.requests == REQUESTS
    assert min(found.kinds.values()) > REQUESTS // 50
    assert {200, 400, 401, 404, 422, 502} <= set(found.statuses)
