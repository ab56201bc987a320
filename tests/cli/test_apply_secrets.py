"""Secrets of keys that `faregate apply` makes are told whatever ends it, because nobody can show them a second time."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from commands import Told, command, served
from console_parts import Api, Parts, parts
from faregate.console.doors import trusted

#: Looks at a call on its way to the console: its method, its path, and how many were made before.
Look = Callable[[str, str, int], None]

STATE = "keys: [{name: one}, {name: two, state: disabled}, {name: three}]\n"


class Refused(Exception):
    """The call does not reach the console."""


class Interrupted(Exception):
    """Whoever waits for the answer presses Ctrl-C."""


class Road:
    """The way to a console, on which calls can be refused, or the one who asks be interrupted."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.look: Look = lambda method, path, number: None
        self._seen: dict[tuple[str, str], int] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One ASGI exchange."""
        way = (scope["method"], scope["path"].removeprefix("/api/v1"))
        number = self._seen[way] = self._seen.get(way, 0) + 1
        try:
            self.look(*way, number)
        except Refused as refusal:
            problem = json.dumps({"code": "unavailable", "detail": str(refusal)}).encode()
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body", "body": problem})
        except Interrupted:
            os.kill(os.getpid(), signal.SIGINT)
            while (await receive())["type"] != "http.disconnect":
                """Whoever was interrupted goes away."""
        else:
            await self._app(scope, receive, send)


@contextmanager
def road(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Parts, Road]]:
    with parts(tmp_path / "console") as made:
        way = Road(made.app)
        with served(way) as url:
            monkeypatch.setenv("FAREGATE_URL", url)
            monkeypatch.setenv("FAREGATE_ADMIN_KEY", made.admin_key("admin"))
            yield made, way


@pytest.fixture
def on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Parts, Road]]:
    (tmp_path / "console").mkdir()
    with road(tmp_path, monkeypatch) as found:
        yield found


def applied(tmp_path: Path, *more: object) -> Told:
    (tmp_path / "state.yaml").write_text(STATE)
    return command("apply", "-f", tmp_path / "state.yaml", "--yes", "--json", *more)


def opened(made: Parts, keys: list[dict[str, str]]) -> list[str]:
    """The names of the keys that these secrets open."""
    return [made.console.ring.holder(key["secret"])["name"] for key in keys]  # type: ignore[index]


def marked(made: Parts) -> set[str]:
    """The names of the keys that are the file's."""
    api = Api(trusted(made.app))
    owned = {row["id"] for row in api.get("/api/v1/owned/key")["data"]}
    return {row["name"] for row in api.get("/api/v1/keys")["data"] if row["id"] in owned}


def refuse(method: str, path: str) -> Look:
    def look(asked: str, where: str, number: int) -> None:
        if asked == method and where.startswith(path):
            raise Refused(f"no {method} today")

    return look


def test_a_key_that_could_not_be_disabled_is_told_with_its_secret(
    tmp_path: Path, on_the_way: tuple[Parts, Road]
) -> None:
    """It is made and the file's; the next apply changes its state and makes the rest."""
    made, way = on_the_way
    way.look = refuse("PATCH", "/keys/")
    first = applied(tmp_path)
    way.look = refuse("nothing", "")
    second = applied(tmp_path).json

    told = json.loads(first.out)
    assert (first.code, told["applied"], len(told["done"])) == (3, False, 1)
    assert opened(made, told["keys"]) == ["one", "two"]
    assert [step["action"] for step in second["done"]] == ["change", "create"]
    assert second["taken_over"] == []


def test_an_interrupt_loses_no_secret(tmp_path: Path, on_the_way: tuple[Parts, Road]) -> None:
    """Of the keys that were made before; they are marked as the file's, and the exit code is that of an interrupt."""
    made, way = on_the_way
    out = tmp_path / "secrets.jsonl"

    def look(method: str, path: str, number: int) -> None:
        if (method, path, number) == ("POST", "/keys", 3):
            raise Interrupted

    way.look = look
    told = applied(tmp_path, "--out", out)

    assert told.code == 130
    assert opened(made, [json.loads(line) for line in out.read_text().splitlines()]) == ["one", "two"]
    assert [step["name"] for step in json.loads(told.out)["not_done"]] == ["three"]
    assert marked(made) == {"one", "two"}


def test_marks_that_cannot_be_made_do_not_hide_what_was_refused(tmp_path: Path, on_the_way: tuple[Parts, Road]) -> None:
    """Both are told, the refusal first; where nothing else was wrong, the marks are what is told."""
    _, way = on_the_way
    no_more, no_marks = refuse("PATCH", "/keys/"), refuse("PUT", "/owned")

    def look(method: str, path: str, number: int) -> None:
        no_more(method, path, number)
        no_marks(method, path, number)

    way.look = look
    both = applied(tmp_path)
    way.look = no_marks
    marks = applied(tmp_path)

    error = json.loads(both.err)["error"]["message"]
    assert error.endswith("no PATCH today; what was made is not marked as the file's: no PUT today")
    assert "no PUT today" in json.loads(marks.err)["error"]["message"]
    assert (marks.code, json.loads(marks.out)["applied"], len(json.loads(marks.out)["keys"])) == (3, False, 1)


def test_secrets_whose_file_cannot_be_written_are_shown(tmp_path: Path, on_the_way: tuple[Parts, Road]) -> None:
    """Its folder went away meanwhile: the keys are made, so their secrets are on standard output, and the exit is 1."""
    made, way = on_the_way
    folder = tmp_path / "secrets"
    folder.mkdir()

    def look(method: str, path: str, number: int) -> None:
        if (method, path, number) == ("POST", "/keys", 3):
            shutil.rmtree(folder)

    way.look = look
    told = applied(tmp_path, "--out", folder / "new.jsonl")

    assert told.code == 1
    assert opened(made, json.loads(told.out)["keys"]) == ["one", "two", "three"]
    assert "could not be written" in json.loads(told.err)["error"]["message"]


def test_what_somebody_made_by_hand_becomes_the_files_only_with_a_word(
    tmp_path: Path, on_the_way: tuple[Parts, Road]
) -> None:
    """`diff` names it, `apply` asks although nothing differs, says what it took over, and does so once."""
    made, _ = on_the_way
    command("key", "create", "--name", "hand")
    file = tmp_path / "state.yaml"
    file.write_text("keys: [{name: hand}]\n")
    seen = command("diff", "-f", file)
    scripted = command("diff", "-f", file, "--json").json
    asked = command("apply", "-f", file)
    before = marked(made)
    taken, again = (command("apply", "-f", file, "--yes", "--json").json["taken_over"] for _ in range(2))

    assert (seen.code, seen.out) == (0, "= key hand: this file's from now on\n")
    assert (scripted["same"], scripted["taken_over"]) == (True, ["key hand"])
    assert (asked.code, "1 to take over" in asked.err, before) == (4, True, set())
    assert (taken, again, marked(made)) == (["key hand"], [], {"hand"})
