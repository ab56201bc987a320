"""``faregate alert`` and ``faregate webhook``."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from alert_parts import Delivery
from commands import command, served
from console_parts import Parts, parts
from faregate.console.alerts import raise_alert
from faregate.console.doors import trusted
from little_service import LittleService

URL = "https://192.0.2.7/hooks/T0KEN"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        yield made


def told(made: Parts, *words: str) -> Any:
    return command(*words, "--data", made.folder / "data")


@contextmanager
def delivering(made: Parts) -> Iterator[LittleService]:
    """Deliver alerts in the background, with a receiver at hand."""
    receiver, ready, stop = LittleService(), threading.Event(), threading.Event()

    async def work() -> None:
        await receiver.start()
        job = asyncio.create_task(Delivery(made).job.run())
        ready.set()
        await asyncio.to_thread(stop.wait)
        job.cancel()
        await asyncio.wait([job])
        await receiver.close()

    thread = threading.Thread(target=lambda: asyncio.run(work()), daemon=True)
    thread.start()
    try:
        assert ready.wait(10)
        yield receiver
    finally:
        stop.set()
        thread.join(10)


def test_a_channel_is_added_listed_and_removed(running: Parts) -> None:
    """Its secret is shown once; a second removal finds nothing."""
    added = told(running, "webhook", "add", "--name", "ops", "--url", URL, "--alerts", "threshold,anomaly")
    assert added.code == 0
    assert "whs-" in added.out
    assert "shown only now" in added.err
    told(running, "webhook", "add", "--name", "mail", "--url", "mailto://a:b@example.com")
    rows = told(running, "webhook", "list", "--json").json
    assert [(row["name"], row["kind"], row["alerts"]) for row in rows] == [
        ("ops", "webhook", ["anomaly", "threshold"]),
        ("mail", "apprise", None),
    ]
    listed = told(running, "webhook", "list")
    assert "anomaly,threshold" in listed.out
    assert "T0KEN" not in listed.out
    assert told(running, "webhook", "remove", "ops").out.startswith("removed chn_")
    assert told(running, "webhook", "remove", "ops").code == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["webhook", "add", "--name", "a", "--url", "example.com"], "https://example.com/alerts"),
        (["webhook", "add", "--name", "a", "--url", URL, "--alerts", "weather"], "threshold"),
        (["webhook", "add", "--url", URL], "--name"),
        (["alert", "seen"], "--all"),
        (["alert", "seen", "alr_1", "--all"], "--all"),
        (["alert", "test", "--channel", "nobody"], "no active channel"),
    ],
)
def test_a_value_that_cannot_be_names_the_rule(running: Parts, words: list[str], said: str) -> None:
    """Exit 2, the rule on standard error."""
    done = told(running, *words)
    assert (done.code, done.out) == (2, ""), done.err
    assert said in done.err


def test_alerts_are_listed_newest_first_and_marked_as_seen(running: Parts) -> None:
    """One by one or all; ``--unseen`` leaves out what was seen."""
    for number in range(3):
        running.clock.now += 10**9
        message = f"Something is up {number}."
        raise_alert(running.console, kind="unknowns", name=f"n{number}", severity="warning", message=message)
    rows = told(running, "alert", "list", "--json").json
    assert [row["message"][-2] for row in rows] == ["2", "1", "0"]
    assert told(running, "alert", "seen", rows[0]["id"]).out == "marked 1 as seen\n"
    assert len(told(running, "alert", "list", "--unseen", "--all", "--json").json) == 2
    assert told(running, "alert", "seen", "--all").out == "marked 2 as seen\n"
    shown = told(running, "alert", "list", "--kind", "unknowns")
    assert "Something is up 1." in shown.out
    assert told(running, "alert", "list", "--state", "sent", "--json").json == []


def test_a_list_shows_the_newest_and_says_that_there_are_more(running: Parts) -> None:
    """All of them are a matter of asking."""
    for number in range(51):
        running.clock.now += 10**9
        raise_alert(running.console, kind="unknowns", name=f"n{number}", severity="info", message="Up.")
    shown = told(running, "alert", "list")
    assert shown.out.count("unknowns") == 50
    assert "--all" in shown.err
    assert told(running, "alert", "list", "--all").out.count("unknowns") == 51


def test_a_test_alert_tells_whether_it_arrived(running: Parts) -> None:
    """Exit 0 where every channel took it, 1 with the reason where one did not, or where there is none."""
    done = told(running, "alert", "test")
    assert done.code == 1
    assert "webhook add" in done.err
    with delivering(running) as receiver:
        told(running, "webhook", "add", "--name", "ops", "--url", f"{receiver.url}/?T0KEN")
        done = told(running, "alert", "test", "--message", "Hello.")
        assert done.code == 0, done.err
        assert done.out.endswith("to 1 channels\n")
        assert b"Hello." in receiver.seen[0].body
        told(running, "webhook", "add", "--name", "bad", "--url", f"{receiver.url}/?status=500")
        done = told(running, "alert", "test", "--channel", "bad")
        assert (done.code, done.out) == (1, "")
        assert "bad: it answered 500" in done.err
