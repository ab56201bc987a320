"""The shape of the house, checked against the source: who imports whom, and what must not be found anywhere.

The table is DESIGN section 3 as data, with what was decided since (see ``ALLOWED``). A new arrow is a decision: change
the table in a commit of its own, with the reason.
"""

import ast
import importlib
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TypeGuard

import pytest

import faregate

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "faregate"

#: What every part may use: errors are values of all, and the version is nobody's.
EVERYBODY = {"errors", "faregate"}

#: Part → our own parts that it may import, beside itself and ``EVERYBODY``.
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "errors": set(),
    "logs": set(),
    "dialects": {"core"},
    # ``control`` holds the messages between the planes; both planes and whoever prepares them speak it.
    "control": {"core"},
    "ports": {"core"},
    "config": {"core"},
    "storage": {"ports", "core"},
    "journal": {"ports", "core", "control"},
    # Stores of answers that are given again.
    "caching": {"ports", "core"},
    "sinks": {"ports", "core"},
    "proxy": {"ports", "dialects", "core", "config", "control"},
    "console": {"ports", "dialects", "core", "config", "control"},
    "reports": {"ports", "dialects", "core", "config"},
    "jobs": {"ports", "dialects", "core", "config", "control"},
    "simulator": {"dialects", "core"},
    "catalogue": {"ports", "core", "control"},
    "supervise": {"assembly"},
    "assembly": {"core", "control", "ports", "config", "dialects", "storage", "journal", "caching", "sinks"}
    | {"proxy", "console", "reports", "jobs", "simulator", "catalogue", "supervise", "logs"},
    "cli": {"assembly", "config", "core", "supervise", "logs", "simulator"},
}

#: Part → third-party packages that it may import; the standard library is everybody's.
PACKAGES: dict[str, set[str]] = {
    "core": set(),
    "errors": set(),
    "ports": set(),
    "dialects": {"msgspec"},
    "control": {"msgspec"},
    "logs": {"structlog"},
    "config": {"cryptography", "msgspec", "pydantic", "pydantic_core", "re2", "yaml"},
    "storage": {"sqlalchemy", "alembic", "msgspec"},
    "journal": {"msgspec"},
    # redis, and cryptography for what is kept there, only where the configuration names a server.
    "caching": {"cryptography", "msgspec", "redis"},
    # joserfc only where an issuer of tokens is configured.
    "proxy": {"httptools", "joserfc", "msgspec", "websockets"},
    "console": {"anyio", "fastapi", "jinja2", "msgspec", "prometheus_client", "pydantic", "pydantic_core", "starlette"}
    | {"typing_extensions"},
    "jobs": {"apprise", "cryptography", "httpx2", "msgspec"},
    "simulator": {"httptools", "msgspec", "uvloop", "websockets"},
    # Own price files may be YAML; they are read to nodes, so that a price stays the digits that were written.
    "catalogue": {"genai_prices", "msgspec", "yaml"},
    "supervise": {"msgspec"},
    "assembly": {"msgspec", "uvicorn", "httpx2", "starlette", "fastapi"},
    "cli": {"httpx2", "msgspec", "rich", "typer"},
}

#: Only what runs in a gate process, and nothing that is heavy: its memory is a promise. One that logs for a terminal
#: loads what does that, and its colours.
NEVER_IN_THE_GATE = {
    "alembic",
    "apprise",
    "cryptography",
    "fastapi",
    "genai_prices",
    "httpx2",
    "jinja2",
    "joserfc",
    "pydantic",
    "redis",
    "rich",
    "sqlalchemy",
    "sqlite3",
    "starlette",
    "structlog",
    "toktok",
    "typer",
    "uvicorn",
    "yaml",
}

EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}


def sources(*parts: str) -> list[Path]:
    """Python files of the product, or of some of its parts."""
    return [path for path in sorted(SOURCE.rglob("*.py")) if not parts or part_of(path) in parts]


def part_of(path: Path) -> str:
    """The part a file belongs to: a package below ``faregate``, or a module of its own."""
    inside = path.relative_to(SOURCE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


@cache
def imported(path: Path) -> Sequence[tuple[int, str]]:
    """Line and dotted name of everything that a file imports, wherever in it; most tests here ask for it."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            assert node.module is not None
            if node.module == "faregate":
                for alias in node.names:
                    yield node.lineno, f"faregate.{alias.name}"
            else:
                yield node.lineno, node.module


def tree(path: Path) -> ast.Module:
    """The syntax of a file."""
    return ast.parse(path.read_text(), str(path))


def with_words(*words: str) -> list[Path]:
    """The sources in which one of some words stands: only these are worth taking apart."""
    return [path for path in sources() if any(word in path.read_text() for word in words)]


def where(path: Path, line: int) -> str:
    """A place to jump to."""
    return f"{path.relative_to(ROOT)}:{line}"


def our_part(name: str) -> str:
    """The part of ours that a dotted name ``faregate.x.y`` is in."""
    part = name.split(".")[1] if "." in name else "faregate"
    return "faregate" if part.startswith("__") else part


def test_every_part_imports_only_the_parts_it_may() -> None:
    """The import table of DESIGN section 3 holds."""
    arrows = [
        f"{where(path, line)}: {part_of(path)} imports {name}"
        for path in sources()
        for line, name in imported(path)
        if name.split(".")[0] == "faregate" and part_of(path) != "__init__"
        if our_part(name) not in ALLOWED.get(part_of(path), set()) | EVERYBODY | {part_of(path)}
    ]

    assert arrows == []


def test_every_part_imports_only_the_packages_it_may() -> None:
    """A new dependency of a part is seen here before it is felt in memory or in a start."""
    foreign = [
        f"{where(path, line)}: {part_of(path)} imports {name}"
        for path in sources()
        for line, name in imported(path)
        if (package := name.split(".")[0]) not in {*sys.stdlib_module_names, "faregate"}
        if package not in PACKAGES.get(part_of(path), set())
    ]

    assert foreign == []


def test_the_gates_settings_are_light_and_the_rest_of_config_is_not_for_the_proxy() -> None:
    """The proxy sees the configuration only as ``config.settings``, which loads neither YAML nor validation."""
    heavy = [
        f"{where(path, line)}: {name}"
        for path in sources("proxy")
        for line, name in imported(path)
        if name.startswith("faregate.config") and name != "faregate.config.settings"
    ]

    assert heavy == []


def test_a_gate_process_loads_no_heavy_package() -> None:
    """Everything that assembly imports to build a gate, in a fresh interpreter, looked up in ``sys.modules``."""
    script = (
        "import json, sys\n"
        "import faregate.assembly.__main__, faregate.assembly.gate, faregate.assembly.handover, faregate.logs\n"
        "import faregate.assembly.caching, faregate.assembly.loops, faregate.config.folder\n"
        "import faregate.proxy.gate, faregate.journal.append, faregate.journal.answers, faregate.catalogue.tokens\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert NEVER_IN_THE_GATE.intersection(json.loads(done.stdout)) == set()


def test_the_version_is_told_without_loading_anything_heavy() -> None:
    """``faregate --version`` answers at once, whatever state the configuration is in."""
    script = "import sys; from faregate.cli.main import run; run(['--version']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.split(".")[0] for name in done.stdout.split()}

    assert loaded.intersection({"pydantic", "fastapi", "sqlalchemy", "yaml", "httpx2", "genai_prices"}) == set()


def test_no_module_has_a_name_that_explains_nothing() -> None:
    """A name like ``utils`` attracts everything; there is always a noun."""
    paths = [path for path in SOURCE.rglob("*") if path.stem in EMPTY_NAMES and "__pycache__" not in path.parts]

    assert paths == []


def test_no_state_is_global() -> None:
    """Whoever needs something is given it: there is no ``global`` statement."""
    statements = [
        where(path, node.lineno)
        for path in with_words("global")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Global)
    ]

    assert statements == []


def test_the_environment_is_read_in_one_place() -> None:
    """A setting that is not in the configuration's own documentation does not exist."""
    names = ("environ", "environb", "getenv")
    reads = [
        where(path, node.lineno)
        for path in with_words(*names)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in names
        if path != SOURCE / "config" / "environment.py"
    ]

    assert reads == []


def acts(node: ast.AST) -> TypeGuard[ast.expr | ast.stmt]:
    """Whether a piece of code waits, looks at a clock or touches a file."""
    if isinstance(node, ast.Attribute):
        return node.attr in ("now", "utcnow", "today", "monotonic") and isinstance(node.value, ast.Name | ast.Attribute)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in ("open", "print", "input")
    return isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)


@pytest.mark.parametrize("part", ["core", "dialects"])
def test_pure_code_is_pure(part: str) -> None:
    """No waiting, no clock, no randomness, no files: decisions are functions of their arguments."""
    forbidden = {
        "asyncio",
        "datetime.now",
        "io",
        "logging",
        "os",
        "pathlib",
        "random",
        "secrets",
        "socket",
        "threading",
        "time",
    }
    impure = [
        where(path, line) for path in sources(part) for line, name in imported(path) if name.split(".")[0] in forbidden
    ]
    impure += [where(path, node.lineno) for path in sources(part) for node in ast.walk(tree(path)) if acts(node)]

    assert impure == []


def test_core_holds_no_binary_fraction() -> None:
    """Money and prices are whole numbers; a float in core would sooner or later touch one."""
    floats = [
        where(path, node.lineno)
        for path in sources("core")
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.Name) and node.id == "float")
        or (isinstance(node, ast.Constant) and isinstance(node.value, float))
        or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div))
    ]

    assert floats == []


def test_every_module_says_what_it_is_for() -> None:
    """The first lines of a file are its rule: what it owns, and what it refuses to know."""
    silent = [where(path, 1) for path in sources() if path.stat().st_size and not path.read_text().startswith('"""')]

    assert silent == []


def test_tests_patch_nothing() -> None:
    """Fakes are passed in; what cannot be tested so is not built right."""
    forbidden = ("mock.patch", "mocker.", "monkeypatch.setattr", "unittest.mock")
    patches = [
        where(path, number)
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if any(word in line for word in forbidden)
    ]

    assert patches == []


def test_the_wheel_is_compiled_where_it_says_so() -> None:
    """Each module that pyproject.toml lists for the compiler is there, and a module of machine code once installed."""
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    listed = [Path(path).relative_to("src").with_suffix("") for path in hook["mypyc"]["include"]]
    installed = not Path(faregate.__file__).is_relative_to(ROOT / "src")
    found = {path: Path(importlib.import_module(".".join(path.parts)).__file__ or "").suffix for path in listed}

    assert found == dict.fromkeys(listed, ".so" if installed else ".py")
