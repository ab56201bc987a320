"""The program itself, as a shell runs it; what commands answer to wrong words is in ``bad_input``."""

import subprocess
import sys
from pathlib import Path

import pytest

from commands import command
from faregate.cli.output import table

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
    ("words", "said"), [(("serve",), "faregate init"), (("check", "--config", b"\xff\xfe"), "not UTF-8")]
)
def test_the_program_itself_shows_no_traceback(words: tuple[str | bytes, ...], said: str, tmp_path: Path) -> None:
    """L10 and L22, as a shell sees them."""
    done = program(*words, cwd=tmp_path)

    assert (done.returncode, done.stdout, said in done.stderr, "Traceback" in done.stderr) == (2, "", True, False)


def test_a_script_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Before the simulator listens to anything."""
    told = command("simulator", "--script", tmp_path / "nope.json")

    assert (told.code, told.out, "not a file" in told.err) == (2, "", True)


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


def test_a_column_without_a_value_is_aligned_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers stand to the right; a column of which nothing is known stands under its name."""
    table(("team", "amount"), [("-", 5), (None, None), ("-", 1000)])

    assert capsys.readouterr().out == "team  amount\n-          5\n-          -\n-       1000\n"
