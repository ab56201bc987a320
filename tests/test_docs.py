"""The documents say what the code does: references are whole, examples run, figures are exact, links lead somewhere."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from bad_input.catalogue import catalogue
from commands import command
from faregate.assembly.declare import declared
from faregate.catalogue.compile import compile_catalogue
from faregate.config.folder import DataFolder
from faregate.config.load import load_text
from faregate.console import audit, health, metrics, spend
from faregate.core import money
from faregate.core.attribution import DIMENSIONS, Attribution
from faregate.core.ledger.events import RESOLUTIONS, STATUSES, USAGE_SOURCES
from faregate.core.ledger.postings import charge_postings, margin_postings, suspense_postings
from faregate.core.limits.kinds import WINDOWS
from faregate.core.pricing.card import Rate, RateCard, Tier
from faregate.core.pricing.charging import charge, charge_bound, charge_lines, rule_for, text_of
from faregate.core.pricing.cost import Tariff, cost_lines
from faregate.core.usage import Usage, split
from faregate.dialects import paths
from faregate.proxy import forward

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
SOURCE = ROOT / "src" / "faregate"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

#: Secrets that the examples refer to.
ENVIRONMENT = {
    "OPENAI_API_KEY": "sk-of-a-provider",
    "AZURE_OPENAI_API_KEY": "of-another-provider",
    "ALERT_SECRET": "of-a-webhook-that-goes-out",
    "AZURE_BUDGET_SECRET": "of-a-webhook-that-comes-in",
    "AZURE_TENANT_ID": "of-a-tenant",
    "AZURE_CLIENT_ID": "of-an-application",
    "AZURE_CLIENT_SECRET": "of-that-application",
    "HOUSE_CLIENT_SECRET": "of-another-application",
}

_FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def _writer() -> ModuleType:
    """The program behind `make docs`."""
    spec = importlib.util.spec_from_file_location("reference_write", REFERENCE / "write.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRITE = _writer()


def _text(*names: str) -> str:
    return "\n".join((DOCS / name).read_text() for name in names)


def _fences(page: Path, *languages: str) -> Iterator[str]:
    for indent, language, body in _FENCE.findall(page.read_text()):
        if language in languages:
            yield "\n".join(line.removeprefix(indent) for line in body.splitlines())


def _typed(page: Path) -> list[str]:
    """Command lines that a page tells its reader to type."""
    lines = [line for body in _fences(page, "console") for line in body.splitlines()]
    return [line.removeprefix("$ ").partition(" #")[0].strip() for line in lines if line.startswith("$ ")]


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


# -- completeness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", sorted(REFERENCE.glob("*.md")), ids=_id)
def test_generated_parts_are_what_the_code_says(page: Path) -> None:
    """Settings, error codes, commands, routes, faults and fields are all there; `make docs` brings them up to date."""
    before = page.read_text()

    assert WRITE.rewritten(before) == before, f"{page.name} is stale: run `make docs`"


@pytest.mark.parametrize("page", sorted(REFERENCE.glob("*.md")), ids=_id)
def test_every_row_has_its_words(page: Path) -> None:
    """A code, field or fault that somebody adds is described by a person, not only listed."""
    empty = []
    for _, name, body, _ in WRITE._PART.findall(page.read_text()):
        told = WRITE.PARTS[name]()
        rows = [] if isinstance(told, str) else WRITE.rows_of(body)
        empty += [row[0] for row in rows if not all(told.written(row))]

    assert empty == []


def test_every_generated_part_stands_on_a_page() -> None:
    """What can be generated is shown."""
    shown = {name for page in REFERENCE.glob("*.md") for _, name, _, _ in WRITE._PART.findall(page.read_text())}

    assert shown == set(WRITE.PARTS)


def test_every_bad_input_is_in_the_reference() -> None:
    """Whatever the catalogue knows stands beside its code, or among what is no error."""
    page = (REFERENCE / "errors.md").read_text()
    rows = [(row[0], row[-1]) for row in WRITE.rows_of(page)]

    for each in (each for inputs in catalogue().values() for each in inputs):
        for code, what in each.codes.items():
            assert any(first == f"`{code}`" and WRITE.plain(what) in last for first, last in rows), each
        assert each.codes or f"- {WRITE.plain(each.what)}\n" in page, each


def test_every_header_is_in_the_reference() -> None:
    """Each header of ours, and each that passes to or from a provider."""
    sources = "\n".join(file.read_text() for part in ("proxy", "dialects") for file in (SOURCE / part).glob("*.py"))
    names = set(re.findall(r"(?:x-faregate|openai-proxy)-[a-z-]+[a-z]", sources)) | {"idempotent-replayed"}
    names |= {name.decode() for name in (*forward._REQUEST, *forward._ANSWER.values())}
    page = (REFERENCE / "gateway.md").read_text()

    assert sorted(name for name in names if f"`{name}" not in page) == []


def test_every_path_is_in_the_reference() -> None:
    """What the gateway answers, and what the console answers beside its API."""
    page = (REFERENCE / "gateway.md").read_text()
    wanted = {
        path.decode() for _, path in paths._EXACT if not path.startswith(b"/openai/v1/") or path.endswith(b"models")
    }
    console = (REFERENCE / "admin-api.md").read_text()
    routes = [route for router in (health.probes, metrics.router, spend.router) for route in router.routes]
    beside = {f"{method} {route.path}" for route in routes for method in route.methods}  # type: ignore[attr-defined]

    assert sorted(path for path in wanted if path not in page) == []
    assert sorted(route for route in beside if route not in console) == []


def test_every_metric_is_in_the_reference() -> None:
    """Names as they are scraped, so cost in dollars."""
    sources = (SOURCE / "console" / "metrics.py").read_text() + (SOURCE / "proxy" / "metrics.py").read_text()
    names = {name.replace("_nanos_", "_dollars_") for name in re.findall(r'"(faregate_[a-z_]+[a-z])"', sources)}
    page = (REFERENCE / "metrics.md").read_text()

    assert len(names) >= 16
    assert sorted(name for name in names if f"| `{name}` |" not in page) == []


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("reference/limits.md", (*WINDOWS, *DIMENSIONS)),
        ("reference/events.md", (*STATUSES, *filter(None, RESOLUTIONS))),
        ("money.md", USAGE_SOURCES),
    ],
)
def test_every_word_of_a_closed_set_is_explained(page: str, words: tuple[str, ...]) -> None:
    """Windows, dimensions, statuses, resolutions and sources of usage."""
    text = (DOCS / page).read_text()

    assert [word for word in words if f"`{word}`" not in text] == []


def test_every_file_of_the_data_folder_is_in_its_page() -> None:
    """Whoever looks into it finds what each file is."""
    folder = DataFolder(Path("folder"))
    named = [name for name, value in vars(DataFolder).items() if isinstance(value, property)]
    files = {getattr(folder, name).name for name in named} | {audit.FILE_NAME}
    files |= {
        f"journal/{name}"
        for file in (SOURCE / "journal").glob("*.py")
        for name in re.findall(r'folder / "([a-z.]+)"', file.read_text())
    }
    page = (DOCS / "operating" / "data-folder.md").read_text()

    assert len(files) >= 10
    assert sorted(name for name in files if f"`{name}" not in page) == []


# -- examples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES if list(_fences(page, "yaml"))], ids=_id)
def test_configurations_load(page: Path) -> None:
    """Every example is read as the file would be, without so much as a warning."""
    for body in _fences(page, "yaml"):
        loaded = load_text(body.encode(), page.name, ENVIRONMENT, ROOT)

        assert loaded.warnings == ()


@pytest.mark.parametrize("page", [page for page in PAGES if list(_fences(page, "json"))], ids=_id)
def test_json_is_json(page: Path) -> None:
    """Examples can be pasted."""
    for body in _fences(page, "json"):
        json.loads(body)


def test_examples_of_the_simulator_steer_it() -> None:
    """The first is a line, the second a script."""
    from faregate.simulator.steering import convert, parse_script

    line, script = _fences(REFERENCE / "simulator.md", "json")

    assert convert(json.loads(line)).fault == "reset_mid_stream"
    parse_script(script.encode())


@cache
def _programs() -> dict[str, Any]:
    """Every command by its words; to put them together takes longer than to parse a line."""
    return dict(WRITE.programs())


def _parsed(line: str) -> None:
    """Parse a command line without carrying it out.

    Raises:
        typer.TyperException: it is wrong.
    """
    words = shlex.split(line)
    if ">" in words:
        # Where its output goes is the shell's.
        words = words[: words.index(">")]
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
        return
    if words[0] != "faregate":
        assert words[0] in ("export", "podman", "curl", "git"), line
        return
    names = [name for name in _programs() if words[: len(name.split())] == name.split()]
    assert len(names) == 1, f"no such command: {line}"
    _programs()[names[0]].make_context(names[0], words[len(names[0].split()) :])


@pytest.mark.parametrize("page", [page for page in PAGES if _typed(page)], ids=_id)
def test_commands_can_be_typed(page: Path) -> None:
    """Commands, options and values are those of the command line and of the Makefile."""
    for line in _typed(page):
        try:
            _parsed(line.removeprefix(".venv/bin/"))
        except typer.TyperException as error:
            raise AssertionError(f"{line}: {error.format_message()}") from error


def test_the_limits_of_the_guide_are_set_as_typed(tmp_path: Path) -> None:
    """Each command of the guide works on an installation that has not begun yet; setting one again raises it."""
    data = _carried_out(DOCS / "guides" / "set-a-budget.md", tmp_path / "data")

    rows = command("limit", "list", "--json", "--data", data).json

    assert len(rows) == 14
    assert {"2500", "650"} <= {row["amount"] for row in rows}
    assert [each["amount"] for row in rows for each in row["raises"]] == ["400"]


def test_the_tour_of_the_readme_can_be_taken(tmp_path: Path) -> None:
    """A key, two limits, requests, usage and a proof, each as it is written there."""
    data = _carried_out(ROOT / "README.md", tmp_path / "data")

    assert [row["name"] for row in command("key", "list", "--json", "--data", data).json] == ["ci"]


def _carried_out(page: Path, data: Path) -> Path:
    """Carry out the commands of a page on a data folder of our own."""
    lines = [line.removeprefix(".venv/bin/") for line in _typed(page)]
    for line in lines:
        if line.startswith("faregate "):
            told = command(*shlex.split(line)[1:], "--data", data)
            assert told.code == 0, f"{line}: {told.err}"
    return data


def test_the_readme_begins_with_the_two_commands() -> None:
    """What a newcomer types comes first."""
    assert _typed(ROOT / "README.md")[:2] == ["make run", "make test"]


# -- figures -----------------------------------------------------------------------------------------------------------

_CARD = RateCard(
    "openai",
    "house-model",
    "example",
    (
        Tier(
            0,
            (
                Rate("input_tokens", money.picos("0.15"), 1_000_000),
                Rate("cached_input_tokens", money.picos("0.0375"), 1_000_000),
                Rate("output_tokens", money.picos("0.6"), 1_000_000),
            ),
        ),
    ),
)
_WHO = Attribution("default", "research", "search", key="key_01", provider="openai", model="house-model")


def test_the_example_of_money_is_exact() -> None:
    """Leaves, lines, sum, cost, postings, bound and suspense are what the code makes of the usage shown."""
    page = (DOCS / "money.md").read_text()
    told = json.loads(next(_fences(DOCS / "money.md", "json")))
    usage = split(
        told["prompt_tokens"], told["completion_tokens"], cached=told["prompt_tokens_details"]["cached_tokens"]
    )
    assert isinstance(usage, Usage)
    tariff = Tariff(_CARD)
    cost, bound = tariff.cost(usage), tariff.bound(5120, 256)
    exact = sum(line.numerator for line in cost_lines(_CARD, usage))

    wanted = [f"{usage.input_text} input tokens, {usage.input_cached} cached input tokens, {usage.output_text} output"]
    wanted += [
        f"| `{line.unit}` | {money.dollars_of_picos(line.price_pico)} | {line.quantity} "
        f"| {exact_dollars(line.numerator, line.denominator)} |"
        for line in cost_lines(_CARD, usage)
    ]
    wanted += [f"exact sum is {exact_dollars(exact, 1_000_000)} dollars", f"**{money.dollars(cost)}**"]
    for posting in (*charge_postings(_WHO, cost), *suspense_postings(_WHO, bound)):
        wanted.append(f"| `{posting.account}` | {money.dollars(posting.amount)} |")
    wanted.append(f"that is **{money.dollars(bound)}** dollars")

    assert [text for text in wanted if text not in " ".join(page.split("\n"))] == []


def test_the_example_of_a_charge_rule_is_exact() -> None:
    """Its lines, its charge, its postings and its bound are what the code makes of the rule on the page."""
    page = (DOCS / "money.md").read_text()
    (text,) = _fences(DOCS / "money.md", "yaml")
    config = load_text(text.encode(), "money.md", ENVIRONMENT, ROOT).config
    charges = compile_catalogue(declared(config, ROOT, ENVIRONMENT)).catalogue.charges
    rule = rule_for(charges, _WHO)
    assert rule is not None
    tariff = Tariff(_CARD)
    cost = tariff.cost(Usage(210, 1025, output_text=77))
    due = charge(rule, cost)

    wanted = [f"| cost | | {money.dollars(cost)} |"]
    wanted += [
        f"| `{line.name}` | {line.term} | {exact_dollars(line.numerator * 1_000, line.denominator)} |"
        for line in charge_lines(rule, cost)
    ]
    wanted += [f"| **charge** | `{text_of(rule)}` | **{money.dollars(due)}** |"]
    for posting in (*charge_postings(_WHO, cost), *margin_postings(_WHO, due, cost)):
        wanted.append(f"| `{posting.account}` | {money.dollars(posting.amount)} |")
    wanted.append(f"{money.dollars(charge_bound(rule, tariff.bound(5120, 256)))} dollars here")

    assert [text for text in wanted if text not in " ".join(page.split("\n"))] == []


def exact_dollars(picos: int, per: int) -> str:
    """Pico-dollars per so many, a power of ten, as an exact decimal."""
    digits = f"{picos:030d}"
    decimals = 12 + len(str(per)) - 1
    return f"{int(digits[:-decimals])}.{digits[-decimals:]}".rstrip("0")


# -- links and tests ---------------------------------------------------------------------------------------------------


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_lead_somewhere(page: Path) -> None:
    """Files that are linked exist, and so do the headings."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)

    assert broken == []


def test_guarantees_name_tests_that_exist() -> None:
    """All 34 are there once; a claimed one has a test behind it, and every test that is named exists."""
    rows = WRITE.rows_of((DOCS / "guarantees.md").read_text())
    named = {row[0]: set(re.findall(r"`(tests/[^`]+)`", row[3])) for row in rows}
    files = {test.partition("::")[0] for tests in named.values() for test in tests}
    known = {
        f"{file}::{node.name}"
        for file in files
        if (ROOT / file).exists()
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert list(named) == [f"G{number}" for number in range(1, 35)]
    assert {row[1] for row in rows} == {"claimed", "not yet claimed"}
    assert [row[0] for row in rows if row[1] == "claimed" and not named[row[0]]] == []
    assert sorted(test for tests in named.values() for test in tests - known) == []


def test_the_documents_name_only_files_that_exist() -> None:
    """Paths of the repository in the entry documents are true."""
    told = {
        path
        for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
        for path in re.findall(r"`((?:tests|docs|deploy|bench)/[\w./-]+)`", (ROOT / name).read_text())
    }

    assert sorted(path for path in told if not (ROOT / path).exists()) == []
