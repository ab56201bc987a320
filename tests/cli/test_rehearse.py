"""``faregate rehearse``, and ``docs/guides/rehearse-a-policy.md`` followed literally."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import Told, command, served
from console_parts import HOUR, NOON, WHO, Parts, opened, parts, settled_call
from faregate.console.doors import trusted
from faregate.core.ledger.events import Intended

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "rehearse-a-policy.md"
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Parts]:
    """A console with four calls of two teams, one an hour, each charged 0.00175 dollars."""
    with parts(tmp_path) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        made.journal.add(opened())
        for n in range(4):
            who = WHO._replace(team="sales" if n % 2 else "research", user=f"user-{n % 2}")
            intent, end = settled_call(f"req_{n}", who=who, at=NOON - (4 - n) * HOUR)
            assert isinstance(intent, Intended)
            notes = json.dumps({"would_refuse": ["lim_1"]}) if n == 3 else ""
            made.journal.add(intent._replace(notes=notes), end)
        made.project()
        yield made


def rehearse(made: Parts, policy: str, *words: object) -> Told:
    """What the command says of a policy, for the day so far."""
    file = made.folder / "policy.yaml"
    file.write_text(policy)
    return command("rehearse", "--from", "2026-11-21", "-f", file, *words, "--data", made.folder / "data")


def test_refusals_are_listed_by_limit_and_payer(running: Parts) -> None:
    """Tables for people, with the sum in words."""
    told = rehearse(running, "limits:\n  - {unit: usd, amount: 0.004, window: day}\n")
    assert told.code == 0, told.err
    lines = [" ".join(line.split()) for line in told.out.splitlines()]
    assert lines[1] == "everything: 0.004 usd per day hard 4 2 0.0035 0 0.0035 2026-11-21T10:00:00Z"
    assert lines[4] == "research 1 0.00175 2026-11-21T10:00:00Z 2026-11-21T10:00:00Z"
    assert lines[-1] == "2 of 4 requests refused (50.0 %), 0.0035 of 0.007 saved"


def test_json_says_everything(running: Parts) -> None:
    """The answer of the API, without the id of the work."""
    told = rehearse(running, "limits:\n  - {unit: usd, amount: 0.004, window: day}\n", "--json").json
    assert (told["refused"], told["limits"][0]["most"]["amount"], "id" in told) == (2, "0.0035", False)


def test_whole_dollars_need_no_quotes(running: Parts) -> None:
    """Amounts, bursts and raises of dollars may be written as YAML writes numbers."""
    raises = "raises: [{amount: 3, from: 2026-11-01T00:00:00Z, until: 2026-12-01T00:00:00Z}]"
    told = rehearse(running, f"limits:\n  - {{unit: usd, amount: 0, window: day, {raises}}}\n", "--json").json
    assert (told["refused"], told["limits"][0]["amount"]) == (0, "0")


MISTAKES: list[tuple[str, list[str]]] = [
    ("limit: []\n", ['1:1 limit: a policy has no such key; hint: did you mean limits? [CFG-UNKNOWN]']),
    ("limits: []\n", ["1:9 limits: is no list of limits; expected at least one limit [CFG-MISSING]"]),
    ("limits: [usd]\n", ["1:10 limits[0]: this is no limit; expected a mapping of keys [CFG-TYPE]"]),
    (
        "limits:\n  - unit: usd\n    amount: 5\n    window: fortnight\n"
        "  - unit: tokens\n    amount: 1.5\n    window: day\n",
        ["4:13 limits[0].window: unknown window", "6:13 limits[1].amount: an amount of tokens is a whole number"],
    ),
    (
        "limits:\n  - {unit: usd, amount: 1, window: day, select: {tag.cost.centre: 7}}\n",
        ["2:67 limits[0].select.tag.cost.centre: "],
    ),
    ("limits:\n  - {unit: usd, amout: 1, window: day}\n", ["2:5 limits[0]", "2:17 limits[0].amout: unknown field"]),
    ("limits:\n  - {unit: usd, amount: no, window: day}\n", ["2:25 limits[0].amount: a bare no is read as true or"]),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "said"), MISTAKES)
def test_mistakes_are_told_with_their_places(running: Parts, policy: str, said: list[str]) -> None:
    """All of them at once, with file, line and column, whoever found them."""
    told = rehearse(running, policy)
    assert told.code == 2
    for line in said:
        assert any(f"policy.yaml:{line}" in each for each in told.err.splitlines()), told.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "-f"),
        (("-f", "nowhere.yaml"), "does not exist"),
        (("--shadow", "--to", "2026-11-01"), "before the end"),
    ],
)
def test_a_wrong_call_says_what_is_missing(running: Parts, words: tuple[str, ...], said: str) -> None:
    """What cannot be asked is exit code 2 and a sentence."""
    told = command("rehearse", "--from", "2026-11-21", *words, "--data", running.folder / "data")
    assert (told.code, said in told.err) == (2, True), told.err


def test_an_unknown_payer_is_named(running: Parts) -> None:
    """Refusals are summed by a few dimensions."""
    told = rehearse(running, "limits:\n  - {unit: usd, amount: 0, window: day}\n", "--by", "weather")
    assert (told.code, "team, project, key" in told.err) == (2, True)


def test_what_limits_in_shadow_mode_noted(running: Parts) -> None:
    """Without a policy, and beside one."""
    told = command("rehearse", "--from", "2026-11-21", "--shadow", "--data", running.folder / "data")
    assert told.out.split() == ["limit", "would_refuse", "lim_1", "1"]
    told = rehearse(running, "limits:\n  - {unit: usd, amount: 0.004, window: day, mode: shadow}\n", "--shadow")
    assert "2 (shadow)" in told.out
    assert told.out.split()[-2:] == ["lim_1", "1"]


def fences(language: str) -> list[str]:
    return [body for _, kind, body in FENCE.findall(GUIDE.read_text()) if kind == language]


def test_the_guide_is_followed_as_it_is_written(running: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is written where it says, and all of its commands work."""
    (running.folder / "policy.yaml").write_text(fences("yml")[0])
    monkeypatch.chdir(running.folder)
    monkeypatch.setenv("FAREGATE_DATA", "data")
    said: dict[str, Any] = {}
    for line in [line for block in fences("console") for line in block.splitlines()]:
        words = shlex.split(line.removeprefix("$ "))
        told = command(*words[1:])
        assert (words[0], told.code) == ("faregate", 0), f"{line}: {told.err}"
        said[" ".join(words[1:])] = told.out
    # Two calls of research were charged 0.0035 together, which fits.
    assert "0 of 4 requests refused" in said["rehearse --from 2026-11-01 -f policy.yaml"]
    assert json.loads(said["rehearse --from 2026-11-01 -f policy.yaml --alone --json"])["requests"] == 4
    assert "lim_1" in said["rehearse --from 2026-11-01 --shadow"]
