"""``docs/guides/add-a-dialect.md``, followed literally in a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "docs" / "guides" / "add-a-dialect.md"
#: What the copy needs; its own settings make its tests import its own sources.
PARTS = ("src", "tests", "docs", "pyproject.toml", "README.md")

#: The last sentence before a block says what is done with it.
_STEP = re.compile(
    r"(?:Create\s+`(?P<create>[^`]+)`|In\s+`(?P<file>[^`]+)`,\s+(?P<how>below|instead of)\s+`(?P<place>[^`]+)`):"
    r"\n\n```python\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


class Step(NamedTuple):
    """A block of the guide, and what is done with it."""

    file: str
    code: str
    how: str = ""
    place: str = ""


def steps() -> list[Step]:
    """Everything that the guide tells its reader to write, in order."""
    found = _STEP.finditer(GUIDE.read_text())
    return [
        Step(each["create"] or each["file"], each["code"], each["how"] or "", each["place"] or "") for each in found
    ]


def carry_out(step: Step, root: Path) -> None:
    """Write what a step says."""
    file = root / step.file
    if not step.how:
        assert not file.exists(), f"{step.file} is there already"
        file.write_text(step.code)
        return
    text = file.read_text()
    assert text.count(step.place) == 1, f"{step.file} has {step.place!r} {text.count(step.place)} times"
    added = step.place + "\n" + step.code.removesuffix("\n") if step.how == "below" else step.code.strip()
    file.write_text(text.replace(step.place, added))


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which every step was done, and ``make format`` after them."""
    copy = tmp_path_factory.mktemp("guide")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(ROOT / part, copy / part)
    for step in steps():
        carry_out(step, copy)
    touched = sorted({step.file for step in steps()})
    run(copy, "-m", "ruff", "format", "--no-cache", *touched)
    run(copy, "-m", "ruff", "check", "--no-cache", "--fix", *touched)
    return copy


def run(folder: Path, *words: str) -> str:
    """Run Python on the copy; what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_the_dialect_of_the_guide_works(followed: Path) -> None:
    """Its own tests pass, and those that every dialect inherits: transcripts, paths, and the closed gate."""
    tests = ("dialects/test_classify", "dialects/test_exchanges", "dialects/test_paths", "catalogue/test_compile")
    files = [f"tests/{name}.py" for name in (*tests, "proxy/test_routes")]
    told = run(followed, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", "classif or declares")
    assert re.search(r"^1\d passed", told, re.MULTILINE), told


def test_the_reference_names_what_the_guide_added(followed: Path) -> None:
    """``make docs`` writes the operation into the table of the gateway's paths."""
    run(followed, "docs/reference/write.py")
    page = (followed / "docs" / "reference" / "gateway.md").read_text()
    assert "| `classify` | `POST /v1/classify` |" in page


def test_what_the_guide_names_exists() -> None:
    """Files, and the names of the code that its sentences use, are there; what it creates is not."""
    text = GUIDE.read_text()
    created = {step.file for step in steps() if not step.how}
    files = set(re.findall(r"`((?:src|tests|docs)/[\w./-]+)`", text)) - created
    assert [name for name in sorted(files) if not (ROOT / name).exists()] == []
    assert [name for name in sorted(created) if (ROOT / name).exists()] == []
    sources = "\n".join(file.read_text() for file in (ROOT / "src" / "faregate").rglob("*.py"))
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    named = {word for word in re.findall(r"`([A-Za-z_][\w.]+)(?:=[^`]*)?`", prose) if "/" not in word}
    words = {part for word in named for part in word.split(".")} - {"md", "CHANGELOG", "total_tokens"}
    assert sorted(word for word in words if not re.search(rf"\b{word}\b", sources)) == []


def test_every_step_was_found() -> None:
    """No block of Python stands in the guide without a sentence that says where it goes."""
    assert len(steps()) == GUIDE.read_text().count("```python\n") >= 10
