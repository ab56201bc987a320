"""``docs/guides/keep-prompts.md``, followed literally; and prompts are where they belong, and nowhere else."""

from __future__ import annotations

import re
import shlex
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from installation import Installation, Refused
from system.calls import Answer, ask, body, record, until

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "keep-prompts.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

PROMPT, ANSWER = "PROMPT-CANARY-22a5f0", "ANSWER-CANARY-9be417"
IBAN, CARD, MAIL = "DE89 3704 0044 0532 0130 00", "4111 1111 1111 1111", "jane.doe@example.com"

#: Promised are two seconds; a console that was killed has to start first.
KEPT_SECONDS = 45.0


def blocks(language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(GUIDE.read_text()) if kind == language]


class Followed(NamedTuple):
    """The installation of the guide, the secrets of its keys, and its commands by part."""

    running: Installation
    keys: dict[str, dict[str, Any]]
    looking: list[str]
    deleting: list[str]


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    """Its configuration, with the port of a simulator that really runs, and the keys that it makes."""
    (config,) = blocks("yaml")
    config = config.replace("{", "{{").replace("}", "}}").replace("127.0.0.1:4010", "127.0.0.1:{simulator_port}")
    making, looking, deleting = ([line for line in each.splitlines() if line] for each in blocks("console"))
    with Installation(tmp_path_factory.mktemp("contents"), config=config) as running:
        keys = {}
        for line in making:
            made = running.cli(*shlex.split(line.removeprefix("$ faregate ")))
            keys[made["name"]] = made
        yield Followed(running, keys, looking, deleting)


def kept(running: Installation, request_id: str) -> dict[str, Any]:
    """What is kept of a request, as soon as it is there."""
    content: dict[str, Any] = until(
        lambda: _content(running, request_id), lambda found: found is not None, KEPT_SECONDS
    )
    return content


def _content(running: Installation, request_id: str) -> Any:
    try:
        return running.admin("GET", f"/api/v1/requests/{request_id}/content")
    except (Refused, OSError):
        # It is not there yet, or the console is not.
        return None


def typed(running: Installation, line: str, request_id: str) -> subprocess.CompletedProcess[str]:
    """One command of the guide; its placeholder stands for a request that there is."""
    words = shlex.split(line.removeprefix("$ faregate ").replace("req_01", request_id))
    return running.cli_raw(*words)


def files_with(running: Installation, *words: str) -> set[str]:
    """Names of files of the data folder that hold one of some texts."""
    found: set[str] = set()
    for path in running.data.rglob("*"):
        # A file on its way to the contents may be fetched at this very moment.
        with suppress(OSError):
            content = path.read_bytes()
            found |= {path.name for word in words if word.encode() in content}
    return found


@pytest.mark.timeout(300)
def test_the_guide_is_followed_as_it_is_written(followed: Followed) -> None:
    """Its calls are redacted, found, shown and deleted by the commands it names."""
    running, secret = followed.running, followed.keys["watched"]["secret"]
    facts = {"X-CUSTOM-EVENT-ID": "order-17", "X-METADATA": '{"step": 3}'}
    answer = ask(running, secret, body(f"Please transfer 10 dollars to {IBAN}."), headers=facts)
    assert answer.headers["x-faregate-content"] == "iban=redacted"
    content = kept(running, answer.id)
    assert content["prompt"]["text"] == "user: Please transfer 10 dollars to [iban]."

    commands = [line for line in followed.looking if line.startswith("$ ")]
    told = [typed(running, line, answer.id) for line in commands]
    assert [done.stderr for done in told if done.returncode] == []
    assert [answer.id in done.stdout for done in (told[0], told[2], told[3])] == [True, True, True]
    shown = [line for line in followed.looking if not line.startswith("$ ")]
    assert "\n".join(shown) in told[1].stdout

    for line in followed.deleting:
        assert typed(running, line, answer.id).returncode == 0
    assert _content(running, answer.id) is None
    found = record(running, answer.id)
    assert (found["event_id"], found["metadata"]) == ("order-17", {"step": "3"})
    assert found["notes"]["content"] == [{"rule": "iban", "action": "redact", "times": 1}]


@pytest.mark.timeout(300)
def test_texts_are_in_the_contents_and_nowhere_else(followed: Followed) -> None:
    """Of a watched key in one file of its owner's alone; of a quiet one in none; whole answers and streams."""
    running = followed.running
    quiet, watched = (followed.keys[name]["secret"] for name in ("quiet", "watched"))
    steer: dict[str, Any] = {"content": f"{ANSWER}-w and more", "output_tokens": 5}
    answers = [ask(running, watched, body(f"{PROMPT}-w", stream=stream, **steer)) for stream in (False, True)]
    steer["content"] = f"{ANSWER}-q and more"
    for stream in (False, True):
        ask(running, quiet, body(f"{PROMPT}-q", stream=stream, **steer))
    texts = [kept(running, answer.id) for answer in answers]

    assert [text["answer"]["text"] for text in texts] == [f"{ANSWER}-w and more"] * 2
    # What was handed over may be fetched at this very moment.
    nowhere = until(
        lambda: files_with(running, f"{PROMPT}-w", f"{ANSWER}-w"), lambda found: len(found) == 1, KEPT_SECONDS
    )
    assert nowhere == {"contents.sqlite3"}
    assert files_with(running, f"{PROMPT}-q", f"{ANSWER}-q") == set()
    assert [word for word in (PROMPT, ANSWER) if word in running.log()] == []
    modes = {oct(stat.S_IMODE(path.stat().st_mode)) for path in running.data.rglob("contents*") if path.is_file()}
    assert modes == {"0o600"}


@pytest.mark.timeout(300)
def test_a_backup_holds_no_text(followed: Followed, tmp_path: Path) -> None:
    """Nor do metrics, records or the trail of changes."""
    running, watched = followed.running, followed.keys["watched"]["secret"]
    answer = ask(running, watched, body(f"{PROMPT}-backup {MAIL}"))
    content = kept(running, answer.id)
    done = running.cli_raw("backup", str(tmp_path / "backup.tar"))
    metrics = httpx2.get(running.console_url + "/metrics", trust_env=False).text

    assert content["prompt"]["text"] == f"user: {PROMPT}-backup [email]"
    assert done.returncode == 0, done.stderr
    assert PROMPT.encode() not in (tmp_path / "backup.tar").read_bytes()
    assert PROMPT not in metrics
    assert 'faregate_contents_total{outcome="kept"}' in metrics


def test_a_blocked_call_costs_nothing_and_is_a_record(followed: Followed) -> None:
    """It says which rule it was; the card is in no file."""
    running, watched = followed.running, followed.keys["watched"]["secret"]
    answer: Answer = ask(running, watched, body(f"Pay with {CARD}."))
    found = record(running, answer.id)

    assert (answer.status, answer.code) == (400, "content_blocked")
    assert (found["status"], found["code"], found["charge"]) == ("refused", "content_blocked", "0")
    withheld = kept(running, answer.id)["prompt"]
    assert (withheld["text"], withheld["truncated"]) == (None, True)
    assert files_with(running, CARD) == set()


def test_what_was_kept_survives_a_crash_of_either_process(followed: Followed) -> None:
    """The gate's files are whole at its next start; the console's store is there again."""
    running, watched = followed.running, followed.keys["watched"]["secret"]
    before = ask(running, watched, body(f"{PROMPT}-before"))
    kept(running, before.id)
    running.kill_gate()
    running.wait_ready()
    running.kill_console()
    running.wait_ready()
    after = ask(running, watched, body(f"{PROMPT}-after"))

    assert kept(running, before.id)["prompt"]["text"] == f"user: {PROMPT}-before"
    assert kept(running, after.id)["prompt"]["text"] == f"user: {PROMPT}-after"
