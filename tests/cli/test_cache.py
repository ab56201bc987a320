"""``faregate cache``, and what the other commands say of it: keys, projects, stages, state files and `doctor`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import command, served
from console_parts import Parts, parts
from faregate.cli.doctor import _cache
from faregate.config.folder import DataFolder
from faregate.console.doors import trusted
from faregate.console.state import CacheFacts
from faregate.control import Allowances, Figures, Flush, FlushCache, Report, Reported, Resolve, Sample
from faregate.errors import Conflict


class KeepingGate:
    """A gate with some kept answers: it remembers what it was to forget, and tells what it was given to tell."""

    connected = True

    def __init__(self) -> None:
        self.orders: list[FlushCache] = []
        self.flush: Flush | Exception = Flush(1, True, 3)
        counts = {"faregate_cache_entries": 7, "faregate_cache_failures_total": 0}
        self.samples: tuple[Sample, ...] = tuple(Sample(name, (), count) for name, count in counts.items())

    def nudge(self) -> None:
        """Nothing to do."""

    async def applied(self, within_s: float) -> bool:
        return True

    async def figures(self) -> Figures:
        return Figures(True, False, 1, 0, 0, 0, 0, 0, 0, 0, 0, samples=self.samples)

    async def allowances(self, limits: tuple[str, ...] = ()) -> Allowances:
        return Allowances(())

    async def resolve(self, order: Resolve) -> bool:
        return False

    async def report(self, order: Report) -> Reported:
        return Reported()

    async def flush_cache(self, order: FlushCache) -> Flush:
        self.orders.append(order)
        if isinstance(self.flush, Exception):
            raise self.flush
        return self.flush

    async def drain(self) -> None:
        """Nothing to do."""


@pytest.fixture
def gate() -> KeepingGate:
    return KeepingGate()


@pytest.fixture
def running(tmp_path: Path, gate: KeepingGate) -> Iterator[Parts]:
    with parts(tmp_path, gate=gate) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        object.__setattr__(made.console.facts, "cache", CacheFacts(True, "redis", "on", 3_600, "project"))
        yield made


def cache(made: Parts, *words: str) -> Any:
    return command("cache", *words, "--data", made.folder / "data")


def test_without_an_option_all_is_forgotten_and_nobody_is_asked(running: Parts, gate: KeepingGate) -> None:
    """CONTRACT: no filter flushes all."""
    told = cache(running, "flush")

    assert (told.code, told.out) == (0, "3 kept answers were forgotten\n")
    assert cache(running, "flush", "--json").json == {"removed": 3}
    assert gate.orders == [FlushCache()] * 2


def test_each_option_narrows_it(running: Parts, gate: KeepingGate) -> None:
    """A key by its name, too."""
    key = command("key", "create", "--name", "ci", "--json", "--data", running.folder / "data").json
    words = ("--organization", "default", "--stage", "dev", "--project", "search", "--model", "gpt-4o")

    assert cache(running, "flush", *words, "--key", "ci").code == 0
    assert gate.orders == [FlushCache("default", "dev", "search", key["id"], "gpt-4o")]


@pytest.mark.parametrize("option", ["--organization", "--stage", "--project", "--key", "--model"])
def test_an_option_without_a_value_does_not_mean_everything(running: Parts, gate: KeepingGate, option: str) -> None:
    """As a variable of a shell that is not set would have it."""
    refused = cache(running, "flush", option, "")

    assert (refused.code, f"{option[2:]}: a name must not be empty" in refused.err) == (2, True)
    assert gate.orders == []


@pytest.mark.parametrize(
    ("flush", "code", "said"),
    [
        (Flush(1, True, 2, "the server does not answer"), 3, "2 answers were forgotten"),
        (Conflict("the gate refused: the response cache is switched off", code="cache_off"), 1, "switched off"),
    ],
)
def test_what_went_wrong_has_its_exit_code(
    running: Parts, gate: KeepingGate, flush: Flush | Exception, code: int, said: str
) -> None:
    """Not all was forgotten, or there is nothing to forget."""
    gate.flush = flush
    told = cache(running, "flush")

    assert (told.code, said in told.err, told.out) == (code, True, "")


def test_how_it_stands_is_shown(running: Parts, gate: KeepingGate) -> None:
    """For people and for programs."""
    told = cache(running, "show", "--json").json
    lines = [line.split() for line in cache(running, "show").out.splitlines()]

    assert (told["store"], told["default"], told["ttl_seconds"], told["entries"], told["hits"]) == (
        "redis", "on", 3_600, 7, 0,
    )  # fmt: skip
    assert ["entries", "7"] in lines


def test_an_installation_that_does_not_run_forgets_nothing(tmp_path: Path) -> None:
    """Exit 3; how it is set is told without figures."""
    data = tmp_path / "data"
    command("key", "create", "--name", "ci", "--data", data)

    assert command("cache", "flush", "--data", data).code == 3
    assert command("cache", "show", "--json", "--data", data).json["entries"] is None


@pytest.mark.parametrize("kind", ["key", "project", "stage"])
def test_keys_projects_and_stages_are_told_and_untold_to_use_it(running: Parts, kind: str) -> None:
    """An empty text takes the word back."""
    data = running.folder / "data"
    named = ("--name", "one") if kind == "key" else ("one",)
    made = command(kind, "create", *named, "--cache", "on", "--json", "--data", data).json

    assert made["cache"] == "on"
    assert command(kind, "set", "one", "--cache", "off", "--json", "--data", data).json["cache"] == "off"
    assert command(kind, "set", "one", "--cache", "", "--json", "--data", data).json["cache"] is None
    refused = command(kind, "set", "one", "--cache", "refresh", "--data", data)
    assert (refused.code, "cache: " in refused.err) == (2, True)


STATE = """\
projects:
  - name: search
    cache: "off"
stages:
  - name: dev
    cache: "on"
keys:
  - name: ci
    project: search
    stage: dev
    cache: "on"
"""


def test_state_files_hold_the_words(running: Parts, tmp_path: Path) -> None:
    """What is exported is what was applied, a second time changes nothing, and a word that goes is taken back."""
    data = running.folder / "data"
    file = tmp_path / "state.yaml"
    file.write_text(STATE)

    def apply() -> list[Any]:
        done: list[Any] = command("apply", "-f", file, "--yes", "--json", "--data", data).json["done"]
        return done

    assert [step["action"] for step in apply()] == ["create"] * 3
    exported = command("export", "--data", data).out
    assert [exported.count(f'cache: "{word}"') for word in ("on", "off")] == [2, 1]
    assert apply() == []
    file.write_text(STATE.replace('    cache: "off"\n', "").replace('"on"\nkeys', '"off"\nkeys'))
    assert [step["action"] for step in apply()] == ["change", "change"]
    rows = {row["name"]: row["cache"] for kind in ("project", "stage") for row in
            command(kind, "list", "--json", "--data", data).json}  # fmt: skip
    assert rows == {"search": None, "dev": "off"}
    file.write_text(STATE.replace('"off"', "refresh"))
    assert command("diff", "-f", file, "--data", data).code == 2


def test_a_user_in_a_state_file_has_no_word(running: Parts, tmp_path: Path) -> None:
    """As in the API."""
    file = tmp_path / "state.yaml"
    file.write_text('users:\n  - {name: ada, cache: "on"}\n')

    assert "CFG-UNKNOWN" in command("diff", "-f", file, "--data", running.folder / "data").err


def test_doctor_warns_of_a_server_that_fails(running: Parts, gate: KeepingGate) -> None:
    """And says nothing of a cache that is the gate's own."""
    folder = DataFolder(running.folder / "data")
    (well,) = _cache(folder)
    gate.samples = (Sample("faregate_cache_failures_total", (), 5),)
    (ill,) = _cache(folder)
    object.__setattr__(running.console.facts, "cache", CacheFacts(True, "embedded"))

    assert (well.state, ill.state) == ("ok", "warning")
    assert "failed 5 times" in ill.detail
    assert _cache(folder) == []
