"""Section e6 of the bad-input catalogue for what every command shares: words, exit codes, and where messages go."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from faregate.cli.main import run

PROGRAM = Path(sys.executable).with_name("faregate")


def program(*words: str | bytes, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command, as a shell runs it."""
    return subprocess.run(
        [PROGRAM, *words],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "no command"),
        (("serv",), 2, "did you mean serve?"),
        (("key", "creat"), 2, "Did you mean 'create'?"),
        (("check", "--confg", "x"), 2, "--config"),
        (("check", "--config"), 2, "requires an argument"),
        (("check", "--config", "a", "--config", "b"), 2, "--config was given twice"),
        (("check", "--config=a", "--config", "b"), 2, "--config was given twice"),
        (("simulator", "--port", "abc"), 2, "--port"),
        (("simulator", "--port", "70000"), 2, "--port"),
        (("check", "--config", "nope.yaml"), 2, "CFG-IO"),
        (("check", "--config", "x" * 70_000), 2, "longer than"),
        (("check", "--config", "a\x1b[2J"), 2, "control characters"),
        (("serve", "--gateway", "localhost"), 2, "the port is missing"),
        (("serve", "--gateway", "::1:4000"), 2, "needs brackets"),
        (("serve", "--gateway", "[::1:4000"), 2, "[::1]:4000"),
        (("serve", "--gateway", "127.0.0.1:abc"), 2, "not a port"),
        (("serve", "--gateway", "127.0.0.1:70000"), 2, "not a port"),
        (("serve", "--gateway", "a b:4000"), 2, "no usable host"),
        (("serve", "--gateway", ":4000"), 2, "no usable host"),
        (("serve", "--demo", "--config", "x"), 2, "--demo and --config"),
        (("serve",), 2, "faregate init"),
        (("restore", "nope.tar"), 1, "not a file"),
        (("simulator", "--script", "nope.json"), 2, "not a file"),
    ],
    ids=lambda value: " ".join(map(str, value))[:40] if isinstance(value, tuple) else None,
)  # fmt: skip
def test_wrong_words_are_told_on_standard_error_with_their_exit_code(
    words: tuple[str, ...], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """L01 to L19: what is wrong and the way out, and nothing on standard output."""
    with contextlib.chdir(tmp_path):
        exit_code = run(words)
    out, err = capsys.readouterr()

    assert (exit_code, out) == (code, "")
    assert said in err


@pytest.mark.parametrize(
    ("words", "said"), [(("serve",), "faregate init"), (("check", "--config", b"\xff\xfe"), "not UTF-8")]
)
def test_the_program_itself_shows_no_traceback(words: tuple[str | bytes, ...], said: str, tmp_path: Path) -> None:
    """L10 and L22, as a shell sees them."""
    done = program(*words, cwd=tmp_path)

    assert (done.returncode, done.stdout, said in done.stderr, "Traceback" in done.stderr) == (2, "", True, False)


def test_json_gives_the_same_code_and_words_for_scripts(tmp_path: Path) -> None:
    """The error is one JSON object on standard error."""
    done = program("serve", "--gateway", "localhost", "--json", cwd=tmp_path)
    told = json.loads(done.stderr)["error"]

    assert (done.returncode, told["code"], "port is missing" in told["message"]) == (2, "value", True)


@pytest.mark.parametrize("words", [("-h",), ("--help",), ("serve", "-h"), ("key", "create", "-h"), ("check", "--help")])
def test_help_is_everywhere_and_no_error(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """L13: on standard output, exit 0."""
    exit_code = run(words)
    out, err = capsys.readouterr()

    assert (exit_code, "Usage: faregate" in out, err) == (0, True, "")


def test_the_version_is_told_even_beside_a_broken_configuration(tmp_path: Path) -> None:
    """L14."""
    (tmp_path / "faregate.yaml").write_text("{")

    done = program("--version", cwd=tmp_path)

    assert (done.returncode, done.stdout.split()[0]) == (0, "faregate")


def test_a_poor_environment_is_enough(tmp_path: Path) -> None:
    """L86: no HOME, a C locale; what cannot be shown is escaped instead of crashed on."""
    done = program("chéck", cwd=tmp_path, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")

    assert done.returncode == 2
    assert "did you mean check?" in done.stderr


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    """L60: as a shell tells it, 128 + SIGPIPE, and quiet."""
    with subprocess.Popen(
        [PROGRAM, "check", "--schema"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()

    assert (process.returncode, said) == (141, b"")
